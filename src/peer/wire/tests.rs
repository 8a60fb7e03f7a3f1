use proptest::prelude::*;

use super::*;
use crate::peer::{DiskState, Lagging, Status};
use crate::types::BrokerId;
use crate::types::PeerAddress;

fn chunk(head: &[u8], body: &[u8]) -> Chunk {
    Chunk { head: SmallVec::from_slice(head), body: Bytes::copy_from_slice(body) }
}

fn batch_bytes(batch: &Chunk) -> Vec<u8> {
    [&batch.head[..], &batch.body[..]].concat()
}

/// The message as text, with what lies beside it as one piece each, however it was cut.
fn shown(message: &PeerMessage) -> String {
    let flat = |chunks: &[Chunk]| chunks.iter().map(|chunk| self::chunk(&[], &batch_bytes(chunk))).collect();
    let message = match message.clone() {
        PeerMessage::Raft { log, message, beside } => PeerMessage::Raft { log, message, beside: flat(&beside) },
        PeerMessage::LogPart { log, offset, start, batches } => {
            PeerMessage::LogPart { log, offset, start, batches: flat(&batches) }
        }
        other => other,
    };
    format!("{message:?}")
}

fn all_shown(messages: &[PeerMessage]) -> Vec<String> {
    messages.iter().map(shown).collect()
}

/// The frames that pieces make.
fn frames(chunks: &[Bytes]) -> Vec<(FrameHeader, Bytes)> {
    let mut stream = Bytes::from(chunks.concat());
    let mut frames = Vec::new();
    while !stream.is_empty() {
        let header = stream.split_to(FRAME_HEADER_BYTES);
        let header = FrameHeader::decode(header[..].try_into().unwrap()).unwrap();
        frames.push((header, stream.split_to(header.body_len())));
    }
    frames
}

fn there_and_back(messages: &[PeerMessage]) -> Vec<PeerMessage> {
    let frames = frames(&encode(messages));
    frames.into_iter().flat_map(|(header, frame)| decode(&header, frame).unwrap()).collect()
}

fn disk_state() -> impl Strategy<Value = DiskState> {
    prop_oneof![Just(DiskState::Well), Just(DiskState::Slow), Just(DiskState::Hangs), Just(DiskState::Failed)]
}

fn raft(kind: MessageKind) -> Message {
    Message {
        kind,
        from_life: 0x31,
        to_life: 0x32,
        term: 1,
        log_term: 2,
        index: 3,
        commit: 4,
        commit_term: 5,
        reject: false,
        reject_hint: 6,
        request_snapshot: 7,
        context: Bytes::new(),
        entries: Vec::new(),
        snapshot: None,
    }
}

/// One of each kind, small.
fn some_of_all() -> Vec<PeerMessage> {
    let entry = |index| Entry { index, term: 9, data: Bytes::from_static(b"descriptor") };
    vec![
        PeerMessage::Raft {
            log: LogId(0x11),
            message: Message { entries: vec![entry(1), entry(2)], ..raft(MessageKind::Append) },
            beside: vec![chunk(b"he", b"ad"), chunk(b"", b"")],
        },
        PeerMessage::Raft {
            log: LogId(0x12),
            message: Message {
                reject: true,
                context: Bytes::from_static(b"ctx"),
                snapshot: Some(SnapshotPoint { index: 8, term: 7, data: Bytes::from_static(b"state") }),
                ..raft(MessageKind::Snapshot)
            },
            beside: Vec::new(),
        },
        PeerMessage::Leaders(vec![(LogId(1), 2), (LogId(3), -1)]),
        PeerMessage::Applied { index: 5 },
        PeerMessage::Ask { shard: 1, number: 2, time_left_ms: 3, question: Bytes::from_static(b"why") },
        PeerMessage::Told { shard: 1, number: 2, reply: Bytes::from_static(b"so") },
        PeerMessage::Status(Status { leads: true, disk: DiskState::Well, applied: 300, hash: 1 }),
        PeerMessage::FetchLog { log: LogId(4), offset: 5, end: 6 },
        PeerMessage::Rest(vec![(LogId(4), 5, 6)]),
        PeerMessage::Lagging(vec![Lagging { log: LogId(4), epoch: 5, brokers: vec![BrokerId(1)] }]),
        PeerMessage::HandOver { log: LogId(4), to: BrokerId(5) },
        PeerMessage::Hail,
        PeerMessage::Addresses(vec![PeerAddress { id: BrokerId(4), host: "h".to_owned(), port: 9 }]),
        PeerMessage::LogPart {
            log: LogId(4),
            offset: 5,
            start: 3,
            batches: vec![chunk(b"a", b"b"), chunk(b"", b"cd")],
        },
    ]
}

