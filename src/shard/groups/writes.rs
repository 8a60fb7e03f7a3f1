//! The way of groups' records into the log: those of a turn are gathered into one batch, so that a commit costs a record
//! and not a batch, an entry of Raft's and a frame of the WAL.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::{Hosted, Stage, outside};
use crate::group::{Error, Record, Reply, Then, Waiter, Write};
use crate::limits::{GROUP_BATCH_BYTES, GROUP_WRITES_IN_FLIGHT_BYTES};
use crate::partition::AppendError;
use crate::record::{Batch, Entry};
use crate::shard::Shard;
use crate::types::{LogId, Now, Offset};

/// Records of one group.
struct Part {
    group: Arc<str>,
    records: Vec<Record>,
    /// There with the last records of a write.
    then: Option<Then>,
}

type Answers = Vec<(Waiter, Result<Reply, Error>)>;

/// Records that are appended at the end of the turn, as one batch.
#[derive(Default)]
struct Gathered {
    entries: Vec<Entry>,
    bytes: usize,
    parts: Vec<Part>,
    /// Answers that wait for this batch and all before it.
    answers: Answers,
}

/// A batch on its way to the disk.
struct InFlight {
    /// The high watermark that makes it durable.
    next_offset: Offset,
    bytes: usize,
    parts: Vec<Part>,
    /// Answers that wait for this batch and all before it.
    answers: Answers,
}

/// The records of a partition's groups that are not durable yet.
#[derive(Default)]
pub(super) struct Writes {
    /// In the order of their offsets.
    in_flight: VecDeque<InFlight>,
    gathered: Gathered,
}

impl Writes {
    /// Bytes of the batches on their way.
    pub(super) fn in_flight_bytes(&self) -> usize {
        self.in_flight.iter().map(|write| write.bytes).sum()
    }

    /// All who wait for something to become durable.
    pub(super) fn into_waiters(self) -> impl Iterator<Item = Waiter> {
        let in_flight = self.in_flight.into_iter().map(|write| (write.parts, write.answers));
        in_flight.chain([(self.gathered.parts, self.gathered.answers)]).flat_map(|(parts, answers)| {
            let told = parts.into_iter().filter_map(|part| match part.then {
                Some(Then::Answer(waiter, _)) => Some(waiter),
                _ => None,
            });
            told.chain(answers.into_iter().map(|(waiter, _)| waiter))
        })
    }
}

impl Shard {
    /// Adds the records of a write to those of this turn. What is more than a batch goes into several.
    pub(super) fn gather_records(&mut self, now: Now, log: LogId, write: Write) {
        let Write { group, records, then } = write;
        let mut part = Part { group: group.clone(), records: Vec::new(), then: None };
        for record in records {
            let entry = record.encode();
            let len = entry_len(&entry);
            let Some(hosted) = self.groups.logs.get_mut(&log) else { return };
            let gathered = &mut hosted.writes.gathered;
            if !gathered.entries.is_empty() && gathered.bytes + len > GROUP_BATCH_BYTES {
                if !part.records.is_empty() {
                    let rest = Part { group: group.clone(), records: Vec::new(), then: None };
                    gathered.parts.push(std::mem::replace(&mut part, rest));
                }
                if let Err(error) = self.append_gathered(now, log) {
                    return self.write_failed(now, log, &group, then, error);
                }
            }
            let Some(hosted) = self.groups.logs.get_mut(&log) else { return };
            let gathered = &mut hosted.writes.gathered;
            if gathered.entries.is_empty() {
                self.groups.gathering.push(log);
            }
            gathered.entries.push(entry);
            gathered.bytes += len;
            part.records.push(record);
        }
        part.then = Some(then);
        if let Some(hosted) = self.groups.logs.get_mut(&log) {
            hosted.writes.gathered.parts.push(part);
        }
    }

    /// The turn is over: appends what was gathered in it.
    pub(in crate::shard) fn append_groups(&mut self, now: Now) {
        while let Some(log) = self.groups.gathering.pop() {
            // Where that fails those who wait have been told.
            let _ = self.append_gathered(now, log);
            self.carry_out(now, log);
        }
    }

    /// Appends what was gathered.
    ///
    /// # Errors
    /// Nothing of it was taken, and what follows on its writes was told so.
    fn append_gathered(&mut self, now: Now, log: LogId) -> Result<(), Error> {
        let Some(hosted) = self.groups.logs.get_mut(&log) else { return Ok(()) };
        if hosted.writes.gathered.entries.is_empty() {
            return Ok(());
        }
        let Gathered { entries, bytes, parts, answers } = std::mem::take(&mut hosted.writes.gathered);
        // What was decided in one epoch must not get into the log in a later one.
        let led = self.owned.get(&log).filter(|owned| owned.partition.is_up());
        let appended = match led.map(|owned| owned.partition.epoch()) == hosted.stage.epoch() {
            true => self.append_batch(now, log, &entries, bytes),
            false => Err(Error::NotCoordinator),
        };
        match appended {
            Ok(next_offset) => {
                self.batch_appended(log, InFlight { next_offset, bytes, parts, answers });
                Ok(())
            }
            Err(error) => {
                for Part { group, then, .. } in parts {
                    if let Some(then) = then {
                        self.write_failed(now, log, &group, then, error);
                    }
                }
                // What they wait for is what was before.
                for (waiter, result) in answers {
                    self.answer_behind(now, log, waiter, result);
                }
                Err(error)
            }
        }
    }

