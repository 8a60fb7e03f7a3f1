//! `ringlog doctor`: can the broker run on this machine, how fast is its disk, what would help.
//!
//! Whether it can run is asked of [`crate::io::probe`], as at the broker's own start.

mod device;
mod disk;
mod report;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};

use super::machine::{self, read_trimmed};
use super::progress::Progress;
use crate::config::keys::{MIN_MEMORY_BYTES, show_size};
use crate::io::probe;
use report::{Check, Report};

/// The arguments of `ringlog doctor`.
#[derive(Debug, Args)]
#[command(after_help = "It writes to a scratch directory inside of DIR for some 3 seconds and removes it again. \
    Where DIR does not exist yet, it looks at the nearest directory above.\n\
    The exit code is 0 where the broker can run, with or without warnings, and 1 where it cannot.")]
pub struct DoctorArgs {
    /// Directory that the broker will keep its data in
    #[arg(long, value_name = "DIR", env = "RINGLOG_DATA_DIR", default_value = "./data")]
    data_dir: PathBuf,
    /// Form of the answer
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// For people
    Table,
    /// One JSON object, for programs
    Json,
}

/// Checks this machine and prints what it found. The exit code says whether the broker can run.
///
/// # Errors
/// Output that cannot be written.
pub fn run(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let report = examine(&args.data_dir);
    match args.format {
        Format::Table => print!("{report}"),
        Format::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(if report.can_run { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn examine(data_dir: &Path) -> Report {
    let mut checks = vec![
        kernel(&probe::kernel_release()),
        match probe::io_uring() {
            Ok(()) => Check::ok("io_uring", "available"),
            Err(error) => Check::fail("io_uring", "not available", error),
        },
        memlock(probe::memlock_limit()),
        open_files(probe::open_files_limit()),
        cores(),
        load(&read_trimmed("/proc/loadavg").unwrap_or_default(), machine::cores()),
        memory(machine::physical_memory(), machine::cgroup_memory_limit()),
        clock(),
        huge_pages(),
    ];
    checks.extend(governor());
    let disk = data_directory(data_dir, &mut checks);
    Report::new(checks, disk)
}

fn kernel(release: &str) -> Check {
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < (6, 1) {
        return Check::warn(
            "kernel",
            release,
            "the broker is tested and measured on Linux 6.1 and newer; io_uring was changed a lot before",
        );
    }
    Check::ok("kernel", release)
}

fn memlock(limit: u64) -> Check {
    let value = if limit == u64::MAX { "unlimited".into() } else { show_size(limit) };
    match probe::memlock() {
        Ok(()) => Check::ok("memlock", value),
        Err(error) => Check::fail("memlock", value, error),
    }
}

fn open_files(limit: u64) -> Check {
    if let Err(error) = probe::open_files() {
        return Check::fail("open files", limit, error);
    }
    // A connection and a segment of a partition take one each.
    if limit < 65_536 {
        return Check::warn(
            "open files",
            limit,
            "each connection and each open segment takes one: `ulimit -n 65536`, or LimitNOFILE=65536 in the systemd \
             unit",
        );
    }
    Check::ok("open files", limit)
}

fn cores() -> Check {
    let usable = machine::cores();
    let online = read_trimmed("/sys/devices/system/cpu/online").unwrap_or_else(|| "unknown".into());
    let value = format!("{usable} usable (online: {online})");
    if usable == 1 {
        return Check::warn("cores", value, "one shard: clients and the disk's executor share its only core");
    }
    Check::ok("cores", value)
}

/// The tasks that ran or waited over the last minute, by the text of `/proc/loadavg`.
fn load(averages: &str, cores: u16) -> Check {
    let Some(load) = averages.split(' ').next().and_then(|word| word.parse::<f64>().ok()) else {
        return Check::ok("load", "unknown");
    };
    if load > f64::from(cores) {
        return Check::warn(
            "load",
            load,
            "more tasks than cores: what is measured below includes waiting for a core; look again when it is quiet",
        );
    }
    Check::ok("load", load)
}

fn memory(physical: Option<u64>, limit: Option<u64>) -> Check {
    let show = |bytes: Option<u64>, otherwise: &str| bytes.map_or(otherwise.into(), mebibytes);
    let value = format!("{} (cgroup limit: {})", show(physical, "unknown"), show(limit, "none"));
    let usable = machine::detect().memory_bytes;
    if usable / 2 < MIN_MEMORY_BYTES {
        let advice = format!(
            "the broker takes half and needs {} at least: give it more, or set --memory",
            show_size(MIN_MEMORY_BYTES)
        );
        return Check::fail("memory", value, advice);
    }
    Check::ok("memory", value)
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

/// The clock source, and what reading the time costs with it.
fn clock() -> Check {
    const READINGS: u32 = 100_000;
    let source = read_trimmed("/sys/devices/system/clocksource/clocksource0/current_clocksource")
        .unwrap_or_else(|| "unknown".into());
    let start = Instant::now();
    let mut last = start;
    for _ in 0..READINGS {
        last = std::hint::black_box(Instant::now());
    }
    let nanos = (last - start).as_nanos() / u128::from(READINGS);
    let value = format!("{source}, {nanos} ns a reading");
    if nanos > 300 {
        return Check::warn(
            "clock",
            value,
            "reading the time enters the kernel, several times a request: where the hardware allows it, boot with \
             `clocksource=tsc tsc=reliable`",
        );
    }
    Check::ok("clock", value)
}

fn huge_pages() -> Check {
    let text = read_trimmed("/sys/kernel/mm/transparent_hugepage/enabled");
    // The kernel puts the choice in brackets: `always [madvise] never`.
    let chosen = text.as_deref().and_then(|text| text.split_once('[')?.1.split_once(']'));
    let chosen = chosen.map_or("unknown", |(word, _)| word);
    if chosen == "always" {
        return Check::warn(
            "huge pages",
            chosen,
            "resident memory may exceed what is in use by up to 2 MiB for each buffer: \
             `echo madvise > /sys/kernel/mm/transparent_hugepage/enabled`",
        );
    }
    Check::ok("huge pages", chosen)
}

/// The rule by which the cores change their clock; virtual machines have none.
fn governor() -> Option<Check> {
    let governor = read_trimmed("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")?;
    Some(if governor == "powersave" || governor == "conservative" {
        Check::warn(
            "frequency",
            governor,
            "the cores slow down between bursts of requests, which lengthens the slowest answers: `cpupower frequency-set -g performance`",
        )
    } else {
        Check::ok("frequency", governor)
    })
}

/// Checks the data directory and, where it takes direct I/O, measures its disk.
fn data_directory(data_dir: &Path, checks: &mut Vec<Check>) -> Option<disk::Measured> {
    const NAME: &str = "data dir";
    let shown = data_dir.display();
    let Some(dir) = nearest_directory(data_dir) else {
        checks.push(Check::fail(NAME, shown, "neither it nor anything above it is a directory that can be read"));
        return None;
    };
    let file_system = match probe::file_system(&dir) {
        Ok(name) => name,
        Err(error) => {
            checks.push(Check::fail(NAME, shown, format!("statfs: {error}")));
            return None;
        }
    };
    let value = if dir == data_dir {
        format!("{shown} on {file_system}")
    } else {
        format!("{shown}, not there yet; {} on {file_system}", dir.display())
    };
    // A directory of its own keeps the scratch files apart from those of a broker that runs or starts here.
    let scratch = match Scratch::create(&dir) {
        Ok(scratch) => scratch,
        Err(error) => {
            checks.push(Check::fail(NAME, value, format!("cannot write to {}: {error}", dir.display())));
            return None;
        }
    };
    match probe::check_data_dir(&scratch.0) {
        Err(error) => {
            checks.push(Check::fail(NAME, value, error));
            return None;
        }
        Ok(warnings) if warnings.is_empty() => checks.push(Check::ok(NAME, value)),
        Ok(warnings) => {
            let texts: Vec<String> = warnings.into_iter().map(|warning| warning.0).collect();
            checks.push(Check::warn(NAME, value, texts.join("; ")));
        }
    }
    checks.extend(device::checks(&dir));
    checks.extend(device::broker_at(data_dir).map(|process| {
        Check::warn("in use", format!("by process {process}"), "a broker runs here: what is measured includes its load")
    }));
    let (small, large) = (Duration::from_secs(2), Duration::from_secs(1));
    let progress = Progress::time(small + large);
    let measured = disk::measure(&scratch.0, small, large);
    progress.finish();
    match measured {
        Ok(measured) => {
            checks.extend(measured.advice());
            Some(measured)
        }
        Err(error) => {
            checks.push(Check::fail("disk", "cannot be measured", error));
            None
        }
    }
}

/// `path`, or the nearest directory above it that exists.
fn nearest_directory(path: &Path) -> Option<PathBuf> {
    let absolute = std::path::absolute(path).ok()?;
    if fs::metadata(&absolute).is_ok() {
        return absolute.is_dir().then(|| path.into());
    }
    absolute.ancestors().skip(1).find(|above| above.is_dir()).map(Path::to_path_buf)
}

/// A directory that is removed, with what is in it, when this is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn create(dir: &Path) -> std::io::Result<Scratch> {
        let path = dir.join(format!(".doctor-{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("ringlog: cannot remove {}: {error}", self.0.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use report::Status;

    #[test]
    fn old_kernels_are_warned_about() {
        assert_eq!(kernel("6.1.0-18-amd64").status, Status::Ok);
        assert_eq!(kernel("6.18.5").status, Status::Ok);
        assert_eq!(kernel("10.0").status, Status::Ok);
        assert_eq!(kernel("5.15.0-91-generic").status, Status::Warn);
        assert_eq!(kernel("strange").status, Status::Warn);
    }

    #[test]
    fn a_busy_machine_is_warned_about() {
        assert_eq!(load("1.50 1.00 0.50 1/100 42", 2).status, Status::Ok);
        assert_eq!(load("2.50 1.00 0.50 1/100 42", 2).status, Status::Warn);
        assert_eq!(load("", 2).status, Status::Ok);
    }

    #[test]
    fn a_directory_that_is_not_there_yet_is_judged_by_the_one_above() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(nearest_directory(&dir.path().join("a/b")), Some(dir.path().into()));
        assert_eq!(nearest_directory(dir.path()), Some(dir.path().into()));
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(nearest_directory(&file), None);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_data_directory_that_takes_no_files_is_a_failure() {
        let mut checks = Vec::new();
        assert!(data_directory(Path::new("/proc/self"), &mut checks).is_none());
        assert_eq!(checks.last().unwrap().status, Status::Fail);
    }

    #[test]
    fn nothing_stays_behind() {
        let dir = tempfile::tempdir().unwrap();
        let scratch = Scratch::create(dir.path()).unwrap();
        fs::write(scratch.0.join("x"), "").unwrap();
        drop(scratch);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
