//! Disks that can be filled, made to stand still, and cut off from power.
//!
//! An ext4 in a loop file, which lies on another ext4. Freezing the *lower* one (`fsfreeze`) stalls the upper one's
//! device: writes do not fail, they do not end.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::process::{data_dir, external};
use super::{skipped, wait_until};

/// Runs a program; the error is what it says.
pub fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

/// One ext4 in a file, mounted over a loop device.
pub struct Mount {
    file: PathBuf,
    at: PathBuf,
}

impl Mount {
    /// Makes the file, of so many bytes, and the directory, and mounts the one at the other.
    pub fn new(file: &Path, bytes: u64, at: PathBuf) -> Result<Mount, String> {
        File::create(file).and_then(|file| file.set_len(bytes)).map_err(|error| error.to_string())?;
        fs::create_dir(&at).map_err(|error| error.to_string())?;
        run("mkfs.ext4", &["-q", "-F", path(file)])?;
        Mount::existing(file, at)
    }

    fn existing(file: &Path, at: PathBuf) -> Result<Mount, String> {
        run("mount", &["-o", "loop", path(file), path(&at)])?;
        Ok(Mount { file: file.to_owned(), at })
    }

    /// Has everything that is done on it fail from now on, with EIO. What its journal has not on the device is gone.
    pub fn fail(&self) -> Result<(), String> {
        /// EXT4_IOC_SHUTDOWN, and its flag for going down without another write of the journal.
        const SHUTDOWN: libc::c_ulong = 0x8004_587D;
        static WITHOUT_A_FLUSH: u32 = 2;
        let root = File::open(&self.at).map_err(|error| error.to_string())?;
        // SAFETY: the ioctl reads a 32-bit number from the address that it is given, which is live.
        if unsafe { libc::ioctl(root.as_raw_fd(), SHUTDOWN, &raw const WITHOUT_A_FLUSH) } != 0 {
            return Err(std::io::Error::last_os_error().to_string());
        }
        Ok(())
    }

    /// Mounts it anew, after which it works. Nobody may use it.
    pub fn again(self) -> Result<Mount, String> {
        let (file, at) = (self.file.clone(), self.at.clone());
        drop(self);
        Mount::existing(&file, at)
    }

    /// Where it is mounted.
    pub fn root(&self) -> &Path {
        &self.at
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // A broker that was just killed may hold the mount for a moment.
        let unmounted = wait_until(Duration::from_secs(10), || run("umount", &[path(&self.at)]).is_ok());
        if !unmounted {
            eprintln!("{} stays mounted", self.at.display());
        }
    }
}

/// A disk that can be made to stand still. The fields are dropped in this order.
pub struct Disk {
    upper: Option<Mount>,
    lower: Mount,
    directory: tempfile::TempDir,
}

impl Disk {
    /// A disk of 3 GiB.
    pub fn new() -> Result<Disk, String> {
        let directory = data_dir();
        let lower = Mount::new(&directory.path().join("lower.img"), 4 << 30, directory.path().join("lower"))?;
        let upper = Mount::new(&lower.root().join("upper.img"), 3 << 30, directory.path().join("upper"))?;
        Ok(Disk { upper: Some(upper), lower, directory })
    }

    /// Where it is mounted.
    pub fn root(&self) -> PathBuf {
        self.directory.path().join("upper")
    }

    /// What a power cut does to a file system: all that its journal has not on the device is gone. Nobody may use it.
    pub fn cut_power(&mut self) -> Result<(), String> {
        let upper = self.upper.take().ok_or("an earlier power cut failed")?;
        upper.fail()?;
        self.upper = Some(upper.again()?);
        Ok(())
    }

    /// Stalls it until what is returned is dropped.
    pub fn freeze(&self) -> Result<Frozen, String> {
        // The thaw is another process's work, which begins it when its input ends: it happens even when this
        // process is killed, and nothing is left that can no longer be unmounted.
        let thaw = Command::new("sh")
            .args(["-c", "cat >/dev/null; exec fsfreeze --unfreeze \"$0\"", path(self.lower.root())])
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| error.to_string())?;
        let frozen = Frozen(thaw);
        run("fsfreeze", &["--freeze", path(self.lower.root())])?;
        Ok(frozen)
    }
}

/// While this lives, the disk stands still.
pub struct Frozen(Child);

impl Drop for Frozen {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// A disk, or the reason why there is none.
pub fn disk() -> Option<Disk> {
    if external().is_some() {
        skipped("the broker's disk is not ours to freeze");
        return None;
    }
    match Disk::new().and_then(|disk| disk.freeze().map(|frozen| (disk, frozen))) {
        Ok((disk, frozen)) => {
            drop(frozen);
            Some(disk)
        }
        Err(error) => {
            skipped(&format!("no disk to freeze: {error}"));
            None
        }
    }
}
