//! Whose data a directory holds: the lock that keeps a second broker out, the file `identity.toml`, and the count of
//! starts.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::files::sync_folder_of;
use crate::config::{ClusterId, spell_id};
use crate::types::BrokerId;

/// The file that is locked while a broker runs.
const LOCK_FILE: &str = "lock";

/// The file that says whose data the directory holds.
const IDENTITY_FILE: &str = "identity.toml";

/// The file that holds the number of the last start.
const INCARNATION_FILE: &str = "incarnation";

/// Digits of the number in that file: it always has the same length, so that writing it needs no room on the disk.
const INCARNATION_DIGITS: usize = 20;

/// The version of the directory's layout that this broker writes. It reads 1 too, which had no `directory-id`.
const FORMAT: u32 = 2;

/// Why a data directory cannot be used by this broker.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Another broker runs on it.
    #[error("{} is in use by another ringlog: stop that one, or choose another --data-dir", dir.display())]
    Locked {
        /// The data directory.
        dir: PathBuf,
    },
    /// It belongs to another broker.
    #[error(
        "{} belongs to broker {found} and this one is node.id {configured}: start it with node.id {found}, or with \
         another --data-dir",
        dir.display()
    )]
    OtherBroker {
        /// The data directory.
        dir: PathBuf,
        /// The broker that it belongs to.
        found: i32,
        /// This broker.
        configured: i32,
    },
    /// It belongs to another cluster.
    #[error(
        "{} belongs to cluster {found} and this broker is configured for {configured}: set cluster.id to {found} to go \
         on with it, or start with another --data-dir",
        dir.display()
    )]
    OtherCluster {
        /// The data directory.
        dir: PathBuf,
        /// The cluster that it belongs to.
        found: String,
        /// This broker's.
        configured: String,
    },
    /// It was written by a newer ringlog.
    #[error("{} has format {found} and this ringlog knows {FORMAT}: run a newer ringlog on it", dir.display())]
    NewerFormat {
        /// The data directory.
        dir: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The identity file makes no sense.
    #[error("{} is damaged: {detail}", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// A file of it could not be read or written.
    #[error("{}: {cause}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// What the kernel said.
        cause: io::Error,
    },
}

/// What the identity file holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Identity {
    format: u32,
    cluster_id: String,
    node_id: i32,
    /// 32 hexadecimal digits; missing in format 1.
    directory_id: Option<String>,
}

/// A data directory that is this broker's alone, until it is dropped.
#[derive(Debug)]
pub(super) struct DataDir {
    /// The cluster's id, as clients see it.
    pub(super) cluster_id: String,
    /// Made at random with the directory.
    pub(super) directory_id: [u8; 16],
    /// Greater than at every earlier start.
    pub(super) incarnation: u64,
    _lock: File,
}

impl DataDir {
    /// Locks the directory, which exists, and reads whose it is; an empty one becomes `broker`'s, of the cluster that
    /// is configured.
    pub(super) fn lock(dir: &Path, broker: BrokerId, cluster: &ClusterId) -> Result<DataDir, IdentityError> {
        let lock = lock_data_dir(dir)?;
        let file = dir.join(IDENTITY_FILE);
        let failed = |cause| IdentityError::Io { file: file.clone(), cause };
        let damaged = |detail: String| IdentityError::Damaged { file: file.clone(), detail };
        let mut identity = match fs::read_to_string(&file) {
            Ok(text) => parse(dir, &text, damaged)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let cluster_id = match cluster {
                    ClusterId::Given(id) | ClusterId::Derived(id) => id.clone(),
                    ClusterId::Any => random_id().map_err(failed)?,
                };
                Identity { format: 0, cluster_id, node_id: broker.0, directory_id: None }
            }
            Err(error) => return Err(failed(error)),
        };
        if identity.node_id != broker.0 {
            let (found, configured) = (identity.node_id, broker.0);
            return Err(IdentityError::OtherBroker { dir: dir.to_owned(), found, configured });
        }
        if let ClusterId::Given(configured) | ClusterId::Derived(configured) = cluster
            && *configured != identity.cluster_id
        {
            let (found, configured) = (identity.cluster_id, configured.clone());
            return Err(IdentityError::OtherCluster { dir: dir.to_owned(), found, configured });
        }
        let directory_id = match &identity.directory_id {
            Some(text) => parse_directory_id(text).ok_or_else(|| damaged(format!("directory-id is \"{text}\"")))?,
            None => {
                let id = random_bytes::<16>().map_err(failed)?;
                identity.directory_id = Some(format!("{:032x}", u128::from_be_bytes(id)));
                identity.format = FORMAT;
                write(&file, &identity).map_err(failed)?;
                id
            }
        };
        let incarnation = count_start(&dir.join(INCARNATION_FILE))?;
        Ok(DataDir { cluster_id: identity.cluster_id, directory_id, incarnation, _lock: lock })
    }
}

