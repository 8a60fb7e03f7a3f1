//! Request frames: their memory, charged to the broker's budget before a byte of it is allocated, and how they are
//! cut from a connection's stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::memory::{AlignedBuf, Pool, size_class};

/// Frames below this many bytes get plain memory of their own: pooling would cost more than it saves.
const PLAIN_BYTES: usize = 4096;

/// Frames below this many bytes may use the budget's reserve.
const SMALL_BYTES: usize = 64 * 1024;

/// What a plain frame costs beyond its bytes: its owner, its handle and the allocator's share.
const PLAIN_OVERHEAD: usize = 128;

/// Bytes of request frames that may be held at once. The last eighth is kept for small frames, so that requests
/// such as Metadata get through while large ones have used up the rest.
pub(super) struct FrameBudget {
    limit: u64,
    reserve: u64,
    charged: AtomicU64,
    pool: Arc<Pool>,
}

impl FrameBudget {
    /// A budget of `limit` bytes.
    pub(super) fn new(limit: u64) -> Arc<FrameBudget> {
        // A quarter of the budget kept for reuse covers what is in flight under full load many times over.
        let pool = Pool::new((limit / 4) as usize);
        Arc::new(FrameBudget { limit, reserve: limit / 8, charged: AtomicU64::new(0), pool })
    }

    /// Memory for a frame of `len` bytes, or nothing while the budget does not allow it.
    pub(super) fn frame(self: &Arc<FrameBudget>, len: usize) -> Option<Frame> {
        let cost = cost(len);
        let most = if len < SMALL_BYTES { self.limit } else { self.limit - self.reserve };
        self.charged
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |charged| {
                charged.checked_add(cost).filter(|sum| *sum <= most)
            })
            .ok()?;
        let memory = if len < PLAIN_BYTES { Memory::Plain(vec![0; len]) } else { Memory::Pooled(self.pool.take(len)) };
        Some(Frame { memory: Some(memory), len, budget: Arc::clone(self) })
    }

    /// Whether a frame of `len` bytes fits when no other is there.
    pub(super) fn could_ever_hold(&self, len: usize) -> bool {
        cost(len) <= self.limit - self.reserve
    }

    /// Most bytes that may be charged.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes that are charged now.
    pub(super) fn charged(&self) -> u64 {
        self.charged.load(Ordering::Relaxed)
    }
}

/// Bytes of memory that a frame of `len` bytes takes.
fn cost(len: usize) -> u64 {
    (if len < PLAIN_BYTES { len + PLAIN_OVERHEAD } else { size_class(len) }) as u64
}

enum Memory {
    Plain(Vec<u8>),
    Pooled(AlignedBuf),
}

/// The memory of one frame. Its charge ends when it is dropped, on whichever thread.
pub(super) struct Frame {
    /// Taken by `drop` alone.
    memory: Option<Memory>,
    len: usize,
    budget: Arc<FrameBudget>,
}

impl Frame {
    /// Its bytes, to be filled.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.memory {
            Some(Memory::Plain(bytes)) => bytes,
            Some(Memory::Pooled(buf)) => &mut buf.as_mut()[..self.len],
            None => &mut [],
        }
    }
}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        match &self.memory {
            Some(Memory::Plain(bytes)) => bytes,
            Some(Memory::Pooled(buf)) => &buf.as_ref()[..self.len],
            None => &[],
        }
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        if let Some(Memory::Pooled(buf)) = self.memory.take() {
            self.budget.pool.give(buf);
        }
        self.budget.charged.fetch_sub(cost(self.len), Ordering::Relaxed);
    }
}

/// Why a stream cannot be cut into frames any further.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum FrameError {
    /// The length prefix is negative.
    #[error("a frame announced {0} bytes")]
    Negative(i32),
    /// The length prefix is above `socket.request.max.bytes`.
    #[error("a frame announced {len} bytes, more than socket.request.max.bytes ({most})")]
    TooLarge {
        /// The announced length.
        len: usize,
        /// The limit.
        most: usize,
    },
}

