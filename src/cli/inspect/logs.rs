//! What a start would find: the logs with their partitions, the metadata.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow};
use serde_json::Value;

use super::super::rows::Row;
use super::mapped::DataDir;
use crate::log::disk::DiskConfig;
use crate::log::recovery::{Recovered, recover};
use crate::log::{FileId, SegmentFile};
use crate::metadata::State;
use crate::partition::Checkpoint;
use crate::shard::metadata_of;
use crate::types::LogId;

fn recovered(dir: &DataDir) -> Result<(Recovered, State)> {
    let mut recovered = recover(dir, &DiskConfig::default())?;
    if let Some(damage) = recovered.damage.take() {
        return Err(damage.into());
    }
    let metadata = recovered.logs.iter().find(|log| log.log == LogId::METADATA);
    let state = match metadata {
        Some(log) => metadata_of(log).map_err(|error| anyhow!("the metadata cannot be read: {error}"))?,
        None => State::default(),
    };
    Ok((recovered, state))
}

/// One row a log.
///
/// # Errors
/// Where the directory cannot be recovered: why, and where.
pub(super) fn logs(dir: &DataDir) -> Result<Vec<Row>> {
    let (recovered, state) = recovered(dir)?;
    let mut names = BTreeMap::from([(LogId::METADATA, "metadata".to_owned())]);
    for topic in state.topics() {
        for (number, partition) in topic.partitions.iter().enumerate() {
            names.insert(partition.log, format!("{}-{number}", topic.name));
        }
    }
    let mut files: BTreeMap<LogId, (u64, u64)> = BTreeMap::new();
    for (file, bytes) in dir.files() {
        if let FileId::Segment(segment) = file {
            let (count, sum) = files.entry(segment.log).or_default();
            *count += u64::from(segment.file == SegmentFile::Log);
            *sum += bytes.len() as u64;
        }
    }
    let mut rows = Vec::new();
    for log in &recovered.logs {
        let partition = log.checkpoint.as_ref().filter(|_| log.log != LogId::METADATA);
        let partition = partition.map(|frame| Checkpoint::decode(&frame.payload)).transpose();
        let partition = partition.with_context(|| format!("the checkpoint of log {}", log.log))?;
        let (segments, bytes) = files.get(&log.log).copied().unwrap_or_default();
        rows.push(vec![
            ("log", log.log.0.into()),
            ("partition", names.get(&log.log).cloned().map_or(Value::Null, Value::from)),
            ("log_start", partition.as_ref().map_or(0, |checkpoint| checkpoint.log_start).into()),
            ("in_segments_to", partition.as_ref().map_or(0, |checkpoint| checkpoint.next_offset).into()),
            ("segments", segments.into()),
            ("segment_bytes", bytes.into()),
            ("checkpoint_at", log.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.index).into()),
            ("entries_in_wal", log.entries.len().into()),
            ("last_index", log.entries.last().map(|entry| entry.index).into()),
            ("last_term", log.entries.last().map(|entry| entry.term).into()),
        ]);
    }
    Ok(rows)
}

/// One row a partition.
///
/// # Errors
/// Where the directory cannot be recovered.
pub(super) fn metadata(dir: &DataDir) -> Result<Vec<Row>> {
    let (_, state) = recovered(dir)?;
    let mut rows = Vec::new();
    for topic in state.topics() {
        for (number, partition) in topic.partitions.iter().enumerate() {
            let replicas: Vec<String> = partition.replicas.iter().map(|broker| broker.0.to_string()).collect();
            let configs: Vec<String> = topic.configs.iter().map(|(name, value)| format!("{name}={value}")).collect();
            rows.push(vec![
                ("topic", topic.name.as_ref().into()),
                ("topic_id", topic.id.to_string().into()),
                ("partition", number.into()),
                ("log", partition.log.0.into()),
                ("replicas", replicas.join(",").into()),
                ("configs", configs.join(",").into()),
            ]);
        }
    }
    Ok(rows)
}
