//! Which partition of the groups' topic a group lives in.

/// The topic that keeps the groups and their offsets.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// The partition of a group, of `partitions`: the same as Kafka's, so that tools which read the topic find it.
pub fn partition_of(group: &str, partitions: usize) -> usize {
    assert!(partitions > 0, "a topic has partitions");
    // Java's String.hashCode, over UTF-16.
    let hash = group.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    (hash & i32::MAX) as usize % partitions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_javas() {
        // "hello".hashCode() is 99162322, "polygenelubricants".hashCode() is i32::MIN.
        assert_eq!(partition_of("hello", 50), 99_162_322 % 50);
        assert_eq!(partition_of("polygenelubricants", 50), 0);
        assert_eq!(partition_of("", 16), 0);
        // Beyond the basic plane a character is two units: "😀".hashCode() is 0xd83d * 31 + 0xde00.
        assert_eq!(partition_of("😀", 1_000), (0xd83d * 31 + 0xde00) % 1_000);
        assert_eq!(partition_of("any", 1), 0);
    }
}