/// The numbers of `fields`, little-endian, each with its bytes.
fn numbers(fields: &[(u64, usize)]) -> Vec<u8> {
    fields.iter().flat_map(|(number, bytes)| number.to_le_bytes()[..*bytes].to_vec()).collect()
}

#[test]
fn the_bytes_of_a_frame_never_change() {
    let mut expected = b"RLPF\x03\0\0\0".to_vec();
    let meta = [
        numbers(&[(1, 1), (0, 3), (88 + 2 * 34, 4)]), // Raft
        numbers(&[(0x11, 8), (1, 8), (2, 8), (3, 8), (4, 8), (5, 8), (6, 8), (7, 8)]),
        numbers(&[(0x31, 4), (0x32, 4), (0, 4), (2, 4)]),
        numbers(&[(3, 1), (4, 1), (0, 6)]),
        numbers(&[(9, 8), (1, 8), (10, 4), (4, 4)]),
        b"descriptor".to_vec(),
        numbers(&[(9, 8), (2, 8), (10, 4), (0, 4)]),
        b"descriptor".to_vec(),
        numbers(&[(1, 1), (0, 3), (88 + 3 + 20 + 5, 4)]), // Raft
        numbers(&[(0x12, 8), (1, 8), (2, 8), (3, 8), (4, 8), (5, 8), (6, 8), (7, 8)]),
        numbers(&[(0x31, 4), (0x32, 4), (3, 4), (0, 4)]),
        numbers(&[(7, 1), (3, 1), (0, 6)]),
        b"ctx".to_vec(),
        numbers(&[(8, 8), (7, 8), (5, 4)]),
        b"state".to_vec(),
        numbers(&[(2, 1), (0, 3), (24, 4), (1, 8), (2, 4), (3, 8), (0xFFFF_FFFF, 4)]), // Leaders
        numbers(&[(3, 1), (0, 3), (8, 4), (5, 8)]),                                    // Applied
        numbers(&[(4, 1), (0, 3), (17, 4), (2, 8), (3, 4), (1, 2)]),                   // Ask
        b"why".to_vec(),
        numbers(&[(5, 1), (0, 3), (12, 4), (2, 8), (1, 2)]), // Told
        b"so".to_vec(),
        numbers(&[(6, 1), (0, 3), (7, 4)]), // Status
        vec![1, 1, 0, 251, 44, 1, 1],
        numbers(&[(7, 1), (0, 3), (24, 4), (4, 8), (5, 8), (6, 8)]), // FetchLog
        numbers(&[(9, 1), (0, 3), (24, 4), (4, 8), (5, 8), (6, 8)]), // Rest
        numbers(&[(10, 1), (0, 3), (6, 4)]),                         // Lagging
        vec![1, 1, 4, 10, 1, 2],
        numbers(&[(11, 1), (0, 3), (12, 4), (4, 8), (5, 4)]), // HandOver
        numbers(&[(13, 1), (0, 3), (0, 4)]),                  // Hail
        numbers(&[(12, 1), (0, 3), (6, 4)]),                  // Addresses
        vec![1, 1, 8, 1, b'h', 9],
        numbers(&[(8, 1), (0, 3), (32, 4), (4, 8), (5, 8), (3, 8), (2, 4), (2, 4)]), // LogPart
    ]
    .concat();
    expected.extend(numbers(&[(meta.len() as u64, 4), (8, 4)]));
    expected.extend(META_CRC);
    expected.extend(HEADER_CRC);
    expected.extend(meta);
    expected.extend(b"headabcd");
    assert_eq!(encode(&some_of_all()).concat(), expected);
    assert_eq!(all_shown(&there_and_back(&some_of_all())), all_shown(&some_of_all()));
}

