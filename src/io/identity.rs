//! Whose data a directory holds: the lock that keeps a second broker out, and the file `identity.toml`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::files::sync_folder_of;
use crate::types::BrokerId;

/// The file that is locked while a broker runs.
const LOCK_FILE: &str = "lock";

/// The file that says whose data the directory holds.
const IDENTITY_FILE: &str = "identity.toml";

/// The version of the directory's layout that this broker reads and writes.
const FORMAT: u32 = 1;

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
    #[error("{}: {source}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// What the identity file holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Identity {
    format: u32,
    cluster_id: String,
    node_id: i32,
}

/// A data directory that is this broker's alone, until it is dropped.
#[derive(Debug)]
pub(super) struct DataDir {
    /// The cluster's id, as clients see it.
    pub(super) cluster_id: String,
    _lock: File,
}

impl DataDir {
    /// Locks the directory, which exists, and reads whose it is; an empty one becomes `broker`'s.
    pub(super) fn lock(dir: &Path, broker: BrokerId) -> Result<DataDir, IdentityError> {
        let lock = lock(dir)?;
        let file = dir.join(IDENTITY_FILE);
        let failed = |source| IdentityError::Io { file: file.clone(), source };
        let damaged = |detail: String| IdentityError::Damaged { file: file.clone(), detail };
        let identity = match fs::read_to_string(&file) {
            Ok(text) => parse(dir, &text, damaged)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let cluster_id = random_id().map_err(failed)?;
                let identity = Identity { format: FORMAT, cluster_id, node_id: broker.0 };
                write(&file, &identity).map_err(failed)?;
                identity
            }
            Err(error) => return Err(failed(error)),
        };
        if identity.node_id != broker.0 {
            let (found, configured) = (identity.node_id, broker.0);
            return Err(IdentityError::OtherBroker { dir: dir.to_owned(), found, configured });
        }
        Ok(DataDir { cluster_id: identity.cluster_id, _lock: lock })
    }
}

fn lock(dir: &Path) -> Result<File, IdentityError> {
    let path = dir.join(LOCK_FILE);
    let failed = |source| IdentityError::Io { file: path.clone(), source };
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
pub(super) fn random_bytes<const N: usize>() -> io::Result<[u8; N]> {
    const { assert!(N <= 256, "longer requests may be cut short") };
    let mut bytes = [0; N];
    // SAFETY: the pointer is to `N` live bytes.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), N, 0) };
    if got == N as isize { Ok(bytes) } else { Err(io::Error::last_os_error()) }
}

/// A random id of 128 bits in 22 letters, spelled as Kafka spells its ids.
fn random_id() -> io::Result<String> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    loop {
        // 22 letters hold 132 bits: the four lowest stay zero.
        let bits = u128::from_be_bytes(random_bytes::<16>()?);
        let letter = |i: u32| match 122_u32.checked_sub(6 * i) {
            Some(shift) => bits >> shift,
            None => bits << 4,
        };
        let id: String = (0..22).map(|i| char::from(LETTERS[(letter(i) & 63) as usize])).collect();
        // A leading hyphen would look like a flag on a command line.
        if !id.starts_with('-') {
            return Ok(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_stays_and_the_lock_keeps_others_out() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::lock(dir.path(), BrokerId(7)).unwrap();
        assert_eq!(first.cluster_id.len(), 22);
        let error = DataDir::lock(dir.path(), BrokerId(7)).unwrap_err();
        assert!(matches!(error, IdentityError::Locked { .. }), "{error}");
        let id = first.cluster_id.clone();
        drop(first);
        assert_eq!(DataDir::lock(dir.path(), BrokerId(7)).unwrap().cluster_id, id);
        let error = DataDir::lock(dir.path(), BrokerId(8)).unwrap_err();
        assert!(error.to_string().contains("node.id 7"), "{error}");
    }

    #[test]
    fn a_damaged_or_newer_file_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(IDENTITY_FILE);
        for (text, says) in [
            ("format = 2\nanything = 1\n", "newer ringlog"),
            ("format = 1\ncluster-id = 3\n", "is damaged"),
            ("\0\0\0", "is damaged"),
            ("", "is damaged"),
        ] {
            fs::write(&file, text).unwrap();
            let error = DataDir::lock(dir.path(), BrokerId(0)).unwrap_err();
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
