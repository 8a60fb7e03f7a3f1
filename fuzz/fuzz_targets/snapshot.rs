//! State that is read back from the log: of the metadata, of partitions, of consumer groups.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use ringlog::group::Record;
use ringlog::metadata::codec::{decode_command, decode_snapshot, encode_command, encode_snapshot};
use ringlog::record::Entry;

fuzz_target!(|data: &[u8]| {
    if let Ok(command) = decode_command(data) {
        assert!(encode_command(&command).is_ok(), "what was read can be written");
    }
    if let Ok(snapshot) = decode_snapshot(data) {
        assert!(encode_snapshot(&snapshot).is_ok(), "what was read can be written");
    }
    let Some((split, rest)) = data.split_first() else { return };
    let (key, value) = rest.split_at(usize::from(*split).min(rest.len()));
    for value in [None, Some(Bytes::copy_from_slice(value))] {
        let _ = Record::decode(&Entry { key: Some(Bytes::copy_from_slice(key)), value });
    }
});