/// CRC-32 of what they cover, computed with another implementation.
const META_CRC: [u8; 4] = [0x15, 0x0c, 0x9c, 0x8c];
const HEADER_CRC: [u8; 4] = [0xd2, 0x30, 0xe5, 0x3b];

#[test]
fn large_bodies_are_not_copied_on_either_side() {
    let body = Bytes::from(vec![7; 100_000]);
    let batches = vec![
        Chunk { head: SmallVec::from_slice(&[1; 61]), body: body.clone() },
        chunk(&[2; 61], &[3; 10]),
        Chunk { head: SmallVec::new(), body: body.clone() },
    ];
    let message = PeerMessage::LogPart { log: LogId(1), offset: 0, start: 0, batches };
    let chunks = encode(std::slice::from_ref(&message));
    assert_eq!(chunks.len(), 4, "header, meta and a head; a body; small ones; a body");
    assert_eq!(chunks[1].as_ptr(), body.as_ptr());
    assert_eq!(chunks[3].as_ptr(), body.as_ptr());
    let (header, frame) = frames(&chunks).remove(0);
    let decoded = decode(&header, frame.clone()).unwrap();
    let PeerMessage::LogPart { batches, .. } = &decoded[0] else { panic!("{decoded:?}") };
    assert!(batches.iter().all(|batch| frame.as_ptr_range().contains(&batch.body.as_ptr())));
    assert_eq!(shown(&decoded[0]), shown(&message));
}

#[test]
fn a_full_frame_is_ended_and_one_message_is_never_divided() {
    let part = |n: u64, len: usize| {
        let body = Bytes::from(vec![n as u8; len]);
        let batches = vec![Chunk { head: SmallVec::new(), body }];
        PeerMessage::LogPart { log: LogId(n), offset: 0, start: 0, batches }
    };
    let third = PEER_FRAME_FULL_BYTES / 3;
    let largest = crate::limits::MAX_BATCH_BYTES;
    let lens = [third, third, third, third, 10, largest, 10, 10];
    let messages: Vec<_> = (0..).zip(lens).map(|(n, len)| part(n, len)).collect();
    let frames = frames(&encode(&messages));
    let counts: Vec<usize> =
        frames.iter().map(|(header, frame)| decode(header, frame.clone()).unwrap().len()).collect();
    assert_eq!(counts, [2, 3, 1, 2]);
    let decoded: Vec<_> = frames.into_iter().flat_map(|(header, frame)| decode(&header, frame).unwrap()).collect();
    assert!(all_shown(&decoded) == all_shown(&messages));
    assert!(encode(&[]).is_empty());
}

#[test]
fn the_largest_snapshot_of_the_metadata_fits() {
    let data = Bytes::from(vec![1; crate::limits::MAX_METADATA_SNAPSHOT_BYTES]);
    let snapshot = Some(SnapshotPoint { index: 1, term: 1, data });
    let message = Message { snapshot, ..raft(MessageKind::Snapshot) };
    let message = PeerMessage::Raft { log: LogId::METADATA, message, beside: Vec::new() };
    let back = there_and_back(std::slice::from_ref(&message));
    let [PeerMessage::Raft { message: back, .. }] = &back[..] else { panic!("another message came back") };
    let PeerMessage::Raft { message, .. } = &message else { unreachable!("it was made above") };
    assert!(back == message);
}

/// The one frame that holds `messages`, as header and rest.
fn one_frame(messages: &[PeerMessage]) -> ([u8; FRAME_HEADER_BYTES], Vec<u8>) {
    let bytes = encode(messages).concat();
    let (header, rest) = bytes.split_first_chunk().unwrap();
    (*header, rest.to_vec())
}

fn read(header: &[u8; FRAME_HEADER_BYTES], rest: &[u8]) -> Result<Vec<PeerMessage>, WireError> {
    decode(&FrameHeader::decode(header)?, Bytes::copy_from_slice(rest))
}

