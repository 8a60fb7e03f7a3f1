//! The Kafka record batch, format v2: its header, the checks that a broker makes, its records where it must look.
//!
//! A batch stays as the client sent it. What a broker changes in it (base offset, leader epoch, and with
//! LogAppendTime two more fields) lies in the header, so a batch is kept as a copied header and a shared body.

mod batch;
mod compression;
mod entries;
mod header;
mod records;
mod rewrite;

pub use batch::{Batch, BatchError, Batches, split_batches};
pub use compression::{CompressionError, compress};
pub use entries::Entry;
pub use header::{BatchHeader, Compression, HEADER_LEN, TimestampType, advance_sequence};
pub use records::{RecordTimes, check_records};
pub use rewrite::{Record, RecordHeader, records};

#[cfg(test)]
pub(crate) use batch::tests::{encoded, test_batch};
