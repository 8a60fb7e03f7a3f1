//! What consumers of the classic protocol say of themselves when they join, and how they are told what they read
//! (Kafka's ConsumerProtocolSubscription and ConsumerProtocolAssignment).

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};

/// The type of groups whose members are consumers.
pub(super) const CONSUMER: &str = "consumer";

/// What a consumer says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Subscription {
    /// The topics that it reads.
    pub(super) topics: BTreeSet<String>,
    /// The partitions that it has; from version 1 on.
    pub(super) owned: Vec<(String, Vec<i32>)>,
    /// Where it stands; from version 3 on.
    pub(super) rack: Option<String>,
}

/// The topics of a consumer's subscription; nothing where it is not one. Every version begins with them.
pub(super) fn topics(subscription: &Bytes) -> Option<BTreeSet<String>> {
    head(&mut &subscription[..]).map(|(_, topics)| topics)
}

/// The version of what a consumer said, or of what it is told.
pub(super) fn version(said: &Bytes) -> i16 {
    (&said[..]).try_get_i16().unwrap_or(0)
}

/// A consumer's subscription; nothing where it is not one.
pub(super) fn parse(subscription: &Bytes) -> Option<Subscription> {
    let mut rest = &subscription[..];
    let (version, topics) = head(&mut rest)?;
    nullable(&mut rest, |rest| rest.try_get_i32().ok())?;
    let owned = if version >= 1 { partitions(&mut rest)? } else { Vec::new() };
    if version >= 2 {
        rest.try_get_i32().ok()?;
    }
    let rack = match version {
        ..=2 => None,
        _ => nullable(&mut rest, |rest| rest.try_get_i16().ok().map(i32::from))?,
    };
    let rack = rack.map(|rack| String::from_utf8(rack.to_vec())).transpose().ok()?;
    Some(Subscription { topics, owned, rack })
}

/// The partitions of an assignment, which are none where it is empty; nothing where it is not one.
pub(super) fn parse_assignment(assignment: &Bytes) -> Option<Vec<(String, Vec<i32>)>> {
    if assignment.is_empty() {
        return Some(Vec::new());
    }
    let mut rest = &assignment[..];
    let version = rest.try_get_i16().ok()?;
    if version < 0 { None } else { partitions(&mut rest) }
}

/// An assignment, as a consumer reads it.
pub(super) fn assignment(version: i16, partitions: &[(Arc<str>, Vec<i32>)]) -> Bytes {
    let mut out = Vec::new();
    out.put_i16(version);
    out.put_i32(partitions.len() as i32);
    for (topic, numbers) in partitions {
        // A topic's name has at most 249 characters.
        out.put_i16(topic.len() as i16);
        out.put_slice(topic.as_bytes());
        out.put_i32(numbers.len() as i32);
        numbers.iter().for_each(|number| out.put_i32(*number));
    }
    // No data of the user's.
    out.put_i32(-1);
    out.into()
}

fn head(rest: &mut &[u8]) -> Option<(i16, BTreeSet<String>)> {
    let version = rest.try_get_i16().ok()?;
    let count = rest.try_get_i32().ok()?;
    if version < 0 || count < 0 {
        return None;
    }
    let mut topics = BTreeSet::new();
    for _ in 0..count {
        topics.insert(name(rest)?);
    }
    Some((version, topics))
}

fn name(rest: &mut &[u8]) -> Option<String> {
    let name = nullable(rest, |rest| rest.try_get_i16().ok().map(i32::from))??;
    String::from_utf8(name.to_vec()).ok()
}

fn partitions(rest: &mut &[u8]) -> Option<Vec<(String, Vec<i32>)>> {
    let mut all = Vec::new();
    for _ in 0..rest.try_get_i32().ok()? {
        let topic = name(rest)?;
        let numbers = (0..rest.try_get_i32().ok()?).map(|_| rest.try_get_i32().ok()).collect::<Option<Vec<i32>>>()?;
        all.push((topic, numbers));
    }
    Some(all)
}

/// Bytes behind a length that `len` reads, which may say that there are none.
fn nullable<'a>(rest: &mut &'a [u8], len: impl Fn(&mut &'a [u8]) -> Option<i32>) -> Option<Option<&'a [u8]>> {
    let len = len(rest)?;
    if len == -1 {
        return Some(None);
    }
    let bytes = rest.get(..usize::try_from(len).ok()?)?;
    rest.advance(bytes.len());
    Some(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topics_of_a_subscription() {
        let bytes = Bytes::from_static(&[0, 1, 0, 0, 0, 2, 0, 1, b'a', 0, 2, b'b', b'c', 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(topics(&bytes), Some(BTreeSet::from(["a".to_owned(), "bc".to_owned()])));
        for cut in 0..13 {
            assert_eq!(topics(&bytes.slice(..cut)), None, "cut at {cut}");
        }
        assert_eq!(topics(&Bytes::from_static(&[0, 0, 0xff, 0xff, 0xff, 0xff])), None);
    }

    #[test]
    fn all_of_a_subscription() {
        let mut bytes = vec![0, 3, 0, 0, 0, 1, 0, 1, b'a', 0, 0, 0, 1, 9];
        bytes.extend([0, 0, 0, 1, 0, 1, b'a', 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0, 5]);
        bytes.extend([0, 0, 0, 7, 0, 1, b'r']);
        let whole = Bytes::from(bytes);
        let parsed = parse(&whole).unwrap();
        assert_eq!(parsed.topics, BTreeSet::from(["a".to_owned()]));
        assert_eq!(parsed.owned, [("a".to_owned(), vec![4, 5])]);
        assert_eq!(parsed.rack.as_deref(), Some("r"));
        for cut in 0..whole.len() {
            assert_eq!(parse(&whole.slice(..cut)), None, "cut at {cut}");
        }
        let oldest = Bytes::from_static(&[0, 0, 0, 0, 0, 1, 0, 1, b'a', 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(parse(&oldest).unwrap().owned, []);
    }

    #[test]
    fn an_assignment_is_read_back() {
        let partitions = vec![(Arc::from("a"), vec![1, 2]), (Arc::from("b"), vec![0])];
        let read = parse_assignment(&assignment(1, &partitions)).unwrap();
        assert_eq!(read, [("a".to_owned(), vec![1, 2]), ("b".to_owned(), vec![0])]);
        assert_eq!(parse_assignment(&Bytes::new()), Some(Vec::new()));
        assert_eq!(parse_assignment(&Bytes::from_static(b"everything")), None);
    }
}
