//! The way of a question to the coordinator that leads, on this broker or another, and of its reply back.
//!
//! A question stays with shard 0 of the broker that was asked until it is answered or its time is up; where the
//! coordinator changes meanwhile, it goes to the new one.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{
    ApiKey, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
    DescribeQuorumRequest, DescribeQuorumResponse, InitProducerIdRequest, InitProducerIdResponse,
};
use kafka_protocol::protocol::{Decodable, Encodable};

use super::Shard;
use super::creation::Stages;
use super::mesh::{Question, Reply, RequestId, ShardMessage};
use crate::consensus::NotLeader;
use crate::peer::PeerMessage;
use crate::protocol::ResponseBody;
use crate::protocol::request::RequestBody;
use crate::protocol::versions::Api;
use crate::types::{BrokerId, Deadline, Now, ShardId};

/// Versions in which replies go between brokers, and requests that bring none of their own.
const CREATE_TOPICS_VERSION: i16 = 7;
const DELETE_TOPICS_VERSION: i16 = 6;
const INIT_PRODUCER_ID_VERSION: i16 = 4;
const DESCRIBE_QUORUM_VERSION: i16 = 2;

/// Who asked the coordinator.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asker {
    /// A request of this broker.
    Here(u64),
    /// Another broker, by the number that it gave the question.
    Peer { broker: BrokerId, number: u64 },
}

/// A question under way.
struct Asked {
    request: RequestId,
    deadline: Deadline,
    question: Question,
    /// Where it was sent; `None` until there is somebody.
    to: Option<BrokerId>,
    /// Whether it was ever sent: what became of it is not known where that is to be done again.
    tried: bool,
}

/// All questions of this broker that are not answered.
#[derive(Default)]
pub(super) struct Asks {
    by_number: BTreeMap<u64, Asked>,
    next: u64,
}

impl Asks {
    pub(super) fn is_empty(&self) -> bool {
        self.by_number.is_empty()
    }
}

impl Shard {
    /// Takes a question to the coordinator from any shard of this broker.
    pub(super) fn ask(&mut self, now: Now, request: RequestId, deadline: Deadline, question: Question) {
        if self.coordinator.is_none() {
            return self.send(ShardId(0), ShardMessage::Ask { request, deadline, question });
        }
        self.asks.next += 1;
        let number = self.asks.next;
        self.asks.by_number.insert(number, Asked { request, deadline, question, to: None, tried: false });
        self.route(now, number);
    }

    /// Sends a question to the coordinator that leads, if there is one.
    fn route(&mut self, now: Now, number: u64) {
        let Some(coordinator) = &self.coordinator else { return };
        let own = self.config.broker_id;
        let (leads, leader) = (coordinator.leads(), coordinator.leader());
        let Some(asked) = self.asks.by_number.get_mut(&number) else { return };
        if let (Question::Change { again, .. }, true) = (&mut asked.question, asked.tried) {
            *again = true;
        }
        if leads {
            (asked.to, asked.tried) = (Some(own), true);
            let (deadline, question) = (asked.deadline, asked.question.clone());
            return self.answer_question(now, Asker::Here(number), deadline, question);
        }
        let Some(leader) = leader.filter(|leader| *leader != own && self.peers.is_alive(*leader)) else { return };
        (asked.to, asked.tried) = (Some(leader), true);
        let time_left_ms = (asked.deadline.0.micros_since(now.mono) / 1_000).min(u64::from(u32::MAX)) as u32;
        let Some(question) = encode_question(&asked.question) else { return };
        self.peers.send(leader, PeerMessage::Ask { shard: self.id.0, number, time_left_ms, question });
    }

    /// Sends the questions again whose coordinator leads no longer, and drops those that nobody waits for.
    pub(super) fn ask_again(&mut self, now: Now) {
        self.asks.by_number.retain(|_, asked| !asked.deadline.passed(now));
        let Some(coordinator) = &self.coordinator else { return };
        let leader = coordinator.leader();
        let stale = |asked: &Asked| asked.to.is_none() || (leader.is_some() && asked.to != leader);
        let again: Vec<u64> =
            self.asks.by_number.iter().filter(|(_, asked)| stale(asked)).map(|(number, _)| *number).collect();
        for number in again {
            self.route(now, number);
        }
    }

