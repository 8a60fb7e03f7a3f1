//! The metadata of the cluster: a state machine that every shard of every node applies the same commands to.

pub mod codec;
pub mod command;
mod config_table;
pub mod configs;
pub mod names;
pub mod nodes;
pub mod own;
pub mod placement;
pub mod quotas;
pub mod state;

pub use command::Command;
pub use state::{Change, RegisterRefusal, State, Topic};
