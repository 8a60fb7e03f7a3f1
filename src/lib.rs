//! ringlog: a single-binary, storage-first broker that speaks the Kafka protocol, on Linux io_uring.
//!
//! The modules in reading order, each importing only from those above it:

pub mod cli;
pub mod codec;
pub mod config;
pub mod consensus;
pub mod group;
pub mod io;
pub mod limits;
pub mod log;
pub mod logging;
pub mod metadata;
pub mod metrics;
pub mod partition;
pub mod peer;
pub mod protocol;
pub mod record;
pub mod shard;
mod signals;
#[cfg(test)]
mod sim;
pub mod types;
