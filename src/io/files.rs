//! The data directory's files by blocking calls: what recovery reads before the disk's thread runs, and what that
//! thread has its helpers do because io_uring would only hand it to a thread of the kernel's.

use std::cell::RefCell;
use std::ffi::{CString, OsStr};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;

use super::memory::AlignedBuf;
use crate::limits::{BLOCK, LISTING_THREADS};
use crate::log::names::{PARTITIONS_DIR, WAL_DIR};
use crate::log::{Device, FileId, SegmentRef, Space};
use crate::types::LogId;

/// Bytes that one write of zeros or one read of recovery moves: enough to reach the device's bandwidth.
const STEP: usize = 1024 * 1024;

/// The files of one data directory.
#[derive(Clone)]
pub(super) struct Files {
    dir: PathBuf,
}

impl Files {
    /// The files below `dir`; makes the folders that must be there.
    pub(super) fn open_dir(dir: &Path) -> io::Result<Files> {
        for folder in [WAL_DIR, PARTITIONS_DIR] {
            create_folder(&dir.join(folder))?;
        }
        Ok(Files { dir: dir.to_owned() })
    }

    fn path(&self, file: FileId) -> PathBuf {
        self.dir.join(file.to_string())
    }

    /// Opens a file that exists; a write to it is durable when it completes. The file is locked, shared, for as long
    /// as it is open or a write to it is under way: see [`wait_for_writes`].
    pub(super) fn open(&self, file: FileId) -> io::Result<File> {
        let flags = libc::O_DIRECT | libc::O_DSYNC;
        let handle = OpenOptions::new().read(true).write(true).custom_flags(flags).open(self.path(file))?;
        flock(&handle, libc::LOCK_SH | libc::LOCK_NB)?;
        Ok(handle)
    }

    /// Makes the file `len` bytes of zeros, flushed, its folder entry included. A file of this name is overwritten.
    pub(super) fn create(&self, file: FileId, len: u64) -> io::Result<()> {
        let path = self.path(file);
        let outcome = write_zeros(&path, len).and_then(|()| sync_folder_of(&path));
        if outcome.is_err() {
            // Without its full length the file is of no use; if it cannot be removed either, the next start does.
            let _ = fs::remove_file(&path);
        }
        outcome
    }

    /// Makes room for `len` bytes at `offset`. Creates the file and its folder where they are missing, durably.
    pub(super) fn allocate(&self, file: FileId, offset: u64, len: u64) -> io::Result<()> {
        let path = self.path(file);
        let existing = OpenOptions::new().write(true).open(&path);
        let (handle, new) = match existing {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create_folder(parent(&path)?)?;
                (OpenOptions::new().write(true).create(true).truncate(false).open(&path)?, true)
            }
            other => (other?, false),
        };
        fallocate(&handle, offset, len)?;
        if new { sync_folder_of(&path) } else { Ok(()) }
    }

    /// Cuts the file off after `len` bytes, durably.
    pub(super) fn shorten(&self, file: FileId, len: u64) -> io::Result<()> {
        let handle = OpenOptions::new().write(true).open(self.path(file))?;
        handle.set_len(len)?;
        handle.sync_all()
    }

    /// The room on the volume that the files are on.
    pub(super) fn space(&self) -> io::Result<Space> {
        let path = CString::new(self.dir.as_os_str().as_bytes())?;
        let mut found = std::mem::MaybeUninit::<libc::statvfs>::uninit();
        // SAFETY: the path ends with a zero, and the kernel writes no more than the structure.
        if unsafe { libc::statvfs(path.as_ptr(), found.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call has succeeded, so the structure is written.
        let found = unsafe { found.assume_init() };
        Ok(Space { total: found.f_blocks * found.f_frsize, usable: found.f_bavail * found.f_frsize })
    }

    /// Removes the file, durably; one that does not exist is no error.
    pub(super) fn remove(&self, file: FileId) -> io::Result<()> {
        let path = self.path(file);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.and_then(|()| sync_folder_of(&path)),
        }
    }

    /// Removes all segment files of a log and its folder, durably; none there is no error.
    pub(super) fn remove_log(&self, log: LogId) -> io::Result<()> {
        let folder = self.dir.join(PARTITIONS_DIR).join(log.to_string());
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        for entry in entries {
            fs::remove_file(entry?.path())?;
        }
        fs::remove_dir(&folder)?;
        sync_folder_of(&folder)
    }
}

fn parent(path: &Path) -> io::Result<&Path> {
    path.parent().ok_or_else(|| io::Error::other("a path without a folder"))
}

/// Makes a folder, durably, unless it is there.
fn create_folder(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.and_then(|()| sync_folder_of(path)),
    }
}

