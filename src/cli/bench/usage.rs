//! What a run cost: the broker's CPU, memory and writes, the device's flushes, and who else was busy.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;

/// Gathers readings of `/proc` at both ends of a run.
pub struct Meter {
    broker: Option<u32>,
    /// The device's `stat` file under `/sys`.
    device: Option<PathBuf>,
    ticks_per_s: f64,
    others_limit: f64,
}

/// All counters at one moment.
#[derive(Clone)]
pub struct Reading {
    at: Instant,
    machine_busy: u64,
    machine_all: u64,
    client: u64,
    broker: Option<Process>,
    flushes: Option<u64>,
}

#[derive(Clone)]
struct Process {
    ticks: u64,
    resident_peak: u64,
    resident: u64,
    written: u64,
}

/// What happened between two readings.
#[derive(Clone, Debug, Serialize)]
pub struct Usage {
    /// Length of the run.
    pub seconds: f64,
    /// CPU of this process, user and system, all threads.
    pub client_cpu_s: f64,
    /// The broker, where its process was named.
    pub broker: Option<BrokerUsage>,
    /// Flushes that the device completed, where the device was named.
    pub device_flushes: Option<u64>,
    /// Share of the machine's CPU that went to neither client nor broker; needs the broker's process.
    pub others_share: Option<f64>,
    /// Whether that was so much that the run says nothing.
    pub disturbed: bool,
}

/// What the broker's process used between two readings.
#[derive(Clone, Debug, Serialize)]
pub struct BrokerUsage {
    /// CPU, user and system, all threads.
    pub cpu_s: f64,
    /// Highest resident memory of the process since it started.
    pub rss_peak_mb: f64,
    /// Resident memory at the end.
    pub rss_mb: f64,
    /// Bytes sent to the device, or dirtied in the page cache.
    pub written_bytes: u64,
}

impl Meter {
    /// A meter of the process `broker` and of the device that holds `disk`; a run is disturbed when more than
    /// `others_limit` of the machine's CPU goes elsewhere.
    pub fn new(broker: Option<u32>, disk: Option<&Path>, others_limit: f64) -> Result<Meter> {
        // SAFETY: sysconf reads a constant of the system and touches no memory of ours.
        let ticks_per_s = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
        if ticks_per_s <= 0 {
            bail!("the system does not say how long a clock tick is");
        }
        let device = disk.map(device_stat).transpose()?;
        Ok(Meter { broker, device, ticks_per_s: ticks_per_s as f64, others_limit })
    }

    /// The counters now.
    pub fn read(&self) -> Result<Reading> {
        let (machine_busy, machine_all) = machine(&read("/proc/stat")?).context("/proc/stat is not as expected")?;
        let client = cpu_ticks(&read("/proc/self/stat")?).context("/proc/self/stat is not as expected")?;
        let broker = self.broker.map(process).transpose()?;
        let flushes = match &self.device {
            None => None,
            Some(path) => Some(flushes(&read(path)?).with_context(|| format!("{} counts no flushes", path.display()))?),
        };
        Ok(Reading { at: Instant::now(), machine_busy, machine_all, client, broker, flushes })
    }

    /// What happened since `start`.
    pub fn since(&self, start: &Reading) -> Result<Usage> {
        Ok(self.between(start, &self.read()?))
    }

    /// What happened from `start` to `end`.
    pub fn between(&self, start: &Reading, end: &Reading) -> Usage {
        let client = end.client - start.client;
        let broker = start.broker.as_ref().zip(end.broker.as_ref());
        let others_share = broker.map(|(from, to)| {
            let busy = end.machine_busy.saturating_sub(start.machine_busy) as f64;
            let all = end.machine_all.saturating_sub(start.machine_all).max(1) as f64;
            let ours = (client + to.ticks.saturating_sub(from.ticks)) as f64;
            ((busy - ours) / all).max(0.0)
        });
        Usage {
            seconds: (end.at - start.at).as_secs_f64(),
            client_cpu_s: client as f64 / self.ticks_per_s,
            broker: broker.map(|(from, to)| BrokerUsage {
                cpu_s: to.ticks.saturating_sub(from.ticks) as f64 / self.ticks_per_s,
                rss_peak_mb: to.resident_peak as f64 / 1e6,
                rss_mb: to.resident as f64 / 1e6,
                written_bytes: to.written.saturating_sub(from.written),
            }),
            device_flushes: start.flushes.zip(end.flushes).map(|(from, to)| to.saturating_sub(from)),
            others_share,
            disturbed: others_share.is_some_and(|share| share > self.others_limit),
        }
    }