    /// Another broker asks this one's coordinator.
    pub(super) fn peer_asked(
        &mut self,
        now: Now,
        from: BrokerId,
        (shard, number): (u16, u64),
        time_left_ms: u32,
        question: &Bytes,
    ) {
        let asker = Asker::Peer { broker: from, number };
        debug_assert_eq!(shard, 0, "questions leave from the shard that has the coordinator");
        let Some(question) = decode_question(question.clone()) else {
            return tracing::error!(from = from.0, "a broker's question cannot be read");
        };
        if !self.coordinator.as_ref().is_some_and(|coordinator| coordinator.leads()) {
            return self.tell(now, asker, Err(NotLeader));
        }
        let deadline = Deadline::after_millis(now, i64::from(time_left_ms));
        self.answer_question(now, asker, deadline, question);
    }

    /// Tells whoever asked; [`NotLeader`] where another coordinator must be asked.
    pub(super) fn tell(&mut self, now: Now, asker: Asker, reply: Result<Reply, NotLeader>) {
        match asker {
            Asker::Here(number) => self.ask_answered(now, number, reply),
            Asker::Peer { broker, number } => {
                let reply = encode_reply(reply.ok().as_ref());
                self.peers.send(broker, PeerMessage::Told { shard: 0, number, reply });
            }
        }
    }

    /// Another broker's coordinator has replied.
    pub(super) fn peer_told(&mut self, now: Now, number: u64, reply: &Bytes) {
        match decode_reply(reply.clone()) {
            Some(reply) => self.ask_answered(now, number, reply),
            None => tracing::error!("a coordinator's reply cannot be read"),
        }
    }

    fn ask_answered(&mut self, now: Now, number: u64, reply: Result<Reply, NotLeader>) {
        let Ok(reply) = reply else {
            // It is asked again at the next tick.
            if let Some(asked) = self.asks.by_number.get_mut(&number) {
                asked.to = None;
            }
            return;
        };
        let Some(Asked { request, .. }) = self.asks.by_number.remove(&number) else { return };
        if request.shard == self.id {
            self.told(now, request, reply);
        } else {
            self.send(request.shard, ShardMessage::Told { request, reply });
        }
    }
}

mod tag {
    pub(super) const CREATE_TOPICS: u8 = 1;
    pub(super) const DELETE_TOPICS: u8 = 2;
    pub(super) const INIT_PRODUCER_ID: u8 = 3;
    pub(super) const REGISTER: u8 = 4;
    pub(super) const CHANGE: u8 = 5;
    pub(super) const DESCRIBE_QUORUM: u8 = 6;
    pub(super) const REPLICAS_MOVED: u8 = 7;
    /// Another coordinator leads.
    pub(super) const NOT_LEADER: u8 = 0;
}

/// A question for another broker; `None` where its version cannot hold it, which its request's own always can.
pub(super) fn encode_question(question: &Question) -> Option<Bytes> {
    let mut out = BytesMut::new();
    match question {
        Question::CreateTopics { request, version, token } => {
            out.put_u8(tag::CREATE_TOPICS);
            out.put_i16_le(*version);
            out.put_u64_le(*token);
            request.encode(&mut out, *version).ok()?;
        }
        Question::DeleteTopics { request, version } => {
            out.put_u8(tag::DELETE_TOPICS);
            out.put_i16_le(*version);
            request.encode(&mut out, *version).ok()?;
        }
        Question::InitProducerId { request } => {
            out.put_u8(tag::INIT_PRODUCER_ID);
            request.encode(&mut out, INIT_PRODUCER_ID_VERSION).ok()?;
        }
        Question::Change { request, again } => {
            out.put_u8(tag::CHANGE);
            out.put_u8(u8::from(*again));
            let version = put_api(&mut out, request.api());
            request.encode(&mut out, version).ok()?;
        }
        Question::DescribeQuorum(request) => {
            out.put_u8(tag::DESCRIBE_QUORUM);
            request.encode(&mut out, DESCRIBE_QUORUM_VERSION).ok()?;
        }
        Question::ReplicasMoved { placed, number } => {
            out.put_u8(tag::REPLICAS_MOVED);
            out.extend_from_slice(&crate::codec::encode(&(placed, number)));
        }
        Question::Register(broker, address) => {
            out.put_u8(tag::REGISTER);
            out.extend_from_slice(&crate::codec::encode(&(&**broker, address)));
        }
    }
    Some(out.freeze())
}

