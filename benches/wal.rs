//! What the WAL's machine costs the disk's thread: frames in, a write out, the acknowledgement back; no device.

// `criterion_group!` makes a public function without a comment.
#![allow(missing_docs)]

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringlog::log::disk::{Disk, DiskConfig, DiskEffect, DiskEvent};
use ringlog::log::recovery::DiskSeed;
use ringlog::log::{Buffers, DeviceDone, DeviceOp, DiskRequest, Frame, FrameKind, WalId};
use ringlog::types::{LogId, Now, ShardId};
use smallvec::SmallVec;

/// Buffers that are used again, as the driver's are.
#[derive(Default)]
struct Pool(Vec<Vec<u8>>);

impl Buffers for Pool {
    type Buf = Vec<u8>;

    fn take(&mut self, len: usize) -> Vec<u8> {
        match self.0.iter().position(|buf| buf.len() == len) {
            Some(at) => self.0.swap_remove(at),
            None => vec![0; len],
        }
    }

    fn give(&mut self, buf: Vec<u8>) {
        self.0.push(buf);
    }
}

/// Ends all operations at once, until none is left.
fn settle(disk: &mut Disk<Pool>, effects: &mut Vec<DiskEffect<Vec<u8>>>) {
    let now = Now::default();
    loop {
        disk.finish_turn(now, effects);
        if effects.is_empty() {
            return;
        }
        for effect in std::mem::take(effects) {
            if let DiskEffect::Device { token, op } = effect {
                let buf = match op {
                    DeviceOp::Write { buf, .. } => Some(buf),
                    _ => None,
                };
                let done = DeviceDone { buf, result: Ok(Bytes::new()) };
                disk.step(now, DiskEvent::Done { token, done }, effects);
            }
        }
    }
}

fn append(criterion: &mut Criterion) {
    const FRAMES: u64 = 1_000;
    let mut group = criterion.benchmark_group("wal");
    group.throughput(Throughput::Elements(FRAMES));
    let cases = [("1 KiB, 1,000 logs", FRAMES, 1_024), ("100 B, 1,000 logs", FRAMES, 100), ("1 KiB, 1 log", 1, 1_024)];
    for (name, logs, len) in cases {
        let mut disk = Disk::new(DiskConfig::default(), DiskSeed::default(), Pool::default(), 2);
        let mut effects = Vec::new();
        settle(&mut disk, &mut effects);
        let body = Bytes::from(vec![7; len]);
        let mut round = 0;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                round += 1;
                for n in 0..FRAMES {
                    let index = if logs == 1 { round * FRAMES + n } else { round };
                    let frame = |kind| Frame {
                        log: LogId(1 + n % logs),
                        kind,
                        term: 1,
                        index,
                        head: SmallVec::from_slice(&[1; 61]),
                        body: body.clone(),
                        again: false,
                    };
                    let mut frames = vec![frame(FrameKind::Entry)];
                    if round % 64 == 0 {
                        // Else the ring would be full some day.
                        frames.push(frame(FrameKind::Checkpoint));
                    }
                    let request = DiskRequest::Append { ticket: index, wal: WalId::Data, frames };
                    disk.step(Now::default(), DiskEvent::Request { from: ShardId(0), request }, &mut effects);
                }
                settle(&mut disk, &mut effects);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, append);
criterion_main!(benches);
