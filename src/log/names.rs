//! The names of a disk's files, relative to its data directory.

use std::fmt;

use super::{FileId, SegmentFile, SegmentName, SegmentRef, WalId};
use crate::types::LogId;

/// The folder of the WALs' segments.
pub const WAL_DIR: &str = "wal";
/// The folder that holds one folder a log.
pub const PARTITIONS_DIR: &str = "partitions";

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileId::Wal { wal, slot } => {
                let name = match wal {
                    WalId::Meta => "meta",
                    WalId::Data => "data",
                };
                write!(f, "{WAL_DIR}/{name}-{slot:04}.wal")
            }
            FileId::Segment(segment) => {
                let ending = match segment.file {
                    SegmentFile::Log => "log",
                    SegmentFile::Index => "index",
                };
                let SegmentRef { log, name: SegmentName { base, revision }, .. } = segment;
                match revision {
                    0 => write!(f, "{PARTITIONS_DIR}/{log}/{base:020}.{ending}"),
                    _ => write!(f, "{PARTITIONS_DIR}/{log}/{base:020}-{revision}.{ending}"),
                }
            }
        }
    }
}

impl FileId {
    /// The file that the relative path names, with `/` between its parts; `None` for a path that is not ours.
    /// Only the exact spelling that `Display` gives is taken, so that no two paths name one file.
    pub fn parse(path: &str) -> Option<FileId> {
        let file = match path.split_once('/')? {
            (WAL_DIR, name) => {
                let (wal, slot) = name.strip_suffix(".wal")?.split_once('-')?;
                let wal = match wal {
                    "meta" => WalId::Meta,
                    "data" => WalId::Data,
                    _ => return None,
                };
                let slot = slot.parse().ok()?;
                FileId::Wal { wal, slot }
            }
            (PARTITIONS_DIR, rest) => {
                let (log, name) = rest.split_once('/')?;
                let (name, ending) = name.split_once('.')?;
                let (base, revision) = name.split_once('-').unwrap_or((name, "0"));
                let file = match ending {
                    "log" => SegmentFile::Log,
                    "index" => SegmentFile::Index,
                    _ => return None,
                };
                let name = SegmentName { base: base.parse().ok()?, revision: revision.parse().ok()? };
                FileId::Segment(SegmentRef { log: LogId(log.parse().ok()?), name, file })
            }
            _ => return None,
        };
        (file.to_string() == path).then_some(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_back() {
        let segment = |base, revision, file| {
            FileId::Segment(SegmentRef { log: LogId(7), name: SegmentName { base, revision }, file })
        };
        let wal = |wal, slot| FileId::Wal { wal, slot };
        for (file, name) in [
            (wal(WalId::Meta, 0), "wal/meta-0000.wal"),
            (wal(WalId::Data, 12), "wal/data-0012.wal"),
            (wal(WalId::Data, 12345), "wal/data-12345.wal"),
            (segment(0, 0, SegmentFile::Log), "partitions/7/00000000000000000000.log"),
            (segment(i64::MAX, 0, SegmentFile::Index), "partitions/7/09223372036854775807.index"),
            (segment(5, 12, SegmentFile::Log), "partitions/7/00000000000000000005-12.log"),
        ] {
            assert_eq!(file.to_string(), name);
            assert_eq!(FileId::parse(name), Some(file));
        }
    }

    #[test]
    fn other_names_are_not_ours() {
        for name in [
            "",
            "wal",
            "wal/data-1.wal",
            "wal/data-00001.wal",
            "wal/data-+001.wal",
            "wal/other-0000.wal",
            "wal/data-0000.wal~",
            "partitions/7/0.log",
            "partitions/07/00000000000000000000.log",
            "partitions/7/00000000000000000000.tmp",
            "partitions/7/00000000000000000000-0.log",
            "partitions/7/00000000000000000000-01.log",
            "partitions/7/00000000000000000000-.log",
            "partitions/7/x/00000000000000000000.log",
            "partitions/-1/00000000000000000000.log",
        ] {
            assert_eq!(FileId::parse(name), None, "{name}");
        }
    }
}
