//! Requests under way on the shard of their connection: decoding, gathering the answers of ops, deadlines.

use std::collections::BTreeSet;

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;

use super::Shard;
use super::changes;
use super::connections::{Response, Slot};
use super::event::Effect;
use super::groups::Gather;
use super::handlers::{
    acls, api_versions, client_quotas, delete_records, describe_cluster, describe_configs, describe_log_dirs,
    describe_producers, describe_quorum, describe_topic_partitions, elect_leaders, fetch, list_config_resources,
    list_offsets, list_partition_reassignments, metadata, offset_for_leader_epoch, produce,
};
use super::mesh::{Answer, Question, Reply, RequestId};
use super::quotas::Metered;
use crate::limits::{AUTO_CREATE_MS, REQUEST_TIMEOUT_MS};
use crate::protocol::request::{self, FrameError, Request, RequestBody};
use crate::protocol::{Api, ApiKey, EncodeError, ErrorCode, ResponseBody, response};
use crate::types::{ConnId, Deadline, Map, Mono, Now};

/// What identifies a request to its client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    /// Where its response goes.
    pub(super) slot: Slot,
    /// The client's number for it.
    pub(super) correlation_id: i32,
    /// Its version.
    pub(super) version: i16,
    /// For how long its client must wait with the next one, in milliseconds.
    pub(super) throttle_ms: i32,
    /// The quota that its answer is charged to.
    pub(super) metered: Option<Metered>,
    /// The quota that the time for it is charged to.
    pub(super) timed: Option<Metered>,
    /// The place of its API in the table of those that the broker answers.
    pub(super) api: usize,
    /// When its frame was there.
    pub(super) since: Mono,
}

/// A request that waits for something.
pub(super) struct Pending {
    pub(super) origin: Origin,
    pub(super) deadline: Deadline,
    pub(super) kind: Kind,
}

/// What it waits for, and what is known so far.
pub(super) enum Kind {
    Produce(produce::Gathering),
    Fetch(Box<fetch::Gathering>),
    ListOffsets(list_offsets::Gathering),
    EpochEnds(offset_for_leader_epoch::Gathering),
    LogDirs(Box<describe_log_dirs::Gathering>),
    Producers(describe_producers::Gathering),
    DeleteRecords(delete_records::Gathering),
    /// The coordinator's reply; the answer to give where it does not come in time.
    Coordinator {
        late: Box<ResponseBody>,
    },
    /// Where partitions are: word of the brokers that may lead them.
    Locate(Box<kafka_protocol::messages::MetadataRequest>),
    /// Topics that a Metadata request creates.
    AutoCreate(Box<kafka_protocol::messages::MetadataRequest>),
    /// The topic of all groups, which the first search for a group's coordinator creates.
    FindCoordinator(Box<kafka_protocol::messages::FindCoordinatorRequest>),
    ElectLeaders(elect_leaders::Gathering),
    /// Answers of groups, so many of them.
    Groups {
        open: usize,
        gathering: Box<dyn Gather>,
    },
}

/// All requests under way on a shard.
#[derive(Default)]
pub(super) struct Requests {
    by_number: Map<u64, Pending>,
    deadlines: BTreeSet<(Deadline, u64)>,
    next_number: u64,
}