/// What [`FrameReader::take`] got.
pub(super) enum Taken {
    /// A whole frame, without its length prefix.
    Frame(Bytes),
    /// All input was used up; the frame goes on in the next.
    More,
    /// The frame that begins here must wait until the budget has room for it.
    NoMemory,
}

/// Cuts a stream of bytes into frames: a length of four bytes, big-endian, then so many bytes.
pub(super) struct FrameReader {
    budget: Arc<FrameBudget>,
    most: usize,
    prefix: [u8; 4],
    /// Bytes of the prefix that are there.
    prefix_len: usize,
    /// The frame that is being filled, and how far.
    filling: Option<(Frame, usize)>,
}

impl FrameReader {
    /// At the start of a stream whose frames are at most `most` bytes long.
    pub(super) fn new(budget: Arc<FrameBudget>, most: usize) -> FrameReader {
        FrameReader { budget, most, prefix: [0; 4], prefix_len: 0, filling: None }
    }

    /// Whether a frame has begun and is not complete.
    pub(super) fn inside_frame(&self) -> bool {
        self.prefix_len > 0
    }

    /// Takes bytes from the front of `input` up to the end of a frame, and leaves the rest in it.
    pub(super) fn take(&mut self, input: &mut &[u8]) -> Result<Taken, FrameError> {
        if self.filling.is_none() {
            while self.prefix_len < self.prefix.len() {
                let Some((first, rest)) = input.split_first() else { return Ok(Taken::More) };
                self.prefix[self.prefix_len] = *first;
                self.prefix_len += 1;
                *input = rest;
            }
            // The length is judged before anything is allocated for it.
            let announced = i32::from_be_bytes(self.prefix);
            let len = usize::try_from(announced).map_err(|_| FrameError::Negative(announced))?;
            if len > self.most || !self.budget.could_ever_hold(len) {
                return Err(FrameError::TooLarge { len, most: self.most });
            }
            let Some(frame) = self.budget.frame(len) else { return Ok(Taken::NoMemory) };
            self.filling = Some((frame, 0));
        }
        if let Some((frame, filled)) = &mut self.filling {
            let n = input.len().min(frame.len - *filled);
            let (bytes, rest) = input.split_at(n);
            frame.bytes_mut()[*filled..*filled + n].copy_from_slice(bytes);
            *filled += n;
            *input = rest;
        }
        Ok(self.complete().map_or(Taken::More, Taken::Frame))
    }

    /// Where to read the rest of a frame to, without a copy, if at least `least` bytes of it are missing.
    pub(super) fn missing(&mut self, least: usize) -> Option<&mut [u8]> {
        let (frame, filled) = self.filling.as_mut()?;
        let missing = frame.len - *filled;
        (missing >= least.max(1)).then(|| &mut frame.bytes_mut()[*filled..])
    }

    /// Notes that `n` bytes were read to where [`FrameReader::missing`] said. Returns the frame if that was its end.
    pub(super) fn filled(&mut self, n: usize) -> Option<Bytes> {
        let (frame, filled) = self.filling.as_mut()?;
        *filled += n;
        assert!(*filled <= frame.len, "more was read than the frame holds");
        self.complete()
    }

