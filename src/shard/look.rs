//! Answers to whoever looks at the broker from outside. A look changes nothing, but that records which lie on the disk
//! are read into the cache, as for a fetch.

use super::Shard;
use super::event::Effect;
use super::view::{
    BrokerView, ClusterView, Counts, CreationsSeen, Ends, GroupPage, Look, PartitionView, RecordsSeen, ReplicaView,
    Seen, TopicSummary, TopicView,
};
use crate::config::spell_id;
use crate::limits::LOOK_PARTITIONS;
use crate::metadata::names;
use crate::metadata::state::{Partition, Topic};
use crate::partition::{Found, ReadError};
use crate::types::{BrokerId, Now, Offset};

impl Shard {
    /// Looks at this shard's part of something.
    pub fn look(&mut self, now: Now, look: &Look, effects: &mut Vec<Effect>) -> Seen {
        let seen = match look {
            Look::Counts => Seen::Counts(self.counts()),
            Look::Cluster => Seen::Cluster(Box::new(self.cluster_view(now))),
            Look::Topics { after, limit } => Seen::Topics(self.topic_summaries(after, *limit)),
            Look::Topic(name) => Seen::Topic(self.state.topic(name).map(|topic| Box::new(self.topic_view(topic)))),
            Look::Groups { after, limit } => Seen::Groups(self.group_views(after, *limit)),
            Look::Group(id) => {
                Seen::Groups(GroupPage { groups: self.group_view(id).into_iter().collect(), more: false })
            }
            Look::Offsets(partitions) => Seen::Offsets(self.ends(partitions)),
            Look::Records { topic, partition, offset, max_bytes } => {
                Seen::Records(self.records_seen(topic, *partition, *offset, *max_bytes))
            }
            Look::Creations => Seen::Creations(self.creations_seen()),
        };
        effects.append(&mut self.out);
        seen
    }

    fn is_there(&self, broker: BrokerId) -> bool {
        broker == self.config.broker_id || self.peers.is_alive(broker)
    }

    /// The leader of a partition, where one is known and there, with its epoch.
    fn leader_of(&self, partition: &Partition) -> Option<(BrokerId, i32)> {
        let leader = self.leaders.get(&partition.log).filter(|leader| self.is_there(leader.broker))?;
        Some((leader.broker, leader.epoch))
    }

    fn counts(&self) -> Counts {
        let mut counts =
            Counts { awake: self.awake.len() as u64, groups: self.group_count() as u64, ..Counts::default() };
        for (log, owned) in &self.owned {
            counts.partitions += 1;
            if owned.partition.leads() {
                counts.leaders += 1;
                let whole = owned.partition.replicas().all(|broker| self.is_there(broker));
                counts.under_replicated += u64::from(!whole);
            }
            let led = self.leaders.get(log).is_some_and(|leader| self.is_there(leader.broker));
            counts.leaderless += u64::from(!led);
        }
        counts
    }

    fn cluster_view(&self, now: Now) -> ClusterView {
        let own = self.config.broker_id;
        let broker = |broker: &crate::metadata::command::NewBroker| BrokerView {
            id: broker.id.0,
            host: broker.host.clone(),
            port: broker.port,
            rack: broker.rack.clone(),
            state: self.peers.condition(now, own, broker.id),
        };
        let controller = self.coordinator.as_ref().and_then(|coordinator| match coordinator.leads() {
            true => Some(own),
            false => coordinator.leader(),
        });
        ClusterView {
            cluster_id: self.config.cluster_id.clone(),
            broker: own.0,
            controller: controller.map(|broker| broker.0),
            metadata_applied: self.state.applied(),
            topics: self.state.topics().len(),
            partitions: self.state.partitions(),
            brokers: self.state.brokers().map(broker).collect(),
        }
    }

    fn topic_summaries(&self, after: &str, limit: usize) -> Vec<TopicSummary> {
        let mut room = LOOK_PARTITIONS;
        let topics = self.state.topics_after(after).take(limit);
        let within = topics.take_while(|topic| {
            // The first is there whatever its size, so that a list always goes on.
            let fits = room > 0;
            room = room.saturating_sub(topic.partitions.len());
            fits
        });
        within.map(|topic| self.topic_summary(topic)).collect()
    }

