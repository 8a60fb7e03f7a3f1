//! Clients that create and delete topics, and one that watches what Metadata shows.

use bytes::Bytes;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest,
    CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse, MetadataRequest, MetadataResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::{AT_ONCE_MS, Client, Context, Link, broker_index, topic_name};
use crate::sim::checkers::{Keeping, Model, Shown, Stamp, code};
use crate::sim::rng::Rng;
use crate::sim::wire;

const CREATE_VERSION: i16 = 7;
const DELETE_VERSION: i16 = 6;
const GROW_VERSION: i16 = 3;
const METADATA_VERSION: i16 = 12;
const API_VERSIONS_VERSION: i16 = 3;

/// What a creator is about.
enum Task {
    Create { topics: Vec<(String, i32)>, configs: Vec<(&'static str, &'static str)> },
    Delete { names: Vec<String> },
    Grow { name: String, partitions: i32 },
}

/// Creates topics, several in a request, and deletes some of them, until each is done.
pub(in crate::sim) struct Creator {
    timeout_ms: i32,
    link: Link<()>,
    task: Option<Task>,
    /// Requests that are still to be begun.
    creates: u64,
    deletes: u64,
    /// Topics that are to get further partitions.
    grows: u64,
    next_at: u64,
    settling: bool,
    last_error: i16,
    replication: i16,
}

impl Creator {
    /// A creator with so many requests to make.
    pub(in crate::sim) fn new(rng: &mut Rng) -> Creator {
        Creator {
            timeout_ms: *rng.pick(&[100, 1_000, 5_000]),
            link: Link::roaming(),
            task: None,
            creates: rng.between(1, 6),
            deletes: rng.below(4),
            grows: 0,
            next_at: 0,
            settling: false,
            last_error: code::NONE,
            replication: 1,
        }
    }

    /// The same, that gives so many topics further partitions.
    pub(in crate::sim) fn growing(self, grows: u64) -> Creator {
        Creator { grows, ..self }
    }

    /// One that has a single topic to create, with a replica on each of so many brokers, at the end of a run.
    pub(in crate::sim) fn last(rng: &mut Rng, model: &mut Model) -> Creator {
        let names = model.new_topics(&[3], Keeping::All);
        let topics = names.into_iter().map(|name| (name, 3)).collect();
        let task = Some(Task::Create { topics, configs: Vec::new() });
        Creator { task, replication: -1, creates: 0, deletes: 0, grows: 0, settling: true, ..Creator::new(rng) }
    }

    fn choose(&mut self, cx: &mut Context<'_>) {
        if self.settling || self.task.is_some() || cx.now < self.next_at {
            return;
        }
        self.next_at = cx.now + cx.rng.between(100_000, 3_000_000);
        let live = cx.model.live_topics();
        if self.deletes > 0 && live.len() > 3 && cx.rng.one_in(2) {
            self.deletes -= 1;
            let mut names = vec![cx.rng.pick(&live).clone()];
            let other = cx.rng.pick(&live).clone();
            if other != names[0] && live.len() > 5 {
                names.push(other);
            }
            self.task = Some(Task::Delete { names });
        } else if self.grows > 0 && live.len() > 2 && (self.creates == 0 || cx.rng.one_in(3)) {
            self.grows -= 1;
            let (at, more) = (cx.rng.below(1 << 16), cx.rng.between(1, 3) as i32);
            self.task = cx.model.choose_growing(at, more).map(|(name, partitions)| Task::Grow { name, partitions });
        } else if self.creates > 0 {
            self.creates -= 1;
            let partitions: Vec<i32> = (0..cx.rng.between(1, 4)).map(|_| cx.rng.between(1, 4) as i32).collect();
            let (keeping, configs) = keeping(cx.rng);
            let names = cx.model.new_topics(&partitions, keeping);
            if cx.brokers > 1 {
                self.replication = *cx.rng.pick(if cx.model.everywhere { &[3][..] } else { &[3, 3, 3, -1, 2, 1] });
            }
            self.task = Some(Task::Create { topics: names.into_iter().zip(partitions).collect(), configs });
        }
    }