/// Flushes the folder that holds `path`, so that the entry of `path` in it survives a loss of power.
pub(super) fn sync_folder_of(path: &Path) -> io::Result<()> {
    File::open(parent(path)?)?.sync_all()
}

/// Each step is flushed by itself: one flush of the whole file at the end would hold up every other write to the device
/// until the last of its zeros is on it.
fn write_zeros(path: &Path, len: u64) -> io::Result<()> {
    let flags = libc::O_DIRECT | libc::O_DSYNC;
    let file = OpenOptions::new().write(true).create(true).truncate(true).custom_flags(flags).open(path)?;
    fallocate(&file, 0, len)?;
    let zeros = AlignedBuf::new(STEP);
    let mut position = 0;
    while position < len {
        let n = (len - position).min(STEP as u64) as usize;
        file.write_all_at(&zeros.as_ref()[..n], position)?;
        position += n as u64;
    }
    file.sync_all()
}

/// Waits until no write to the file is under way that a broker began which has ended since.
///
/// A process that is killed leaves its ring behind: the kernel ends the operations in it after the process, and a
/// write that waits for a stalled device may reach it much later. Whoever recovered before that would read the bytes
/// of before the write, go on from there, and have its own bytes overwritten. But each operation holds on to its open
/// file and so to the lock that [`Files::open`] took, and is over when the lock can be had alone.
fn wait_for_writes(file: &File) -> io::Result<()> {
    match flock(file, libc::LOCK_EX | libc::LOCK_NB) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            tracing::warn!("waiting for writes of the broker that ran here before and was killed");
            flock(file, libc::LOCK_EX)
        }
        other => other,
    }
}

fn flock(file: &File, operation: libc::c_int) -> io::Result<()> {
    loop {
        // SAFETY: the descriptor is open as long as `file` lives.
        if unsafe { libc::flock(file.as_raw_fd(), operation) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

fn fallocate(file: &File, offset: u64, len: u64) -> io::Result<()> {
    // SAFETY: the descriptor is open as long as `file` lives.
    if unsafe { libc::fallocate(file.as_raw_fd(), 0, offset as libc::off_t, len as libc::off_t) } == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        // A file system that cannot allocate ahead allocates as it is written.
        error if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(()),
        error => Err(error),
    }
}

/// The files as recovery sees them, read by direct I/O: reading them through the page cache would fill it with
/// bytes that nobody reads again.
pub(super) struct RecoveryDevice {
    files: Files,
    reading: RefCell<Reading>,
}

struct Reading {
    open: Option<(FileId, File)>,
    bounce: AlignedBuf,
}

impl RecoveryDevice {
    /// The device of `files`.
    pub(super) fn new(files: Files) -> RecoveryDevice {
        RecoveryDevice { files, reading: RefCell::new(Reading { open: None, bounce: AlignedBuf::new(STEP) }) }
    }
}

/// The files in a folder of the data directory. What is not named by us was put there by someone else and is left alone.
fn files_in(dir: &Path, folder: &str) -> io::Result<Vec<(FileId, fs::DirEntry)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir.join(folder))? {
        let entry = entry?;
        let file = utf8(&entry.file_name()).and_then(|name| FileId::parse(&format!("{folder}/{name}")));
        found.extend(file.map(|file| (file, entry)));
    }
    Ok(found)
}

/// The segment files of the folders that `next` gives.
fn segments_in(dir: &Path, next: impl Fn() -> Option<String>) -> io::Result<Vec<SegmentRef>> {
    let mut found = Vec::new();
    while let Some(folder) = next() {
        found.extend(files_in(dir, &folder)?.into_iter().filter_map(|(file, _)| file.segment()));
    }
    Ok(found)
}

impl Device for RecoveryDevice {
    fn wal_files(&self) -> io::Result<Vec<(FileId, u64)>> {
        let found = files_in(&self.files.dir, WAL_DIR)?;
        found.into_iter().map(|(file, entry)| Ok((file, entry.metadata()?.len()))).collect()
    }

