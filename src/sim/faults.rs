//! What goes wrong in a run, and when.

use super::broker::{READ_CACHE_BYTES, TAIL_BYTES};
use super::disk::Target;
use super::rng::Rng;

/// Something that goes wrong.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// No operation of the disk ends for this long.
    Stall { micros: u64 },
    /// The process is killed, or the power fails; it is started again after this many microseconds.
    Kill { down_for: u64 },
    /// The process is told to stop.
    Stop,
    /// The next write of a kind fails; the process is killed and started again after some time.
    Error { target: Target, restart_after: u64, down_for: u64 },
    /// Nothing on the disk grows for this long.
    Full { micros: u64 },
    /// The disk has room again.
    NotFull,
    /// Bits of what was written some time ago turn over.
    Flip { count: u64 },
    /// Clients lose their connections.
    CutConnections,
    /// The wall clock jumps.
    WallClock { millis: i64 },
    /// The process gets no turns for this long, as after SIGSTOP.
    Pause { micros: u64 },
    /// Nothing that the broker sends arrives at another, or at any, for this long.
    Cut { to: Option<usize>, manner: Cut, micros: u64 },
    /// All brokers lose their power at once.
    PowerCut { down_for: u64 },
}

/// How the network fails.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    /// In both directions.
    pub(super) both: bool,
    /// Connections break at once; otherwise they hang, and what was sent arrives late where they last.
    pub(super) resets: bool,
}

impl Fault {
    /// A number for its kind.
    pub(super) fn kind(self) -> u64 {
        match self {
            Fault::Stall { .. } => 0,
            Fault::Kill { .. } => 1,
            Fault::Stop => 2,
            Fault::Error { .. } => 3,
            Fault::Full { .. } => 4,
            Fault::NotFull => 5,
            Fault::Flip { .. } => 6,
            Fault::CutConnections => 7,
            Fault::WallClock { .. } => 8,
            Fault::Pause { .. } => 9,
            Fault::Cut { .. } => 10,
            Fault::PowerCut { .. } => 11,
        }
    }
}

/// The circumstances of a run.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Faults in the order of their times, in microseconds, each with the broker that it befalls.
    pub(super) faults: Vec<(u64, usize, Fault)>,
    /// When they are over.
    pub(super) end: u64,
    /// Nothing happens but that the disk of one broker stalls or is full, again and again: nobody may notice for long.
    pub(super) frozen: bool,
    /// Bytes of request frames that may be held at once.
    pub(super) frame_bytes: usize,
    disk_micros: (u64, u64),
    hop_micros: (u64, u64),
    net_micros: (u64, u64),
}

impl Plan {
    /// The circumstances of one seed.
    pub(super) fn draw(rng: &mut Rng) -> Plan {
        let end = rng.between(4_000_000, 16_000_000);
        let pause = *rng.pick(&[400_000, 1_000_000, 3_000_000]);
        // Each run has its own mixture, so that some see one kind of trouble often and others none of it.
        let weights: Vec<u64> = (0..8).map(|_| rng.below(4)).collect();
        let mut faults = Vec::new();
        let mut at = 0;
        loop {
            at += rng.between(pause / 4, pause * 2);
            if at >= end {
                break;
            }
            if let Some(fault) = Plan::fault(rng, &weights) {
                faults.push((at, 0, fault));
            }
        }
        Plan {
            faults,
            end,
            frozen: false,
            frame_bytes: 16 << 20,
            disk_micros: *rng.pick(&[(60, 200), (60, 5_000), (1_000, 30_000)]),
            hop_micros: *rng.pick(&[(1, 50), (1, 2_000)]),
            net_micros: (0, 0),
        }
    }

    /// The circumstances of one seed of a cluster.
    pub(super) fn draw_cluster(rng: &mut Rng, brokers: usize) -> Plan {
        let end = rng.between(4_000_000, 14_000_000);
        let pause = *rng.pick(&[300_000, 1_000_000, 3_000_000]);
        let weights: Vec<u64> = (0..9).map(|_| rng.below(4)).collect();
        let mut faults = Vec::new();
        // Some runs have all trouble on one broker, which must not be noticed for long.
        let victim = rng.one_in(3).then(|| rng.below(brokers as u64) as usize);
        let mut at = rng.between(500_000, 2_000_000);
        loop {
            at += rng.between(pause / 4, pause * 2);
            if at >= end {
                break;
            }
            let broker = victim.unwrap_or(rng.below(brokers as u64) as usize);
            if let Some(fault) = Plan::cluster_fault(rng, &weights, broker, brokers) {
                faults.push((at, broker, fault));
            }
        }
        Plan {
            faults,
            end,
            frozen: false,
            frame_bytes: 16 << 20,
            disk_micros: *rng.pick(&[(60, 200), (60, 5_000), (1_000, 30_000)]),
            hop_micros: *rng.pick(&[(1, 50), (1, 2_000)]),
            net_micros: *rng.pick(&[(20, 200), (100, 3_000), (20, 40_000)]),
        }
    }

    /// The circumstances of a seed of a cluster in which one broker's disk freezes, and all else is well.
    pub(super) fn draw_frozen(rng: &mut Rng, brokers: usize) -> Plan {
        let victim = rng.below(brokers as u64) as usize;
        let first = rng.between(1_000_000, 4_000_000);
        let faults = [first, first + 10_000_000].map(|at| (at, victim, Fault::Stall { micros: 8_000_000 }));
        Plan {
            faults: faults.to_vec(),
            end: first + 20_000_000,
            frozen: true,
            frame_bytes: 16 << 20,
            disk_micros: (60, 200),
            hop_micros: (1, 50),
            net_micros: *rng.pick(&[(20, 200), (100, 3_000)]),
        }
    }

