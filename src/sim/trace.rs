//! What happened, in order, as one number: two runs of a seed are the same when their numbers are.

use std::hash::Hasher;

use rustc_hash::FxHasher;

/// The hash of a run so far, and its lines where they are wanted.
pub(super) struct Trace {
    hash: u64,
    step: u64,
    print: bool,
}

impl Trace {
    /// A new run. With `print` every step is written to stderr.
    pub(super) fn new(print: bool) -> Trace {
        Trace { hash: 0, step: 0, print }
    }

    /// Notes that something happened at `now`: what, to whom, and a number for its content.
    pub(super) fn note(&mut self, now: u64, what: &'static str, whom: u64, content: u64) {
        self.step += 1;
        let mut hasher = FxHasher::default();
        hasher.write_u64(self.hash);
        hasher.write_u64(now);
        hasher.write(what.as_bytes());
        hasher.write_u64(whom);
        hasher.write_u64(content);
        self.hash = hasher.finish();
    }

    /// Writes a line about the step that was noted last, where lines are wanted.
    pub(super) fn line(&self, now: u64, text: impl FnOnce() -> String) {
        if self.print {
            eprintln!("{:>9} {:>10.3} ms  {}", self.step, now as f64 / 1e3, text());
        }
    }

    /// The hash of all that was noted.
    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    /// How much was noted.
    pub(super) fn step(&self) -> u64 {
        self.step
    }
}

/// A number for some bytes.
pub(super) fn digest(bytes: &[u8]) -> u64 {
    u64::from(crc32fast::hash(bytes)) << 32 | bytes.len() as u64 & 0xFFFF_FFFF
}
