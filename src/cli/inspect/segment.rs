//! A file of a partition's segment: its batches, or its index.

use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};

use super::super::progress::Progress;
use super::super::rows::Row;
use super::mapped::map;
use crate::partition::{INDEX_ENTRY_LEN, IndexEntry};
use crate::record::split_batches;

/// One row a batch. The file's last block is filled up with zeros, and allocated space may follow.
///
/// # Errors
/// Where the file cannot be read, or what follows the last batch is neither a batch nor zeros.
pub(super) fn batches(path: &Path) -> Result<Vec<Row>> {
    let bytes = map(path).with_context(|| format!("cannot map {}", path.display()))?;
    let progress = Progress::bytes(bytes.len() as u64);
    let mut rows = Vec::new();
    let mut end = 0;
    for (position, batch) in split_batches(&bytes) {
        let header = &batch.header;
        let compression = header.compression().map(|compression| format!("{compression:?}").to_lowercase());
        rows.push(vec![
            ("at_byte", position.into()),
            ("base_offset", header.base_offset.get().into()),
            ("last_offset", header.last_offset().into()),
            ("epoch", header.leader_epoch.get().into()),
            ("records", header.record_count.get().into()),
            ("bytes", batch.len().into()),
            ("compression", compression.into()),
            ("max_timestamp", header.max_timestamp.get().into()),
            ("producer", header.producer_id.get().into()),
            ("sequence", header.base_sequence.get().into()),
            ("crc", if batch.check_crc().is_ok() { "ok" } else { "WRONG" }.into()),
        ]);
        progress.advance((position + batch.len() - end) as u64);
        end = position + batch.len();
    }
    progress.finish();
    ensure!(
        bytes[end..].iter().all(|byte| *byte == 0),
        "{}: what follows byte {end} is no batch (the remains of a segment that was written anew, or damage)",
        path.display()
    );
    Ok(rows)
}

/// One row an entry of an index file.
///
/// # Errors
/// Where the file cannot be read or an entry's checksum is wrong.
pub(super) fn index(path: &Path) -> Result<Vec<Row>> {
    let bytes = map(path).with_context(|| format!("cannot map {}", path.display()))?;
    // The last block is filled up with zeros, which no entry is.
    let used = bytes.chunks_exact(INDEX_ENTRY_LEN).take_while(|entry| entry.iter().any(|byte| *byte != 0)).count();
    let entries = IndexEntry::parse_all(&bytes[..used * INDEX_ENTRY_LEN])
        .map_err(|number| anyhow!("{}: the checksum of entry {number} is wrong", path.display()))?;
    let row = |entry: &IndexEntry| {
        vec![
            ("base_offset", entry.base_offset.get().into()),
            ("at_byte", entry.position.get().into()),
            ("raft_index", entry.raft_index.get().into()),
            ("term", entry.term.get().into()),
            ("max_timestamp", entry.max_timestamp.get().into()),
        ]
    };
    Ok(entries.iter().map(row).collect())
}
