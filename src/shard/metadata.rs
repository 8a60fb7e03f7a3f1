//! Every shard's part in the metadata: applying commands, opening and ending partitions, knowing the leaders.

use std::sync::Arc;

use uuid::Uuid;

use super::Shard;
use super::event::Effect;
use super::handlers::describe_configs::broker_values;
use super::mesh::{Leader, ShardMessage};
use super::ops::Owned;
use crate::consensus::Members;
use crate::limits::{LEADERS_PER_MESSAGE, STAND_NEXT_MS};
use crate::log::DiskRequest;
use crate::log::recovery::RecoveredLog;
use crate::metadata::command::NewBroker;
use crate::metadata::configs::{InvalidConfig, Kind, TopicConfig};
use crate::metadata::own::Owner;
use crate::metadata::state::{Partition as PartitionMetadata, Topic};
use crate::metadata::{Change, Command, State};
use crate::metrics::Stage;
use crate::partition::Partition;
use crate::peer::PeerMessage;
use crate::protocol::ErrorCode;
use crate::types::{BrokerId, LogId, Map, Now, ShardId};

/// Commands that this shard has applied, and the partitions whose leaders it does not know yet.
#[derive(Default)]
pub(super) struct Visibility {
    missing: Map<u64, usize>,
    by_log: Map<LogId, u64>,
}

/// A log of which it is not known yet whether it is this broker's.
pub(super) struct Unsure {
    /// The topic that it belongs to.
    topic: Uuid,
    /// What the disk holds of it.
    recovered: Option<RecoveredLog>,
}

impl Visibility {
    fn await_leader(&mut self, index: u64, log: LogId) {
        *self.missing.entry(index).or_insert(0) += 1;
        self.by_log.insert(log, index);
    }

    /// A log needs no waiting any more; returns the command that is whole with it.
    fn settle(&mut self, log: LogId) -> Option<u64> {
        let index = self.by_log.remove(&log)?;
        let missing = self.missing.get_mut(&index)?;
        *missing -= 1;
        if *missing > 0 {
            return None;
        }
        self.missing.remove(&index);
        Some(index)
    }
}

impl Shard {
    /// The metadata that this shard goes on from is here: that of a start, or a snapshot of another broker's.
    pub(super) fn metadata_arrived(&mut self, now: Now, state: State) {
        let before = std::mem::replace(&mut self.state, state);
        if self.opened {
            self.follow_snapshot(now, &before);
        } else {
            self.open_partitions(now);
        }
    }

    /// Opens this shard's partitions of all topics, and ends the logs that belong to none.
    pub(super) fn open_partitions(&mut self, now: Now) {
        self.know_peers();
        let mut recovered: Map<LogId, RecoveredLog> = std::mem::take(&mut self.recovered);
        let topics: Vec<Arc<Topic>> = self.state.topics().cloned().collect();
        for topic in topics {
            for partition in &topic.partitions {
                // Clients may be let in when this shard can tell them of every leader, not only of its own. Leaders
                // on other brokers may be long in coming.
                if self.state.hosts(partition).eq([self.config.broker_id]) {
                    self.rising.insert(partition.log);
                }
                if partition.log.shard(self.shards) == self.id {
                    self.open_partition(now, &topic, partition, recovered.remove(&partition.log));
                }
            }
        }
        // Logs get their numbers in the order of the metadata's log, so one that it has not come to yet belongs to a topic
        // whose creation this broker has still to hear of once more. The others are of deleted topics whose last frames
        // were lost with the power; in a fixed order, for replays.
        let reached = self.state.next_log_id();
        let (orphans, later) = recovered.into_iter().partition(|(log, _): &(LogId, RecoveredLog)| *log < reached);
        self.recovered = later;
        let orphans: Map<LogId, RecoveredLog> = orphans;
        let mut orphans: Vec<LogId> = orphans.into_keys().collect();
        orphans.sort_unstable();
        for log in orphans {
            tracing::info!(%log, "removing a log of a deleted topic");
            self.end_log(log);
        }
        self.opened = true;
        self.limit_connections();
        for (from, message) in std::mem::take(&mut self.early) {
            self.message(now, from, message);
        }
        self.deliver_unborn(now);
    }

    /// The metadata holds all that was committed before this start, and so all that this broker had acted on: the start may
    /// have found less, as commands are applied before they are durable here. Only now a log of which the disk holds
    /// nothing is a new one, and not one that was deleted here; and one that belongs elsewhere was not moved here since.
    pub(super) fn metadata_is_current(&mut self, now: Now) {
        self.current = true;
        for (log, Unsure { topic, recovered }) in std::mem::take(&mut self.unsure) {
            let topic = self.state.topic_by_id(topic).cloned().expect("what is deleted is not unsure any more");
            let partition = topic.partitions.iter().find(|partition| partition.log == log);
            self.open_partition(now, &topic, partition.expect("topics lose no partitions"), recovered);
        }
        // All logs are open that an earlier process can have had: what the damage may have cost them is noted.
        if self.damage.take().is_some() && !self.storage.data_appends.note_damage() {
            self.out.push(Effect::Disk { request: DiskRequest::ForgetDamage });
        }
    }