    fn complete(&mut self) -> Option<Bytes> {
        let (frame, _) = self.filling.take_if(|(frame, filled)| *filled == frame.len)?;
        self.prefix_len = 0;
        Some(Bytes::from_owner(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn framed(payload: &[u8]) -> Vec<u8> {
        [&(payload.len() as u32).to_be_bytes()[..], payload].concat()
    }

    /// Feeds `stream` in pieces of `piece` bytes and returns the frames.
    fn cut(reader: &mut FrameReader, stream: &[u8], piece: usize) -> Vec<Bytes> {
        let mut frames = Vec::new();
        for mut input in stream.chunks(piece) {
            while !input.is_empty() {
                match reader.take(&mut input).unwrap() {
                    Taken::Frame(frame) => frames.push(frame),
                    Taken::More => assert!(input.is_empty()),
                    Taken::NoMemory => panic!("the budget is large enough"),
                }
            }
        }
        frames
    }

    #[test]
    fn frames_come_out_as_they_went_in_however_the_stream_is_cut() {
        let payloads: Vec<Vec<u8>> = [1, 0, 3, 4095, 4096, 70_000, 5]
            .iter()
            .map(|len| (0..*len).map(|i| (i * 31 + len) as u8).collect())
            .collect();
        let stream: Vec<u8> = payloads.iter().flat_map(|p| framed(p)).collect();
        let budget = FrameBudget::new(16 * MIB);
        for piece in [1, 2, 3, 7, 4096, 65_536, stream.len()] {
            let mut reader = FrameReader::new(Arc::clone(&budget), 100_000);
            let frames = cut(&mut reader, &stream, piece);
            assert!(!reader.inside_frame());
            assert_eq!(frames, payloads, "in pieces of {piece}");
            assert!(budget.charged() > 0);
        }
        assert_eq!(budget.charged(), 0, "a charge outlived its frame");
    }

    #[test]
    fn the_rest_of_a_large_frame_is_read_in_place() {
        let budget = FrameBudget::new(16 * MIB);
        let mut reader = FrameReader::new(budget, 100_000);
        let payload: Vec<u8> = (0..50_000).map(|i| i as u8).collect();
        let stream = framed(&payload);
        let mut input = &stream[..20_000];
        assert!(matches!(reader.take(&mut input), Ok(Taken::More)));
        assert!(reader.missing(40_000).is_none());
        let missing = reader.missing(30_000).unwrap();
        assert_eq!(missing.len(), 30_004);
        missing[..1_000].copy_from_slice(&stream[20_000..21_000]);
        assert!(reader.filled(1_000).is_none());
        reader.missing(1).unwrap().copy_from_slice(&stream[21_000..]);
        assert_eq!(reader.filled(stream.len() - 21_000).unwrap(), payload);
    }

    #[test]
    fn an_impossible_length_is_refused_before_anything_is_allocated() {
        let budget = FrameBudget::new(MIB);
        let error = |prefix: [u8; 4], most| {
            let mut reader = FrameReader::new(Arc::clone(&budget), most);
            reader.take(&mut &prefix[..]).err().unwrap()
        };
        assert_eq!(error([0xFF; 4], 1000), FrameError::Negative(-1));
        assert_eq!(error([0x80, 0, 0, 0], 1000), FrameError::Negative(i32::MIN));
        assert_eq!(error([0x7F, 0xFF, 0xFF, 0xFF], 1000), FrameError::TooLarge { len: 0x7FFF_FFFF, most: 1000 });
        assert_eq!(error([0, 0, 3, 0xE9], 1000), FrameError::TooLarge { len: 1001, most: 1000 });
        // One that the budget could never hold would wait for ever.
        assert!(matches!(error([0, 0x10, 0, 0], usize::MAX), FrameError::TooLarge { .. }));
        assert_eq!(budget.charged(), 0);
    }

    #[test]
    fn small_frames_get_through_when_large_ones_have_used_up_the_budget() {
        let budget = FrameBudget::new(MIB);
        let large: Vec<Frame> = std::iter::from_fn(|| budget.frame(100_000)).collect();
        assert!(large.len() >= 7, "only {}", large.len());
        assert!(budget.frame(SMALL_BYTES).is_none());
        let small: Vec<Frame> = std::iter::from_fn(|| budget.frame(1000)).collect();
        assert!(small.len() > 100, "only {}", small.len());
        assert!(budget.charged() <= MIB);

        let mut reader = FrameReader::new(Arc::clone(&budget), 200_000);
        let stream = framed(&[7; 100_000]);
        let mut input = &stream[..];
        assert!(matches!(reader.take(&mut input), Ok(Taken::NoMemory)));
        assert_eq!(input.len(), 100_000, "only the prefix was taken");
        drop(large);
        let Ok(Taken::Frame(frame)) = reader.take(&mut input) else { panic!("the budget has room again") };
        assert_eq!(frame, [7; 100_000][..]);
        drop((small, frame));
        assert_eq!(budget.charged(), 0);
    }
}
