//! Where a consumer begins.

use std::collections::{BTreeMap, BTreeSet};

use super::super::client::{Cluster, Failure, Partition, edges, look_up};
use super::{BEGIN, END};

/// Where a consumer begins in each partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// With the first record that is kept.
    Begin,
    /// At the end.
    End,
    /// At this offset.
    Offset(i64),
    /// With the first record of this time, in milliseconds since the Unix epoch, or a later one.
    Time(i64),
    /// So many offsets before the end.
    Last(i64),
}

/// The offset that each partition is read from.
///
/// # Errors
/// As [`look_up`].
pub(super) fn first_offsets(
    cluster: &mut Cluster,
    partitions: &BTreeSet<Partition>,
    start: &Start,
) -> Result<BTreeMap<Partition, i64>, Failure> {
    match *start {
        Start::Begin => edges(cluster, partitions, BEGIN),
        Start::End => edges(cluster, partitions, END),
        Start::Offset(offset) => Ok(partitions.iter().map(|partition| (partition.clone(), offset)).collect()),
        Start::Time(time) => {
            let found = look_up(cluster, &partitions.iter().map(|partition| (partition.clone(), time)).collect())?;
            let ends = edges(cluster, partitions, END)?;
            // No record as new as that: what comes is.
            Ok(ends
                .into_iter()
                .map(|(at, end)| (at.clone(), found.get(&at).copied().flatten().unwrap_or(end)))
                .collect())
        }
        Start::Last(count) => {
            let (begins, ends) = (edges(cluster, partitions, BEGIN)?, edges(cluster, partitions, END)?);
            let from = |at: &Partition, end: i64| (end - count).max(begins.get(at).copied().unwrap_or(0));
            Ok(ends.into_iter().map(|(at, end)| (at.clone(), from(&at, end))).collect())
        }
    }
}