impl Requests {
    /// Adds a request; its number is part of the ids of its ops.
    pub(super) fn insert(&mut self, pending: Pending) -> u64 {
        self.next_number += 1;
        self.deadlines.insert((pending.deadline, self.next_number));
        self.by_number.insert(self.next_number, pending);
        self.next_number
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Pending> {
        self.by_number.get_mut(&number)
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<Pending> {
        let pending = self.by_number.remove(&number)?;
        self.deadlines.remove(&(pending.deadline, number));
        Some(pending)
    }

    /// Gives a request another deadline.
    pub(super) fn reschedule(&mut self, number: u64, deadline: Deadline) {
        if let Some(pending) = self.by_number.get_mut(&number) {
            self.deadlines.remove(&(pending.deadline, number));
            self.deadlines.insert((deadline, number));
            pending.deadline = deadline;
        }
    }

    /// A request whose time is up.
    fn overdue(&self, now: Now) -> Option<u64> {
        self.deadlines.first().filter(|(deadline, _)| deadline.passed(now)).map(|(_, number)| *number)
    }

    /// A request, by its number.
    pub(super) fn get(&self, number: u64) -> Option<&Pending> {
        self.by_number.get(&number)
    }

    /// Whether any request waits.
    pub(super) fn is_empty(&self) -> bool {
        self.by_number.is_empty()
    }
}

impl Shard {
    /// A frame came on a connection.
    pub(super) fn request(&mut self, now: Now, conn: ConnId, frame: Bytes) {
        // A client that must wait is not listened to meanwhile.
        if let Some(frame) = self.connections.hold(now, conn, frame) {
            self.take_request(now, conn, frame);
        }
    }

    /// Takes the requests of clients that have waited long enough.
    pub(super) fn take_held(&mut self, now: Now) {
        while let Some((conn, frame)) = self.connections.next_held(now) {
            self.take_request(now, conn, frame);
        }
    }

    fn take_request(&mut self, now: Now, conn: ConnId, frame: Bytes) {
        let bytes = frame.len();
        self.metrics.request_bytes.add(bytes as u64);
        let request = match request::decode(frame) {
            Ok(request) => request,
            Err(FrameError::UnsupportedVersion { api: ApiKey::ApiVersions, correlation_id, .. }) => {
                let Some(origin) = self.origin(now, conn, ApiKey::ApiVersions, 0, correlation_id) else { return };
                return self.respond(origin, &api_versions::unsupported_version().into());
            }
            Err(error) => {
                self.metrics.malformed.add(1);
                let reason = error.to_string();
                return self.out.push(Effect::Close { conn, reason });
            }
        };
        let Request { version, correlation_id, client_id, body } = request;
        let Some(mut origin) = self.origin(now, conn, body.api(), version, correlation_id) else { return };
        if let Some(refused) = self.meter(now, &mut origin, client_id.as_deref(), &body, bytes) {
            return self.respond(origin, &refused);
        }
        self.dispatch(now, origin, client_id, body);
    }

    /// Takes a place in the line of a connection's responses; `None` where the client is gone.
    fn origin(&mut self, now: Now, conn: ConnId, api: ApiKey, version: i16, correlation_id: i32) -> Option<Origin> {
        let (api, since) = (Api::place(api), now.mono);
        let slot = self.connections.next_slot(conn, api, since)?;
        Some(Origin { slot, correlation_id, version, throttle_ms: 0, metered: None, timed: None, api, since })
    }

    fn dispatch(&mut self, now: Now, origin: Origin, client_id: Option<StrBytes>, body: RequestBody) {
        match body {
            RequestBody::FindCoordinator(request) => self.find_coordinator(now, origin, request),
            RequestBody::JoinGroup(request) => self.join_group(now, origin, client_id, request),
            RequestBody::SyncGroup(request) => self.sync_group(now, origin, request),
            RequestBody::Heartbeat(request) => self.heartbeat(now, origin, request),
            RequestBody::LeaveGroup(request) => self.leave_group(now, origin, request),
            RequestBody::OffsetCommit(request) => self.offset_commit(now, origin, request),
            RequestBody::OffsetFetch(request) => self.offset_fetch(now, origin, request),
            RequestBody::OffsetDelete(request) => self.offset_delete(now, origin, request),
            RequestBody::ListGroups(request) => self.list_groups(now, origin, request),
            RequestBody::DescribeGroups(request) => self.describe_groups(now, origin, request),
            RequestBody::ConsumerGroupHeartbeat(request) => {
                self.consumer_group_heartbeat(now, origin, client_id, request);
            }
            RequestBody::ConsumerGroupDescribe(request) => self.consumer_group_describe(now, origin, request),
            RequestBody::DeleteGroups(request) => self.delete_groups(now, origin, request),
            RequestBody::Produce(request) => self.produce(now, origin, request),
            RequestBody::Fetch(request) => self.fetch(now, origin, request),
            RequestBody::ListOffsets(request) => self.list_offsets(now, origin, request),
            RequestBody::OffsetForLeaderEpoch(request) => self.offset_for_leader_epoch(now, origin, request),
            RequestBody::DeleteRecords(request) => self.delete_records(now, origin, request),
            RequestBody::Metadata(request) => self.metadata(now, origin, request),
            RequestBody::ElectLeaders(request) => self.elect_leaders(now, origin, &request),
            RequestBody::DescribeQuorum(request) => {
                let deadline = Deadline::after_millis(now, REQUEST_TIMEOUT_MS);
                let late = describe_quorum::failed(ErrorCode::RequestTimedOut);
                self.ask_coordinator(now, origin, deadline, late.into(), Question::DescribeQuorum(Box::new(request)));
            }
            RequestBody::AlterPartitionReassignments(ref request) => {
                let deadline = Deadline::after_millis(now, i64::from(request.timeout_ms));
                self.ask_for_change(now, origin, deadline, body);
            }
            RequestBody::AddRaftVoter(ref request) => {
                let deadline = Deadline::after_millis(now, i64::from(request.timeout_ms));
                self.ask_for_change(now, origin, deadline, body);
            }
            RequestBody::RemoveRaftVoter(_) | RequestBody::UnregisterBroker(_) => {
                let deadline = Deadline::after_millis(now, REQUEST_TIMEOUT_MS);
                self.ask_for_change(now, origin, deadline, body);
            }
            RequestBody::ListPartitionReassignments(request) => {
                let body = list_partition_reassignments::respond(&self.state, &request);
                self.respond(origin, &body.into());
            }
            RequestBody::ApiVersions(request) => {
                let body = api_versions::handle(origin.version, &request);
                self.respond(origin, &body.into());
            }
            RequestBody::DescribeCluster(request) => {
                let body = describe_cluster::respond(&self.state, &self.config, &request);
                self.respond(origin, &body.into());
            }
            RequestBody::DescribeConfigs(request) => {
                let body = describe_configs::respond(&self.state, &self.config, &request);
                self.respond(origin, &body.into());
            }
            RequestBody::DescribeTopicPartitions(request) => self.describe_topic_partitions(origin, &request),
            RequestBody::DescribeLogDirs(request) => self.describe_log_dirs(now, origin, &request),
            RequestBody::DescribeProducers(request) => self.describe_producers(now, origin, &request),
            RequestBody::DescribeAcls(_) => self.respond(origin, &acls::described().into()),
            RequestBody::CreateAcls(request) => self.respond(origin, &acls::created(&request).into()),
            RequestBody::DeleteAcls(request) => self.respond(origin, &acls::deleted(&request).into()),
            RequestBody::ListConfigResources(request) => {
                let body = list_config_resources::respond(&self.state, origin.version, &request);
                self.respond(origin, &body.into());
            }
            RequestBody::CreateTopics(request) => {
                let deadline = Deadline::after_millis(now, i64::from(request.timeout_ms));
                let late = super::handlers::create_topics::failed(&request, ErrorCode::RequestTimedOut);
                let token = self.rng.next();
                let question = Question::CreateTopics { request: Box::new(request), version: origin.version, token };
                self.ask_coordinator(now, origin, deadline, late.into(), question);
            }
            RequestBody::DeleteTopics(request) => {
                let deadline = Deadline::after_millis(now, i64::from(request.timeout_ms));
                let late = super::handlers::delete_topics::failed(&request, ErrorCode::RequestTimedOut);
                let question = Question::DeleteTopics { request: Box::new(request), version: origin.version };
                self.ask_coordinator(now, origin, deadline, late.into(), question);
            }
            RequestBody::CreatePartitions(ref request) => {
                let deadline = Deadline::after_millis(now, i64::from(request.timeout_ms));
                self.ask_for_change(now, origin, deadline, body);
            }
            RequestBody::DescribeClientQuotas(request) => {
                let body = client_quotas::describe(&self.state, &request);
                self.respond(origin, &body.into());
            }
            RequestBody::AlterConfigs(_)
            | RequestBody::IncrementalAlterConfigs(_)
            | RequestBody::AlterClientQuotas(_) => {
                self.ask_for_change(now, origin, Deadline::after_millis(now, REQUEST_TIMEOUT_MS), body);
            }
            RequestBody::InitProducerId(request) => {
                let deadline = Deadline::after_millis(now, REQUEST_TIMEOUT_MS);
                let late = kafka_protocol::messages::InitProducerIdResponse::default()
                    .with_error_code(ErrorCode::RequestTimedOut.code());
                let question = Question::InitProducerId { request: Box::new(request) };
                self.ask_coordinator(now, origin, deadline, late.into(), question);
            }
        }
    }

    fn ask_coordinator(
        &mut self,
        now: Now,
        origin: Origin,
        deadline: Deadline,
        late: ResponseBody,
        question: Question,
    ) {
        let kind = Kind::Coordinator { late: Box::new(late) };
        let number = self.requests.insert(Pending { origin, deadline, kind });
        self.ask(now, RequestId { shard: self.id, number }, deadline, question);
    }

    fn ask_for_change(&mut self, now: Now, origin: Origin, deadline: Deadline, request: RequestBody) {
        let late = changes::failed(&request, ErrorCode::RequestTimedOut);
        let question = Question::Change { request: Box::new(request), again: false };
        self.ask_coordinator(now, origin, deadline, late, question);
    }

    fn metadata(&mut self, now: Now, origin: Origin, request: kafka_protocol::messages::MetadataRequest) {
        let Some(wanted) = metadata::topics_to_create(&self.state, &self.config, &request, origin.version) else {
            return self.locate(now, origin, request);
        };
        let deadline = Deadline::after_millis(now, AUTO_CREATE_MS);
        let kind = Kind::AutoCreate(Box::new(request));
        let number = self.requests.insert(Pending { origin, deadline, kind });
        let version = metadata::AUTO_CREATE_VERSION;
        let token = self.rng.next();
        let question = Question::CreateTopics { request: Box::new(wanted), version, token };
        self.ask(now, RequestId { shard: self.id, number }, deadline, question);
    }

    fn describe_topic_partitions(
        &mut self,
        origin: Origin,
        request: &kafka_protocol::messages::DescribeTopicPartitionsRequest,
    ) {
        let leaders = |log| self.leaders.get(&log).map(|leader| (leader.broker, leader.epoch));
        let (own, peers) = (self.config.broker_id, &self.peers);
        let alive = |broker| broker == own || peers.is_alive(broker);
        let in_sync = |log, broker| self.is_in_sync(log, broker);
        let seen = metadata::Seen { leaders: &leaders, alive: &alive, in_sync: &in_sync };
        let body = describe_topic_partitions::respond(&self.state, request, &seen);
        self.respond(origin, &body.into());
    }

    pub(super) fn respond_metadata(&mut self, origin: Origin, request: &kafka_protocol::messages::MetadataRequest) {
        let leaders = |log| self.leaders.get(&log).map(|leader| (leader.broker, leader.epoch));
        let (own, peers) = (self.config.broker_id, &self.peers);
        let alive = |broker| broker == own || peers.is_alive(broker);
        let in_sync = |log, broker| self.is_in_sync(log, broker);
        let seen = metadata::Seen { leaders: &leaders, alive: &alive, in_sync: &in_sync };
        let body = metadata::respond(&self.state, &self.config, request, origin.version, &seen);
        self.respond(origin, &body.into());
    }

    /// Sends a response of the usual kind.
    pub(super) fn respond(&mut self, origin: Origin, body: &ResponseBody) {
        body.each_error(&mut |code| self.count_error(origin, code));
        let encoded = match origin.throttle_ms {
            0 => response::encode(origin.correlation_id, origin.version, body),
            throttle_ms => {
                let mut body = body.clone();
                body.set_throttle_ms(throttle_ms);
                response::encode(origin.correlation_id, origin.version, &body)
            }
        };
        self.respond_encoded(origin, encoded.map(|bytes| Response::from_elem(bytes, 1)));
    }

    /// Sends a response that its handler has encoded; no pieces at all where the client wants none.
    pub(super) fn respond_encoded(&mut self, origin: Origin, encoded: Result<Response, EncodeError>) {
        self.meters.works_for(origin.timed);
        match encoded {
            Ok(response) => {
                self.connections.respond(self.now.mono, origin.slot, response, &self.metrics, &mut self.out);
            }
            Err(error) => {
                // The client would wait for ever on a response that cannot be written.
                tracing::error!(%error, "a response cannot be encoded");
                self.out.push(Effect::Close { conn: origin.slot.conn, reason: error.to_string() });
            }
        }
    }

    /// The answer to an op of a request of this shard; that request may have been answered already.
    pub(super) fn op_answered(&mut self, now: Now, request: RequestId, part: u32, answer: Answer) {
        let Some(pending) = self.requests.get_mut(request.number) else { return };
        let part = part as usize;
        let complete = match (&mut pending.kind, answer) {
            (Kind::Produce(gathering), Answer::Append(result)) => gathering.answered(part, result),
            (Kind::ListOffsets(gathering), Answer::ListOffset(result)) => gathering.answered(part, result),
            (Kind::EpochEnds(gathering), Answer::EpochEnd(result)) => gathering.answered(part, result),
            (Kind::LogDirs(gathering), Answer::Sizes(sizes)) => gathering.sizes(part, sizes),
            (Kind::LogDirs(gathering), Answer::Space(space)) => gathering.space(space),
            (Kind::Producers(gathering), Answer::Producers(result)) => gathering.answered(part, result),
            (Kind::DeleteRecords(gathering), Answer::DeleteRecords(result)) => gathering.answered(part, result),
            (Kind::Fetch(gathering), Answer::Read(read)) => {
                gathering.answered(part, read);
                return self.fetch_progress(now, request.number);
            }
            (Kind::Groups { open, gathering }, Answer::Group(result)) => {
                gathering.take(part, result);
                *open -= 1;
                *open == 0
            }
            _ => unreachable!("the answer is of the op's kind"),
        };
        if complete {
            self.finish(now, request.number);
        }
    }

    /// Answers a request with what is known: all of it, or its time is up.
    pub(super) fn finish(&mut self, now: Now, number: u64) {
        let Some(Pending { origin, kind, .. }) = self.requests.remove(number) else { return };
        match kind {
            Kind::Produce(gathering) => self.finish_produce(origin, gathering),
            Kind::ListOffsets(gathering) => self.respond(origin, &gathering.finish().into()),
            Kind::EpochEnds(gathering) => self.respond(origin, &gathering.finish().into()),
            Kind::LogDirs(gathering) => self.respond(origin, &gathering.finish().into()),
            Kind::Producers(gathering) => self.respond(origin, &gathering.finish().into()),
            Kind::DeleteRecords(gathering) => self.respond(origin, &gathering.finish().into()),
            Kind::Fetch(gathering) => self.finish_fetch(now, origin, number, *gathering),
            Kind::Coordinator { late } => self.respond(origin, &late),
            // The topics that are there by now are shown; a client asks again for the others.
            Kind::AutoCreate(request) | Kind::Locate(request) => self.respond_metadata(origin, &request),
            Kind::ElectLeaders(gathering) => self.finish_elections(origin, gathering),
            Kind::FindCoordinator(request) => self.respond_coordinators(origin, &request),
            Kind::Groups { gathering, .. } => self.respond(origin, &gathering.finish()),
        }
    }

    /// The coordinator's reply to a request of this shard; that request may have been answered already.
    pub(super) fn told(&mut self, now: Now, request: RequestId, reply: Reply) {
        if let (Some(pending), Reply::CreateTopics(response, stages)) = (self.requests.get(request.number), &reply) {
            let origin = pending.origin;
            self.creation_answered(origin, response, *stages);
        }
        match self.requests.get_mut(request.number).map(|pending| &pending.kind) {
            None => {}
            Some(Kind::AutoCreate(_) | Kind::FindCoordinator(_)) => self.finish(now, request.number),
            Some(_) => {
                let Some(Pending { origin, .. }) = self.requests.remove(request.number) else { return };
                let body = match reply {
                    Reply::CreateTopics(response, _) => (*response).into(),
                    Reply::DeleteTopics(response) => (*response).into(),
                    Reply::InitProducerId(response) => (*response).into(),
                    Reply::Change(response) => changes::for_version(*response, origin.version),
                    Reply::DescribeQuorum(response) => describe_quorum::for_version(*response, origin.version).into(),
                };
                self.respond(origin, &body);
            }
        }
    }

    /// The broker is stopping: whoever waits for new records is answered with what there is.
    pub(super) fn end_polls(&mut self, now: Now) {
        let is_poll = |pending: &Pending| matches!(pending.kind, Kind::Fetch(_));
        let polls = self.requests.by_number.iter().filter(|(_, pending)| is_poll(pending));
        let mut polls: Vec<u64> = polls.map(|(number, _)| *number).collect();
        polls.sort_unstable();
        polls.into_iter().for_each(|number| self.finish(now, number));
    }

    /// Answers all requests whose time is up.
    pub(super) fn expire_requests(&mut self, now: Now) {
        while let Some(number) = self.requests.overdue(now) {
            self.deadline_missed(number);
            self.finish(now, number);
        }
    }
}
