//! Buffers that are reused. The first touch of a fresh page costs far more than writing to it again, so the buffers
//! that carry the bulk of the data (request frames, disk reads) go back to a pool.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::limits::BLOCK;

/// Buffers of at least so many bytes come from the kernel itself, whose zeros cost nothing until they are touched. An
/// allocator may have to write them: a client that announces a frame of 64 MiB, and sends none of it, must not make the
/// broker do that.
const MAPPED_BYTES: usize = 2 * 1024 * 1024;

/// Memory of a whole number of blocks, aligned to one, as direct I/O wants it. Zeros at first, then whatever its
/// last user left: always initialised.
pub(super) struct AlignedBuf {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the buffer is the only owner of its memory.
unsafe impl Send for AlignedBuf {}

impl AlignedBuf {
    /// Fresh memory of `len` bytes, a multiple of 4096 and not zero.
    pub(super) fn new(len: usize) -> AlignedBuf {
        let layout = Self::layout(len);
        let start = if len < MAPPED_BYTES {
            // SAFETY: the layout's size is not zero.
            unsafe { alloc_zeroed(layout) }
        } else {
            map(len)
        };
        AlignedBuf { start: NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout)), len }
    }

    fn layout(len: usize) -> Layout {
        assert!(len > 0 && len.is_multiple_of(BLOCK), "an aligned buffer of {len} bytes");
        Layout::from_size_align(len, BLOCK).expect("the block is a power of two and the length far below the limit")
    }

    /// Bytes of the buffer.
    pub(super) fn len(&self) -> usize {
        self.len
    }
}