    fn go_on(&mut self, cx: &mut Context<'_>) {
        if self.link.give_up(cx, false).is_some() {
            self.next_at = cx.now + 10_000;
        }
        self.choose(cx);
        let over = self.settling || self.creates == 0 && self.deletes == 0 && self.grows == 0;
        if !(over && self.task.is_none()) {
            cx.wake_in(50_000);
        }
        if self.task.is_none() || !self.link.is_up(cx) || !self.link.pending.is_empty() {
            return;
        }
        let within = i64::from(self.timeout_ms);
        match self.task.as_ref().expect("there is a task") {
            Task::Create { topics, configs } => {
                let config = |(name, value): &(&'static str, &'static str)| {
                    CreatableTopicConfig::default()
                        .with_name(StrBytes::from_static_str(name))
                        .with_value(Some(StrBytes::from_static_str(value)))
                };
                let configs: Vec<_> = configs.iter().map(config).collect();
                let topic = |(name, partitions): &(String, i32)| {
                    cx.model.create_sent(name);
                    CreatableTopic::default()
                        .with_name(topic_name(name))
                        .with_num_partitions(*partitions)
                        .with_replication_factor(self.replication)
                        .with_configs(configs.clone())
                };
                let request = CreateTopicsRequest::default()
                    .with_topics(topics.iter().map(topic).collect())
                    .with_timeout_ms(self.timeout_ms);
                self.link.send(cx, CREATE_VERSION, &request, within, ());
            }
            Task::Grow { name, partitions } => {
                cx.model.grow_sent(name);
                let topic = CreatePartitionsTopic::default()
                    .with_name(topic_name(name))
                    .with_count(*partitions)
                    .with_assignments(None);
                let request =
                    CreatePartitionsRequest::default().with_topics(vec![topic]).with_timeout_ms(self.timeout_ms);
                self.link.send(cx, GROW_VERSION, &request, within, ());
            }
            Task::Delete { names } => {
                let topic = |name: &String| {
                    cx.model.delete_sent(name);
                    DeleteTopicState::default().with_name(Some(topic_name(name)))
                };
                let request = DeleteTopicsRequest::default()
                    .with_topics(names.iter().map(topic).collect())
                    .with_timeout_ms(self.timeout_ms);
                self.link.send(cx, DELETE_VERSION, &request, within, ());
            }
        }
    }

    fn created(&mut self, cx: &mut Context<'_>, response: CreateTopicsResponse) {
        let Some(Task::Create { topics, .. }) = &mut self.task else { panic!("nothing is being created") };
        for topic in response.topics {
            let at = topics.iter().position(|(name, _)| *name == topic.name.as_str());
            let at = at.unwrap_or_else(|| panic!("protocol: an answer for {}", topic.name.as_str()));
            cx.model.create_answered(&topics[at].0, topic.error_code);
            self.last_error = topic.error_code;
            if matches!(topic.error_code, code::NONE | code::TOPIC_ALREADY_EXISTS) {
                topics.remove(at);
            }
        }
        if topics.is_empty() {
            self.task = None;
        }
    }

    fn grown(&mut self, cx: &mut Context<'_>, response: CreatePartitionsResponse) {
        let Some(Task::Grow { name, .. }) = &self.task else { panic!("nothing is growing") };
        let [result] = &response.results[..] else { panic!("protocol: {response:?}") };
        assert_eq!(result.name.as_str(), name, "protocol: an answer for another topic");
        self.last_error = result.error_code;
        if cx.model.grow_answered(name, result.error_code) {
            self.task = None;
        }
    }

    fn deleted(&mut self, cx: &mut Context<'_>, response: DeleteTopicsResponse) {
        let Some(Task::Delete { names }) = &mut self.task else { panic!("nothing is being deleted") };
        for topic in response.responses {
            let name = topic.name.map(|name| name.to_string()).unwrap_or_default();
            let at = names.iter().position(|known| *known == name);
            let at = at.unwrap_or_else(|| panic!("protocol: an answer for {name}"));
            self.last_error = topic.error_code;
            if cx.model.delete_answered(&name, topic.error_code) {
                names.remove(at);
            }
        }
        if names.is_empty() {
            self.task = None;
        }
    }
}

impl Client for Creator {
    fn wake(&mut self, cx: &mut Context<'_>) {
        self.go_on(cx);
    }

    fn connected(&mut self, cx: &mut Context<'_>, _broker: usize) {
        self.link.connected();
        self.go_on(cx);
    }

    fn answered(&mut self, cx: &mut Context<'_>, _broker: usize, frame: Bytes) {
        self.link.answered(&frame);
        match self.task {
            Some(Task::Create { .. }) => self.created(cx, wire::response(CREATE_VERSION, frame)),
            Some(Task::Grow { .. }) => self.grown(cx, wire::response(GROW_VERSION, frame)),
            Some(Task::Delete { .. }) => self.deleted(cx, wire::response(DELETE_VERSION, frame)),
            None => panic!("protocol: an answer to nothing"),
        }
        cx.wake_in(1_000);
    }

    fn closed(&mut self, cx: &mut Context<'_>, _broker: usize) {
        self.link.closed();
        cx.wake_in(10_000);
    }

    fn settle(&mut self, _now: u64) {
        self.settling = true;
    }

    fn is_settled(&self, _model: &Model) -> bool {
        self.task.is_none()
    }

    fn state(&self) -> String {
        let task = match &self.task {
            Some(Task::Create { topics, .. }) => format!("creates {topics:?}"),
            Some(Task::Delete { names }) => format!("deletes {names:?}"),
            Some(Task::Grow { name, partitions }) => format!("wants {partitions} partitions of {name}"),
            None => "has nothing to do".into(),
        };
        format!("creator with {} ms {task}, last error {}", self.timeout_ms, self.last_error)
    }
}

