//! Commands that move replicas. The metadata says where they are to go and notes when they are there; the way is the
//! business of the partition's Raft group.

use std::sync::Arc;

use super::{Change, Move, Partition, State, Topic, Weight};
use crate::limits::MAX_TOPIC_METADATA_BYTES;
use crate::metadata::command::Placed;
use crate::types::{BrokerId, LogId};

/// The most bytes of a snapshot that the note of a move takes, without the brokers that it names.
const MOVE_BYTES: usize = 160;
/// The most that a broker takes which is to have a replica: as such, beside those that have one, and with its life.
const MOVED_BROKER_BYTES: usize = 4 * 6 + 6;

impl State {
    /// Partitions whose replicas are to be moved; all of them, or none where there is no room to note that.
    pub(super) fn move_all(&mut self, moves: &[Placed]) -> Vec<Change> {
        let brokers: usize = moves.iter().map(|placed| placed.replicas.len()).sum();
        let more = moves.len() * MOVE_BYTES + brokers * MOVED_BROKER_BYTES;
        if self.topics_weight.bytes + self.moves_weight.bytes + more > MAX_TOPIC_METADATA_BYTES {
            return vec![Change::Full];
        }
        if moves.iter().any(|placed| self.any_removed(&placed.replicas)) {
            return vec![Change::Overtaken];
        }
        moves.iter().filter_map(|placed| self.move_replicas(placed)).collect()
    }

    fn move_replicas(&mut self, placed: &Placed) -> Option<Change> {
        let (topic, partition) = self.placed(placed)?;
        let (log, replicas) = (partition.log, partition.replicas.clone());
        let known = self.moves.get(&log);
        if known.is_none_or(|known| known.target.is_none()) && *replicas == *placed.replicas {
            return None;
        }
        let mut moved = known.cloned().unwrap_or_else(|| Move {
            topic: placed.topic,
            partition: placed.partition,
            first: replicas.to_vec(),
            number: 0,
            lives: Vec::new(),
            beside: Vec::new(),
            target: None,
        });
        moved.number += 1;
        for broker in placed.replicas.iter().filter(|broker| !replicas.contains(broker)) {
            if !moved.beside.contains(broker) {
                moved.beside.push(*broker);
                moved.lives.push((*broker, moved.number));
            }
        }
        moved.target = Some(placed.replicas.clone());
        self.set_move(log, Some(moved));
        Some(Change::ReplicasMove { topic, partition: placed.partition as usize })
    }

    pub(super) fn replicas_moved(&mut self, placed: &Placed, number: u32) -> Option<Change> {
        let (topic, partition) = self.placed(placed)?;
        let known = self.moves.get(&partition.log)?;
        // Whoever wanted something else meanwhile is still to be served, even if it is what was wanted before.
        if known.number != number || known.target.as_ref() != Some(&placed.replicas) {
            return None;
        }
        let mut moved = Move { beside: Vec::new(), target: None, ..known.clone() };
        moved.lives.retain(|(broker, _)| placed.replicas.contains(broker));
        self.set_move(partition.log, Some(moved));
        let mut after = Topic::clone(&topic);
        after.partitions[placed.partition as usize].replicas = placed.replicas.as_slice().into();
        let after = Arc::new(after);
        self.take_topic(topic.id);
        self.insert_topic(&after, Weight::of(&*after));
        Some(Change::ReplicasMove { topic: after, partition: placed.partition as usize })
    }

    fn placed(&self, placed: &Placed) -> Option<(Arc<Topic>, Partition)> {
        let topic = self.by_id.get(&placed.topic)?.clone();
        let partition = topic.partitions.get(placed.partition as usize)?.clone();
        Some((topic, partition))
    }

    pub(super) fn set_move(&mut self, log: LogId, moved: Option<Move>) {
        match moved.as_ref().is_some_and(|moved| moved.target.is_some()) {
            true => self.moving.insert(log),
            false => self.moving.remove(&log),
        };
        self.moves_weight.add(moved.as_ref().map_or_else(Weight::default, |moved| Weight::of(&(log, moved))));
        let before = match moved {
            Some(moved) => self.moves.insert(log, moved),
            None => self.moves.remove(&log),
        };
        self.moves_weight.remove(before.as_ref().map_or_else(Weight::default, |moved| Weight::of(&(log, moved))));
    }

    /// What became of the replicas of a partition since it was made; none where they were never moved.
    pub fn moved(&self, log: LogId) -> Option<&Move> {
        self.moves.get(&log)
    }

    /// The life of a broker's replica of a log.
    pub fn life(&self, log: LogId, broker: BrokerId) -> u32 {
        self.moved(log).map_or(0, |moved| moved.life(broker))
    }

    /// The partitions whose replicas are being moved, ordered by their logs.
    pub fn moving(&self) -> impl Iterator<Item = (LogId, &Move)> {
        self.moving.iter().map(|log| (*log, &self.moves[log]))
    }

    /// The brokers that may have a replica of a partition, the preferred leader first: while its replicas are moved, also
    /// those where they go.
    pub fn hosts<'a>(&'a self, partition: &'a Partition) -> impl Iterator<Item = BrokerId> + 'a {
        let beside = self.moves.get(&partition.log).map_or(&[][..], |moved| &moved.beside);
        partition.replicas.iter().chain(beside).copied()
    }
}