fn parse_directory_id(text: &str) -> Option<[u8; 16]> {
    let plain = text.len() == 32 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    Some(u128::from_str_radix(text, 16).ok().filter(|_| plain)?.to_be_bytes())
}

/// Makes the number in the file one greater, durably, and returns it. It is written in place: a full disk must not
/// keep a broker from starting, and a sector is written whole or not at all.
fn count_start(path: &Path) -> Result<u64, IdentityError> {
    let failed = |cause| IdentityError::Io { file: path.to_owned(), cause };
    let (file, next) = match fs::read_to_string(path) {
        // An empty one was made by a start that came no further.
        Ok(text) if !text.is_empty() => {
            let last = text.strip_suffix('\n').filter(|digits| digits.len() == INCARNATION_DIGITS);
            let next = last.and_then(|digits| digits.parse::<u64>().ok()).and_then(|last| last.checked_add(1));
            let damaged = || IdentityError::Damaged { file: path.to_owned(), detail: "it holds no number".to_owned() };
            (OpenOptions::new().write(true).open(path).map_err(failed)?, next.ok_or_else(damaged)?)
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {
            // Should the file be lost, the seconds since 1970 are more than there were starts before.
            let first = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| time.as_secs().max(1));
            (File::create(path).map_err(failed)?, first)
        }
    };
    file.write_all_at(format!("{next:0INCARNATION_DIGITS$}\n").as_bytes(), 0).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    sync_folder_of(path).map_err(failed)?;
    Ok(next)
}

/// Keeps brokers, and whoever else asks for it, away from a data directory for as long as the file is open.
///
/// # Errors
/// [`IdentityError::Locked`] while another process has it.
pub fn lock_data_dir(dir: &Path) -> Result<File, IdentityError> {
    let path = dir.join(LOCK_FILE);
    let failed = |cause| IdentityError::Io { file: path.clone(), cause };
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    // SAFETY: the descriptor is open as long as `file` lives.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
        return Ok(file);
    }
    match io::Error::last_os_error() {
        error if error.kind() == io::ErrorKind::WouldBlock => Err(IdentityError::Locked { dir: dir.to_owned() }),
        error => Err(failed(error)),
    }
}

fn parse(dir: &Path, text: &str, damaged: impl Fn(String) -> IdentityError) -> Result<Identity, IdentityError> {
    /// The one line that every version has.
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    let Version { format } = toml::from_str(text).map_err(|error| damaged(error.to_string()))?;
    if format > FORMAT {
        return Err(IdentityError::NewerFormat { dir: dir.to_owned(), found: format });
    }
    toml::from_str(text).map_err(|error| damaged(error.to_string()))
}