    /// Appends the records of a change in one batch, and has it made.
    pub(super) fn append_change(&mut self, now: Now, log: LogId, write: Write) {
        // What came before stays before; where it is refused, those who wait for it are told.
        let _ = self.append_gathered(now, log);
        let Write { group, records, then } = write;
        let entries: Vec<Entry> = records.iter().map(Record::encode).collect();
        let bytes = entries.iter().map(entry_len).sum();
        match self.append_batch(now, log, &entries, bytes) {
            Ok(next_offset) => {
                let part = Part { group: group.clone(), records: records.clone(), then: Some(then) };
                self.batch_appended(log, InFlight { next_offset, bytes, parts: vec![part], answers: Vec::new() });
                if let Some(Hosted { stage: Stage::Here { groups, .. }, .. }) = self.groups.logs.get_mut(&log) {
                    groups.appended(outside(now, &self.state), &group, &records);
                }
            }
            Err(error) => self.write_failed(now, log, &group, then, error),
        }
    }

    fn batch_appended(&mut self, log: LogId, write: InFlight) {
        self.groups.in_flight_bytes += write.bytes;
        self.groups.logs.get_mut(&log).expect("it was there").writes.in_flight.push_back(write);
    }

    fn write_failed(&mut self, now: Now, log: LogId, group: &Arc<str>, then: Then, error: Error) {
        if let Some(Hosted { stage: Stage::Here { groups, .. }, .. }) = self.groups.logs.get_mut(&log) {
            groups.failed(outside(now, &self.state), group, then, error);
        }
    }

    /// Answers when all that was written is durable.
    pub(super) fn answer_behind(&mut self, now: Now, log: LogId, waiter: Waiter, result: Result<Reply, Error>) {
        let Some(hosted) = self.groups.logs.get_mut(&log) else { return };
        let writes = &mut hosted.writes;
        if !writes.gathered.entries.is_empty() {
            return writes.gathered.answers.push((waiter, result));
        }
        match writes.in_flight.back_mut() {
            Some(write) => write.answers.push((waiter, result)),
            None => self.answer_waiter(now, waiter, result),
        }
    }

    /// The high watermark of a log has moved: what waited for records of groups goes on.
    pub(in crate::shard) fn settle_groups(&mut self, now: Now, log: LogId) {
        loop {
            let Some(owned) = self.owned.get(&log) else { return };
            let reached = owned.partition.high_watermark();
            let Some(hosted) = self.groups.logs.get_mut(&log) else { return };
            let in_flight = &mut hosted.writes.in_flight;
            if in_flight.front().is_none_or(|write| write.next_offset > reached) {
                return;
            }
            let write = in_flight.pop_front().expect("there is a front");
            self.groups.in_flight_bytes -= write.bytes;
            if let Stage::Here { groups, .. } = &mut hosted.stage {
                for Part { group, records, then } in write.parts {
                    groups.written(outside(now, &self.state), &group, records, then);
                }
            }
            for (waiter, result) in write.answers {
                self.answer_waiter(now, waiter, result);
            }
            self.carry_out(now, log);
        }
    }

    /// Appends one batch, whatever memory the records of producers take: groups have a share of their own.
    fn append_batch(&mut self, now: Now, log: LogId, entries: &[Entry], bytes: usize) -> Result<Offset, Error> {
        let full = self.storage.data.full || self.groups.in_flight_bytes + bytes > GROUP_WRITES_IN_FLIGHT_BYTES;
        if full || self.refusal().is_some() {
            return Err(Error::NotAvailable);
        }
        let owned = self.owned.get_mut(&log).ok_or(Error::NotCoordinator)?;
        let before = owned.partition.tail_cost();
        let batch = Batch::of_entries(entries, now.wall_ms);
        let appended = owned.partition.append(now, batch).map_err(|error| match error {
            AppendError::NotLeader => Error::NotCoordinator,
            AppendError::TooLarge => Error::TooLarge,
            AppendError::Fenced => Error::NotAvailable,
            AppendError::InvalidTimestamp
            | AppendError::OutOfOrderSequence { .. }
            | AppendError::StaleProducerEpoch
            | AppendError::NoKey
            | AppendError::NotAllowed => {
                tracing::error!(%log, ?error, "a record of a group was refused by its own log");
                Error::NotAvailable
            }
        })?;
        let grown = owned.partition.tail_cost() - before;
        self.storage.tail_grew(grown);
        self.touch(log);
        Ok(appended.next_offset)
    }
}

fn entry_len(entry: &Entry) -> usize {
    let len = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    len(&entry.key) + len(&entry.value) + 16
}