    /// Makes of the partitions what a snapshot says, which took the place of the state `before`.
    fn follow_snapshot(&mut self, now: Now, before: &State) {
        self.know_peers();
        let gone: Vec<LogId> = (before.topics())
            .filter(|topic| self.state.topic_by_id(topic.id).is_none())
            .flat_map(|topic| topic.partitions.iter().map(|partition| partition.log))
            .collect();
        for log in gone {
            self.forget_partition(now, log);
        }
        let topics: Vec<Arc<Topic>> = self.state.topics().cloned().collect();
        for topic in &topics {
            let known = before.topic_by_id(topic.id).map_or(0, |known| known.partitions.len());
            for partition in &topic.partitions[known..] {
                if partition.log.shard(self.shards) == self.id {
                    let recovered = self.recovered.remove(&partition.log);
                    self.open_partition(now, topic, partition, recovered);
                }
            }
        }
        for topic in topics.iter().filter(|topic| before.topic_by_id(topic.id).is_some()) {
            for (number, partition) in topic.partitions.iter().enumerate() {
                if before.moved(partition.log) != self.state.moved(partition.log) {
                    self.replicas_move(now, topic, number);
                }
            }
        }
        self.configure_all();
        self.deliver_unborn(now);
    }

    /// Hands on what other replicas said to logs that were not open yet.
    fn deliver_unborn(&mut self, now: Now) {
        for (log, from, message, beside) in std::mem::take(&mut self.unborn) {
            self.log_stepped(now, from, log, message, beside);
        }
    }

    pub(super) fn open_partition(
        &mut self,
        now: Now,
        topic: &Topic,
        partition: &PartitionMetadata,
        recovered: Option<RecoveredLog>,
    ) {
        let log = partition.log;
        let own = self.config.broker_id;
        // The files of an earlier replica are on their way out; see `log_removed`.
        if self.ending.contains(&log) {
            return;
        }
        let (hosts, life) = (self.state.hosts(partition).any(|host| host == own), self.state.life(log, own));
        let is_its = |recovered: &RecoveredLog| hosts && Partition::life_of(recovered) == life;
        match &recovered {
            None if !hosts => {
                self.elsewhere.insert(log);
                return;
            }
            // Whether the others can repair it is for the newest metadata to say, too.
            _ if !self.current && self.damage.is_some() => {
                self.unsure.insert(log, Unsure { topic: topic.id, recovered });
                return;
            }
            Some(recovered) if is_its(recovered) => {}
            _ if !self.current => {
                self.unsure.insert(log, Unsure { topic: topic.id, recovered });
                return;
            }
            // What the replica of today began with is lost.
            Some(_) if hosts && self.damage.is_some() => {}
            Some(_) => {
                // It is of a replica that was moved away.
                if !hosts {
                    self.elsewhere.insert(log);
                }
                return self.end_log(log);
            }
            None => {}
        }
        let new = recovered.is_none() && self.damage.is_none();
        let found = recovered.as_ref().map(|recovered| recovered.segments.clone()).unwrap_or_default();
        let recovered = recovered.filter(is_its);
        let config = match self.config_of(topic) {
            Ok(config) => config,
            Err(error) => {
                return self.fatal(format!("the configuration of topic {} is invalid: {}", topic.name, error.0));
            }
        };
        let moved = self.state.moved(log);
        let first = moved.map_or(&*partition.replicas, |moved| &moved.first);
        let target = moved.and_then(|moved| moved.target.as_deref()).unwrap_or(&partition.replicas);
        let open = |recovered| Partition::open(log, (own, life), first, config, recovered, &self.logger);
        let mut opened = match open(recovered) {
            Ok(opened) => opened,
            Err(error) => return self.fatal(format!("topic {} cannot be opened: {error}", topic.name)),
        };
        opened.place_on(target);
        if let Some(damage) = &self.damage {
            if !opened.has_files(&found) {
                // The checkpoint was replaced by one that is lost.
                opened = open(None).expect("a log without anything opens");
                opened.place_on(target);
            }
            let members = [&Members::of(&partition.replicas), &Members::of(target), opened.members()];
            if !members.into_iter().all(|members| members.can_do_without(own)) {
                let topic = &topic.name;
                return self.fatal(format!("{damage}; log {log} of topic {topic} has too few replicas to be repaired"));
            }
        }
        if self.damage.is_some() || !opened.is_whole() {
            opened.begin_repair(self.rng.next());
            tracing::warn!(%log, "a part of this replica is lost: it votes for nobody until the others have made it whole");
        }
        if self.damage.is_some() {
            self.storage.data_appends.frames().push(opened.loss_frame());
        }
        // Nobody waits out an election to use a new topic.
        let young = new && moved.is_none();
        if !opened.is_replicated() || (young && partition.replicas.first() == Some(&own)) {
            opened.campaign();
        }
        if new && life > 0 {
            self.storage.data_appends.frames().push(opened.first_frame());
        }
        self.host_groups(topic, log);
        self.storage.adopt(log, &opened);
        if !opened.is_replicated() {
            self.rising.insert(log);
        }
        let mut owned = Owned::new(opened);
        if young {
            // Behind a preferred leader that does not come up, the next one does not wait out an election either.
            let place = partition.replicas.iter().position(|replica| *replica == own).unwrap_or(0) as u64;
            owned.stands_at = (place > 0).then(|| now.mono.plus_millis(place * STAND_NEXT_MS));
        }
        let strays = owned.partition.strays(found);
        self.owned.insert(log, Box::new(owned));
        for segment in strays {
            self.remove_segment(log, segment);
        }
        self.wake(log);
        self.touch(log);
    }

