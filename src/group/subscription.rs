//! What consumers say of themselves when they join: of that, the topics that they read.

use std::collections::BTreeSet;

use bytes::{Buf, Bytes};

/// The type of groups whose members are consumers.
pub(super) const CONSUMER: &str = "consumer";

/// The topics of a consumer's subscription; nothing where it is not one. Every version begins with them.
pub(super) fn topics(subscription: &Bytes) -> Option<BTreeSet<String>> {
    let mut rest = &subscription[..];
    let version = rest.try_get_i16().ok()?;
    let count = rest.try_get_i32().ok()?;
    if version < 0 || count < 0 {
        return None;
    }
    let mut topics = BTreeSet::new();
    for _ in 0..count {
        let len = usize::try_from(rest.try_get_i16().ok()?).ok()?;
        let name = rest.get(..len)?;
        topics.insert(std::str::from_utf8(name).ok()?.to_owned());
        rest.advance(len);
    }
    Some(topics)
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
}
