//! AddRaftVoter, RemoveRaftVoter and UnregisterBroker: who votes on the metadata, and which brokers there are.
//!
//! A change of voters is answered when it is noted; the metadata's group goes the way there by itself, and DescribeQuorum
//! shows it. The next change waits for that.

use kafka_protocol::messages::{
    AddRaftVoterRequest, AddRaftVoterResponse, RemoveRaftVoterRequest, RemoveRaftVoterResponse,
    UnregisterBrokerRequest, UnregisterBrokerResponse,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::consensus::Members;
use crate::consensus::members::same;
use crate::metadata::nodes::Voters;
use crate::metadata::{Command, State};
use crate::protocol::ErrorCode;
use crate::types::BrokerId;

/// What a plan goes out from.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    /// The metadata.
    pub state: &'a State,
    /// The members of the metadata's group.
    pub members: &'a Members,
    /// The cluster's id.
    pub cluster_id: &'a str,
    /// An earlier try of the request may have been carried out: then it is no error that nothing is left to do.
    pub again: bool,
}

/// The command to propose, if any is needed, or why not.
type Outcome = Result<Option<Command>, (ErrorCode, String)>;

impl Standing<'_> {
    /// Who is to vote, and how many times that was changed.
    fn wanted(&self) -> Voters {
        self.state.voters().cloned().unwrap_or_else(|| Voters { brokers: self.members.voters.clone(), number: 0 })
    }

    /// Those who are to vote, when those who do are no others any more.
    fn settled(&self) -> Result<Voters, (ErrorCode, String)> {
        let wanted = self.wanted();
        let reached = !self.members.is_joint()
            && same(&self.members.voters, &wanted.brokers)
            && (wanted.number == 0 || self.members.number == wanted.number);
        if !reached {
            return Err((ErrorCode::RequestTimedOut, "Another change of the voters is under way.".to_owned()));
        }
        Ok(wanted)
    }

    fn check_cluster(&self, id: Option<&StrBytes>) -> Result<(), (ErrorCode, String)> {
        match id {
            Some(id) if id.as_str() != self.cluster_id => {
                Err((ErrorCode::InconsistentClusterId, format!("This is the cluster {}.", self.cluster_id)))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Whether a broker has this data directory; whoever asks may leave it open.
    fn is_its(&self, id: BrokerId, directory_id: Uuid) -> bool {
        let directory = self.state.broker(id).map(|broker| Uuid::from_bytes(broker.directory_id));
        directory_id.is_nil() || directory == Some(directory_id)
    }

    /// What gives a broker a vote: a registered one, which has the metadata already or is sent it.
    pub fn add(&self, request: &AddRaftVoterRequest) -> Outcome {
        self.check_cluster(request.cluster_id.as_ref())?;
        let id = BrokerId(request.voter_id);
        if self.wanted().brokers.contains(&id) {
            let message = format!("Broker {} is a voter already.", id.0);
            return if self.again { Ok(None) } else { Err((ErrorCode::DuplicateVoter, message)) };
        }
        if self.state.broker(id).is_none() {
            return Err((ErrorCode::BrokerIdNotRegistered, format!("No broker {} has joined the cluster.", id.0)));
        }
        if !self.is_its(id, request.voter_directory_id) {
            return Err((ErrorCode::InvalidVoterKey, format!("Broker {} has another data directory.", id.0)));
        }
        let mut next = self.settled()?;
        next.brokers.push(id);
        next.number += 1;
        Ok(Some(Command::AlterVoters(next)))
    }

    /// What takes a broker's vote.
    pub fn remove(&self, request: &RemoveRaftVoterRequest) -> Outcome {
        self.check_cluster(request.cluster_id.as_ref())?;
        let id = BrokerId(request.voter_id);
        if !self.wanted().brokers.contains(&id) && self.again {
            return Ok(None);
        }
        if !self.wanted().brokers.contains(&id) || !self.is_its(id, request.voter_directory_id) {
            return Err((ErrorCode::VoterNotFound, format!("Broker {} is no voter of this data directory.", id.0)));
        }
        let mut next = self.settled()?;
        next.brokers.retain(|voter| *voter != id);
        next.number += 1;
        if next.brokers.is_empty() {
            return Err((ErrorCode::InvalidRequest, "The metadata needs a voter.".to_owned()));
        }
        Ok(Some(Command::AlterVoters(next)))
    }

    /// What takes a broker out of the cluster, for good.
    pub fn unregister(&self, request: &UnregisterBrokerRequest) -> Outcome {
        let id = BrokerId(request.broker_id.0);
        if self.state.broker(id).is_none() {
            let message = format!("No broker {} is registered.", id.0);
            let done = self.again && self.state.is_removed(id);
            return if done { Ok(None) } else { Err((ErrorCode::BrokerIdNotRegistered, message)) };
        }
        if self.state.has_replicas(id) {
            let message = format!("Broker {} has replicas, or gets them: it is to be drained first.", id.0);
            return Err((ErrorCode::InvalidRequest, message));
        }
        if self.wanted().brokers.contains(&id) {
            let message = format!("Broker {} votes on the metadata: its vote is to be taken first.", id.0);
            return Err((ErrorCode::InvalidRequest, message));
        }
        self.settled()?;
        Ok(Some(Command::UnregisterBroker { id }))
    }
}

/// The answers, with the error and its message where there is one.
macro_rules! answer {
    ($name:ident, $response:ident) => {
        /// The answer to this request.
        pub fn $name(refusal: Option<(ErrorCode, String)>) -> $response {
            let response = $response::default().with_error_message(None);
            match refusal {
                None => response,
                Some((error, message)) => response
                    .with_error_code(error.code())
                    .with_error_message(Some(StrBytes::from_string(message)).filter(|message| !message.is_empty())),
            }
        }
    };
}

answer!(added, AddRaftVoterResponse);
answer!(removed, RemoveRaftVoterResponse);
answer!(unregistered, UnregisterBrokerResponse);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::command::{NewBroker, NewPartition, NewTopic};

    fn state(brokers: &[i32]) -> State {
        let mut state = State::default();
        for id in brokers {
            let broker = NewBroker {
                id: BrokerId(*id),
                host: "h".to_owned(),
                port: 1,
                rack: None,
                incarnation: 0,
                directory_id: [*id as u8; 16],
            };
            state.apply(state.applied() + 1, &Command::RegisterBroker(broker));
        }
        state
    }

    fn members(voters: &[i32], number: u32) -> Members {
        Members { number, ..Members::of(&voters.iter().copied().map(BrokerId).collect::<Vec<_>>()) }
    }

    fn voters(ids: &[i32], number: u32) -> Option<Command> {
        Some(Command::AlterVoters(Voters { brokers: ids.iter().copied().map(BrokerId).collect(), number }))
    }

    fn add(id: i32, directory: u8) -> AddRaftVoterRequest {
        AddRaftVoterRequest::default()
            .with_cluster_id(None)
            .with_voter_id(id)
            .with_voter_directory_id(Uuid::from_bytes([directory; 16]))
    }

    fn remove(id: i32) -> RemoveRaftVoterRequest {
        RemoveRaftVoterRequest::default().with_cluster_id(Some("blue".into())).with_voter_id(id)
    }

    fn code(outcome: Outcome) -> ErrorCode {
        outcome.unwrap_err().0
    }

    #[test]
    fn one_voter_after_the_other() {
        let mut state = state(&[1, 2, 3, 4]);
        let first = members(&[1, 2, 3], 0);
        fn standing<'a>(state: &'a State, members: &'a Members, again: bool) -> Standing<'a> {
            Standing { state, members, cluster_id: "blue", again }
        }
        let now = standing(&state, &first, false);
        assert_eq!(code(now.add(&add(3, 0))), ErrorCode::DuplicateVoter);
        assert_eq!(code(now.add(&add(5, 0))), ErrorCode::BrokerIdNotRegistered);
        assert_eq!(code(now.add(&add(4, 9))), ErrorCode::InvalidVoterKey);
        assert_eq!(code(now.add(&add(4, 4).with_cluster_id(Some("red".into())))), ErrorCode::InconsistentClusterId);
        assert_eq!(code(now.remove(&remove(4))), ErrorCode::VoterNotFound);
        let command = now.add(&add(4, 4)).unwrap();
        assert_eq!(command, voters(&[1, 2, 3, 4], 1));
        state.apply(9, &command.unwrap());

        let under_way = standing(&state, &first, false);
        assert_eq!(code(under_way.remove(&remove(1))), ErrorCode::RequestTimedOut);
        assert_eq!(standing(&state, &first, true).add(&add(4, 4)), Ok(None));
        let almost = members(&[1, 2, 3, 4], 0);
        assert_eq!(code(standing(&state, &almost, false).remove(&remove(1))), ErrorCode::RequestTimedOut);
        let reached = members(&[1, 2, 3, 4], 1);
        assert_eq!(standing(&state, &reached, false).remove(&remove(1)), Ok(voters(&[2, 3, 4], 2)));
        let one = members(&[1], 0);
        assert_eq!(code(standing(&State::default(), &one, false).remove(&remove(1))), ErrorCode::InvalidRequest);
    }

    #[test]
    fn who_has_something_to_do_stays() {
        let mut state = state(&[1, 2, 3]);
        let partitions = vec![NewPartition { replicas: vec![BrokerId(3)] }];
        let (name, id, configs) = ("t".to_owned(), Uuid::from_u128(1), Default::default());
        state.apply(9, &Command::CreateTopics { topics: vec![NewTopic { name, id, partitions, configs }] });
        let first = members(&[1], 0);
        let wanted = |state: &State, broker: i32, again| {
            let standing = Standing { state, members: &first, cluster_id: "blue", again };
            standing.unregister(&UnregisterBrokerRequest::default().with_broker_id(broker.into()))
        };
        assert_eq!(code(wanted(&state, 4, true)), ErrorCode::BrokerIdNotRegistered);
        assert_eq!(code(wanted(&state, 3, false)), ErrorCode::InvalidRequest);
        assert_eq!(code(wanted(&state, 1, false)), ErrorCode::InvalidRequest);
        let command = wanted(&state, 2, false).unwrap().unwrap();
        assert_eq!(command, Command::UnregisterBroker { id: BrokerId(2) });
        state.apply(10, &command);
        assert_eq!(code(wanted(&state, 2, false)), ErrorCode::BrokerIdNotRegistered);
        assert_eq!(wanted(&state, 2, true), Ok(None));
    }
}