    fn segment_files(&self) -> io::Result<Vec<SegmentRef>> {
        let dir = &self.files.dir;
        let mut folders = Vec::new();
        for entry in fs::read_dir(dir.join(PARTITIONS_DIR))? {
            let entry = entry?;
            if let (true, Some(name)) = (entry.file_type()?.is_dir(), utf8(&entry.file_name())) {
                folders.push(format!("{PARTITIONS_DIR}/{name}"));
            }
        }
        let threads = LISTING_THREADS.min(folders.len());
        let folders = Mutex::new(folders.into_iter());
        let next = || folders.lock().expect("nobody panics with the lock").next();
        thread::scope(|scope| {
            let listers: Vec<_> = (0..threads).map(|_| scope.spawn(|| segments_in(dir, next))).collect();
            let mut found = Vec::new();
            for lister in listers {
                found.extend(lister.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
            }
            Ok(found)
        })
    }

    fn read_exact_at(&self, file: FileId, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let reading = &mut *self.reading.borrow_mut();
        if reading.open.as_ref().is_none_or(|(open, _)| *open != file) {
            let handle = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(self.files.path(file))?;
            wait_for_writes(&handle)?;
            // What is read here counts as durable from now on, and the broker before may have ended without a flush.
            handle.sync_data()?;
            reading.open = Some((file, handle));
        }
        let Some((_, handle)) = &reading.open else { unreachable!("it was opened above") };
        let mut done = 0;
        while done < buf.len() {
            let position = offset + done as u64;
            let skip = (position % BLOCK as u64) as usize;
            let wanted = (skip + buf.len() - done).next_multiple_of(BLOCK).min(STEP);
            let read = handle.read_at(&mut reading.bounce.as_mut()[..wanted], position - skip as u64)?;
            let n = read.saturating_sub(skip).min(buf.len() - done);
            if n == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            buf[done..done + n].copy_from_slice(&reading.bounce.as_ref()[skip..skip + n]);
            done += n;
        }
        Ok(())
    }
}

fn utf8(name: &OsStr) -> Option<String> {
    name.to_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{SegmentFile, SegmentName, WalId};

    fn segment(log: u64, base: i64, file: SegmentFile) -> FileId {
        FileId::Segment(SegmentRef { log: LogId(log), name: SegmentName { base, revision: 0 }, file })
    }

    #[test]
    fn files_are_made_found_read_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::open_dir(dir.path()).unwrap();
        let wal = FileId::Wal { wal: WalId::Data, slot: 3 };
        files.create(wal, 3 << 20).unwrap();
        let log = segment(7, 0, SegmentFile::Log);
        let index = segment(7, 0, SegmentFile::Index);
        for file in [log, index] {
            files.allocate(file, 0, 8192).unwrap();
            files.allocate(file, 8192, 8192).unwrap();
        }
        fs::write(dir.path().join(WAL_DIR).join("notes.txt"), b"someone else's").unwrap();

        let mut block = AlignedBuf::new(8192);
        for (i, byte) in block.as_mut().iter_mut().enumerate() {
            *byte = (i * 7) as u8;
        }
        files.open(log).unwrap().write_all_at(block.as_ref(), 4096).unwrap();

        let device = RecoveryDevice::new(files.clone());
        assert_eq!(device.wal_files().unwrap(), [(wal, 3 << 20)]);
        let mut segments = device.segment_files().unwrap();
        segments.sort_unstable();
        assert_eq!(segments.into_iter().map(FileId::Segment).collect::<Vec<_>>(), [log, index]);
        let mut read = vec![1; 5_000];
        device.read_exact_at(log, 4_000, &mut read).unwrap();
        assert_eq!(read[..96], [0; 96]);
        assert_eq!(read[96..], block.as_ref()[..4_904]);
        let mut zeros = vec![1; (2 << 20) + 5];
        device.read_exact_at(wal, 777, &mut zeros).unwrap();
        assert!(zeros.iter().all(|byte| *byte == 0));
        let beyond = device.read_exact_at(log, 16_000, &mut [0; 1000]).unwrap_err();
        assert_eq!(beyond.kind(), io::ErrorKind::UnexpectedEof);

        files.remove(wal).unwrap();
        files.remove(wal).unwrap();
        files.remove_log(LogId(7)).unwrap();
        files.remove_log(LogId(7)).unwrap();
        assert_eq!(device.wal_files().unwrap(), []);
        assert_eq!(device.segment_files().unwrap(), []);
        assert_eq!(files.open(log).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn the_segments_of_many_logs_are_all_found() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::open_dir(dir.path()).unwrap();
        let mut made = Vec::new();
        for log in 1..=3 * LISTING_THREADS as u64 {
            for file in [SegmentFile::Log, SegmentFile::Index] {
                let file = segment(log, 7, file);
                files.allocate(file, 0, 4096).unwrap();
                made.extend(file.segment());
            }
        }
        let mut found = RecoveryDevice::new(files).segment_files().unwrap();
        found.sort_unstable();
        assert_eq!(found, made);
    }

    #[test]
    fn a_file_that_cannot_be_made_whole_is_not_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::open_dir(dir.path()).unwrap();
        let wal = FileId::Wal { wal: WalId::Meta, slot: 0 };
        // Larger than any file system of a test machine.
        files.create(wal, 1 << 55).unwrap_err();
        assert_eq!(RecoveryDevice::new(files).wal_files().unwrap(), []);
    }
}
