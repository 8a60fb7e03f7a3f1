//! A data directory of a stopped broker, read through memory maps.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use memmap2::Mmap;

use super::super::progress::Progress;
use crate::io::lock_data_dir;
use crate::log::names::{PARTITIONS_DIR, WAL_DIR};
use crate::log::{Device, FileId, SegmentRef};

/// The file's bytes, as they are on the disk; read as they are looked at.
///
/// # Errors
/// Where the file cannot be opened or mapped.
pub(super) fn map(path: &Path) -> io::Result<Bytes> {
    let file = File::open(path)?;
    if file.metadata()?.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: nobody writes to the file meanwhile: the caller holds the lock of the data directory, or says so of a file
    // of its own. Whoever cuts it short all the same ends this program by SIGBUS, and nothing else.
    let map = unsafe { Mmap::map(&file)? };
    Ok(Bytes::from_owner(map))
}

/// The directory, locked for as long as this lives: no broker starts on it.
pub(super) struct DataDir {
    files: BTreeMap<FileId, Bytes>,
    /// How much of the write-ahead logs was read.
    progress: Progress,
    _lock: File,
}

impl DataDir {
    /// Locks the directory and maps all files that are a broker's.
    ///
    /// # Errors
    /// Where a broker runs on it, or it is no data directory.
    pub(super) fn open(dir: &Path) -> Result<DataDir> {
        ensure!(dir.join(WAL_DIR).is_dir(), "{} is no data directory of ringlog: it has no {WAL_DIR}/", dir.display());
        let lock = lock_data_dir(dir)?;
        let mut files = BTreeMap::new();
        for folder in folders(dir)? {
            for entry in fs::read_dir(dir.join(&folder))? {
                let path = folder.join(entry?.file_name());
                // What is not named by a broker was put there by someone else.
                if let Some(file) = path.to_str().and_then(FileId::parse) {
                    let bytes = map(&dir.join(&path)).with_context(|| format!("cannot map {}", path.display()))?;
                    files.insert(file, bytes);
                }
            }
        }
        let wal =
            files.iter().filter(|(file, _)| matches!(file, FileId::Wal { .. })).map(|(_, bytes)| bytes.len() as u64);
        let progress = Progress::bytes(wal.sum());
        Ok(DataDir { files, progress, _lock: lock })
    }

    /// So many bytes of a write-ahead log were read.
    pub(super) fn read(&self, bytes: u64) {
        self.progress.advance(bytes);
    }

    /// All files with their bytes, in the order of their names.
    pub(super) fn files(&self) -> impl Iterator<Item = (FileId, &Bytes)> {
        self.files.iter().map(|(file, bytes)| (*file, bytes))
    }
}

/// The folders that hold a broker's files, relative to `dir`.
fn folders(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let partitions = PathBuf::from(PARTITIONS_DIR);
    let mut folders = vec![PathBuf::from(WAL_DIR)];
    for entry in fs::read_dir(dir.join(&partitions))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            folders.push(partitions.join(entry.file_name()));
        }
    }
    Ok(folders)
}

impl Device for DataDir {
    fn wal_files(&self) -> io::Result<Vec<(FileId, u64)>> {
        let wals = self.files().filter(|(file, _)| matches!(file, FileId::Wal { .. }));
        Ok(wals.map(|(file, bytes)| (file, bytes.len() as u64)).collect())
    }

    fn segment_files(&self) -> io::Result<Vec<SegmentRef>> {
        Ok(self.files().filter_map(|(file, _)| file.segment()).collect())
    }

    fn read_exact_at(&self, file: FileId, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let bytes = self.files.get(&file).ok_or(io::ErrorKind::NotFound)?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let found = bytes.get(start..).and_then(|rest| rest.get(..buf.len())).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(found);
        if let FileId::Wal { .. } = file {
            self.read(buf.len() as u64);
        }
        Ok(())
    }
}
