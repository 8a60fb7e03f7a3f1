//! What the machine offers to this process: cores, memory, a name.

use std::fs;
use std::path::{Path, PathBuf};

use crate::config::Machine;

/// Bytes assumed where `/proc/meminfo` cannot be read, so that a container that hides it still starts.
const UNKNOWN_MEMORY_BYTES: u64 = 1 << 30;

/// Finds out what the defaults of the configuration depend on.
pub fn detect() -> Machine {
    let physical = physical_memory().unwrap_or(UNKNOWN_MEMORY_BYTES);
    Machine {
        cores: cores(),
        memory_bytes: cgroup_memory_limit().map_or(physical, |limit| limit.min(physical)),
        hostname: read_trimmed("/proc/sys/kernel/hostname").unwrap_or_default(),
    }
}

/// Cores that the affinity mask and the cgroup's quota allow to this process.
pub fn cores() -> u16 {
    std::thread::available_parallelism().map_or(1, |cores| u16::try_from(cores.get()).unwrap_or(u16::MAX))
}

/// The machine's memory in bytes.
pub fn physical_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

/// The least memory limit, in bytes, of the cgroups that this process is in, versions 1 and 2.
pub fn cgroup_memory_limit() -> Option<u64> {
    memory_limit(&fs::read_to_string("/proc/self/cgroup").ok()?, Path::new("/sys/fs/cgroup"))
}

/// The same, by the text of `/proc/self/cgroup` and the place where the hierarchies are mounted. A limit holds for all
/// groups below it, so every level counts. Inside of a container the path may name levels that are not visible there:
/// what cannot be read sets no limit.
fn memory_limit(memberships: &str, mount: &Path) -> Option<u64> {
    let mut least: Option<u64> = None;
    for line in memberships.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else { continue };
        let (root, file): (PathBuf, &str) = if controllers.is_empty() {
            (mount.into(), "memory.max")
        } else if controllers.split(',').any(|name| name == "memory") {
            (mount.join("memory"), "memory.limit_in_bytes")
        } else {
            continue;
        };
        let group = root.join(group.trim_start_matches('/'));
        for level in group.ancestors().take_while(|level| level.starts_with(&root)) {
            // "max" is no number, and version 1 says "no limit" by one near 2^63.
            let limit = read_trimmed(level.join(file)).and_then(|text| text.parse::<u64>().ok());
            if let Some(limit) = limit.filter(|limit| *limit < 1 << 60) {
                least = Some(least.map_or(limit, |least| least.min(limit)));
            }
        }
    }
    least
}

/// The text of a small file of the kernel's, without the white space around it.
pub fn read_trimmed(path: impl AsRef<Path>) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_limit_of_all_levels_counts() {
        let dir = tempfile::tempdir().unwrap();
        let group = dir.path().join("a/b");
        fs::create_dir_all(&group).unwrap();
        fs::write(group.join("memory.max"), "max\n").unwrap();
        fs::write(dir.path().join("a/memory.max"), "1073741824\n").unwrap();
        assert_eq!(memory_limit("0::/a/b\n", dir.path()), Some(1 << 30));
        fs::write(group.join("memory.max"), "4096\n").unwrap();
        assert_eq!(memory_limit("0::/a/b\n", dir.path()), Some(4096));
        assert_eq!(memory_limit("0::/elsewhere\n", dir.path()), None);
    }

    #[test]
    fn version_1_has_a_hierarchy_of_its_own_and_a_huge_number_for_no_limit() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("memory/x")).unwrap();
        let memberships = "4:cpu,cpuacct:/x\n3:memory:/x\n0::/\n";
        fs::write(dir.path().join("memory/x/memory.limit_in_bytes"), "9223372036854771712").unwrap();
        assert_eq!(memory_limit(memberships, dir.path()), None);
        fs::write(dir.path().join("memory/memory.limit_in_bytes"), "2147483648").unwrap();
        assert_eq!(memory_limit(memberships, dir.path()), Some(2 << 30));
    }

    #[test]
    fn the_machine_has_cores_and_memory() {
        let machine = detect();
        assert!(machine.cores >= 1);
        assert!(machine.memory_bytes > 0);
    }
}
