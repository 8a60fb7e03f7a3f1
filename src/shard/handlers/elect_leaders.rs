//! ElectLeaders: partitions are led by their preferred replicas again.
//!
//! Any broker can see to it: it asks the brokers that lead to hand over, and answers when it hears of the new leaders.
//! Raft elects nobody who lacks an acknowledged record, so there are no unclean elections.

use kafka_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use kafka_protocol::messages::{ElectLeadersRequest, ElectLeadersResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use crate::limits::ELECT_AGAIN_MS;
use crate::peer::PeerMessage;
use crate::protocol::ErrorCode;
use crate::shard::requests::{Kind, Origin, Pending};
use crate::shard::{Shard, log_of};
use crate::types::{BrokerId, Deadline, LogId, Mono, Now};

/// First version whose requests name the kind of election, and whose answers have an error of their own.
const FIRST_WITH_KINDS: i16 = 1;
/// Kafka's kinds of elections.
const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

/// An ElectLeaders request under way.
pub(in crate::shard) struct Gathering {
    parts: Vec<Part>,
    /// When leaders are asked to hand over, once more.
    ask_at: Mono,
}

struct Part {
    topic: TopicName,
    partition: i32,
    outcome: Outcome,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    /// This broker is to lead this log.
    Awaited(LogId, BrokerId),
    Elected,
    Failed(ErrorCode),
}

impl Shard {
    pub(in crate::shard) fn elect_leaders(&mut self, now: Now, origin: Origin, request: &ElectLeadersRequest) {
        let kind = if origin.version < FIRST_WITH_KINDS { PREFERRED } else { request.election_type };
        if kind != PREFERRED && kind != UNCLEAN {
            let refused = ElectLeadersResponse::default().with_error_code(ErrorCode::InvalidRequest.code());
            return self.respond(origin, &refused.into());
        }
        let part = |(topic, partition): (TopicName, i32)| {
            let outcome = self.election(&topic, partition, kind == UNCLEAN);
            Part { topic, partition, outcome }
        };
        let parts = match &request.topic_partitions {
            Some(topics) => {
                let named = topics.iter().flat_map(|topic| topic.partitions.iter().map(|p| (topic.topic.clone(), *p)));
                named.map(part).collect()
            }
            None => {
                let name = |name: &str| TopicName(StrBytes::from_string(name.to_owned()));
                let all = (self.state.topics())
                    .flat_map(|topic| (0..topic.partitions.len()).map(|p| (name(&topic.name), p as i32)));
                // Who asks for all wants to hear only of those about which there was something to do.
                let needed = |part: &Part| part.outcome != Outcome::Failed(ErrorCode::ElectionNotNeeded);
                all.map(part).filter(needed).collect()
            }
        };
        let deadline = Deadline::after_millis(now, i64::from(request.timeout_ms));
        let kind = Kind::ElectLeaders(Gathering { parts, ask_at: now.mono });
        let number = self.requests.insert(Pending { origin, deadline, kind });
        self.elections.push(number);
        self.settle_elections(now);
    }

    /// What is to be done for one partition.
    fn election(&self, topic: &TopicName, partition: i32, unclean: bool) -> Outcome {
        let found = self.state.topic(topic).ok_or(ErrorCode::UnknownTopicOrPartition);
        let log = match found.and_then(|topic| log_of(topic, partition)) {
            Ok(log) => log,
            Err(error) => return Outcome::Failed(error),
        };
        let replicas = &found.expect("it has the log").partitions[partition as usize].replicas;
        let is_there = |broker: BrokerId| broker == self.config.broker_id || self.peers.is_alive(broker);
        let leader = self.leaders.get(&log).map(|leader| leader.broker).filter(|leader| is_there(*leader));
        let preferred = replicas[0];
        let well = preferred == self.config.broker_id || self.peers.may_lead(preferred);
        Outcome::Failed(match leader {
            Some(_) if unclean => ErrorCode::ElectionNotNeeded,
            None if unclean => ErrorCode::EligibleLeadersNotAvailable,
            Some(leader) if leader == preferred => ErrorCode::ElectionNotNeeded,
            _ if !well => ErrorCode::PreferredLeaderNotAvailable,
            _ => return Outcome::Awaited(log, preferred),
        })
    }

    /// Answers the elections that are over, and asks leaders to hand over.
    pub(in crate::shard) fn settle_elections(&mut self, now: Now) {
        for number in std::mem::take(&mut self.elections) {
            let Some(Pending { kind: Kind::ElectLeaders(gathering), .. }) = self.requests.get_mut(number) else {
                continue;
            };
            let ask = now.mono >= gathering.ask_at;
            if ask {
                gathering.ask_at = now.mono.plus_millis(ELECT_AGAIN_MS);
            }
            let mut asked = Vec::new();
            for part in &mut gathering.parts {
                let Outcome::Awaited(log, to) = part.outcome else { continue };
                match self.leaders.get(&log).map(|leader| leader.broker) {
                    Some(leader) if leader == to => part.outcome = Outcome::Elected,
                    Some(leader) if ask => asked.push((leader, PeerMessage::HandOver { log, to })),
                    Some(_) | None => {}
                }
            }
            if gathering.parts.iter().any(|part| matches!(part.outcome, Outcome::Awaited(..))) {
                self.elections.push(number);
            } else {
                self.finish(now, number);
            }
            let own = self.config.broker_id;
            for (leader, message) in asked {
                match leader == own {
                    true => self.peer_message(now, own, message),
                    false => self.peers.send(leader, message),
                }
            }
        }
    }

    pub(in crate::shard) fn finish_elections(&mut self, origin: Origin, gathering: Gathering) {
        self.respond(origin, &respond(gathering).into());
    }
}

fn respond(gathering: Gathering) -> ElectLeadersResponse {
    let mut results: Vec<ReplicaElectionResult> = Vec::new();
    for part in gathering.parts {
        let error = match part.outcome {
            Outcome::Elected => None,
            Outcome::Awaited(..) => Some(ErrorCode::RequestTimedOut),
            Outcome::Failed(error) => Some(error),
        };
        let message = match error {
            Some(ErrorCode::ElectionNotNeeded) => Some("The partition is led as it should be."),
            Some(ErrorCode::PreferredLeaderNotAvailable) => {
                Some("The preferred replica's broker cannot lead just now.")
            }
            Some(ErrorCode::EligibleLeadersNotAvailable) => {
                Some("A majority of the replicas is missing; others do not hold every acknowledged record.")
            }
            _ => None,
        };
        let result = PartitionResult::default()
            .with_partition_id(part.partition)
            .with_error_code(ErrorCode::code_of(error))
            .with_error_message(message.map(StrBytes::from_static_str));
        match results.iter_mut().find(|topic| topic.topic == part.topic) {
            Some(topic) => topic.partition_result.push(result),
            None => results
                .push(ReplicaElectionResult::default().with_topic(part.topic).with_partition_result(vec![result])),
        }
    }
    ElectLeadersResponse::default().with_replica_election_results(results)
}

#[cfg(test)]
mod tests {
    use super::super::admin_tests::{assert_encodable, name};
    use super::*;

    #[test]
    fn every_partition_has_its_own_answer() {
        let part = |topic, partition, outcome| Part { topic: name(topic), partition, outcome };
        let parts = vec![
            part("a", 0, Outcome::Elected),
            part("b", 0, Outcome::Failed(ErrorCode::PreferredLeaderNotAvailable)),
            part("a", 1, Outcome::Awaited(LogId(3), BrokerId(1))),
        ];
        let response = respond(Gathering { parts, ask_at: Mono::default() });
        assert_encodable(&response, 0..=2);
        let results: Vec<_> = (response.replica_election_results.iter())
            .map(|topic| {
                let results = topic.partition_result.iter();
                (
                    topic.topic.as_str(),
                    results.map(|result| (result.partition_id, result.error_code)).collect::<Vec<_>>(),
                )
            })
            .collect();
        assert_eq!(results, [("a", vec![(0, 0), (1, 7)]), ("b", vec![(0, 80)])]);
    }
}
