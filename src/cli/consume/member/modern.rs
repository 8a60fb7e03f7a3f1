//! What is different in the consumer protocol (KIP-848): the coordinator says what a member reads, in its answers to the
//! member's heartbeats, and the member says in its next one that it goes by it.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use kafka_protocol::messages::{ConsumerGroupHeartbeatRequest, GroupId};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::super::super::client::{Cluster, Failure, check, text, topic_name};
use super::super::super::interrupt;
use super::{Member, Standing};
use crate::io::random_bytes;

/// The epoch of a member that joins.
pub(super) const JOINING: i32 = 0;
/// The epoch with which a member leaves.
pub(super) const LEAVING: i32 = -1;
/// The longest pause between two heartbeats of a member that has just joined and was given nothing yet.
const SETTLING: Duration = Duration::from_millis(500);

/// What the coordinator has told a member.
#[derive(Debug, Default)]
pub(super) struct Modern {
    /// The topic's id, once partitions of it were given.
    topic: Uuid,
    /// The partitions that the member reads.
    owned: BTreeSet<i32>,
    /// Those that it is to read instead, if they are others.
    given: Option<BTreeSet<i32>>,
    /// How often it is to come.
    pub(super) interval: Duration,
}

/// An id for a new member, which chooses it itself.
pub(super) fn fresh_id() -> Result<StrBytes, Failure> {
    let bytes = random_bytes().map_err(|error| Failure::Failed(format!("there are no random bytes: {error}")))?;
    Ok(text(&uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()))
}

impl Member {
    fn modern(&mut self) -> &mut Modern {
        self.modern.as_mut().expect("the member speaks the consumer protocol")
    }

    /// Joins where the member is none yet, goes over to what it was given, and gives the partitions that it has then. Where
    /// it has just joined it waits for the first ones, until the time is up: others may have to give them back.
    pub(super) fn join_modern(&mut self, cluster: &mut Cluster) -> Result<Vec<i32>, Failure> {
        let joins = self.generation == JOINING;
        loop {
            if let Some(given) = self.modern().given.take() {
                self.modern().owned = given;
            }
            self.beat(cluster, self.generation)?;
            let modern = self.modern();
            if modern.given.is_some() {
                continue;
            }
            let pause = modern.interval.min(SETTLING);
            let waits = joins && modern.owned.is_empty() && Instant::now() + pause < cluster.deadline();
            if !waits || interrupt::came() {
                return Ok(modern.owned.iter().copied().collect());
            }
            thread::sleep(pause);
        }
    }

    /// A heartbeat whose time has come.
    pub(super) fn turn_modern(&mut self, cluster: &mut Cluster) -> Result<Standing, Failure> {
        match self.beat(cluster, self.generation) {
            Ok(()) if self.modern().given.is_none() => Ok(Standing::Stable),
            Ok(()) => Ok(Standing::JoinAgain),
            Err(failure) if self.must_begin_again(&failure) => Ok(Standing::JoinAgain),
            Err(failure) => Err(failure),
        }
    }

    /// Says that the member is there, with what it reads, and takes what it is told.
    pub(super) fn beat(&mut self, cluster: &mut Cluster, epoch: i32) -> Result<(), Failure> {
        let joins = epoch == JOINING;
        let modern = self.modern();
        let owned = TopicPartitions::default()
            .with_topic_id(modern.topic)
            .with_partitions(modern.owned.iter().copied().collect());
        let owned = if modern.owned.is_empty() { Vec::new() } else { vec![owned] };
        let request = ConsumerGroupHeartbeatRequest::default()
            .with_group_id(GroupId(text(&self.group)))
            .with_member_id(self.id.clone())
            .with_member_epoch(epoch)
            .with_rebalance_timeout_ms(if joins { cluster.left_ms() } else { -1 })
            .with_subscribed_topic_names(joins.then(|| vec![topic_name(&self.topic)]))
            .with_topic_partitions(Some(owned));
        let answer = cluster.insist(|cluster| {
            let coordinator = cluster.coordinator(&self.group)?;
            let answer = cluster.at(coordinator, &(1..=1), &request)?;
            check(answer.error_code, answer.error_message.as_deref(), || self.shown()).map(|()| answer)
        })?;
        self.last_heartbeat = Instant::now();
        self.generation = answer.member_epoch;
        let modern = self.modern();
        modern.interval = Duration::from_millis(answer.heartbeat_interval_ms.max(0) as u64);
        if let Some(assignment) = answer.assignment {
            let parts = &assignment.topic_partitions;
            modern.topic = parts.first().map_or(modern.topic, |part| part.topic_id);
            let given = parts.iter().flat_map(|part| part.partitions.iter().copied()).collect();
            modern.given = Some(given).filter(|given| *given != modern.owned);
        }
        Ok(())
    }

    /// Whether a failure means that the group has gone on without this member, which then joins as a new one would.
    pub(super) fn must_begin_again(&mut self, failure: &Failure) -> bool {
        let gone = matches!(
            failure.code(),
            Some(ResponseError::UnknownMemberId | ResponseError::FencedMemberEpoch | ResponseError::StaleMemberEpoch)
        );
        if gone {
            self.generation = JOINING;
            let modern = self.modern();
            modern.owned.clear();
            modern.given = None;
        }
        gone
    }
}