#[test]
fn every_flipped_bit_of_header_and_meta_is_noticed() {
    let (header, rest) = one_frame(&some_of_all());
    for bit in 0..header.len() * 8 {
        let mut damaged = header;
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(matches!(read(&damaged, &rest), Err(WireError::Header)), "bit {bit}");
    }
    let meta_len = FrameHeader::decode(&header).unwrap().meta_len as usize;
    for bit in 0..meta_len * 8 {
        let mut damaged = rest.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(matches!(read(&header, &damaged), Err(WireError::Checksum)), "bit {bit}");
    }
}

/// Reads `meta` and `beside` as if they had been encoded by somebody who means ill: with the right checksums.
fn read_forged(meta: &[u8], beside: &[u8]) -> Result<Vec<PeerMessage>, WireError> {
    let header =
        FrameHeader { meta_len: meta.len() as u32, beside_len: beside.len() as u32, meta_crc: crc32fast::hash(meta) };
    read(&header.encode(), &[meta, beside].concat())
}

#[test]
fn a_flipped_byte_behind_a_right_checksum_never_panics() {
    let (header, rest) = one_frame(&some_of_all());
    let (meta, beside) = rest.split_at(FrameHeader::decode(&header).unwrap().meta_len as usize);
    assert!(read_forged(meta, beside).is_ok());
    for at in 0..meta.len() {
        for flip in [1, 0x80, 0xFF] {
            let mut damaged = meta.to_vec();
            damaged[at] ^= flip;
            let _ = read_forged(&damaged, beside);
        }
        assert!(read_forged(&meta[..at], beside).is_err(), "cut at {at}");
    }
    assert!(read_forged(meta, &beside[1..]).is_err());
    assert!(read_forged(meta, &[beside, b"x"].concat()).is_err());
}

#[test]
fn absurd_lengths_and_counts_are_refused() {
    let too_large = |meta_len, beside_len| {
        let header = FrameHeader { meta_len, beside_len, meta_crc: 0 }.encode();
        assert!(matches!(FrameHeader::decode(&header), Err(WireError::TooLarge(_))));
    };
    too_large(u32::MAX, u32::MAX);
    too_large(0, PEER_FRAME_BYTES as u32 - 23);
    let most = FrameHeader { meta_len: 0, beside_len: PEER_FRAME_BYTES as u32 - 24, meta_crc: 0 };
    assert_eq!(FrameHeader::decode(&most.encode()).unwrap(), most);

    // A Raft message with 2^32 - 1 entries and no byte for them.
    let mut meta = numbers(&[(1, 1), (0, 3), (88, 4)]);
    meta.extend([0; 76]);
    meta.extend(numbers(&[(0xFFFF_FFFF, 4), (3, 1), (0, 7)]));
    let error = read_forged(&meta, &[]).unwrap_err();
    assert!(error.to_string().contains("fewer entries than it says"), "{error}");

    // Messages without a body, which cost more than their bytes.
    let meta = numbers(&[(2, 1), (0, 3), (0, 4)]).repeat(MOST_MESSAGES + 1);
    let error = read_forged(&meta, &[]).unwrap_err();
    assert!(error.to_string().contains("more messages than any frame"), "{error}");

    // Batches without a byte.
    let mut meta = numbers(&[(8, 1), (0, 3), (16 + 4000, 4), (1, 8), (0, 8)]);
    meta.extend([0; 4000]);
    let error = read_forged(&meta, &[]).unwrap_err();
    assert!(error.to_string().contains("an empty batch"), "{error}");
}

#[test]
fn a_newer_version_is_named() {
    let (mut header, rest) = one_frame(&some_of_all());
    header[4] = 4;
    let crc = crc32fast::hash(&header[..CHECKED_BYTES]);
    header[CHECKED_BYTES..].copy_from_slice(&crc.to_le_bytes());
    assert!(matches!(read(&header, &rest), Err(WireError::Version(4))));
}

