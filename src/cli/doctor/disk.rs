//! How long the disk takes for the writes that the WAL makes.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::report::Check;
use crate::io::probe::{self, ProbeError};
use crate::limits::BLOCK;

/// Most writes that one measurement keeps.
const MOST_WRITES: usize = 200_000;

/// The writes of two sizes: the smallest that the WAL makes, and a large one.
#[derive(Debug, Serialize)]
pub struct Measured {
    small: Writes,
    large: Writes,
}

/// Direct writes over blocks that were written before, one after the other, each flushed.
#[derive(Debug, Serialize)]
pub struct Writes {
    bytes: usize,
    count: u64,
    p50_us: f64,
    p90_us: f64,
    p99_us: f64,
    p999_us: f64,
    max_us: f64,
    bytes_per_second: u64,
    histogram: Vec<Bucket>,
}

/// The writes that took less than a time and no less than half of it.
#[derive(Debug, PartialEq, Serialize)]
struct Bucket {
    below_us: u64,
    count: u64,
}

/// Measures the disk of `dir`, which must exist and take direct I/O, with 4 KiB writes for the time `small` and 1 MiB
/// writes for the time `large`.
///
/// # Errors
/// A write that fails.
pub fn measure(dir: &Path, small: Duration, large: Duration) -> Result<Measured, ProbeError> {
    let writes =
        |bytes, most| probe::write_latencies(dir, bytes, MOST_WRITES, most).map(|times| Writes::of(bytes, &times));
    Ok(Measured { small: writes(BLOCK, small)?, large: writes(1 << 20, large)? })
}

impl Writes {
    fn of(bytes: usize, times: &[Duration]) -> Writes {
        let mut histogram = Histogram::<u64>::new(3).expect("three digits are within what the histogram can do");
        let mut buckets: Vec<Bucket> = Vec::new();
        for time in times {
            let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
            histogram.record(nanos).expect("a histogram that resizes takes any value");
            // The least power of two that is greater, in microseconds.
            let power = (nanos / 1_000).checked_ilog2().map_or(0, |log| log as usize + 1);
            while buckets.len() <= power {
                buckets.push(Bucket { below_us: 1 << buckets.len(), count: 0 });
            }
            buckets[power].count += 1;
        }
        let empty = buckets.iter().take_while(|bucket| bucket.count == 0).count();
        buckets.drain(..empty);
        let micros = |quantile| histogram.value_at_quantile(quantile) as f64 / 1_000.0;
        let total: Duration = times.iter().sum();
        Writes {
            bytes,
            count: times.len() as u64,
            p50_us: micros(0.5),
            p90_us: micros(0.9),
            p99_us: micros(0.99),
            p999_us: micros(0.999),
            max_us: histogram.max() as f64 / 1_000.0,
            bytes_per_second: ((bytes * times.len()) as f64 / total.as_secs_f64().max(1e-9)) as u64,
            histogram: buckets,
        }
    }
}

impl Measured {
    /// What the figures mean for a broker.
    pub fn advice(&self) -> Vec<Check> {
        let mut checks = Vec::new();
        if self.small.count == 0 {
            return vec![Check::warn("flush", "not measured", "the disk has no room for the file that this takes")];
        }
        let middle = self.small.p50_us;
        let value = format!("{} in the middle", Micros(middle));
        checks.push(if middle > 2_000.0 {
            Check::warn(
                "flush",
                value,
                "every acknowledged produce waits at least as long: a disk with power-loss protection answers in less \
                 than 0.1 ms, a common solid-state disk in 0.1 to 1 ms",
            )
        } else if middle < 5.0 {
            Check::warn(
                "flush",
                value,
                "faster than any disk: what is below probably ignores flushes, and loses records when power fails",
            )
        } else {
            Check::ok("flush", value)
        });
        if self.small.max_us > 150_000.0 {
            checks.push(Check::warn(
                "pauses",
                Micros(self.small.max_us),
                "a disk that pauses for more than 150 ms makes a replicated broker hand its leaderships on, and \
                 produces wait as long: look for other users of the device or for a limit on its rate",
            ));
        }
        checks
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Direct writes, one after the other, each flushed:")?;
        writeln!(f, "  size       p50      p90      p99    p99.9      max    writes      MB/s")?;
        for writes in [&self.small, &self.large] {
            let times = [writes.p50_us, writes.p90_us, writes.p99_us, writes.p999_us, writes.max_us];
            write!(f, "  {:>5}", if writes.bytes == BLOCK { "4 KiB" } else { "1 MiB" })?;
            for micros in times {
                write!(f, " {:>8}", Micros(micros).to_string())?;
            }
            writeln!(f, " {:>9} {:>9.1}", writes.count, writes.bytes_per_second as f64 / 1e6)?;
        }
        writeln!(f, "4 KiB writes by the time they took:")?;
        let most = self.small.histogram.iter().map(|bucket| bucket.count).max().unwrap_or(1).max(1);
        for bucket in &self.small.histogram {
            let share = bucket.count as f64 * 100.0 / self.small.count.max(1) as f64;
            let bar = "#".repeat((bucket.count * 50).div_ceil(most) as usize);
            let below = Micros(bucket.below_us as f64).to_string();
            writeln!(f, "  < {below:>8} {share:>7.2} % {bar}")?;
        }
        Ok(())
    }
}

/// Shows a time given in microseconds with the unit that suits it.
struct Micros(f64);

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            micros if micros < 1_000.0 => write!(f, "{micros:.0} µs"),
            micros if micros < 1_000_000.0 => write!(f, "{:.1} ms", micros / 1e3),
            micros => write!(f, "{:.1} s", micros / 1e6),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_and_buckets_count_every_write() {
        let times: Vec<Duration> = (1..=1_000).map(Duration::from_micros).collect();
        let writes = Writes::of(4096, &times);
        assert_eq!(writes.count, 1_000);
        assert!((writes.p50_us - 500.0).abs() < 1.0, "{writes:?}");
        assert!((writes.p99_us - 990.0).abs() < 2.0, "{writes:?}");
        assert!((writes.max_us - 1_000.0).abs() < 1.0, "{writes:?}");
        assert_eq!(writes.histogram[0], Bucket { below_us: 2, count: 1 });
        assert_eq!(writes.histogram.last(), Some(&Bucket { below_us: 1_024, count: 489 }));
        assert_eq!(writes.histogram.iter().map(|bucket| bucket.count).sum::<u64>(), 1_000);
        assert_eq!(writes.bytes_per_second / 1_000, 4_096 * 1_000_000 / 500_500);
    }

    #[test]
    fn times_are_shown_in_the_unit_that_suits_them() {
        assert_eq!(Micros(96.4).to_string(), "96 µs");
        assert_eq!(Micros(1_250.0).to_string(), "1.2 ms");
        assert_eq!(Micros(3_000_000.0).to_string(), "3.0 s");
    }

    #[test]
    fn slow_and_impossible_disks_are_named() {
        let with = |micros: u64| {
            let writes = |bytes| Writes::of(bytes, &[Duration::from_nanos(micros * 1_000)]);
            Measured { small: writes(4096), large: writes(1 << 20) }.advice().len()
        };
        assert_eq!(with(100), 1);
        assert_eq!(with(200_000), 2);
    }

    #[test]
    fn a_disk_is_measured() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let brief = Duration::from_millis(10);
        let measured = measure(dir.path(), brief, brief).unwrap();
        assert!(measured.small.count > 0 && measured.large.count > 0);
        assert!(measured.to_string().contains("4 KiB"));
    }
}
