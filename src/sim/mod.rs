//! The second driver: a whole broker, or a cluster of three, which a fourth may join, in one thread, from one seed.
//!
//! A run has brokers with their clients on a virtual clock, network and disks ([`world`]). Faults come by chance
//! ([`faults`]): stalls, errors, a full disk, flipped bits, kills at any moment, with torn writes. Clients
//! ([`clients`]) report what they were promised to a model ([`checkers`]), which knows the invariants of the design by
//! their names: S1 to S3, S5, S7, S9, L1, L2, L4, L5 (S1 with what clients and configs have deleted, and the last
//! record of each key where a topic is compacted); of a cluster, [`observer`] holds S2, S6 and S8. The same seed gives
//! the same run, byte for byte.

mod broker;
mod checkers;
mod clients;
mod disk;
mod faults;
mod network;
mod node;
mod observer;
mod rng;
mod server_side;
mod trace;
mod wire;
mod world;

#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use world::{Summary, World};

thread_local! {
    /// Step and microsecond of the run on this thread, for the message when it fails.
    static PROGRESS: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

fn progress(step: u64, micros: u64) {
    PROGRESS.set((step, micros));
}

/// What a run is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Brokers {
    One,
    Three,
    /// Three, which a fourth joins.
    Joined,
}

/// A run that broke an invariant.
#[derive(Clone, Debug)]
struct Failure {
    brokers: Brokers,
    seed: u64,
    step: u64,
    micros: u64,
    message: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Failure { brokers, seed, step, micros, message } = self;
        let millis = micros / 1_000;
        let option = match brokers {
            Brokers::One => "",
            Brokers::Three => "--cluster ",
            Brokers::Joined => "--joined ",
        };
        write!(f, "seed {seed} failed at step {step}, {millis} ms: {message}\n  replay: scripts/sim.sh {option}{seed}")
    }
}

/// Runs one seed. With `print` every step is written to stderr.
fn run(brokers: Brokers, seed: u64, print: bool) -> Result<Summary, Failure> {
    progress(0, 0);
    let begin = match brokers {
        Brokers::One => World::new,
        Brokers::Three => World::cluster,
        Brokers::Joined => World::joined,
    };
    catch_unwind(AssertUnwindSafe(|| begin(seed, print).run())).map_err(|panic| {
        let message = match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
            (Some(text), _) => text.clone(),
            (None, Some(text)) => (*text).to_owned(),
            (None, None) => "a panic without a message".to_owned(),
        };
        let (step, micros) = PROGRESS.get();
        Failure { brokers, seed, step, micros, message }
    })
}