    /// Applies a command that the coordinator has committed.
    pub(super) fn committed(&mut self, now: Now, index: u64, command: &Command) {
        let changes = self.state.apply(index, command);
        self.enact(now, index, changes);
    }

    /// Does what a command's changes mean to this shard.
    pub(super) fn enact(&mut self, now: Now, index: u64, changes: Vec<Change>) {
        let mut awaited = false;
        for change in changes {
            match change {
                Change::TopicCreated { topic } => awaited |= self.partitions_created(now, index, &topic, 0),
                Change::PartitionsCreated { topic, first } => {
                    awaited |= self.partitions_created(now, index, &topic, first);
                }
                Change::ConfigsAltered { topic } => self.configure(&topic),
                Change::DefaultsAltered => self.configure_all(),
                Change::OwnConfigsAltered { owner: Owner::Broker(id) } if id == self.config.broker_id => {
                    self.configure_all();
                }
                Change::TopicDeleted { topic } => {
                    for partition in &topic.partitions {
                        self.forget_partition(now, partition.log);
                    }
                    self.forget_topic_offsets(now, &topic);
                }
                Change::ReplicasMove { topic, partition } => self.replicas_move(now, &topic, partition),
                Change::BrokerRegistered { id } => self.know_peer(id),
                Change::BrokerUnregistered { id } => self.forget_peer(id),
                Change::RegisterRejected { .. }
                | Change::CreateRejected { .. }
                | Change::DeleteRejected { .. }
                | Change::ProducerIds { .. }
                | Change::QuotasAltered
                | Change::OwnConfigsAltered { .. }
                | Change::VotersAltered
                | Change::Overtaken
                | Change::Full => {}
            }
        }
        self.deliver_unborn(now);
        if !awaited {
            self.report_applied(now, index);
        }
    }

    /// A topic has new partitions from `first` on; whether one of them has no leader yet.
    fn partitions_created(&mut self, now: Now, index: u64, topic: &Topic, first: usize) -> bool {
        let mut awaited = false;
        for partition in &topic.partitions[first..] {
            // Another shard's announcement may have come before the coordinator's word.
            if !self.leaders.contains_key(&partition.log) {
                self.visibility.await_leader(index, partition.log);
                awaited = true;
            }
            if partition.log.shard(self.shards) == self.id {
                let recovered = self.recovered.remove(&partition.log);
                self.open_partition(now, topic, partition, recovered);
            }
        }
        awaited
    }

    /// What a topic goes by on this broker.
    fn config_of(&self, topic: &Topic) -> Result<TopicConfig, InvalidConfig> {
        let configs = self.state.configs_of(topic, self.config.broker_id);
        TopicConfig::resolve(&configs, self.config.message_max_bytes)
    }

    /// Lets this shard's partitions of a topic go by its configs as they are now.
    fn configure(&mut self, topic: &Topic) {
        match self.config_of(topic) {
            Ok(config) => self.configure_as(topic, config),
            Err(error) => self.fatal(format!("the configuration of topic {} is invalid: {}", topic.name, error.0)),
        }
    }

    fn configure_as(&mut self, topic: &Topic, config: TopicConfig) {
        for partition in &topic.partitions {
            if let Some(owned) = self.owned.get_mut(&partition.log) {
                owned.partition.configure(config);
            }
        }
    }