/// What a new topic keeps, and the configs that say so. Segments are small in time, so that there are several.
fn keeping(rng: &mut Rng) -> (Keeping, Vec<(&'static str, &'static str)>) {
    let small = ("segment.bytes", "1048576");
    let quick = ("segment.ms", *rng.pick(&["200", "1000"]));
    let compact = ("cleanup.policy", "compact");
    match rng.below(6) {
        0 => (Keeping::Newest, vec![quick, ("retention.ms", "1500")]),
        1 => (Keeping::Newest, vec![quick, ("retention.bytes", "20000")]),
        2 => (Keeping::All, vec![quick, ("retention.ms", "-1")]),
        3 => (Keeping::LastOfKey, vec![quick, compact, ("min.cleanable.dirty.ratio", "0.01")]),
        _ => (Keeping::All, vec![small]),
    }
}

enum Asked {
    Metadata(Stamp),
    ApiVersions,
}

/// Asks for the metadata again and again, of one shard after the other.
pub(in crate::sim) struct Watcher {
    link: Link<Asked>,
    settling: bool,
    /// Answers since the faults were over.
    looked: u32,
    next_at: u64,
}

impl Watcher {
    /// A watcher of one broker.
    pub(in crate::sim) fn of(broker: usize) -> Watcher {
        Watcher { link: Link::to(broker), settling: false, looked: 0, next_at: 0 }
    }

    fn go_on(&mut self, cx: &mut Context<'_>) {
        let hop = cx.rng.one_in(4) && self.link.pending.is_empty();
        self.link.give_up(cx, hop);
        // In a cluster the others go by what it sees of leaders.
        if self.settling && self.looked > 8 && cx.brokers == 1 {
            return;
        }
        if cx.now < self.next_at {
            cx.wake_in(self.next_at - cx.now);
            return;
        }
        cx.wake_in(50_000);
        if !self.link.is_up(cx) || !self.link.pending.is_empty() {
            return;
        }
        self.next_at = cx.now + cx.rng.between(1_000, 150_000);
        if cx.rng.one_in(5) {
            let request = ApiVersionsRequest::default()
                .with_client_software_name(StrBytes::from_static_str("simulated"))
                .with_client_software_version(StrBytes::from_static_str("1"));
            self.link.send(cx, API_VERSIONS_VERSION, &request, AT_ONCE_MS, Asked::ApiVersions);
        } else {
            let request = MetadataRequest::default().with_topics(None).with_allow_auto_topic_creation(false);
            let stamp = cx.model.stamp();
            self.link.send(cx, METADATA_VERSION, &request, AT_ONCE_MS, Asked::Metadata(stamp));
        }
    }
}

impl Client for Watcher {
    fn wake(&mut self, cx: &mut Context<'_>) {
        self.go_on(cx);
    }

    fn connected(&mut self, cx: &mut Context<'_>, _broker: usize) {
        self.link.connected();
        self.go_on(cx);
    }

    fn answered(&mut self, cx: &mut Context<'_>, _broker: usize, frame: Bytes) {
        match self.link.answered(&frame) {
            Asked::ApiVersions => {
                let response: ApiVersionsResponse = wire::response(API_VERSIONS_VERSION, frame);
                assert_eq!(response.error_code, code::NONE, "protocol: ApiVersions was refused");
            }
            Asked::Metadata(stamp) => {
                let response: MetadataResponse = wire::response(METADATA_VERSION, frame);
                let shown: Vec<Shown> = (response.topics.into_iter())
                    .map(|topic| {
                        let mut partitions: Vec<(i32, Option<(usize, i32)>)> = (topic.partitions.iter())
                            .map(|partition| {
                                let led = partition.error_code == code::NONE && partition.leader_id.0 >= 0;
                                let leader =
                                    || (broker_index(partition.leader_id.0, cx.brokers), partition.leader_epoch);
                                (partition.partition_index, led.then(leader))
                            })
                            .collect();
                        partitions.sort_unstable();
                        Shown {
                            name: topic.name.map(|name| name.to_string()).unwrap_or_default(),
                            error: topic.error_code,
                            partitions,
                        }
                    })
                    .collect();
                cx.model.metadata_answered(self.link.broker, &shown, stamp);
                self.looked += u32::from(self.settling);
            }
        }
        self.go_on(cx);
    }

    fn closed(&mut self, cx: &mut Context<'_>, _broker: usize) {
        self.link.closed();
        cx.wake_in(10_000);
    }

    fn settle(&mut self, _now: u64) {
        self.settling = true;
        self.looked = 0;
    }

    fn is_settled(&self, _model: &Model) -> bool {
        self.looked > 8
    }

    fn state(&self) -> String {
        format!("watcher that has looked {} times", self.looked)
    }
}
