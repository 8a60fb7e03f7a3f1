//! Records as people read them.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::limits::{LOOK_RECORDS, SHOWN_BYTES};
use crate::partition::Records;
use crate::record::{Batch, Compression, RecordTimes, split_batches};
use crate::types::Offset;

/// The first `most` records from `offset` on, and the offset to go on from. A compressed batch is shown as one: what is
/// in it is the consumer's to open.
pub(super) fn show(records: &Records, offset: Offset, most: usize) -> (Vec<Value>, Offset) {
    let bytes: Bytes = records.chunks.concat().into();
    let (mut shown, mut next) = (Vec::new(), offset);
    for (_, batch) in split_batches(&bytes) {
        if shown.len() >= most.min(LOOK_RECORDS) {
            break;
        }
        let last = batch.header.last_offset();
        let Some(entries) = batch.entries() else {
            shown.push(show_batch(&batch));
            next = last + 1;
            continue;
        };
        let times = RecordTimes::new(&batch.header, &batch.body).map(|(_, time)| time);
        for ((at, entry), time) in entries.into_iter().zip(times).skip_while(|((at, _), _)| *at < offset) {
            if shown.len() >= most.min(LOOK_RECORDS) {
                return (shown, next);
            }
            shown.push(json!({
                "offset": at,
                "timestamp_ms": time,
                "key": entry.key.map(|key| show_bytes(&key)),
                "value": entry.value.map(|value| show_bytes(&value)),
            }));
            next = at + 1;
        }
        next = next.max(last + 1);
    }
    (shown, next)
}

fn show_batch(batch: &Batch) -> Value {
    let header = &batch.header;
    let compression = match header.compression() {
        Some(Compression::None) => "none, but damaged".to_owned(),
        Some(compression) => format!("{compression:?}").to_lowercase(),
        None => "unknown".to_owned(),
    };
    json!({
        "offset": header.base_offset.get(),
        "last_offset": header.last_offset(),
        "timestamp_ms": header.max_timestamp.get(),
        "records": header.record_count.get(),
        "compression": compression,
        "bytes": batch.len(),
    })
}

/// Bytes as text where they are text, else in hexadecimal digits; the first [`SHOWN_BYTES`] of them.
fn show_bytes(bytes: &[u8]) -> Value {
    let shown = &bytes[..bytes.len().min(SHOWN_BYTES)];
    // A cut may lie within a character.
    let text = match std::str::from_utf8(shown) {
        Ok(text) => Some(text),
        Err(error) if error.error_len().is_none() && shown.len() < bytes.len() => {
            std::str::from_utf8(&shown[..error.valid_up_to()]).ok()
        }
        Err(_) => None,
    };
    match text {
        Some(text) => json!({ "bytes": bytes.len(), "text": text }),
        None => {
            let hex: String = shown.iter().map(|byte| format!("{byte:02x}")).collect();
            json!({ "bytes": bytes.len(), "hex": hex })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Entry;
    use zerocopy::IntoBytes;

    fn records(batches: &[Batch]) -> Records {
        let chunks: Vec<Bytes> = batches.iter().map(|b| [b.header.as_bytes(), &b.body].concat().into()).collect();
        let len = chunks.iter().map(Bytes::len).sum();
        Records { chunks, len }
    }

    fn batch(base: Offset, values: &[&[u8]]) -> Batch {
        let entry = |value: &&[u8]| Entry { key: None, value: Some(Bytes::copy_from_slice(value)) };
        let mut batch = Batch::of_entries(&values.iter().map(entry).collect::<Vec<_>>(), 77);
        batch.assign(base, 0);
        batch
    }

    #[test]
    fn records_are_shown_from_the_offset_on_and_no_more_than_asked_for() {
        let records = records(&[batch(10, &[b"a", b"b"]), batch(12, &[b"c", b"d"])]);
        let offsets = |offset, most| {
            let (shown, next) = show(&records, offset, most);
            (shown.iter().map(|record| record["offset"].as_i64().unwrap()).collect::<Vec<_>>(), next)
        };
        assert_eq!(offsets(11, 2), (vec![11, 12], 13));
        assert_eq!(offsets(10, 100), (vec![10, 11, 12, 13], 14));
        let (shown, _) = show(&records, 13, 1);
        assert_eq!(
            shown[0],
            json!({"offset": 13, "timestamp_ms": 77, "key": null, "value": {"bytes": 1, "text": "d"}})
        );
    }

    #[test]
    fn a_compressed_batch_is_shown_as_one() {
        let mut compressed = batch(5, &[b"a", b"b", b"c"]);
        compressed.header.attributes.set(4);
        let (shown, next) = show(&records(&[compressed]), 6, 10);
        assert_eq!((shown.len(), next), (1, 8));
        assert_eq!((&shown[0]["compression"], &shown[0]["records"]), (&json!("zstd"), &json!(3)));
    }

    #[test]
    fn bytes_are_text_where_they_can_be() {
        assert_eq!(show_bytes("grün".as_bytes()), json!({"bytes": 5, "text": "grün"}));
        assert_eq!(show_bytes(&[0xff, 0]), json!({"bytes": 2, "hex": "ff00"}));
        let long = "ü".repeat(SHOWN_BYTES);
        let shown = show_bytes(&long.as_bytes()[1..]);
        assert!(shown.get("hex").is_some(), "it begins within a character");
        let odd = format!("x{long}");
        assert_eq!(show_bytes(odd.as_bytes())["text"].as_str().unwrap().len(), SHOWN_BYTES - 1);
    }
}
