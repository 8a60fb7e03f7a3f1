//! The records that a measurement sends: incompressible, numbered, dated and summed.
//!
//! A value is random bytes followed by a trailer of [`TRAILER`] bytes: the record's number in its run, the time at
//! which it was meant to be sent, the run, and a CRC-32 of all that. Records are dealt to the partitions in turn, so
//! that the number alone says to which partition a record belongs and what must follow it there.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// Bytes of a value that are not random.
pub const TRAILER: usize = 24;

/// The smallest record that carries anything but its trailer.
pub const MIN_RECORD: usize = 32;

/// Random bytes kept ready, more than any batch holds, so that no batch has a repetition which a codec would find.
const ARENA: usize = 4 * 1024 * 1024;

static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Nanoseconds since a moment that this process chose: the clock of [`Trailer::intended_ns`].
pub fn now_ns() -> u64 {
    EPOCH.elapsed().as_nanos() as u64
}

/// Sleeps until [`now_ns`] shows `at`; returns at once when that is past.
pub fn sleep_until_ns(at: u64) {
    let now = now_ns();
    if at > now {
        std::thread::sleep(Duration::from_nanos(at - now));
    }
}

/// What a record says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trailer {
    /// The record's number in its run, from 0.
    pub number: u64,
    /// When it was meant to be sent, on the clock of [`now_ns`] in the sending process.
    pub intended_ns: u64,
    /// The run that sent it.
    pub run: u32,
}

impl Trailer {
    /// Reads the trailer of `value`; `None` where the CRC does not match or the value is too short.
    pub fn check(value: &[u8]) -> Option<Trailer> {
        let (summed, crc) = value.split_last_chunk::<4>()?;
        if crc32fast::hash(summed) != u32::from_le_bytes(*crc) {
            return None;
        }
        Trailer::peek(value)
    }

    /// Reads the trailer of a value that this process holds itself, without looking at its CRC.
    pub fn peek(value: &[u8]) -> Option<Trailer> {
        let trailer = value.last_chunk::<TRAILER>()?;
        let (number, rest) = trailer.split_first_chunk::<8>()?;
        let (intended, rest) = rest.split_first_chunk::<8>()?;
        let (run, _) = rest.split_first_chunk::<4>()?;
        Some(Trailer {
            number: u64::from_le_bytes(*number),
            intended_ns: u64::from_le_bytes(*intended),
            run: u32::from_le_bytes(*run),
        })
    }
}

/// Makes values without allocating: a slot of random bytes whose CRC is known gets a new trailer each time.
pub struct Payloads {
    arena: Vec<u8>,
    partial: Vec<crc32fast::Hasher>,
    record: usize,
    next: usize,
    run: u32,
}

impl Payloads {
    /// Values of `record` bytes for `run`; the run seeds the random bytes.
    pub fn new(record: usize, run: u32) -> Payloads {
        assert!(record >= MIN_RECORD, "a record of {record} bytes has no room for its trailer");
        let slots = (ARENA / record).max(1);
        let mut arena = vec![0; slots * record];
        fill_random(&mut arena, u64::from(run));
        let partial = arena
            .chunks_exact(record)
            .map(|slot| {
                let mut crc = crc32fast::Hasher::new();
                crc.update(&slot[..record - TRAILER]);
                crc
            })
            .collect();
        Payloads { arena, partial, record, next: 0, run }
    }

    /// The value of record `number`; valid until the next call.
    pub fn value(&mut self, number: u64, intended_ns: u64) -> &[u8] {
        let slot = self.next;
        self.next = if slot + 1 == self.partial.len() { 0 } else { slot + 1 };
        let value = &mut self.arena[slot * self.record..][..self.record];
        let trailer = &mut value[self.record - TRAILER..];
        trailer[..8].copy_from_slice(&number.to_le_bytes());
        trailer[8..16].copy_from_slice(&intended_ns.to_le_bytes());
        trailer[16..20].copy_from_slice(&self.run.to_le_bytes());
        let mut crc = self.partial[slot].clone();
        crc.update(&trailer[..20]);
        trailer[20..].copy_from_slice(&crc.finalize().to_le_bytes());
        value
    }
}

/// SplitMix64: statistically random bytes, which is all that incompressible asks for.
fn fill_random(bytes: &mut [u8], seed: u64) {
    let mut state = seed;
    for chunk in bytes.chunks_mut(8) {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        chunk.copy_from_slice(&z.to_le_bytes()[..chunk.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_say_what_was_put_in_and_notice_damage() {
        let mut payloads = Payloads::new(100, 7);
        for number in 0..100_000 {
            let mut value = payloads.value(number, number * 3).to_vec();
            let trailer = Trailer { number, intended_ns: number * 3, run: 7 };
            assert_eq!(Trailer::check(&value), Some(trailer));
            assert_eq!(Trailer::peek(&value), Some(trailer));
            let bit = number as usize % 800;
            value[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Trailer::check(&value), None, "bit {bit}");
        }
        assert_eq!(Trailer::check(b"short"), None);
    }

    #[test]
    fn slots_differ() {
        let mut payloads = Payloads::new(MIN_RECORD, 1);
        let first = payloads.value(0, 0)[..8].to_vec();
        assert_ne!(first, payloads.value(0, 0)[..8]);
    }
}
