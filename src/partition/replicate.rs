//! What goes between the replicas of a partition: the messages of their Raft groups, with the batches beside.

use smallvec::SmallVec;
use zerocopy::{FromBytes, IntoBytes};

use super::tail::TailEntry;
use super::{DESCRIPTOR_LEN, Descriptor, Partition, note_epoch};
use crate::consensus::{Entry, Members, Message, MessageKind, NotLeader};
use crate::limits::APPEND_BYTES;
use crate::log::Chunk;
use crate::record::Batch;
use crate::types::{BrokerId, LeaderEpoch, Now};

/// What another replica sent is not what its own words say: none of it was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("entry {index} came damaged")]
pub struct DamagedEntry {
    /// The entry's index.
    pub index: u64,
}

impl Partition {
    /// Takes a message of another replica; `beside` holds the batches of its entries, empty for those without.
    ///
    /// # Errors
    /// [`DamagedEntry`]; the sender will try again.
    pub fn step(&mut self, now: Now, from: BrokerId, message: Message, beside: Vec<Chunk>) -> Result<(), DamagedEntry> {
        if self.group.is_deaf() {
            self.group.step(from, message);
            return Ok(());
        }
        if message.kind == MessageKind::Snapshot {
            self.offered(from, message);
            return Ok(());
        }
        if message.kind == MessageKind::Append && self.install.is_some() {
            // What is being fetched takes the place of the log; the leader sends the entries behind it then.
            return Ok(());
        }
        let mut batches = Vec::with_capacity(beside.len());
        let starts: Vec<Entry> =
            message.entries.iter().filter(|entry| Descriptor::start_of(&entry.data).is_some()).cloned().collect();
        for (entry, chunk) in message.entries.iter().zip(beside) {
            if let Some(batch) = check(entry, chunk).ok_or(DamagedEntry { index: entry.index })? {
                batches.push(TailEntry { index: entry.index, term: entry.term, batch });
            }
        }
        self.group.step(from, message);
        self.cut_tail();
        for entry in starts.iter().filter(|entry| self.group.term_at(entry.index) == Some(entry.term)) {
            self.starts.note(entry);
        }
        for entry in batches {
            let new = entry.batch.header.base_offset.get() >= self.next_offset;
            if new && self.group.term_at(entry.index) == Some(entry.term) {
                self.take_entry(now, entry);
            }
        }
        self.advance_high_watermark();
        Ok(())
    }

    /// How many of the message's entries cost nothing, from the first on: they are in this log already, or
    /// have no batch.
    pub fn free_entries(&self, message: &Message) -> usize {
        let known = |entry: &&Entry| self.group.term_at(entry.index) == Some(entry.term);
        message.entries.iter().take_while(|entry| known(entry) || !Descriptor::has_batch(&entry.data)).count()
    }

    /// Drops the batches of entries that Raft has replaced.
    fn cut_tail(&mut self) {
        if self.install.is_some() {
            // Raft may have gone on from the leader's point already; the tail follows when that is written.
            return;
        }
        let group = &self.group;
        self.starts.cut(|index, term| group.term_at(index) == Some(term));
        let mut cut = false;
        while let Some(last) = self.tail.last()
            && self.group.term_at(last.index) != Some(last.term)
        {
            let base_offset = last.batch.header.base_offset.get();
            assert!(base_offset >= self.high_watermark, "log {}: a committed record was replaced", self.log);
            self.next_offset = base_offset;
            self.tail.pop();
            cut = true;
        }
        if cut {
            let end = self.next_offset;
            self.producers.truncate(end);
            self.epochs.retain(|(_, start)| *start < end);
        }
    }

    fn take_entry(&mut self, now: Now, entry: TailEntry) {
        let header = &entry.batch.header;
        assert_eq!(header.base_offset.get(), self.next_offset, "log {}: offsets have no gaps", self.log);
        self.next_offset = header.last_offset() + 1;
        self.producers.note(header, self.high_watermark, Some(now.mono));
        note_epoch(&mut self.epochs, entry.term as LeaderEpoch, header.base_offset.get());
        self.tail.push(entry);
    }

    /// Messages for the other replicas, each with the batches of its entries. Comes after
    /// [`Partition::take_frames`]: a leader sends before it has written, a follower says only what is durable.
    pub fn take_messages(&mut self) -> Vec<(BrokerId, Message, Vec<Chunk>)> {
        let mut out = Vec::new();
        self.point_wanted |= self.group.takes_snapshot_wanted();
        for (to, message) in self.group.take_messages() {
            let beside: Option<Vec<Chunk>> = message.entries.iter().map(|entry| self.beside(entry)).collect();
            match beside {
                Some(beside) => split(to, message, beside, &mut out),
                // Segments have its batch, the tail has not: the follower needs a snapshot. It gets one when there is a
                // checkpoint that reaches as far, and Raft has forgotten the entry too.
                None => {
                    self.compact();
                    self.point_wanted = true;
                    self.group.unreachable(to);
                }
            }
        }
        out
    }

    /// Whether a checkpoint is wanted since the last call, for a follower that is far behind.
    pub fn takes_point_wanted(&mut self) -> bool {
        std::mem::take(&mut self.point_wanted)
    }

