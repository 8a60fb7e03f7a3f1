//! The operations in flight: each has a token of its own, so that completions in any order find their owner.

use super::disk::DiskEffect;
use super::{Buffers, DeviceOp, DiskReply, WalId};
use crate::types::{Map, ShardId};

/// Whom a completion belongs to.
#[derive(Debug)]
pub(super) enum Purpose<F> {
    /// A write of a WAL, by its sequence.
    WalWrite { wal: WalId, sequence: u64 },
    /// A new slot of a WAL.
    WalCreate { wal: WalId, slot: u32 },
    /// The end of a segment that is left unused.
    WalShorten { wal: WalId },
    /// A slot that is not wanted any more.
    WalRemove { wal: WalId, slot: u32 },
    /// A look at the room that there is, for this shard's request of this token.
    Space { from: ShardId, token: u64 },
    /// Anything on segment files.
    File(F),
}

/// The tokens in flight.
#[derive(Debug)]
pub(super) struct Ops<F> {
    next: u64,
    purposes: Map<u64, Purpose<F>>,
}

impl<F> Ops<F> {
    pub(super) fn new() -> Ops<F> {
        Ops { next: 0, purposes: Map::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.purposes.is_empty()
    }

    /// The owner of a completion; each token is taken once.
    pub(super) fn take(&mut self, token: u64) -> Purpose<F> {
        match self.purposes.remove(&token) {
            Some(purpose) => purpose,
            None => panic!("the driver completed operation {token}, which is not in flight"),
        }
    }
}

/// What the parts of a disk's machine work with: the buffers, the tokens and the list of effects.
pub(super) struct Context<'a, B: Buffers, F> {
    pub(super) buffers: &'a mut B,
    pub(super) ops: &'a mut Ops<F>,
    pub(super) effects: &'a mut Vec<DiskEffect<B::Buf>>,
    pub(super) shards: u16,
}

impl<B: Buffers, F> Context<'_, B, F> {
    pub(super) fn start(&mut self, purpose: Purpose<F>, op: DeviceOp<B::Buf>) {
        let token = self.ops.next;
        self.ops.next += 1;
        self.ops.purposes.insert(token, purpose);
        self.effects.push(DiskEffect::Device { token, op });
    }

    pub(super) fn reply(&mut self, to: ShardId, reply: DiskReply) {
        self.effects.push(DiskEffect::Reply { to, reply });
    }

    pub(super) fn reply_to_all(&mut self, reply: &DiskReply) {
        for shard in 0..self.shards {
            self.reply(ShardId(shard), reply.clone());
        }
    }
}
