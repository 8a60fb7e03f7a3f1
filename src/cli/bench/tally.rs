//! Counting what was read back: each record once, in order, whole.

use serde::Serialize;

use super::payload::Trailer;

/// Numbers from here up are not believed: no run is that long, and each number costs a bit of memory.
const MOST_RECORDS: u64 = 1 << 36;

/// Follows the records of one run as they are read back, partition by partition in any interleaving.
pub struct Tally {
    run: u32,
    partitions: u64,
    record: Option<usize>,
    seen: Vec<u64>,
    last: Vec<Option<u64>>,
    counts: Counts,
}

/// The outcome of a [`Tally`]; all numbers are records.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Counts {
    /// Handed to the client library.
    pub sent: u64,
    /// Reported as delivered by the broker.
    pub acknowledged: u64,
    /// Read back, doubled ones included.
    pub read: u64,
    /// Acknowledged and never read back.
    pub lost: u64,
    /// Read back more than once, each further time counted.
    pub doubled: u64,
    /// Read back after a later record of the same partition.
    pub out_of_order: u64,
    /// Of the wrong length or partition, or with a CRC that does not match.
    pub corrupt: u64,
    /// Of another run, or never sent.
    pub foreign: u64,
    /// Read back though the broker did not acknowledge it, which is allowed.
    pub unacknowledged_present: u64,
}

impl Counts {
    /// Whether every acknowledged record was there, once, in order and whole.
    pub fn right(&self) -> bool {
        let wrong = [self.lost, self.doubled, self.out_of_order, self.corrupt, self.foreign];
        wrong.iter().all(|&count| count == 0)
    }
}

impl Tally {
    /// Follows `run` over a topic of `partitions`, its values `record` bytes long where that is known.
    pub fn new(run: u32, partitions: usize, record: Option<usize>) -> Tally {
        Tally {
            run,
            partitions: partitions as u64,
            record,
            seen: Vec::new(),
            last: vec![None; partitions],
            counts: Counts::default(),
        }
    }

    /// Takes a value that was read from `partition`; returns what it says where it is whole and of this run.
    pub fn take(&mut self, partition: i32, value: &[u8]) -> Option<Trailer> {
        self.counts.read += 1;
        let Some(trailer) = Trailer::check(value).filter(|_| self.record.is_none_or(|len| len == value.len())) else {
            self.counts.corrupt += 1;
            return None;
        };
        if trailer.run != self.run || trailer.number >= MOST_RECORDS {
            self.counts.foreign += 1;
            return None;
        }
        let number = trailer.number;
        let home = number % self.partitions;
        if u64::try_from(partition) != Ok(home) {
            self.counts.corrupt += 1;
            return None;
        }
        if self.mark(number) {
            self.counts.doubled += 1;
        } else if self.last[home as usize].is_some_and(|last| last > number) {
            self.counts.out_of_order += 1;
        }
        let last = &mut self.last[home as usize];
        *last = (*last).max(Some(number));
        Some(trailer)
    }

    /// Compares with what was sent: the numbers below `sent`, all acknowledged except `failed`.
    pub fn finish(&self, sent: u64, failed: &[u64]) -> Counts {
        let mut counts = self.counts;
        counts.sent = sent;
        counts.acknowledged = sent - failed.len() as u64;
        let (mut below, mut beyond) = (0, 0);
        for (index, &word) in self.seen.iter().enumerate() {
            let sent_here = sent.saturating_sub(index as u64 * 64).min(64);
            let mask = if sent_here == 64 { u64::MAX } else { (1 << sent_here) - 1 };
            below += u64::from((word & mask).count_ones());
            beyond += u64::from((word & !mask).count_ones());
        }
        counts.foreign += beyond;
        counts.unacknowledged_present = failed.iter().filter(|&&number| self.has(number)).count() as u64;
        counts.lost = counts.acknowledged - (below - counts.unacknowledged_present);
        counts
    }

    /// Values read so far.
    pub fn read(&self) -> u64 {
        self.counts.read
    }

    fn has(&self, number: u64) -> bool {
        self.seen.get((number / 64) as usize).is_some_and(|word| word & (1 << (number % 64)) != 0)
    }

    /// Marks a number as seen; returns whether it was already.
    fn mark(&mut self, number: u64) -> bool {
        let (index, bit) = ((number / 64) as usize, 1 << (number % 64));
        if index >= self.seen.len() {
            self.seen.resize((index + 1).next_power_of_two(), 0);
        }
        let before = self.seen[index] & bit != 0;
        self.seen[index] |= bit;
        before
    }
}

#[cfg(test)]
mod tests {
    use super::super::payload::Payloads;
    use super::*;

    const RUN: u32 = 9;

    /// Reads `numbers` of a run over two partitions, as a broker would hand them out.
    fn tally(numbers: &[u64]) -> Tally {
        let mut payloads = Payloads::new(64, RUN);
        let mut tally = Tally::new(RUN, 2, Some(64));
        for &number in numbers {
            tally.take((number % 2) as i32, payloads.value(number, 0));
        }
        tally
    }

    #[test]
    fn a_whole_run_is_right() {
        let counts = tally(&[1, 3, 5, 0, 2, 4]).finish(6, &[]);
        assert!(counts.right(), "{counts:?}");
        assert_eq!((counts.sent, counts.acknowledged, counts.read), (6, 6, 6));
    }

    #[test]
    fn each_fault_is_named() {
        assert_eq!(tally(&[0, 1, 2]).finish(4, &[]).lost, 1);
        assert_eq!(tally(&[0, 1, 1, 2]).finish(3, &[]).doubled, 1);
        assert_eq!(tally(&[0, 1, 4, 2]).finish(5, &[3]).out_of_order, 1);
        assert_eq!(tally(&[0, 1, 64]).finish(2, &[]).foreign, 1);

        let mut damaged = tally(&[0]);
        let mut value = Payloads::new(64, RUN).value(1, 0).to_vec();
        damaged.take(0, &value);
        assert_eq!(damaged.finish(1, &[]).corrupt, 1, "a record on another partition");
        value[0] ^= 1;
        damaged.take(1, &value);
        assert_eq!(damaged.finish(1, &[]).corrupt, 2, "a bit that flipped");
        damaged.take(1, Payloads::new(65, RUN).value(1, 0));
        assert_eq!(damaged.finish(1, &[]).corrupt, 3, "a wrong length");
        damaged.take(1, Payloads::new(64, RUN + 1).value(1, 0));
        assert_eq!(damaged.finish(1, &[]).foreign, 1, "another run");
    }

    #[test]
    fn a_record_that_was_not_acknowledged_may_be_there_or_not() {
        let counts = tally(&[0, 1, 2]).finish(4, &[2, 3]);
        assert!(counts.right(), "{counts:?}");
        assert_eq!((counts.acknowledged, counts.unacknowledged_present), (2, 1));
    }
}