    fn beside(&self, entry: &Entry) -> Option<Chunk> {
        if !Descriptor::has_batch(&entry.data) {
            return Some(Chunk { head: SmallVec::new(), body: Default::default() });
        }
        let found = self.tail.at_index(entry.index).filter(|found| found.term == entry.term)?;
        Some(Chunk { head: SmallVec::from_slice(found.batch.header.as_bytes()), body: found.batch.body.clone() })
    }

    /// Whether there is another replica.
    pub fn is_replicated(&self) -> bool {
        !self.group.is_alone()
    }

    /// The partition's Raft group.
    pub(crate) fn group(&self) -> &crate::consensus::Group {
        &self.group
    }

    /// The offset after the last record, committed or not.
    pub fn next_offset(&self) -> crate::types::Offset {
        self.next_offset
    }

    /// Raft's time has passed.
    pub fn tick(&mut self) {
        self.group.tick();
    }

    /// Whether this replica leads, even if it may not serve yet.
    pub fn leads(&self) -> bool {
        self.group.is_leader()
    }

    /// The leader, as far as this replica knows.
    pub fn leader(&self) -> Option<BrokerId> {
        self.group.leader()
    }

    /// The connection to a broker is lost: what was sent to it may not have come.
    pub fn broker_unreachable(&mut self, broker: BrokerId) {
        self.group.unreachable(broker);
    }

    /// A broker is gone. Whether it led: another may at once.
    pub fn broker_lost(&mut self, broker: BrokerId) -> bool {
        self.group.lost(broker)
    }

    /// The brokers whose replicas may lead, the preferred leader first.
    pub fn replicas(&self) -> impl Iterator<Item = BrokerId> + '_ {
        self.placed_on.iter().copied().filter(|broker| self.group.members().voters.contains(broker))
    }

    /// Notes on which brokers the metadata wants replicas from now on, the preferred leader first.
    pub fn place_on(&mut self, brokers: &[BrokerId]) {
        self.placed_on = brokers.to_vec();
    }

    /// Whether this replica has a vote.
    pub fn votes(&self) -> bool {
        self.group.votes()
    }

    /// The members of the partition's Raft group.
    pub fn members(&self) -> &Members {
        self.group.members()
    }

    /// Proposes other members: see [`crate::consensus::Group::change_members`].
    ///
    /// # Errors
    /// [`NotLeader`]; it may be tried again later.
    pub fn change_members(&mut self, wanted: &Members) -> Result<(), NotLeader> {
        self.group.change_members(wanted)
    }

    /// Whether this replica leads, and all others hold all that it does.
    pub fn is_settled(&self) -> bool {
        let last = self.group.last_index();
        self.is_up()
            && !self.group.is_transferring()
            && self.group.committed() == last
            && self.group.members().all().into_iter().all(|broker| self.group.matched(broker) == Some(last))
    }

    /// The term and the index of the last entry, where this replica leads and all others hold everything.
    pub fn rests_at(&self) -> Option<(u64, u64)> {
        self.is_settled().then(|| (self.group.term(), self.group.last_index()))
    }

    /// Whether a follower knows everything up to where its leader lets the group rest.
    pub fn may_rest(&self, leader: BrokerId, term: u64, index: u64) -> bool {
        let group = &self.group;
        group.leader() == Some(leader)
            && group.term() == term
            && (group.last_index(), group.committed()) == (index, index)
            && self.install.is_none()
    }

    /// Hands the leadership to another replica that `may_lead`: see [`crate::consensus::Group::hand_over`].
    pub fn hand_over(&mut self, may_lead: impl Fn(BrokerId) -> bool) -> bool {
        self.group.hand_over(may_lead)
    }
}

/// Makes of an append several of a bounded size: raft-rs knows what the entries weigh, but not what lies beside them.
fn split(to: BrokerId, mut message: Message, mut beside: Vec<Chunk>, out: &mut Vec<(BrokerId, Message, Vec<Chunk>)>) {
    loop {
        let mut bytes = 0;
        let within = beside.iter().take_while(|chunk| {
            bytes += chunk.body.len();
            bytes <= APPEND_BYTES
        });
        let kept = within.count().max(1);
        if kept >= message.entries.len() {
            return out.push((to, message, beside));
        }
        let rest = Message { entries: message.entries.split_off(kept), ..message.clone() };
        let beside_rest = beside.split_off(kept);
        let last = message.entries.last().expect("at least one entry is kept");
        let (index, log_term) = (last.index, last.term);
        out.push((to, message, beside));
        (message, beside) = (Message { index, log_term, ..rest }, beside_rest);
    }
}

/// The batch of an entry, where it has one; `None` where what came is not what the entry says.
#[expect(clippy::option_option, reason = "damaged, or without a batch, or with one")]
fn check(entry: &Entry, chunk: Chunk) -> Option<Option<Batch>> {
    if !Descriptor::has_batch(&entry.data) {
        return chunk.body.is_empty().then_some(None);
    }
    let descriptor = Descriptor::read_from_bytes(&entry.data[..]).ok()?;
    debug_assert_eq!(entry.data.len(), DESCRIPTOR_LEN);
    let batch = Batch::parse_stored(&chunk.body).ok()?;
    batch.check_crc().ok()?;
    (Descriptor::of(&batch) == descriptor && batch.len() == chunk.body.len()).then_some(Some(batch))
}

#[cfg(test)]
pub(super) mod tests;
