use super::*;

fn hello(directory: u8, incarnation: u64, shard: u16, number: u64) -> Hello {
    let (cluster_id, broker, directory_id) = ("blue".to_owned(), BrokerId(2), [directory; 16]);
    Hello { cluster_id, broker, directory_id, incarnation, shard, shards: 4, number }
}

#[test]
fn the_newest_connection_of_each_shard_counts() {
    let registry = Registry::default();
    let (first, second, other) = (hello(1, 5, 0, 7), hello(1, 5, 0, 8), hello(1, 5, 1, 3));
    assert!(!registry.is_newest(&first));
    for hello in [&first, &second, &other] {
        assert_eq!(registry.claim(hello), Ok(()));
        assert_eq!(registry.claim(hello), Err(Refusal::Superseded));
    }
    assert_eq!([&first, &second, &other].map(|hello| registry.is_newest(hello)), [false, true, true]);
    // A later start has later connections whatever their numbers, and ends those of all shards.
    let later = hello(1, 6, 2, 1);
    assert_eq!(registry.claim(&later), Ok(()));
    assert_eq!([&second, &other, &later].map(|hello| registry.is_newest(hello)), [false, false, true]);
    assert_eq!(registry.claim(&hello(1, 5, 0, 99)), Err(Refusal::Superseded));
}

#[test]
fn a_known_directory_is_the_only_one_that_counts() {
    let registry = Registry::default();
    let (one, other) = (hello(1, 5, 0, 1), hello(2, 1, 0, 1));
    assert_eq!(registry.claim(&one), Ok(()));
    // While none is known the last that comes counts: starts are counted by directory.
    assert_eq!(registry.claim(&other), Ok(()));
    assert!(!registry.is_newest(&one) && registry.is_newest(&other));
    let changes = registry.changes();
    registry.know(BrokerId(2), [1; 16]);
    assert_ne!(registry.changes(), changes);
    assert_eq!(registry.directory_of(BrokerId(2)), Some([1; 16]));
    assert!(!registry.is_newest(&other));
    assert_eq!(registry.claim(&hello(2, 1, 0, 2)), Err(Refusal::OtherDirectory));
    assert_eq!(registry.claim(&hello(1, 5, 0, 1)), Ok(()));
    let changes = registry.changes();
    registry.know(BrokerId(2), [1; 16]);
    assert_eq!(registry.changes(), changes, "nothing changed");
}

#[test]
fn a_refusal_is_told_once_until_it_was_lifted() {
    let registry = Registry::default();
    assert!(registry.is_news(BrokerId(2), Refusal::OtherCluster));
    assert!(!registry.is_news(BrokerId(2), Refusal::OtherCluster));
    assert!(registry.is_news(BrokerId(3), Refusal::OtherCluster));
    assert!(registry.is_news(BrokerId(2), Refusal::OtherDirectory));
    assert_eq!(registry.claim(&hello(1, 1, 0, 1)), Ok(()));
    assert!(registry.is_news(BrokerId(2), Refusal::OtherDirectory));
}
