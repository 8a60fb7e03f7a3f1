//! What the disk holds of the metadata: checkpoints, hard states, and the metadata that they and the entries amount to.

use bytes::Bytes;

use crate::codec::{self, CodecError};
use crate::consensus::{Entry, HardState, Members, SnapshotPoint, members};
use crate::log::recovery::RecoveredLog;
use crate::log::{Frame, FrameKind};
use crate::metadata::State;
use crate::metadata::codec::{decode_command, decode_snapshot};
use crate::types::LogId;

/// The payload of the metadata's checkpoint frame.
#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct MetadataCheckpoint {
    pub(super) hard_state: HardState,
    pub(super) snapshot: Vec<u8>,
    /// The members of the metadata's group as of then; those of the beginning where it does not say.
    pub(super) members: Option<Members>,
}

/// The form of checkpoints: what follows the format byte is bincode.
const CHECKPOINT_FORMAT: u8 = 2;

/// What checkpoints of format 1 lack: members; it does not say.
const LACKING_IN_1: &[u8] = &[0];

impl MetadataCheckpoint {
    pub(super) fn encode(&self) -> Bytes {
        let mut bytes = codec::encode(self);
        bytes[0] = CHECKPOINT_FORMAT;
        bytes.into()
    }

    fn decode(bytes: &[u8]) -> Result<MetadataCheckpoint, CodecError> {
        match bytes.split_first() {
            Some((&CHECKPOINT_FORMAT, rest)) => codec::decode(&[&[codec::FORMAT], rest].concat()),
            // Whatever else it may be, the decoder says.
            _ => codec::decode(&[bytes, LACKING_IN_1].concat()),
        }
    }
}

/// What the WAL holds of the metadata cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the metadata's log cannot be read: {0}")]
pub struct MetadataRecoveryError(pub(super) String);

pub(super) fn hard_state_frame(state: HardState) -> Frame {
    let (head, kind) = (state.to_bytes().as_slice().into(), FrameKind::HardState);
    Frame { log: LogId::METADATA, kind, term: state.term, index: 0, head, body: Bytes::new(), again: false }
}

/// An entry, new or written `again`.
pub(super) fn entry_frame(entry: Entry, again: bool) -> Frame {
    let (log, kind) = (LogId::METADATA, FrameKind::Entry);
    Frame { log, kind, term: entry.term, index: entry.index, head: Default::default(), body: entry.data, again }
}

/// A checkpoint with another hard state in it.
pub(super) fn with_hard_state(point: SnapshotPoint, hard_state: HardState) -> SnapshotPoint {
    let checkpoint = MetadataCheckpoint::decode(&point.data).expect("it was read when it came");
    let data = MetadataCheckpoint { hard_state, ..checkpoint }.encode();
    SnapshotPoint { data, ..point }
}

pub(super) fn checkpoint_frame(kind: FrameKind, point: &SnapshotPoint) -> Frame {
    let (term, index, body) = (point.term, point.index, point.data.clone());
    Frame { log: LogId::METADATA, kind, term, index, head: Default::default(), body, again: false }
}

/// The metadata as of the last entry of its log, for tools: which of the entries are committed only the other brokers
/// know.
///
/// # Errors
/// Where the log's checkpoint or one of its entries cannot be read.
pub fn metadata_of(recovered: &RecoveredLog) -> Result<State, MetadataRecoveryError> {
    let mut state = State::default();
    if let Some(frame) = &recovered.checkpoint {
        state = read_checkpoint(&frame.payload).map_err(MetadataRecoveryError)?.1;
    }
    for entry in &recovered.entries {
        if entry.payload.is_empty() || members::is_change(&entry.payload) {
            state.skip_to(entry.index);
            continue;
        }
        let command = decode_command(&entry.payload).map_err(|error| MetadataRecoveryError(error.to_string()))?;
        state.apply(entry.index, &command);
    }
    Ok(state)
}

/// The hard state, the metadata and the members in the payload of a checkpoint.
pub(super) fn read_checkpoint(data: &[u8]) -> Result<(HardState, State, Option<Members>), String> {
    let checkpoint = MetadataCheckpoint::decode(data).map_err(|error| error.to_string())?;
    let snapshot = decode_snapshot(&checkpoint.snapshot).map_err(|error| error.to_string())?;
    let state = State::from_snapshot(snapshot).map_err(|error| error.to_string())?;
    Ok((checkpoint.hard_state, state, checkpoint.members))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::BrokerId;

    /// These bytes are on disks: where this fails, the format has changed and needs another number.
    #[test]
    fn the_bytes_of_a_checkpoint_stay_as_they_are() {
        let hard_state = HardState { term: 3, vote: 2, commit: 9 };
        let members = Members { voters: vec![BrokerId(1)], learners: vec![BrokerId(4)], ..Members::default() };
        let checkpoint = MetadataCheckpoint { hard_state, snapshot: vec![7], members: Some(members) };
        let second = [2, 3, 2, 9, 1, 7, 1, 1, 2, 0, 1, 8, 0, 0];
        assert_eq!(checkpoint.encode()[..], second);
        assert_eq!(MetadataCheckpoint::decode(&second).unwrap().members, checkpoint.members);
        let first = MetadataCheckpoint::decode(&[1, 3, 2, 9, 1, 7]).unwrap();
        assert_eq!((first.hard_state, first.snapshot, first.members), (hard_state, vec![7], None));
        assert!(MetadataCheckpoint::decode(&[3, 3, 2, 9, 1, 7, 0]).is_err());
    }
}
