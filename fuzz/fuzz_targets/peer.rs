//! What another broker sends: greetings and frames.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use ringlog::peer::{FRAME_HEADER_BYTES, FrameHeader, Hello, Welcome, decode};

fuzz_target!(|data: &[u8]| {
    if let Some(bytes) = data.first_chunk::<{ Hello::BYTES }>() {
        let _ = Hello::decode(bytes);
    }
    if let Some(bytes) = data.first_chunk::<{ Welcome::BYTES }>() {
        let _ = Welcome::decode(bytes);
    }
    if let Some(bytes) = data.first_chunk::<FRAME_HEADER_BYTES>() {
        let _ = FrameHeader::decode(bytes);
    }
    // A frame whose checksum is right: a part of the input is the messages, the rest lies beside them.
    let Some((split, rest)) = data.split_first() else { return };
    let meta = &rest[..usize::from(*split).min(rest.len())];
    let header = FrameHeader {
        meta_len: meta.len() as u32,
        beside_len: (rest.len() - meta.len()) as u32,
        meta_crc: crc32fast::hash(meta),
    };
    let _ = decode(&header, Bytes::copy_from_slice(rest));
});
