//! Opening compressed batches where a broker must look inside, and closing them again.
//!
//! What comes out is bounded, in bytes and by the ratio to what went in: a batch that would take more stays closed.

use std::io::{self, Read, Write};

use bytes::Bytes;
use ruzstd::decoding::StreamingDecoder;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use super::header::Compression;
use crate::limits::{MAX_DECOMPRESSED_BYTES, MAX_DECOMPRESSION_RATIO, MIN_DECOMPRESSED_BYTES, ZSTD_WINDOW_BYTES};

/// What the Java client puts in front of its blocks of Snappy, and the versions that follow it.
const XERIAL_MAGIC: [u8; 8] = *b"\x82SNAPPY\0";
const XERIAL_HEADER_LEN: usize = 16;
/// Bytes that go into one block of Snappy.
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;

/// Why a batch cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum CompressionError {
    /// It would take more memory than it may.
    #[error("the records are larger than the {0} bytes they may have")]
    TooLarge(usize),
    /// The compressed bytes are damaged.
    #[error("the records cannot be decompressed: {0}")]
    Damaged(#[from] io::Error),
}

/// Most bytes that so many compressed ones may become.
fn most(compressed: usize) -> usize {
    compressed.saturating_mul(MAX_DECOMPRESSION_RATIO).clamp(MIN_DECOMPRESSED_BYTES, MAX_DECOMPRESSED_BYTES)
}

/// The records of a batch as they were before they were compressed.
///
/// # Errors
/// [`CompressionError`]
pub fn decompress(compression: Compression, body: &Bytes) -> Result<Bytes, CompressionError> {
    let most = most(body.len());
    match compression {
        Compression::None => Ok(body.clone()),
        Compression::Gzip => read_all(flate2::read::MultiGzDecoder::new(&body[..]), most),
        Compression::Snappy => snappy(body, most),
        Compression::Lz4 => read_all(lz4_flex::frame::FrameDecoder::new(&body[..]), most),
        Compression::Zstd => {
            let decoder = StreamingDecoder::new_with_max_window_size(&body[..], ZSTD_WINDOW_BYTES);
            read_all(decoder.map_err(io::Error::other)?, most)
        }
    }
}

fn read_all(from: impl Read, most: usize) -> Result<Bytes, CompressionError> {
    let mut out = Vec::new();
    from.take(most as u64 + 1).read_to_end(&mut out)?;
    if out.len() > most { Err(CompressionError::TooLarge(most)) } else { Ok(out.into()) }
}

fn snappy(body: &[u8], most: usize) -> Result<Bytes, CompressionError> {
    let mut out = Vec::new();
    if !body.starts_with(&XERIAL_MAGIC) {
        snappy_block(body, most, &mut out)?;
        return Ok(out.into());
    }
    let mut rest = body.get(XERIAL_HEADER_LEN..).ok_or_else(cut_short)?;
    while !rest.is_empty() {
        let (len, after) = rest.split_first_chunk::<4>().ok_or_else(cut_short)?;
        let len = u32::from_be_bytes(*len) as usize;
        snappy_block(after.get(..len).ok_or_else(cut_short)?, most, &mut out)?;
        rest = &after[len..];
    }
    Ok(out.into())
}

fn snappy_block(block: &[u8], most: usize, out: &mut Vec<u8>) -> Result<(), CompressionError> {
    let (start, len) = (out.len(), snap::raw::decompress_len(block).map_err(io::Error::from)?);
    if start + len > most {
        return Err(CompressionError::TooLarge(most));
    }
    out.resize(start + len, 0);
    snap::raw::Decoder::new().decompress(block, &mut out[start..]).map_err(io::Error::from)?;
    Ok(())
}

fn cut_short() -> io::Error {
    io::Error::from(io::ErrorKind::UnexpectedEof)
}

/// Compresses records as a client would.
///
/// # Errors
/// Where the compressing library fails.
pub fn compress(compression: Compression, records: Vec<u8>) -> io::Result<Bytes> {
    Ok(match compression {
        Compression::None => records,
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(&records)?;
            encoder.finish()?
        }
        Compression::Snappy => {
            let mut out = XERIAL_MAGIC.to_vec();
            out.extend([0, 0, 0, 1, 0, 0, 0, 1]);
            for block in records.chunks(XERIAL_BLOCK_BYTES) {
                let block = snap::raw::Encoder::new().compress_vec(block)?;
                out.extend_from_slice(&(block.len() as u32).to_be_bytes());
                out.extend_from_slice(&block);
            }
            out
        }
        Compression::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(&records)?;
            encoder.finish().map_err(io::Error::from)?
        }
        Compression::Zstd => compress_to_vec(&records[..], CompressionLevel::Fastest),
    }
    .into())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::record) const ALL: [Compression; 5] =
        [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

    #[test]
    fn what_is_compressed_is_opened_again() {
        let records: Vec<u8> = (0..200_000u32).map(|at| (at / 7) as u8).collect();
        for compression in ALL {
            let closed = compress(compression, records.clone()).unwrap();
            assert_eq!(decompress(compression, &closed).unwrap(), records, "{compression:?}");
        }
        let raw: Bytes = snap::raw::Encoder::new().compress_vec(&records).unwrap().into();
        assert_eq!(decompress(Compression::Snappy, &raw).unwrap(), records, "as librdkafka sends it");
    }

    #[test]
    fn a_bomb_stays_closed() {
        let zeros = vec![0; MAX_DECOMPRESSED_BYTES + 1];
        for compression in &ALL[1..] {
            let closed = compress(*compression, zeros.clone()).unwrap();
            let opened = decompress(*compression, &closed);
            assert!(matches!(opened, Err(CompressionError::TooLarge(_))), "{compression:?}");
        }
    }

    #[test]
    fn what_is_cut_short_gives_nothing_else() {
        for compression in &ALL[1..] {
            let records: Vec<u8> = (0..5_000u32).map(|at| (at * at / 7) as u8).collect();
            let closed = compress(*compression, records.clone()).unwrap();
            for cut in 1..closed.len() {
                let opened = decompress(*compression, &closed.slice(..cut));
                // A frame may do without its end mark; there is nothing in it then that is not in the whole.
                let sound = opened.is_err() || records.starts_with(&opened.unwrap());
                assert!(sound, "{compression:?} cut at {cut}");
            }
            assert!(decompress(*compression, &closed.slice(..closed.len() / 2)).is_err(), "{compression:?}");
        }
    }
}