/// Writes the file so that it is there whole or not at all, whenever the power goes.
fn write(path: &Path, identity: &Identity) -> io::Result<()> {
    let text = toml::to_string(identity).map_err(io::Error::other)?;
    let draft = path.with_extension("new");
    let mut file = File::create(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    sync_folder_of(path)
}

/// `N` bytes of the kernel's randomness.
///
/// # Errors
/// A kernel that gives none.
pub fn random_bytes<const N: usize>() -> io::Result<[u8; N]> {
    const { assert!(N <= 256, "longer requests may be cut short") };
    let mut bytes = [0; N];
    // SAFETY: the pointer is to `N` live bytes.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), N, 0) };
    if got == N as isize { Ok(bytes) } else { Err(io::Error::last_os_error()) }
}

/// A random id of 128 bits in 22 letters.
fn random_id() -> io::Result<String> {
    loop {
        let id = spell_id(u128::from_be_bytes(random_bytes()?));
        // A leading hyphen would look like a flag on a command line.
        if !id.starts_with('-') {
            return Ok(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(id: &str) -> ClusterId {
        ClusterId::Given(id.to_owned())
    }

    #[test]
    fn the_identity_stays_and_the_lock_keeps_others_out() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::lock(dir.path(), BrokerId(7), &ClusterId::Any).unwrap();
        assert_eq!(first.cluster_id.len(), 22);
        let error = DataDir::lock(dir.path(), BrokerId(7), &ClusterId::Any).unwrap_err();
        assert!(matches!(error, IdentityError::Locked { .. }), "{error}");
        let (id, directory_id, incarnation) = (first.cluster_id.clone(), first.directory_id, first.incarnation);
        drop(first);
        for start in 1..=3 {
            let again = DataDir::lock(dir.path(), BrokerId(7), &ClusterId::Any).unwrap();
            assert_eq!((&again.cluster_id, again.directory_id), (&id, directory_id));
            assert_eq!(again.incarnation, incarnation + start);
        }
        let error = DataDir::lock(dir.path(), BrokerId(8), &ClusterId::Any).unwrap_err();
        assert!(error.to_string().contains("node.id 7"), "{error}");
    }

    #[test]
    fn a_directory_belongs_to_one_cluster() {
        let dir = tempfile::tempdir().unwrap();
        let derived = ClusterId::Derived("blue".to_owned());
        assert_eq!(DataDir::lock(dir.path(), BrokerId(1), &derived).unwrap().cluster_id, "blue");
        for same in [given("blue"), derived, ClusterId::Any] {
            assert_eq!(DataDir::lock(dir.path(), BrokerId(1), &same).unwrap().cluster_id, "blue");
        }
        for other in [given("red"), ClusterId::Derived("red".to_owned())] {
            let error = DataDir::lock(dir.path(), BrokerId(1), &other).unwrap_err().to_string();
            assert!(error.contains("belongs to cluster blue and this broker is configured for red"), "{error}");
        }
    }

    #[test]
    fn directories_differ_and_one_of_the_first_format_gets_an_id() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(one.path().join(IDENTITY_FILE), "format = 1\ncluster-id = \"c\"\nnode-id = 1\n").unwrap();
        let lock = |dir: &Path| DataDir::lock(dir, BrokerId(1), &given("c")).unwrap().directory_id;
        let id = lock(one.path());
        assert_ne!(id, [0; 16]);
        assert_eq!(lock(one.path()), id);
        assert_ne!(lock(other.path()), id);
    }

    #[test]
    fn a_lost_count_goes_on_above_the_starts_there_were_and_a_damaged_one_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let lock = || DataDir::lock(dir.path(), BrokerId(1), &ClusterId::Any).map(|dir| dir.incarnation);
        let first = lock().unwrap();
        fs::remove_file(dir.path().join(INCARNATION_FILE)).unwrap();
        assert!(lock().unwrap() >= first);
        fs::write(dir.path().join(INCARNATION_FILE), "").unwrap();
        assert!(lock().unwrap() >= first);
        for text in ["12", "0000000000000000000x\n", "18446744073709551615\n"] {
            fs::write(dir.path().join(INCARNATION_FILE), text).unwrap();
            assert!(lock().unwrap_err().to_string().contains("is damaged"), "{text:?}");
        }
    }

    #[test]
    fn a_damaged_or_newer_file_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(IDENTITY_FILE);
        for (text, says) in [
            ("format = 3\nanything = 1\n", "newer ringlog"),
            ("format = 1\ncluster-id = 3\n", "is damaged"),
            ("format = 2\ncluster-id = \"c\"\nnode-id = 0\ndirectory-id = \"12\"\n", "is damaged"),
            ("\0\0\0", "is damaged"),
            ("", "is damaged"),
        ] {
            fs::write(&file, text).unwrap();
            let error = DataDir::lock(dir.path(), BrokerId(0), &ClusterId::Any).unwrap_err();
            assert!(error.to_string().contains(says), "{text:?}: {error}");
        }
    }

    #[test]
    fn ids_differ_and_hold_all_bits() {
        let ids: Vec<String> = (0..200).map(|_| random_id().unwrap()).collect();
        assert!(ids.iter().all(|id| id.len() == 22 && !id.starts_with('-')));
        for position in 0..21 {
            let letters: std::collections::BTreeSet<u8> = ids.iter().map(|id| id.as_bytes()[position]).collect();
            assert!(letters.len() > 30, "position {position} takes {} letters only", letters.len());
        }
    }
}
