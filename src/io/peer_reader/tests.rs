use super::*;
use crate::peer::{PeerMessage, encode};

#[test]
fn frames_come_out_as_they_went_in_however_the_stream_is_cut() {
    let asks: Vec<PeerMessage> = [0, 1, 3, 5_000, 70_000, 300]
        .into_iter()
        .map(|len| PeerMessage::Ask { shard: 0, number: len, time_left_ms: 0, question: vec![3; len as usize].into() })
        .collect();
    // Each in a frame of its own, and one frame without anything.
    let mut stream: Vec<u8> = asks.iter().flat_map(|ask| encode(std::slice::from_ref(ask)).concat()).collect();
    stream.extend(FrameHeader { meta_len: 0, beside_len: 0, meta_crc: 0 }.encode());
    let budget = FrameBudget::new(1 << 20);
    for piece in [1, 7, 24, 4096, 65_536, stream.len()] {
        let mut cutter = FrameCutter::new(Arc::clone(&budget));
        let mut frames = Vec::new();
        for mut input in stream.chunks(piece) {
            while let Some(frame) = cutter.take(&mut input).unwrap() {
                frames.push(frame);
            }
            assert!(input.is_empty() && !cutter.starved);
        }
        let again: Vec<u8> = frames.iter().flat_map(|(header, frame)| [&header.encode()[..], frame].concat()).collect();
        assert!(again == stream, "in pieces of {piece}");
        assert_eq!(frames.len(), asks.len() + 1);
    }
    assert_eq!(budget.charged(), 0, "a charge outlived its frame");
}

#[test]
fn the_rest_of_a_large_frame_is_read_in_place_and_waits_for_memory() {
    let body = [7; 600_000];
    let header = FrameHeader { meta_len: body.len() as u32, beside_len: 0, meta_crc: 0 };
    let start = [&header.encode()[..], &body[..1_000]].concat();
    let budget = FrameBudget::new(1 << 20);
    let other = budget.frame(600_000).unwrap();
    let mut cutter = FrameCutter::new(Arc::clone(&budget));
    let mut input = &start[..];
    assert!(cutter.take(&mut input).unwrap().is_none());
    assert!(cutter.starved && input.len() == 1_000);
    drop(other);
    assert!(cutter.take(&mut input).unwrap().is_none());
    assert!(!cutter.starved && input.is_empty());
    assert!(cutter.missing(600_000).is_none());
    let missing = cutter.missing(599_000).unwrap();
    missing.copy_from_slice(&body[1_000..]);
    assert!(cutter.filled(599_000).is_some_and(|(_, frame)| frame == body[..]));
}
