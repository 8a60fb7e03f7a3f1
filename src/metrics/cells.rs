//! The cells that are counted in: one writer each, any number of readers.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it. Only the owner may: two at once would lose counts.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// What it shows.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that is what it was set to last.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Sets it.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// What it shows.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The upper bounds of a histogram's buckets, in microseconds. What is longer than the last has a bucket of its own.
pub const BOUNDS_MICROS: [u64; 20] = [
    50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 150_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000, 30_000_000, 60_000_000,
];

/// Times by their length.
#[derive(Debug, Default)]
pub struct Histogram {
    counts: [Counter; BOUNDS_MICROS.len() + 1],
    sum_micros: Counter,
}

impl Histogram {
    /// Adds a time of so many microseconds.
    pub fn observe(&self, micros: u64) {
        self.counts[BOUNDS_MICROS.partition_point(|bound| *bound < micros)].add(1);
        self.sum_micros.add(micros);
    }

    /// How many times each bucket has, shorter ones not included; the last is for those above every bound.
    pub fn counts(&self) -> [u64; BOUNDS_MICROS.len() + 1] {
        std::array::from_fn(|at| self.counts[at].get())
    }

    /// All times together, in microseconds.
    pub fn sum_micros(&self) -> u64 {
        self.sum_micros.get()
    }
}

const _: () = {
    let mut at = 1;
    while at < BOUNDS_MICROS.len() {
        assert!(BOUNDS_MICROS[at - 1] < BOUNDS_MICROS[at], "bounds rise");
        at += 1;
    }
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_counted_once_in_the_first_bucket_that_holds_it() {
        let histogram = Histogram::default();
        for micros in [0, 50, 51, 60_000_000, 60_000_001] {
            histogram.observe(micros);
        }
        let counts = histogram.counts();
        assert_eq!((counts[0], counts[1]), (2, 1));
        assert_eq!((counts[BOUNDS_MICROS.len() - 1], counts[BOUNDS_MICROS.len()]), (1, 1));
        assert_eq!(counts.iter().sum::<u64>(), 5);
        assert_eq!(histogram.sum_micros(), 120_000_102);
    }

    /// What the hot path pays; run it with `--release -- --ignored --nocapture`.
    #[test]
    #[ignore = "a measurement"]
    fn cost() {
        let histogram = Histogram::default();
        let started = std::time::Instant::now();
        const TIMES: u64 = 100_000_000;
        for n in 0..TIMES {
            histogram.observe(std::hint::black_box(n & 0x3fff));
        }
        println!("{:.2} ns for an observation", started.elapsed().as_nanos() as f64 / TIMES as f64);
        assert_eq!(histogram.counts().iter().sum::<u64>(), TIMES);
    }
}