impl AsRef<[u8]> for AlignedBuf {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `len` initialised bytes begin at `start`, and they live as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl AsMut<[u8]> for AlignedBuf {
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_ref`; the exclusive borrow of `self` is one of the memory.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        if self.len < MAPPED_BYTES {
            // SAFETY: the memory came from `alloc_zeroed` with this very layout.
            unsafe { dealloc(self.start.as_ptr(), Self::layout(self.len)) }
        } else {
            // SAFETY: the memory is a mapping of this very length, and nobody refers to it any more.
            let result = unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
            assert_eq!(result, 0, "a mapping of {} bytes cannot be given back", self.len);
        }
    }
}

/// `len` bytes of zeros from the kernel, aligned to a page; null where it has none.
fn map(len: usize) -> *mut u8 {
    // SAFETY: an anonymous mapping at an address of the kernel's choice touches no memory of ours.
    let start = unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
    };
    if start == libc::MAP_FAILED { std::ptr::null_mut() } else { start.cast() }
}

/// The length of the buffers that serve a need of `len` bytes: whole blocks, and above four of them in steps of a
/// quarter of a power of two, so that buffers fit one another's place and waste a fifth at most.
pub(super) fn size_class(len: usize) -> usize {
    let blocks = len.div_ceil(BLOCK).max(1);
    let step = if blocks <= 4 { 1 } else { 1 << ((blocks - 1).ilog2() - 2) };
    blocks.next_multiple_of(step) * BLOCK
}

/// Buffers that wait for their next use, shared by all threads.
pub(super) struct Pool {
    /// Most bytes that may wait.
    keep: usize,
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    bytes: usize,
    /// Buffers by their length; no list is empty.
    classes: BTreeMap<usize, Vec<AlignedBuf>>,
}

impl Idle {
    /// The buffer of exactly `len` bytes that was used last.
    fn pop(&mut self, len: usize) -> Option<AlignedBuf> {
        let Entry::Occupied(mut class) = self.classes.entry(len) else { return None };
        let buf = class.get_mut().pop();
        if class.get().is_empty() {
            class.remove();
        }
        self.bytes -= buf.as_ref().map_or(0, AlignedBuf::len);
        buf
    }
}

impl Pool {
    /// A pool that keeps up to `keep` bytes for reuse.
    pub(super) fn new(keep: usize) -> Arc<Pool> {
        Arc::new(Pool { keep, idle: Mutex::default() })
    }

    /// A buffer of [`size_class`]`(len)` bytes, or of up to twice as many where such a one waits: its contents are
    /// undefined. Frames come in all sizes; a pool that looked for one class alone would have the right one too seldom.
    pub(super) fn take(&self, len: usize) -> AlignedBuf {
        let class = size_class(len);
        let reused = {
            let mut idle = self.lock();
            let fitting = idle.classes.range(class..=2 * class).next().map(|(len, _)| *len);
            fitting.and_then(|len| idle.pop(len))
        };
        reused.unwrap_or_else(|| AlignedBuf::new(class))
    }

    /// Takes a buffer back. When the pool is full the largest of the waiting go first, this one included.
    pub(super) fn give(&self, buf: AlignedBuf) {
        let mut surplus = Vec::new();
        let mut idle = self.lock();
        idle.bytes += buf.len();
        idle.classes.entry(buf.len()).or_default().push(buf);
        while idle.bytes > self.keep {
            let (&largest, _) = idle.classes.last_key_value().expect("bytes are waiting, so a class exists");
            surplus.extend(idle.pop(largest));
        }
        // Memory goes back to the system outside the lock.
        drop(idle);
        drop(surplus);
    }

    /// The first `len` bytes of `buf` to share with anyone; the buffer comes back here when the last slice of it is
    /// dropped, on whichever thread.
    pub(super) fn share(self: &Arc<Pool>, buf: AlignedBuf, len: usize) -> Bytes {
        assert!(len <= buf.len(), "{len} bytes of a buffer of {}", buf.len());
        Bytes::from_owner(Shared { buf: Some(buf), len, pool: Arc::clone(self) })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Idle> {
        // Nothing under the lock can panic half-way, so a poisoned one guards a sound state.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Shared {
    buf: Option<AlignedBuf>,
    len: usize,
    pool: Arc<Pool>,
}

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self.buf.as_ref().map_or(&[], |buf| &buf.as_ref()[..self.len])
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(buf) = self.buf.take() {
            self.pool.give(buf);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_hold_what_they_serve_and_waste_little() {
        for len in (1..600_000).step_by(97).chain([4096, 4097, 1 << 20, (1 << 20) + 1, 100 << 20]) {
            let class = size_class(len);
            assert!(class >= len && class.is_multiple_of(BLOCK), "{len} -> {class}");
            assert!(class <= 4 * BLOCK || class - len < class / 4, "{len} -> {class}");
            assert_eq!(size_class(class), class, "a class serves itself");
        }
    }

    #[test]
    fn a_shared_buffer_is_used_again_once_its_last_slice_is_gone() {
        let pool = Pool::new(1 << 20);
        let mut buf = pool.take(10_000);
        buf.as_mut()[..5].copy_from_slice(b"hello");
        let start = buf.as_ref().as_ptr();
        assert_eq!(start.align_offset(BLOCK), 0);
        let bytes = pool.share(buf, 5);
        let slice = bytes.slice(1..3);
        drop(bytes);
        assert_eq!(&slice[..], b"el");
        assert_ne!(pool.take(10_000).as_ref().as_ptr(), start, "the buffer is still in use");
        std::thread::spawn(move || drop(slice)).join().unwrap();
        assert_eq!(pool.take(10_000).as_ref().as_ptr(), start);
    }

    #[test]
    fn a_buffer_serves_half_its_length_and_no_less() {
        let pool = Pool::new(1 << 20);
        let buf = pool.take(8 * BLOCK);
        let start = buf.as_ref().as_ptr();
        pool.give(buf);
        assert_ne!(pool.take(3 * BLOCK).as_ref().as_ptr(), start);
        let again = pool.take(4 * BLOCK);
        assert_eq!((again.as_ref().as_ptr(), again.len()), (start, 8 * BLOCK));
        assert_eq!(pool.lock().bytes, 0);
    }

    #[test]
    fn a_full_pool_gives_memory_back() {
        let pool = Pool::new(3 * BLOCK);
        for len in [BLOCK, 4 * BLOCK, BLOCK, 2 * BLOCK] {
            pool.give(AlignedBuf::new(len));
        }
        let idle = pool.lock();
        assert_eq!(idle.bytes, 2 * BLOCK);
        assert_eq!(idle.classes[&BLOCK].len(), 2);
        assert!(!idle.classes.contains_key(&(4 * BLOCK)));
    }

    #[test]
    fn a_large_buffer_costs_nothing_until_it_is_used() {
        const LEN: usize = 16 * MAPPED_BYTES;
        let mut buf = AlignedBuf::new(LEN);
        assert_eq!(buf.as_ref().as_ptr().align_offset(BLOCK), 0);
        let resident = |buf: &AlignedBuf| {
            let mut pages = vec![0u8; LEN / BLOCK];
            // SAFETY: the vector has a byte for each page of the buffer.
            let result = unsafe { libc::mincore(buf.start.as_ptr().cast(), LEN, pages.as_mut_ptr()) };
            assert_eq!(result, 0, "mincore");
            pages.iter().filter(|page| **page & 1 == 1).count()
        };
        assert_eq!(resident(&buf), 0);
        buf.as_mut()[LEN - 1] = 7;
        // A huge page at the most.
        assert!((1..=512).contains(&resident(&buf)));
        assert!(buf.as_ref()[..LEN - 1].iter().all(|byte| *byte == 0));
    }
}
