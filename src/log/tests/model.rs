//! Random appends, completions, crashes and torn writes, against a model of what a log is.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::rig::*;
use crate::log::disk::{DiskConfig, WalConfig};
use crate::log::recovery::Recovered;
use crate::log::*;

/// What the frames of a log add up to.
#[derive(Clone, Default, PartialEq, Debug)]
struct Log {
    checkpoint: Option<(u64, Vec<u8>)>,
    hard_state: Option<Vec<u8>>,
    entries: BTreeMap<u64, Vec<u8>>,
    deleted: bool,
}

impl Log {
    fn reached(&self) -> u64 {
        self.checkpoint.as_ref().map_or(0, |(index, _)| *index)
    }

    fn last(&self) -> u64 {
        self.entries.keys().next_back().copied().unwrap_or(self.reached())
    }

    fn apply(&mut self, frame: &Frame) {
        let payload = [&frame.head[..], &frame.body[..]].concat();
        match frame.kind {
            FrameKind::Entry => {
                self.entries.split_off(&frame.index);
                self.entries.insert(frame.index, payload);
            }
            FrameKind::HardState => self.hard_state = Some(payload),
            FrameKind::Checkpoint => {
                self.entries = self.entries.split_off(&(frame.index + 1));
                self.hard_state = None;
                self.checkpoint = Some((frame.index, payload));
            }
            FrameKind::Snapshot => {
                *self = Log { checkpoint: Some((frame.index, payload)), ..Log::default() };
            }
            FrameKind::Deleted => *self = Log { deleted: true, ..Log::default() },
        }
    }
}

type Model = BTreeMap<u64, Log>;

fn model_of(base: &Model, appends: &[Vec<Frame>]) -> Model {
    let mut model = base.clone();
    for frame in appends.iter().flatten() {
        model.entry(frame.log.0).or_default().apply(frame);
    }
    model
}

fn found_as_model(found: &Recovered) -> Model {
    let logs = found.logs.iter().map(|log| {
        let checkpoint = log.checkpoint.as_ref().map(|found| (found.index, found.payload.to_vec()));
        let entries = log.entries.iter().map(|entry| (entry.index, entry.payload.to_vec())).collect();
        let hard_state = log.hard_state.as_ref().map(|bytes| bytes.to_vec());
        (log.log.0, Log { checkpoint, hard_state, entries, deleted: false })
    });
    logs.collect()
}

/// Without what leaves nothing to recover.
fn visible(model: &Model) -> Model {
    let visible = model.iter().filter(|(_, log)| !log.deleted && **log != Log::default());
    visible.map(|(number, log)| (*number, log.clone())).collect()
}

#[derive(Clone, Debug)]
enum Act {
    Entries {
        log: u64,
        back: u64,
        count: u64,
        len: usize,
    },
    HardState {
        log: u64,
    },
    Checkpoint {
        log: u64,
        behind: u64,
    },
    Snapshot {
        log: u64,
        ahead: u64,
    },
    Delete {
        log: u64,
    },
    Turn,
    Complete(usize),
    Tick(u64),
    /// A crash: `sectors` says which sectors of the writes in flight reach the device.
    Crash {
        sectors: u64,
    },
}

fn act() -> impl Strategy<Value = Act> {
    let log = 1..5u64;
    prop_oneof![
        8 => (log.clone(), prop_oneof![4 => Just(0), 1 => 0..4u64], 1..4u64, 0..9_000usize)
            .prop_map(|(log, back, count, len)| Act::Entries { log, back, count, len }),
        2 => log.clone().prop_map(|log| Act::HardState { log }),
        4 => (log.clone(), 0..3u64).prop_map(|(log, behind)| Act::Checkpoint { log, behind }),
        1 => (log.clone(), 1..9u64).prop_map(|(log, ahead)| Act::Snapshot { log, ahead }),
        1 => log.prop_map(|log| Act::Delete { log }),
        8 => Just(Act::Turn),
        16 => any::<usize>().prop_map(Act::Complete),
        2 => (1..100u64).prop_map(Act::Tick),
        1 => any::<u64>().prop_map(|sectors| Act::Crash { sectors }),
    ]
}

/// The rig with what was promised.
struct World {
    rig: Rig,
    /// The state at the last start.
    base: Model,
    /// All frames accepted since, by appends of which each is durable as a whole.
    frames: Vec<Vec<Frame>>,
    acked: usize,
    /// Entries appended in all runs, of which each has bytes of its own: else a torn write may hold, byte for byte, the
    /// sectors that one of an earlier run lacks at the same place, and that one is whole after all.
    entries: u64,
    /// Logs deleted are replaced by new ones: numbers are never used twice.
    generation: u64,
}

impl World {
    fn current(&self) -> Model {
        model_of(&self.base, &self.frames)
    }

    fn number(&self, log: u64) -> u64 {
        self.generation * 10 + log
    }

    fn append(&mut self, frame: Frame) {
        self.append_whole(vec![frame]);
    }

    fn append_whole(&mut self, frames: Vec<Frame>) {
        self.frames.push(frames.clone());
        let ticket = self.frames.len() as u64;
        self.rig.append(0, ticket, frames);
    }

    fn take_acks(&mut self) {
        for (_, ticket) in self.rig.acked() {
            assert!(ticket as usize > self.acked, "acknowledgements rise");
            self.acked = ticket as usize;
        }
        assert!(self.acked <= self.frames.len());
    }

