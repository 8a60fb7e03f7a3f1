//! A partition's state as of a Raft index: what the WAL keeps of it once its older entries lie in segments.

use bytes::Bytes;

use super::producers::Sequence;
use super::segments::SegmentMeta;
use crate::consensus::{HardState, Members};
use crate::types::{LeaderEpoch, Offset};

/// The payload of a partition's checkpoint frame.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Checkpoint {
    /// Raft's hard state.
    pub hard_state: HardState,
    /// The life of the replica that wrote it: see [`crate::consensus::members`].
    pub life: u32,
    /// The members of the Raft group.
    pub members: Members,
    /// The first offset that may be read.
    pub log_start: Offset,
    /// Before it compaction has left one record of each key, in this replica's segments.
    pub cleaned_to: Offset,
    /// The offset after the last record in segments.
    pub next_offset: Offset,
    /// The segments in order.
    pub segments: Vec<SegmentMeta>,
    /// Index entries of the last segment that its index file does not hold yet.
    pub pending_index: Vec<u8>,
    /// First offset of each leader epoch.
    pub epochs: Vec<(LeaderEpoch, Offset)>,
    /// Idempotent producers.
    pub producers: Vec<(i64, Vec<Sequence>)>,
    /// The greatest id of an idempotent producer whose state has expired.
    pub forgotten_producer: Option<i64>,
}

impl Checkpoint {
    /// That of a replica which has nothing yet, of a log that was made with these members.
    pub(super) fn empty(life: u32, members: Members) -> Checkpoint {
        Checkpoint {
            hard_state: HardState::default(),
            life,
            members,
            log_start: 0,
            cleaned_to: 0,
            next_offset: 0,
            segments: Vec::new(),
            pending_index: Vec::new(),
            epochs: Vec::new(),
            producers: Vec::new(),
            forgotten_producer: None,
        }
    }

    /// As the payload of a frame.
    pub fn encode(&self) -> Bytes {
        crate::codec::encode(self).into()
    }

    /// Reads what [`Checkpoint::encode`] wrote.
    ///
    /// # Errors
    /// Where the bytes are of an unknown format or contradict themselves.
    pub fn decode(bytes: &[u8]) -> Result<Checkpoint, crate::codec::CodecError> {
        crate::codec::decode(bytes)
    }
}
