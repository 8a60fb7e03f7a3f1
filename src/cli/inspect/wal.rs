//! The write-ahead logs: their segments, or each of their writes and frames.

use anyhow::{Result, bail};
use bytes::Bytes;

use super::super::rows::Row;
use super::mapped::DataDir;
use crate::limits::BLOCK;
use crate::log::FileId;
use crate::log::wal_format::{Frames, HEADER_BYTES, NotAHeader, WriteHeader};

/// A write that was found, and whether its frames are whole.
struct Write {
    offset: u64,
    header: WriteHeader,
    payload: Option<Bytes>,
}

/// What a segment's file holds of its newest use, front to back.
fn writes(bytes: &Bytes) -> Result<Vec<Write>> {
    let mut found: Vec<Write> = Vec::new();
    let mut offset = 0;
    while offset + BLOCK <= bytes.len() {
        let header = match WriteHeader::decode(&bytes[offset..]) {
            Ok(header) => header,
            Err(NotAHeader::Unreadable) => break,
            Err(NotAHeader::Version(version)) => bail!("format version {version} is not this program's"),
        };
        // Behind the last write of a use lie those of an earlier one.
        if found.first().is_some_and(|first| first.header.generation != header.generation) {
            break;
        }
        let end = offset + HEADER_BYTES + header.payload_len as usize;
        let payload = (end <= bytes.len()).then(|| bytes.slice(offset + HEADER_BYTES..end));
        let payload = payload.filter(|payload| crc32fast::hash(payload) == header.payload_crc);
        found.push(Write { offset: offset as u64, header, payload });
        offset += header.write_len() as usize;
    }
    Ok(found)
}

/// One row a segment.
///
/// # Errors
/// Where a file is of another version.
pub(super) fn segments(dir: &DataDir) -> Result<Vec<Row>> {
    let mut rows: Vec<Row> = Vec::new();
    for (file, bytes) in dir.files().filter(|(file, _)| matches!(file, FileId::Wal { .. })) {
        let writes = writes(bytes)?;
        dir.read(bytes.len() as u64);
        let sum = |of: fn(&WriteHeader) -> u64| writes.iter().map(|write| of(&write.header)).sum::<u64>();
        let (first, last) = (writes.first().map(|write| write.header), writes.last().map(|write| write.header));
        rows.push(vec![
            ("segment", file.to_string().into()),
            ("bytes", bytes.len().into()),
            ("generation", first.map_or(0, |header| header.generation).into()),
            ("first_write", first.map_or(0, |header| header.sequence).into()),
            ("last_write", last.map_or(0, |header| header.sequence).into()),
            ("frames", sum(|header| u64::from(header.frames)).into()),
            ("frame_bytes", sum(|header| u64::from(header.payload_len)).into()),
            ("oldest_needed", last.map_or(0, |header| header.oldest).into()),
            ("damaged_writes", writes.iter().filter(|write| write.payload.is_none()).count().into()),
        ]);
    }
    // In the order in which they were written; what was never used comes first.
    rows.sort_by_key(|row| row[2].1.as_u64());
    Ok(rows)
}

/// One row a frame.
///
/// # Errors
/// Where a file is of another version.
pub(super) fn frames(dir: &DataDir) -> Result<Vec<Row>> {
    let mut rows: Vec<Row> = Vec::new();
    for (file, bytes) in dir.files().filter(|(file, _)| matches!(file, FileId::Wal { .. })) {
        for Write { offset, header, payload } in writes(bytes)? {
            let frames = payload.map(|payload| Frames::new(payload).collect::<Vec<_>>());
            let damaged = frames.is_none();
            for frame in frames.unwrap_or_default() {
                let Ok((frame, payload)) = frame else {
                    bail!("{file}: the write at byte {offset} holds something else than frames");
                };
                rows.push(row(file, offset, &header, format!("{:?}", frame.kind), Some((frame, payload.len()))));
            }
            if damaged {
                rows.push(row(file, offset, &header, "damaged".to_owned(), None));
            }
        }
        dir.read(bytes.len() as u64);
    }
    Ok(rows)
}

fn row(
    file: FileId,
    offset: u64,
    header: &WriteHeader,
    kind: String,
    frame: Option<(crate::log::wal_format::FrameHeader, usize)>,
) -> Row {
    let (frame, bytes) = frame.unzip();
    vec![
        ("segment", file.to_string().into()),
        ("generation", header.generation.into()),
        ("write", header.sequence.into()),
        ("at_byte", offset.into()),
        ("kind", kind.into()),
        ("log", frame.map(|frame| frame.log.0).into()),
        ("term", frame.map(|frame| frame.term).into()),
        ("index", frame.map(|frame| frame.index).into()),
        ("bytes", bytes.into()),
    ]
}
