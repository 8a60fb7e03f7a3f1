//! Which brokers get the replicas of new partitions.

use super::State;
use super::command::NewPartition;
use crate::types::{BrokerId, LogId};

/// What a broker has to do: the partitions of which it is the preferred leader, and its replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Partitions whose first replica it has.
    pub leads: usize,
    /// Replicas.
    pub replicas: usize,
}

/// A broker that may get replicas.
#[derive(Clone, Debug)]
struct Candidate {
    id: BrokerId,
    rack: Option<String>,
    load: Load,
}

/// The brokers of a cluster with what they have, to place new partitions on.
#[derive(Clone, Debug)]
pub struct Placement {
    brokers: Vec<Candidate>,
}

impl Placement {
    /// All brokers, with what the state and the partitions of commands under way give them.
    pub fn new<'a>(state: &State, under_way: impl Iterator<Item = &'a NewPartition>) -> Placement {
        let brokers = state.brokers();
        let brokers =
            brokers.map(|broker| Candidate { id: broker.id, rack: broker.rack.clone(), load: Load::default() });
        let mut placement = Placement { brokers: brokers.collect() };
        for partition in state.topics().flat_map(|topic| topic.partitions.iter()) {
            placement.add(&partition.replicas);
        }
        under_way.for_each(|partition| placement.add(&partition.replicas));
        placement
    }

    /// How many brokers there are.
    pub fn brokers(&self) -> usize {
        self.brokers.len()
    }

    /// Takes a partition's replicas into account.
    pub fn add(&mut self, replicas: &[BrokerId]) {
        for (place, replica) in replicas.iter().enumerate() {
            if let Some(broker) = self.brokers.iter_mut().find(|broker| broker.id == *replica) {
                broker.load.replicas += 1;
                broker.load.leads += usize::from(place == 0);
            }
        }
    }

    /// Places the partitions of one topic, whose logs will be `first_log` and those after it: `replication` brokers
    /// each, all different. Whoever leads fewest partitions leads the next; the followers are in as many racks as
    /// possible, and otherwise on the brokers with the fewest replicas. Among equals it goes round.
    ///
    /// # Panics
    /// Where there are fewer brokers than replicas, or no replicas are wanted: callers check that first.
    pub fn place(&mut self, first_log: LogId, partitions: usize, replication: usize) -> Vec<NewPartition> {
        assert!(
            (1..=self.brokers.len()).contains(&replication),
            "{replication} replicas do not fit on {} brokers",
            self.brokers.len()
        );
        (first_log.0..).take(partitions).map(|log| self.place_one(LogId(log), replication)).collect()
    }

    fn place_one(&mut self, log: LogId, replication: usize) -> NewPartition {
        let count = self.brokers.len();
        // A step further with each round, so that a broker's logs do not all fall to the same of its shards.
        let start = ((log.0 + log.0 / count as u64) % count as u64) as usize;
        let round = |place: &usize| (place + count - start) % count;
        let mut chosen: Vec<usize> = Vec::with_capacity(replication);
        while chosen.len() < replication {
            let candidates = (0..count).filter(|place| !chosen.contains(place));
            let best = candidates.min_by_key(|place| {
                let broker = &self.brokers[*place];
                let in_rack = |other: &&usize| broker.rack.is_some() && self.brokers[**other].rack == broker.rack;
                let shared = chosen.iter().filter(in_rack).count();
                let leads = if chosen.is_empty() { broker.load.leads } else { 0 };
                (shared, leads, broker.load.replicas, round(place))
            });
            chosen.push(best.expect("there are more brokers than were chosen"));
        }
        let replicas: Vec<BrokerId> = chosen.into_iter().map(|place| self.brokers[place].id).collect();
        self.add(&replicas);
        NewPartition { replicas }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Command;
    use crate::metadata::command::NewBroker;

    fn state(racks: &[Option<&str>]) -> State {
        let mut state = State::default();
        for (rack, id) in racks.iter().zip(1..) {
            state.apply(
                id as u64,
                &Command::RegisterBroker(NewBroker {
                    id: BrokerId(id),
                    host: "h".to_owned(),
                    port: 1,
                    rack: rack.map(str::to_owned),
                    incarnation: 0,
                    directory_id: [id as u8; 16],
                }),
            );
        }
        state
    }

    fn ids(partitions: &[NewPartition]) -> Vec<Vec<i32>> {
        partitions.iter().map(|partition| partition.replicas.iter().map(|broker| broker.0).collect()).collect()
    }

    fn placement(racks: &[Option<&str>]) -> Placement {
        Placement::new(&state(racks), std::iter::empty())
    }

    #[test]
    fn leaders_and_followers_go_round() {
        let place = |brokers, log, partitions, replication| {
            ids(&placement(&vec![None; brokers]).place(LogId(log), partitions, replication))
        };
        assert_eq!(place(1, 7, 3, 1), [[1], [1], [1]]);
        assert_eq!(place(3, 1, 4, 2), [[2, 3], [1, 3], [3, 2], [1, 2]]);
        assert_eq!(place(3, 3, 1, 3), [[2, 3, 1]]);
    }

    #[test]
    fn whoever_has_least_gets_most() {
        let mut uneven = placement(&[None; 3]);
        (0..4).for_each(|_| uneven.add(&[BrokerId(1), BrokerId(2)]));
        let loads = |placement: &Placement| -> Vec<(usize, usize)> {
            placement.brokers.iter().map(|broker| (broker.load.leads, broker.load.replicas)).collect()
        };
        assert_eq!(loads(&uneven), [(4, 4), (0, 4), (0, 0)]);
        uneven.place(LogId(1), 8, 2);
        assert_eq!(loads(&uneven), [(4, 7), (4, 9), (4, 8)]);
    }

    #[test]
    fn commands_under_way_count() {
        let state = state(&[None; 2]);
        let under_way = [NewPartition { replicas: vec![BrokerId(2)] }];
        assert_eq!(ids(&Placement::new(&state, under_way.iter()).place(LogId(3), 1, 1)), [[1]]);
    }

    #[test]
    fn replicas_are_in_as_many_racks_as_there_are() {
        let racks = [Some("a"), Some("a"), Some("b"), Some("b"), Some("c")];
        let rack = |id: &i32| racks[*id as usize - 1];
        let mut placement = placement(&racks);
        for (log, replication) in [(1, 2), (2, 3), (3, 3), (4, 4), (5, 5), (6, 2)] {
            for replicas in ids(&placement.place(LogId(log), 20, replication)) {
                let distinct: std::collections::BTreeSet<_> = replicas.iter().map(rack).collect();
                assert_eq!(distinct.len(), replication.min(3), "{replicas:?}");
            }
        }
    }

    #[test]
    fn shards_of_every_broker_get_their_share() {
        // A log's shard is its number modulo the shards: a broker's logs must not all have the same remainder.
        for (brokers, shards) in [(2, 2), (3, 3), (4, 2), (6, 4)] {
            let racks = vec![None; brokers];
            for replication in 1..=brokers.min(3) {
                let placed = placement(&racks).place(LogId(1), 240, replication);
                for broker in 1..=brokers as i32 {
                    let mut by_shard = vec![0_usize; shards];
                    for (partition, log) in placed.iter().zip(1..) {
                        if partition.replicas.contains(&BrokerId(broker)) {
                            by_shard[LogId(log).shard(shards as u16).0 as usize] += 1;
                        }
                    }
                    let (least, most) = (by_shard.iter().min().unwrap(), by_shard.iter().max().unwrap());
                    assert!(*most <= 2 * least + 2, "{brokers} brokers, {replication} replicas: {by_shard:?}");
                }
            }
        }
    }
}
