//! What a restart, at any moment, leaves of a group.

use super::*;

#[test]
fn members_go_on_after_a_restart() {
    let mut rig = Rig::new();
    let generation = rig.stable(&["a", "b"]);
    let request = rig.ask(commit(identity(generation, "a"), &[("t", 0, 41)]));
    rig.answer(request).unwrap();
    let before = rig.describe();
    let mut rig = rig.restart();
    assert_eq!(rig.describe(), before);
    rig.pass(SESSION_MS - 1);
    assert_eq!(rig.heartbeat(generation, "a"), Ok(()), "its session began anew");
    let request = rig.ask(commit(identity(generation, "a"), &[("t", 0, 42)]));
    assert!(matches!(rig.answer(request), Ok(Reply::Done)));
    let sync = rig.sync(generation, "b", &[]);
    assert_eq!(rig.assigned(sync), "b");
    rig.pass(1);
    assert_eq!(rig.heartbeat(generation, "b"), Err(Error::UnknownMember), "b did not come back");
    // The others can have a next generation.
    let a = rig.ask(Ask::Join(member("a")));
    assert_eq!(rig.joined(a).generation, generation + 1);
}

#[test]
fn a_generation_that_was_not_stored_is_over() {
    let mut rig = Rig::new();
    let first = rig.stable(&["a"]);
    let b = rig.ask(Ask::Join(new_member("b")));
    let a = rig.ask(Ask::Join(member("a")));
    let (a, b) = (rig.joined(a), rig.joined(b));
    let mut rig = rig.restart();
    assert_eq!(rig.heartbeat(b.generation, "b"), Err(Error::UnknownMember));
    assert_eq!(rig.heartbeat(a.generation, "a"), Err(Error::IllegalGeneration));
    assert_eq!(rig.heartbeat(first, "a"), Ok(()));
}

#[test]
fn an_empty_group_keeps_its_generation_and_offsets() {
    let mut rig = Rig::new();
    let generation = rig.stable(&["a"]);
    let request = rig.ask(commit(identity(generation, "a"), &[("t", 3, 7)]));
    rig.answer(request).unwrap();
    rig.ask(leave(&["a"]));
    let mut rig = rig.restart();
    assert_eq!(rig.state(), State::Empty);
    let b = rig.ask(Ask::Join(new_member("b")));
    rig.pass(DELAY_MS);
    assert_eq!(rig.joined(b).generation, generation + 2, "one more was that without members");
    let request = rig.ask(Ask::Fetch { group: "g".into(), member: None, topics: None });
    let Ok(Reply::Fetched(found)) = rig.answer(request) else { panic!("no offsets") };
    assert_eq!(found, [("t".to_owned(), vec![(3, Some(committed(7)))])]);
}

#[test]
fn any_prefix_of_the_log_is_a_state() {
    let mut rig = Rig::new();
    let generation = rig.stable(&["a", "b"]);
    for offset in 0..5 {
        let request = rig.ask(commit(identity(generation, "a"), &[("t", 0, offset)]));
        rig.answer(request).unwrap();
    }
    rig.ask(leave(&["a", "b"]));
    let request = rig.ask(Ask::Delete { group: "g".into() });
    rig.answer(request).unwrap();
    let mut newest = -1;
    for len in 0..=rig.log.len() {
        let part = Rig { log: rig.log[..len].to_vec(), ..Rig::new() };
        let mut part = part.restart();
        let request = part.ask(Ask::Fetch { group: "g".into(), member: None, topics: None });
        let Ok(Reply::Fetched(found)) = part.answer(request) else { panic!("no offsets") };
        if let Some((_, partitions)) = found.first() {
            let offset = partitions[0].1.as_ref().unwrap().offset;
            assert!(offset >= newest, "a committed offset goes back");
            newest = offset;
        }
    }
    assert_eq!(newest, 4);
    assert!(rig.restart().groups.is_empty());
}