    /// The circumstances of a seed of a cluster in which one broker's disk is full for a while, and all else is well.
    pub(super) fn draw_full(rng: &mut Rng, brokers: usize) -> Plan {
        let mut plan = Plan::draw_frozen(rng, brokers);
        for (_, _, fault) in &mut plan.faults {
            *fault = Fault::Full { micros: 8_000_000 };
        }
        plan
    }

    /// The circumstances of a seed of a cluster in which bits of one broker's disk turn over, besides all else that goes wrong
    /// there: the others have to make up for it.
    pub(super) fn draw_damaged(rng: &mut Rng, brokers: usize) -> Plan {
        let mut plan = Plan::draw_cluster(rng, brokers);
        let victim = rng.below(brokers as u64) as usize;
        let harmless = |(_, _, fault): &(u64, usize, Fault)| !matches!(fault, Fault::PowerCut { .. });
        plan.faults.retain(harmless);
        let mut at = rng.between(1_500_000, 3_000_000);
        while at < plan.end {
            plan.faults.push((at, victim, Fault::Flip { count: rng.between(3, 12) }));
            let down_for = *rng.pick(&[1_000, 100_000, 1_000_000]);
            // Before what is damaged is written over.
            plan.faults.push((at + rng.between(1_000, 100_000), victim, Fault::Kill { down_for }));
            at += rng.between(1_500_000, 5_000_000);
        }
        plan.faults.sort_by_key(|(at, ..)| *at);
        plan
    }

    fn cluster_fault(rng: &mut Rng, weights: &[u64], broker: usize, brokers: usize) -> Option<Fault> {
        let kind = kind_of(rng, weights)?;
        let down_for = *rng.pick(&[1_000, 100_000, 1_000_000, 4_000_000]);
        let micros = *rng.pick(&[20_000, 200_000, 700_000, 2_500_000, 6_000_000]);
        Some(match kind {
            0 => Fault::Stall { micros },
            1 => Fault::Kill { down_for },
            2 => Fault::Stop,
            3 => {
                let target = *rng.pick(&[Target::Wal, Target::Segment]);
                Fault::Error { target, restart_after: rng.between(10_000, 3_000_000), down_for }
            }
            4 => Fault::Full { micros: rng.between(10_000, 3_000_000) },
            5 => Fault::CutConnections,
            6 => Fault::WallClock { millis: rng.between(0, 20_000_000) as i64 - 10_000_000 },
            7 => Fault::Pause { micros },
            _ if rng.one_in(6) => Fault::PowerCut { down_for },
            _ => {
                let other = (broker + rng.between(1, brokers as u64 - 1) as usize) % brokers;
                let manner = Cut { both: rng.one_in(2), resets: rng.one_in(2) };
                Fault::Cut { to: rng.one_in(2).then_some(other), manner, micros }
            }
        })
    }

    fn fault(rng: &mut Rng, weights: &[u64]) -> Option<Fault> {
        let kind = kind_of(rng, weights)?;
        let target = *rng.pick(&[Target::Wal, Target::Segment]);
        let down_for = *rng.pick(&[1_000, 100_000, 1_000_000]);
        Some(match kind {
            0 => Fault::Stall { micros: *rng.pick(&[20_000, 200_000, 1_500_000, 6_000_000]) },
            1 => Fault::Kill { down_for },
            2 => Fault::Stop,
            3 => Fault::Error { target, restart_after: rng.between(10_000, 3_000_000), down_for },
            4 => Fault::Full { micros: rng.between(10_000, 3_000_000) },
            5 => Fault::Flip { count: rng.between(1, 3) },
            6 => Fault::CutConnections,
            _ => Fault::WallClock { millis: rng.between(0, 20_000_000) as i64 - 10_000_000 },
        })
    }

    /// How long an operation of the disk takes.
    pub(super) fn disk_micros(&self, rng: &mut Rng) -> u64 {
        rng.between(self.disk_micros.0, self.disk_micros.1)
    }

    /// How long a message between two threads takes.
    pub(super) fn hop_micros(&self, rng: &mut Rng) -> u64 {
        rng.between(self.hop_micros.0, self.hop_micros.1)
    }

    /// Whether disks and network are as fast as they should be: then a new topic is shown everywhere at once.
    pub(super) fn is_quick(&self) -> bool {
        self.disk_micros.1 <= 5_000 && self.net_micros.1 <= 3_000
    }

    /// How long a frame from one broker to another takes.
    pub(super) fn net_micros(&self, rng: &mut Rng) -> u64 {
        rng.between(self.net_micros.0, self.net_micros.1)
    }

    /// L5: `held` bytes of records in the shards' memory and `frames` bytes of request frames alive.
    pub(super) fn check_memory(&self, held: u64, frames: u64) {
        // What is not in segments yet cannot be dropped: as much again may gather before appends are refused.
        let most = 2 * (TAIL_BYTES + READ_CACHE_BYTES) + self.frame_bytes as u64;
        assert!(held <= most, "L5: the shards hold {held} bytes, {most} are allowed");
        assert!(frames <= self.frame_bytes as u64, "L5: {frames} bytes of frames are alive");
    }
}

/// The place of one of the weights, drawn by them; none where all are zero.
fn kind_of(rng: &mut Rng, weights: &[u64]) -> Option<usize> {
    let all = weights.iter().sum::<u64>();
    let mut draw = rng.below(all.max(1));
    weights.iter().position(|weight| {
        let hit = draw < *weight;
        draw = draw.wrapping_sub(if hit { 0 } else { *weight });
        hit
    })
}