    fn topic_summary(&self, topic: &Topic) -> TopicSummary {
        let mut summary = TopicSummary {
            name: topic.name.to_string(),
            id: spell_id(topic.id.as_u128()),
            partitions: topic.partitions.len(),
            replication_factor: topic.partitions.first().map_or(0, |partition| partition.replicas.len()),
            internal: names::is_internal(&topic.name),
            records: 0,
            bytes: 0,
            under_replicated: 0,
            leaderless: 0,
        };
        for partition in topic.partitions.iter().filter(|partition| partition.log.shard(self.shards) == self.id) {
            let whole = partition.replicas.iter().all(|broker| self.is_there(*broker));
            summary.under_replicated += usize::from(!whole);
            summary.leaderless += usize::from(self.leader_of(partition).is_none());
            if let Some(partition) = self.owned.get(&partition.log).map(|owned| &owned.partition) {
                summary.records += partition.high_watermark() - partition.log_start();
                summary.bytes += partition.segment_bytes() + partition.unflushed_cost();
            }
        }
        summary
    }

    fn topic_view(&self, topic: &Topic) -> TopicView {
        let partitions = topic.partitions.iter().zip(0..);
        let own = partitions.filter(|(partition, _)| partition.log.shard(self.shards) == self.id);
        TopicView {
            name: topic.name.to_string(),
            id: spell_id(topic.id.as_u128()),
            internal: names::is_internal(&topic.name),
            configs: topic.configs.clone(),
            partitions: own.map(|(partition, number)| self.partition_view(partition, number)).collect(),
        }
    }

    fn partition_view(&self, partition: &Partition, number: i32) -> PartitionView {
        let leader = self.leader_of(partition);
        let replicas = partition.replicas.iter();
        PartitionView {
            partition: number,
            log: partition.log.0,
            leader: leader.map(|(broker, _)| broker.0),
            leader_epoch: leader.map_or(-1, |(_, epoch)| epoch),
            replicas: replicas.clone().map(|broker| broker.0).collect(),
            isr: replicas.filter(|broker| self.is_there(**broker)).map(|broker| broker.0).collect(),
            replica: self.owned.get(&partition.log).map(|owned| &owned.partition).map(|partition| ReplicaView {
                leads: partition.leads(),
                log_start: partition.log_start(),
                high_watermark: partition.high_watermark(),
                log_end: partition.next_offset(),
                segments: partition.segment_count(),
                segment_bytes: partition.segment_bytes(),
                unflushed_bytes: partition.unflushed_cost(),
                fenced: partition.is_fenced(),
            }),
        }
    }

    fn ends(&self, partitions: &[(String, i32)]) -> Vec<Ends> {
        let find = |(topic, partition): &(String, i32)| {
            let found = self.state.topic(topic)?.partitions.get(usize::try_from(*partition).ok()?)?;
            let replica = &self.owned.get(&found.log)?.partition;
            let (log_start, high_watermark) = (replica.log_start(), replica.high_watermark());
            Some(Ends { topic: topic.clone(), partition: *partition, log_start, high_watermark })
        };
        partitions.iter().filter_map(find).collect()
    }

    fn records_seen(&mut self, topic: &str, number: i32, offset: Offset, max_bytes: usize) -> RecordsSeen {
        let found = self.state.topic(topic).zip(usize::try_from(number).ok());
        let Some(partition) = found.and_then(|(topic, number)| topic.partitions.get(number)) else {
            return RecordsSeen::Unknown;
        };
        let log = partition.log;
        if log.shard(self.shards) != self.id {
            return RecordsSeen::Elsewhere;
        }
        let Some(replica) = self.owned.get(&log).map(|owned| &owned.partition) else {
            return RecordsSeen::NoReplica(partition.replicas.iter().map(|broker| broker.0).collect());
        };
        let (log_start, high_watermark) = (replica.log_start(), replica.high_watermark());
        let offset = if offset < 0 { high_watermark.saturating_add(offset).max(log_start) } else { offset };
        if offset > high_watermark {
            return RecordsSeen::OutOfRange { log_start, high_watermark };
        }
        match replica.read(offset, max_bytes) {
            Ok(Found::Here(records)) => RecordsSeen::Here { offset, log_start, high_watermark, records },
            Ok(Found::OnDisk(read)) => {
                self.read_disk(log, read);
                RecordsSeen::Later
            }
            Err(ReadError::OutOfRange) => RecordsSeen::OutOfRange { log_start, high_watermark },
            Err(ReadError::Corrupt) => RecordsSeen::Unreadable,
        }
    }

    fn creations_seen(&mut self) -> CreationsSeen {
        CreationsSeen {
            asked: self.creations.asked.iter().cloned().collect(),
            coordinated: self.creations.coordinated.iter().cloned().collect(),
            under_way: self.coordinator.as_mut().map(|c| c.creations_under_way()).unwrap_or_default(),
        }
    }
}