fn decode_question(mut bytes: Bytes) -> Option<Question> {
    match bytes.try_get_u8().ok()? {
        tag::CREATE_TOPICS => {
            let version = bytes.try_get_i16_le().ok()?;
            let token = bytes.try_get_u64_le().ok()?;
            let request = Box::new(CreateTopicsRequest::decode(&mut bytes, version).ok()?);
            Some(Question::CreateTopics { request, version, token })
        }
        tag::DELETE_TOPICS => {
            let version = bytes.try_get_i16_le().ok()?;
            let request = Box::new(DeleteTopicsRequest::decode(&mut bytes, version).ok()?);
            Some(Question::DeleteTopics { request, version })
        }
        tag::INIT_PRODUCER_ID => {
            let request = Box::new(InitProducerIdRequest::decode(&mut bytes, INIT_PRODUCER_ID_VERSION).ok()?);
            Some(Question::InitProducerId { request })
        }
        tag::CHANGE => {
            let again = bytes.try_get_u8().ok()? != 0;
            let (api, version) = get_api(&mut bytes)?;
            let request = Box::new(RequestBody::decode(api, version, &mut bytes).ok()?);
            Some(Question::Change { request, again })
        }
        tag::DESCRIBE_QUORUM => {
            let request = DescribeQuorumRequest::decode(&mut bytes, DESCRIBE_QUORUM_VERSION).ok()?;
            Some(Question::DescribeQuorum(Box::new(request)))
        }
        tag::REPLICAS_MOVED => {
            let (placed, number) = crate::codec::decode(&bytes).ok()?;
            Some(Question::ReplicasMoved { placed, number })
        }
        tag::REGISTER => {
            let (broker, address) = crate::codec::decode(&bytes).ok()?;
            Some(Question::Register(Box::new(broker), address))
        }
        _ => None,
    }
}

/// An API and its newest version, in which its requests and replies go between brokers.
fn put_api(out: &mut BytesMut, api: ApiKey) -> i16 {
    let version = Api::by_key(api as i16).expect("what was decoded is in the table").max;
    out.put_i16_le(api as i16);
    out.put_i16_le(version);
    version
}

fn get_api(bytes: &mut Bytes) -> Option<(ApiKey, i16)> {
    let (key, version) = (bytes.try_get_i16_le().ok()?, bytes.try_get_i16_le().ok()?);
    let api = Api::by_key(key).filter(|api| api.supports(version))?;
    Some((api.key, version))
}

/// A reply for another broker. Versions are the newest: what the asker answers its client with is encoded anew.
fn encode_reply(reply: Option<&Reply>) -> Bytes {
    let mut out = BytesMut::new();
    let encoded = match reply {
        None => {
            out.put_u8(tag::NOT_LEADER);
            Ok(())
        }
        Some(Reply::CreateTopics(response, stages)) => {
            out.put_u8(tag::CREATE_TOPICS);
            stages.encode(&mut out);
            response.encode(&mut out, CREATE_TOPICS_VERSION)
        }
        Some(Reply::DeleteTopics(response)) => {
            out.put_u8(tag::DELETE_TOPICS);
            response.encode(&mut out, DELETE_TOPICS_VERSION)
        }
        Some(Reply::InitProducerId(response)) => {
            out.put_u8(tag::INIT_PRODUCER_ID);
            response.encode(&mut out, INIT_PRODUCER_ID_VERSION)
        }
        Some(Reply::Change(response)) => {
            out.put_u8(tag::CHANGE);
            let version = put_api(&mut out, response.api());
            response.encode(&mut out, version).map_err(anyhow::Error::msg)
        }
        Some(Reply::DescribeQuorum(response)) => {
            out.put_u8(tag::DESCRIBE_QUORUM);
            response.encode(&mut out, DESCRIBE_QUORUM_VERSION)
        }
    };
    encoded.expect("the newest version holds every field");
    out.freeze()
}

fn decode_reply(mut bytes: Bytes) -> Option<Result<Reply, NotLeader>> {
    Some(Ok(match bytes.try_get_u8().ok()? {
        tag::NOT_LEADER => return Some(Err(NotLeader)),
        tag::CREATE_TOPICS => {
            let stages = Stages::decode(&mut bytes)?;
            let response = CreateTopicsResponse::decode(&mut bytes, CREATE_TOPICS_VERSION).ok()?;
            Reply::CreateTopics(Box::new(response), stages)
        }
        tag::DELETE_TOPICS => {
            Reply::DeleteTopics(Box::new(DeleteTopicsResponse::decode(&mut bytes, DELETE_TOPICS_VERSION).ok()?))
        }
        tag::INIT_PRODUCER_ID => {
            Reply::InitProducerId(Box::new(InitProducerIdResponse::decode(&mut bytes, INIT_PRODUCER_ID_VERSION).ok()?))
        }
        tag::CHANGE => {
            let (api, version) = get_api(&mut bytes)?;
            Reply::Change(Box::new(ResponseBody::decode(api, version, &mut bytes).ok()?))
        }
        tag::DESCRIBE_QUORUM => {
            Reply::DescribeQuorum(Box::new(DescribeQuorumResponse::decode(&mut bytes, DESCRIBE_QUORUM_VERSION).ok()?))
        }
        _ => return None,
    }))
}