    fn act(&mut self, act: &Act) {
        match *act {
            Act::Entries { log, back, count, len } => {
                let number = self.number(log);
                let known = self.current().remove(&number).unwrap_or_default();
                let first = (known.last() + 1 - back.min(known.last() - known.reached())).max(known.reached() + 1);
                for index in first..first + count {
                    self.entries += 1;
                    let pattern = self.entries.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes();
                    let payload: Vec<u8> = pattern.into_iter().cycle().take(len).collect();
                    self.append(entry(number, index, &payload));
                }
            }
            Act::HardState { log } => {
                let payload = self.frames.len().to_le_bytes();
                self.append(state(self.number(log), FrameKind::HardState, 0, &payload));
            }
            Act::Checkpoint { log, behind } => {
                let number = self.number(log);
                let known = self.current().remove(&number).unwrap_or_default();
                let index = known.last().saturating_sub(behind).max(known.reached());
                let payload = self.frames.len().to_le_bytes();
                self.append(state(number, FrameKind::Checkpoint, index, &payload));
            }
            Act::Snapshot { log, ahead } => {
                let number = self.number(log);
                let index = self.current().get(&number).map_or(0, Log::last) + ahead;
                self.append(state(number, FrameKind::Checkpoint, index, b"snapshot"));
            }
            Act::Delete { log } => {
                let number = self.number(log);
                self.append(state(number, FrameKind::Deleted, 0, b""));
                for log in 1..5 {
                    if self.number(log) != number {
                        self.append(state(self.number(log), FrameKind::Deleted, 0, b""));
                    }
                }
                self.generation += 1;
            }
            Act::Turn => self.rig.turn(),
            Act::Complete(at) if !self.rig.ops.is_empty() => {
                let at = at % self.rig.ops.len();
                self.rig.complete(at);
            }
            Act::Complete(_) => {}
            Act::Tick(millis) => self.rig.tick_after(millis),
            Act::Crash { sectors } => self.crash(sectors),
        }
        self.release();
        self.take_acks();
    }

    /// Does as a shard does when it is asked for space: what is small is written once more, or passed like the rest.
    fn release(&mut self) {
        for (log, most) in asked_for_space(&self.rig.replies) {
            let current = self.current();
            let known = current.get(&log.0).filter(|known| !known.deleted);
            let Some(known) = known else { continue };
            let again = known.entries.iter().map(|(index, payload)| entry(log.0, *index, payload));
            let again: Vec<Frame> = again.map(|frame| Frame { again: true, ..frame }).collect();
            let small = again.iter().map(|frame| frame.wal_len() as u64).sum::<u64>() <= most;
            if small && self.frames.len() % 2 == 1 {
                let checkpoint = state(log.0, FrameKind::Checkpoint, known.reached(), b"asked");
                self.append_whole([checkpoint].into_iter().chain(again).collect());
            } else {
                self.append(state(log.0, FrameKind::Checkpoint, known.last(), b"asked"));
            }
        }
    }

    fn crash(&mut self, sectors: u64) {
        self.take_acks();
        let mut at = 0;
        for (_, op) in std::mem::take(&mut self.rig.ops) {
            match op {
                DeviceOp::Write { file, offset, buf, len } => {
                    for sector in 0..len / 512 {
                        // Most writes are all there or not at all; some are torn.
                        let whole = [true, false][(sectors >> 62) as usize & 1];
                        at += 1;
                        if if whole { sectors >> (at % 7) & 1 == 1 } else { sectors.rotate_left(at) & 1 == 1 } {
                            let to = offset as usize + sector * 512;
                            let bytes = self.rig.memory.files.get_mut(&file).expect("it was created");
                            bytes[to..to + 512].copy_from_slice(&buf[sector * 512..sector * 512 + 512]);
                        }
                    }
                }
                DeviceOp::Create { file, len } => {
                    let len = if sectors & 4 == 0 { len / 2 } else { len };
                    self.rig.memory.files.insert(file, vec![0; len as usize]);
                }
                op => drop(self.rig.memory.carry_out(op)),
            }
        }
        let config = self.rig.config;
        let mut found = self.rig.recover().unwrap_or_else(|error| panic!("a crash is no damage: {error}"));
        let state = found_as_model(&found);
        let kept = (self.acked..=self.frames.len())
            .find(|kept| visible(&model_of(&self.base, &self.frames[..*kept])) == state);
        let Some(kept) = kept else {
            panic!("found {state:?} but expected {:?}", visible(&model_of(&self.base, &self.frames[..self.acked])));
        };
        self.base = model_of(&self.base, &self.frames[..kept]);
        self.frames.clear();
        self.acked = 0;
        // Deleted or not, the logs in use go on with fresh numbers where a deletion was lost.
        let memory = std::mem::take(&mut self.rig.memory);
        self.rig = Rig::over(config, memory, std::mem::take(&mut found.disk));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_start_finds_all_that_was_acknowledged_and_nothing_that_was_not_appended(
        acts in proptest::collection::vec(act(), 1..250)
    ) {
        let wal = WalConfig { segment_bytes: 128 * 1024, max_segments: 8 };
        let rig = Rig::new(DiskConfig { meta: wal, data: wal });
        let mut world = World { rig, base: Model::new(), frames: Vec::new(), acked: 0, entries: 0, generation: 0 };
        for act in &acts {
            world.act(act);
        }
        world.crash(0);
        world.append(entry(99_999, 1, b"goes on"));
        world.rig.settle();
        for _ in 0..20 {
            world.rig.tick_after(250);
            world.release();
            world.rig.settle();
        }
        world.take_acks();
        prop_assert_eq!(world.acked, world.frames.len());
        let found = world.rig.recover().expect("the disk is sound");
        prop_assert_eq!(found_as_model(&found), visible(&world.current()));
        prop_assert!(found.logs.iter().any(|log| log.log == LogId(99_999)), "it goes on");
    }
}
