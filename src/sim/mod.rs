//! The second driver: a whole broker in one thread, from one seed.
//!
//! A run has a broker with its clients on a virtual clock, network and disk ([`world`]). Faults come by chance
//! ([`faults`]): stalls, errors, a full disk, flipped bits, kills at any moment, with torn writes. Clients
//! ([`clients`]) report what they were promised to a model ([`checkers`]), which knows the invariants of the design by
//! their names: S1 to S3, S5, S7, S9, L1, L4, L5. The same seed gives the same run, byte for byte.

mod broker;
mod checkers;
mod clients;
mod disk;
mod faults;
mod rng;
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

/// A run that broke an invariant.
#[derive(Clone, Debug)]
struct Failure {
    seed: u64,
    step: u64,
    micros: u64,
    message: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Failure { seed, step, micros, message } = self;
        let millis = micros / 1_000;
        write!(f, "seed {seed} failed at step {step}, {millis} ms: {message}\n  replay: scripts/sim.sh {seed}")
    }
}

/// Runs one seed. With `print` every step is written to stderr.
fn run(seed: u64, print: bool) -> Result<Summary, Failure> {
    progress(0, 0);
    catch_unwind(AssertUnwindSafe(|| World::new(seed, print).run())).map_err(|panic| {
        let message = match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
            (Some(text), _) => text.clone(),
            (None, Some(text)) => (*text).to_owned(),
            (None, None) => "a panic without a message".to_owned(),
        };
        let (step, micros) = PROGRESS.get();
        Failure { seed, step, micros, message }
    })
}
