//! Which brokers get the replicas of new partitions.

use super::command::NewPartition;
use crate::types::{BrokerId, LogId};

/// Places the partitions of one topic: `replication` brokers each, all different. Leaders and followers go round the
/// brokers in their order, beginning where `first_log` says, so that topics of one partition spread as well.
///
/// # Panics
/// Where there are fewer brokers than replicas, or no replicas are wanted: callers check that first.
pub fn place(brokers: &[BrokerId], first_log: LogId, partitions: usize, replication: usize) -> Vec<NewPartition> {
    assert!(
        (1..=brokers.len()).contains(&replication),
        "{replication} replicas do not fit on {} brokers",
        brokers.len()
    );
    let start = (first_log.0 % brokers.len() as u64) as usize;
    let preferred = brokers.iter().enumerate().cycle().skip(start).take(partitions);
    preferred
        .map(|(leader, _)| NewPartition {
            replicas: brokers.iter().cycle().skip(leader).take(replication).copied().collect(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(brokers: i32, first_log: u64, partitions: usize, replication: usize) -> Vec<Vec<i32>> {
        let brokers: Vec<_> = (1..=brokers).map(BrokerId).collect();
        place(&brokers, LogId(first_log), partitions, replication)
            .into_iter()
            .map(|partition| partition.replicas.iter().map(|broker| broker.0).collect())
            .collect()
    }

    #[test]
    fn leaders_and_followers_go_round() {
        assert_eq!(placed(1, 7, 3, 1), [[1], [1], [1]]);
        assert_eq!(placed(3, 1, 4, 2), [[2, 3], [3, 1], [1, 2], [2, 3]]);
        assert_eq!(placed(3, 3, 1, 3), [[1, 2, 3]]);
    }

    #[test]
    fn topics_of_one_partition_spread() {
        let leaders: Vec<_> = (1..=6).map(|log| placed(3, log, 1, 1)[0][0]).collect();
        assert_eq!(leaders, [2, 3, 1, 2, 3, 1]);
    }
}