    /// Waits until the broker has written nothing for a moment, but no longer than `most`: what it moves in the
    /// background belongs to the run that caused it.
    pub fn settle(&self, most: Duration) -> Result<()> {
        let Some(pid) = self.broker else { return Ok(()) };
        let until = Instant::now() + most;
        let mut written = process(pid)?.written;
        while Instant::now() < until {
            std::thread::sleep(Duration::from_millis(250));
            let now = process(pid)?.written;
            if now - written < 64 * 1024 {
                break;
            }
            written = now;
        }
        Ok(())
    }
}

fn read(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn process(pid: u32) -> Result<Process> {
    let dir = PathBuf::from(format!("/proc/{pid}"));
    let status = read(dir.join("status"))?;
    let parsed = || {
        Some(Process {
            ticks: cpu_ticks(&fs::read_to_string(dir.join("stat")).ok()?)?,
            resident_peak: field(&status, "VmHWM:")? * 1024,
            resident: field(&status, "VmRSS:")? * 1024,
            written: field(&fs::read_to_string(dir.join("io")).ok()?, "write_bytes:")?,
        })
    };
    parsed().with_context(|| format!("cannot read what process {pid} used (is it running, and ours?)"))
}

/// The first number after `name` at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// utime + stime of a `/proc/PID/stat`, in ticks; the command's name before them may hold anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// Busy and all ticks of `/proc/stat`. Time stolen by the hypervisor counts as busy with something else.
fn machine(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line.split_whitespace().take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
    let idle = ticks.get(3)? + ticks.get(4)?;
    let all = ticks.iter().sum();
    Some((all - idle, all))
}

/// Completed flushes in a block device's `stat` file.
fn flushes(stat: &str) -> Option<u64> {
    stat.split_whitespace().nth(15)?.parse().ok()
}

/// The `stat` file of the whole disk that holds `path`: partitions count no flushes.
fn device_stat(path: &Path) -> Result<PathBuf> {
    let device = fs::metadata(path).with_context(|| format!("cannot look at {}", path.display()))?.dev();
    let link = format!("/sys/dev/block/{}:{}", libc::major(device), libc::minor(device));
    let mut dir = fs::canonicalize(&link)
        .with_context(|| format!("{} lies on no block device that {link} names", path.display()))?;
    if dir.join("partition").exists() {
        dir.pop();
    }
    Ok(dir.join("stat"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_the_kernel_prints() {
        let stat = "77 (a b) c) S 1 77 77 0 -1 4194560 2000 0 3 0 150 50 0 0 20 0 9 0 100 1 1";
        assert_eq!(cpu_ticks(stat), Some(200));
        assert_eq!(machine("cpu  100 1 50 1000 200 0 10 5 0 0\ncpu0 1 1 1 1"), Some((166, 1366)));
        assert_eq!(field("Name:\tx\nVmHWM:\t  1234 kB\n", "VmHWM:"), Some(1234));
        assert_eq!(flushes("1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 4242 17"), Some(4242));
        assert_eq!(flushes("1 2 3 4 5 6 7 8 9 10 11"), None, "a kernel before 5.5");
        assert_eq!(cpu_ticks("garbage"), None);
        assert_eq!(machine("intr 5"), None);
    }

    #[test]
    fn measures_this_very_process() {
        let meter = Meter::new(Some(std::process::id()), None, 0.3).unwrap();
        let start = meter.read().unwrap();
        let until = Instant::now() + Duration::from_millis(100);
        let mut work = 0_u64;
        while Instant::now() < until {
            work = std::hint::black_box(work + 1);
        }
        let usage = meter.since(&start).unwrap();
        assert!(usage.client_cpu_s > 0.0, "{usage:?}");
        assert!(usage.broker.unwrap().rss_peak_mb > 1.0);
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        assert!(Meter::new(Some(u32::MAX), None, 0.3).unwrap().read().is_err());
    }
}
