//! Decoding a request takes memory in proportion to its frame, whatever counts the frame declares.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use ringlog::protocol::request;
use ringlog::protocol::versions::APIS;

/// The system's allocator, counting what is asked of it.
struct Counting;

static ASKED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed on unchanged to the system's allocator, whose contract is the same.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `GlobalAlloc::dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The smallest elements take one to three bytes on the wire and up to some 150 decoded.
const BYTES_PER_BYTE: usize = 150;
/// Error messages and the first node of a map.
const BYTES_AT_ALL: usize = 4_096;

fn decode(frame: Vec<u8>) -> bool {
    let length = frame.len();
    let frame = Bytes::from(frame);
    let before = ASKED.load(Relaxed);
    let outcome = request::decode(frame);
    let asked = ASKED.load(Relaxed) - before;
    assert!(asked <= BYTES_AT_ALL + BYTES_PER_BYTE * length, "{asked} bytes for a frame of {length}: {outcome:?}");
    outcome.is_ok()
}

/// The one test of this file: the counter is the process's.
#[test]
fn memory_is_in_proportion_to_the_frame() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for api in APIS {
        for version in api.min..=api.max {
            let mut decoded = 0;
            for round in 0..2_000 {
                // An empty client id and no tagged fields in the header.
                let mut frame = vec![0; if api.key.request_header_version(version) >= 2 { 11 } else { 10 }];
                frame[0..2].copy_from_slice(&(api.key as i16).to_be_bytes());
                frame[2..4].copy_from_slice(&version.to_be_bytes());
                // What is likely a count, a length or a part of one: large ones and small ones.
                for _ in 0..random() % 40 {
                    frame.push(match random() % 8 {
                        0 => 0xff,
                        1 => 0x7f,
                        2 => 1,
                        3..=5 => 0,
                        6 => 2,
                        _ => random() as u8,
                    });
                }
                if round % 2 == 0 {
                    frame.resize(frame.len() + 2_000, 0);
                }
                decoded += usize::from(decode(frame));
            }
            println!("{:?} version {version}: {decoded} of 2000 frames decoded", api.key);
        }
    }
}
