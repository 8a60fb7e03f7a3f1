//! What the disk holds of the metadata: checkpoints, hard states, and the metadata that they and the entries amount to.

use bytes::Bytes;

use crate::consensus::{HardState, SnapshotPoint};
use crate::log::recovery::RecoveredLog;
use crate::log::{Frame, FrameKind};
use crate::metadata::{State, codec};
use crate::types::LogId;

/// The payload of the metadata's checkpoint frame.
#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct MetadataCheckpoint {
    pub(super) hard_state: HardState,
    pub(super) snapshot: Vec<u8>,
}

/// What the WAL holds of the metadata cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the metadata's log cannot be read: {0}")]
pub struct MetadataRecoveryError(pub(super) String);

pub(super) fn hard_state_frame(state: HardState) -> Frame {
    let (head, kind) = (state.to_bytes().as_slice().into(), FrameKind::HardState);
    Frame { log: LogId::METADATA, kind, term: state.term, index: 0, head, body: Bytes::new() }
}

/// A checkpoint with another hard state in it.
pub(super) fn with_hard_state(point: SnapshotPoint, hard_state: HardState) -> SnapshotPoint {
    let checkpoint = crate::codec::decode::<MetadataCheckpoint>(&point.data).expect("it was read when it came");
    let data = crate::codec::encode(&MetadataCheckpoint { hard_state, ..checkpoint }).into();
    SnapshotPoint { data, ..point }
}

pub(super) fn checkpoint_frame(kind: FrameKind, point: &SnapshotPoint) -> Frame {
    let (term, index, body) = (point.term, point.index, point.data.clone());
    Frame { log: LogId::METADATA, kind, term, index, head: Default::default(), body }
}

/// The metadata as of the last entry of its log, for tools: which of the entries are committed only the other brokers
/// know.
///
/// # Errors
/// Where the log's checkpoint or one of its entries cannot be read.
pub fn metadata_of(recovered: &RecoveredLog) -> Result<State, MetadataRecoveryError> {
    let mut state = State::default();
    if let Some(frame) = &recovered.checkpoint {
        (_, state) = read_checkpoint(&frame.payload).map_err(MetadataRecoveryError)?;
    }
    for entry in &recovered.entries {
        if entry.payload.is_empty() {
            state.skip_to(entry.index);
            continue;
        }
        let command =
            codec::decode_command(&entry.payload).map_err(|error| MetadataRecoveryError(error.to_string()))?;
        state.apply(entry.index, &command);
    }
    Ok(state)
}

/// The hard state and the metadata in the payload of a checkpoint.
pub(super) fn read_checkpoint(data: &[u8]) -> Result<(HardState, State), String> {
    let checkpoint: MetadataCheckpoint = crate::codec::decode(data).map_err(|error| error.to_string())?;
    let snapshot = codec::decode_snapshot(&checkpoint.snapshot).map_err(|error| error.to_string())?;
    let state = State::from_snapshot(snapshot).map_err(|error| error.to_string())?;
    Ok((checkpoint.hard_state, state))
}