    /// The same for all topics. Most set nothing, and there may be very many of them.
    fn configure_all(&mut self) {
        self.limit_connections();
        let given = self.state.given_by(self.config.broker_id);
        let plain = match TopicConfig::resolve(&given, self.config.message_max_bytes) {
            Ok(plain) => plain,
            Err(error) => return self.fatal(format!("what brokers give to topics is invalid: {}", error.0)),
        };
        let topics: Vec<Arc<Topic>> = self.state.topics().cloned().collect();
        for topic in topics {
            match topic.configs.is_empty() {
                true => self.configure_as(&topic, plain),
                false => self.configure(&topic),
            }
        }
    }

    /// Tells the driver how many connections there may be. One shard speaks for all.
    fn limit_connections(&mut self) {
        if self.coordinator.is_none() {
            return;
        }
        let values = broker_values(&self.state, &self.config);
        let [most, most_per_address] = ["max.connections", "max.connections.per.ip"].map(|name| {
            let key = Kind::Broker.key(name).expect("a config of brokers");
            key.broker_values(values)[0].0.parse().expect("values are checked before they are set")
        });
        self.out.push(Effect::LimitConnections { most, most_per_address });
    }

    fn forget_partition(&mut self, now: Now, log: LogId) {
        self.leaders.remove(&log);
        self.lagging.remove(&log);
        self.elsewhere.remove(&log);
        self.rising.remove(&log);
        let unsure = self.unsure.remove(&log).is_some_and(|unsure| unsure.recovered.is_some());
        if log.shard(self.shards) == self.id && (unsure || self.owned.contains_key(&log)) {
            self.disown(now, log, ErrorCode::UnknownTopicOrPartition);
            self.end_log(log);
        }
        if let Some(index) = self.visibility.settle(log) {
            self.report_applied(now, index);
        }
    }

    /// Another broker is let in only with the data directory that it registered, and is to be found where it said.
    pub(super) fn know_peer(&mut self, peer: BrokerId) {
        if let Some(broker) = self.state.broker(peer).filter(|_| peer != self.config.broker_id) {
            let directory_id = broker.directory_id;
            self.out.push(Effect::KnowPeer { peer, directory_id });
        }
        if let Some(address) = self.state.address(peer).cloned() {
            self.reach(address, false);
        }
    }

    /// A broker was removed from the cluster: nothing it says counts any more.
    pub(super) fn forget_peer(&mut self, peer: BrokerId) {
        if peer == self.config.broker_id {
            return self
                .fatal("this broker was removed from its cluster: its data directory is of no use any more".into());
        }
        if self.peers.forget(peer) {
            self.storage.share_with(self.peers.count() + 1);
        }
        self.out.push(Effect::ForgetPeer { peer });
    }

    /// Tells all shards, this one included, and the other brokers of the leaders that came up here.
    pub(super) fn announce_leaders(&mut self, now: Now) {
        let leaders = std::mem::take(&mut self.announcements);
        if leaders.is_empty() {
            return;
        }
        for part in leaders.chunks(LEADERS_PER_MESSAGE) {
            let led = part.iter().map(|leader| (leader.log, leader.epoch)).collect();
            self.peers.send_all(&PeerMessage::Leaders(led));
        }
        self.spread_leaders(now, leaders);
    }

    /// Tells all shards, this one included, of leaders.
    pub(super) fn spread_leaders(&mut self, now: Now, leaders: Vec<Leader>) {
        for shard in (0..self.shards).map(ShardId) {
            if shard != self.id {
                self.send(shard, ShardMessage::Leaders(leaders.clone()));
            }
        }
        self.leaders_up(now, leaders);
    }

    /// Notes leaders of this or another shard, or of another broker.
    pub(super) fn leaders_up(&mut self, now: Now, leaders: Vec<Leader>) {
        for leader in leaders {
            if self.leaders.get(&leader.log).is_some_and(|known| known.epoch > leader.epoch) {
                continue;
            }
            self.leaders.insert(leader.log, leader);
            self.rising.remove(&leader.log);
            if let Some(index) = self.visibility.settle(leader.log) {
                self.report_applied(now, index);
            }
        }
    }

    /// Where a client that was told `error` of a log should go instead (KIP-951); none where that is not known better.
    pub(super) fn leader_to_tell(&self, log: LogId, error: ErrorCode) -> Option<(Leader, &NewBroker)> {
        let leader = self.leaders.get(&log).copied()?;
        let told = match error {
            // What this broker knew of itself is over.
            ErrorCode::NotLeaderOrFollower => leader.broker != self.config.broker_id,
            ErrorCode::FencedLeaderEpoch => true,
            _ => false,
        };
        let broker = self.state.broker(leader.broker).filter(|_| told)?;
        Some((leader, broker))
    }

    fn report_applied(&mut self, now: Now, index: u64) {
        if let Some(coordinator) = &mut self.coordinator {
            coordinator.stage_ended(now, index, Stage::Leaders);
            self.shard_applied(now, index);
        } else {
            self.send(ShardId(0), ShardMessage::Applied { index });
        }
    }
}
