//! The parts of this layer together, against a disk in memory.

mod damage;
mod model;
mod rig;
mod segments;
mod space;
mod wal;