fn bytes() -> impl Strategy<Value = Bytes> {
    let len = prop_oneof![0..20usize, 4_000..4_200usize];
    (any::<u8>(), len).prop_map(|(byte, len)| Bytes::from(vec![byte; len]))
}

fn a_chunk(least: usize) -> impl Strategy<Value = Chunk> {
    (0..70usize, bytes()).prop_map(move |(head, body)| {
        let head = head.max(least.saturating_sub(body.len()));
        Chunk { head: SmallVec::from_elem(7, head), body }
    })
}

fn a_raft_message() -> impl Strategy<Value = PeerMessage> {
    let kinds: Vec<MessageKind> = (0..=255).filter_map(MessageKind::from_number).collect();
    let entry = ((any::<u64>(), any::<u64>(), bytes()), a_chunk(0));
    let snapshot = proptest::option::of((any::<u64>(), any::<u64>(), bytes()));
    (
        any::<[u64; 8]>(),
        proptest::sample::select(kinds),
        any::<[bool; 2]>(),
        bytes(),
        proptest::collection::vec(entry, 0..5),
        snapshot,
    )
        .prop_map(|(numbers, kind, [reject, with_beside], context, entries, snapshot)| {
            let (entries, beside): (Vec<_>, Vec<_>) = entries.into_iter().unzip();
            let [log, term, log_term, index, commit, commit_term, reject_hint, request_snapshot] = numbers;
            let message = Message {
                kind,
                from_life: term as u32,
                to_life: index as u32,
                term,
                log_term,
                index,
                commit,
                commit_term,
                reject,
                reject_hint,
                request_snapshot,
                context,
                entries: entries.into_iter().map(|(index, term, data)| Entry { index, term, data }).collect(),
                snapshot: snapshot.map(|(index, term, data)| SnapshotPoint { index, term, data }),
            };
            let beside = if with_beside { beside } else { Vec::new() };
            PeerMessage::Raft { log: LogId(log), message, beside }
        })
}

fn a_message() -> impl Strategy<Value = PeerMessage> {
    prop_oneof![
        4 => a_raft_message(),
        1 => proptest::collection::vec(any::<(u64, i32)>(), 0..50).prop_map(|leaders| {
            PeerMessage::Leaders(leaders.into_iter().map(|(log, epoch)| (LogId(log), epoch)).collect())
        }),
        1 => any::<u64>().prop_map(|index| PeerMessage::Applied { index }),
        1 => (any::<u16>(), any::<u64>(), any::<u32>(), bytes()).prop_map(|(shard, number, time_left_ms, question)| {
            PeerMessage::Ask { shard, number, time_left_ms, question }
        }),
        1 => (any::<u16>(), any::<u64>(), bytes())
            .prop_map(|(shard, number, reply)| PeerMessage::Told { shard, number, reply }),
        1 => (any::<bool>(), disk_state(), any::<u64>(), any::<u64>())
            .prop_map(|(leads, disk, applied, hash)| PeerMessage::Status(Status { leads, disk, applied, hash })),
        1 => (any::<u64>(), any::<i64>(), any::<i64>())
            .prop_map(|(log, offset, end)| PeerMessage::FetchLog { log: LogId(log), offset, end }),
        1 => (any::<u64>(), any::<i64>(), any::<i64>(), proptest::collection::vec(a_chunk(1), 0..5))
            .prop_map(|(log, offset, start, batches)| PeerMessage::LogPart { log: LogId(log), offset, start, batches }),
    ]
}

proptest! {
    #[test]
    fn what_was_sent_comes(messages in proptest::collection::vec(a_message(), 0..30)) {
        prop_assert_eq!(all_shown(&there_and_back(&messages)), all_shown(&messages));
    }

    #[test]
    fn noise_is_never_read_and_never_panics(meta in proptest::collection::vec(any::<u8>(), 1..300), kind in 0..10u8) {
        let mut meta = meta;
        let len = meta.len();
        meta.splice(..0, numbers(&[(u64::from(kind), 1), (0, 3), (len as u64, 4)]));
        let _ = read_forged(&meta, &[0; 100]);
    }
}
