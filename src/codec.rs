//! bincode, behind one door: a format byte first, a limit on what is taken, errors with a name.
//!
//! For state that changes seldom (metadata commands, snapshots, checkpoints); never for records.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The only format so far: bincode 2, standard configuration (little-endian, variable-length integers).
pub const FORMAT: u8 = 1;

/// Most bytes that a decoded value may claim.
const LIMIT: usize = 256 * 1024 * 1024;

/// Why bytes are no value of the wanted type.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// Nothing there.
    #[error("no bytes to decode")]
    Empty,
    /// Written by another version.
    #[error("unknown format {0}, this version reads format 1")]
    UnknownFormat(u8),
    /// Bytes follow the value.
    #[error("{0} bytes follow the value")]
    TrailingBytes(usize),
    /// bincode says no.
    #[error("malformed value: {0}")]
    Malformed(#[from] bincode::error::DecodeError),
}

/// The value as bytes, format byte first.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut out = vec![FORMAT];
    bincode::serde::encode_into_std_write(value, &mut out, bincode::config::standard())
        .expect("writing to memory does not fail, and the types written are all sized");
    out
}

/// Reads what [`encode`] wrote.
///
/// # Errors
/// Where the format is unknown, the value malformed or larger than the limit, or bytes follow it.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (format, rest) = bytes.split_first().ok_or(CodecError::Empty)?;
    if *format != FORMAT {
        return Err(CodecError::UnknownFormat(*format));
    }
    let config = bincode::config::standard().with_limit::<LIMIT>();
    let (value, used) = bincode::serde::decode_from_slice(rest, config)?;
    if used != rest.len() {
        return Err(CodecError::TrailingBytes(rest.len() - used));
    }
    Ok(value)
}
