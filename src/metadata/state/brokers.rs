//! Commands that say which brokers there are.

use super::{Change, State, Weight};
use crate::limits::MAX_BROKERS;
use crate::metadata::command::NewBroker;
use crate::metadata::nodes::Voters;
use crate::types::{BrokerId, PeerAddress};

/// Why a broker is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegisterRefusal {
    /// What the broker of this number promised is lost with its directory, so it is not taken for the old one.
    #[error("the broker of this number registered with another data directory")]
    OtherDirectory,
    /// Numbers are not given again.
    #[error("the broker of this number was removed from the cluster")]
    Removed,
    /// One cluster has so many at most.
    #[error("there are {MAX_BROKERS} brokers already, as many as there may be")]
    TooMany,
}

impl State {
    /// Where a broker listens for the others, if it said so when it registered.
    pub fn address(&self, id: BrokerId) -> Option<&PeerAddress> {
        self.nodes.addresses.get(&id)
    }

    /// Whether a broker was removed.
    pub fn is_removed(&self, id: BrokerId) -> bool {
        self.nodes.removed.contains(&id)
    }

    /// The brokers that were removed, ordered by id.
    pub fn removed(&self) -> impl Iterator<Item = BrokerId> + '_ {
        self.nodes.removed.iter().copied()
    }

    pub(super) fn any_removed(&self, brokers: &[BrokerId]) -> bool {
        brokers.iter().any(|broker| self.is_removed(*broker))
    }

    /// Who is to vote on the metadata; none where those do that the cluster began with.
    pub fn voters(&self) -> Option<&Voters> {
        self.nodes.voters.as_ref()
    }

    /// Whether a broker has a replica of a partition, or is to have one.
    pub fn has_replicas(&self, id: BrokerId) -> bool {
        let mut partitions = self.topics().flat_map(|topic| topic.partitions.iter());
        partitions.any(|partition| self.hosts(partition).any(|host| host == id))
    }

    /// Why a broker that wants to register is not let in.
    pub fn refuses(&self, broker: &NewBroker) -> Option<RegisterRefusal> {
        match self.brokers.get(&broker.id) {
            Some(known) => (known.directory_id != broker.directory_id).then_some(RegisterRefusal::OtherDirectory),
            None if self.is_removed(broker.id) => Some(RegisterRefusal::Removed),
            None => (self.brokers.len() >= MAX_BROKERS).then_some(RegisterRefusal::TooMany),
        }
    }

    pub(super) fn register(&mut self, broker: &NewBroker, address: Option<&PeerAddress>) -> Change {
        let id = broker.id;
        if self.refuses(broker).is_some() {
            return Change::RegisterRejected { id };
        }
        self.insert_broker(broker.clone());
        if let Some(address) = address {
            self.nodes.addresses.insert(id, address.clone());
            self.nodes_weight = Weight::of(&self.nodes);
        }
        Change::BrokerRegistered { id }
    }

    pub(super) fn alter_voters(&mut self, voters: &Voters) -> Change {
        let number = self.voters().map_or(0, |known| known.number);
        let gone = voters.brokers.iter().any(|broker| !self.brokers.contains_key(broker));
        if voters.number != number + 1 || gone {
            return Change::Overtaken;
        }
        self.nodes.voters = Some(voters.clone());
        self.nodes_weight = Weight::of(&self.nodes);
        Change::VotersAltered
    }

    pub(super) fn unregister(&mut self, id: BrokerId) -> Change {
        let votes = self.voters().is_some_and(|voters| voters.brokers.contains(&id));
        if votes || self.has_replicas(id) {
            return Change::Overtaken;
        }
        let Some(broker) = self.brokers.remove(&id) else { return Change::Overtaken };
        self.brokers_weight.remove(Weight::of(&broker));
        self.nodes.addresses.remove(&id);
        self.nodes.removed.insert(id);
        self.nodes_weight = Weight::of(&self.nodes);
        Change::BrokerUnregistered { id }
    }

    pub(super) fn insert_broker(&mut self, broker: NewBroker) {
        self.brokers_weight.add(Weight::of(&broker));
        if let Some(before) = self.brokers.insert(broker.id, broker) {
            self.brokers_weight.remove(Weight::of(&before));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Command;
    use crate::metadata::command::{NewPartition, NewTopic, Placed};
    use uuid::Uuid;

    const ID: Uuid = Uuid::from_u128(7);

    fn register(id: i32) -> Command {
        let broker = NewBroker {
            id: BrokerId(id),
            host: "h".to_owned(),
            port: 1,
            rack: None,
            incarnation: 0,
            directory_id: [id as u8; 16],
        };
        Command::RegisterPeer { broker, address: PeerAddress { id: BrokerId(id), host: "p".to_owned(), port: 2 } }
    }

    fn create(name: &str, replica: i32) -> Command {
        let partitions = vec![NewPartition { replicas: vec![BrokerId(replica)] }];
        let configs = Default::default();
        Command::CreateTopics { topics: vec![NewTopic { name: name.to_owned(), id: ID, partitions, configs }] }
    }

    fn move_to(broker: i32) -> Placed {
        Placed { topic: ID, partition: 0, replicas: vec![BrokerId(broker)] }
    }

    /// Applies the commands one after the other and gives what the last did.
    fn apply(state: &mut State, commands: &[Command]) -> Vec<Change> {
        let mut last = Vec::new();
        for command in commands {
            last = state.apply(state.applied() + 1, command);
            let read_back = State::from_snapshot(state.snapshot()).unwrap();
            assert_eq!(read_back.hash(), state.hash());
        }
        last
    }

    #[test]
    fn a_broker_goes_when_it_has_neither_replicas_nor_a_vote_and_its_number_with_it() {
        let mut state = State::default();
        let unregister = Command::UnregisterBroker { id: BrokerId(2) };
        let voters = |brokers: &[i32], number| {
            Command::AlterVoters(Voters { brokers: brokers.iter().copied().map(BrokerId).collect(), number })
        };
        assert_eq!(
            apply(&mut state, &[register(1), register(2), create("t", 2), unregister.clone()]),
            [Change::Overtaken]
        );
        let moved = [Command::MoveReplicas { moves: vec![move_to(1)] }, unregister.clone()];
        assert_eq!(apply(&mut state, &moved), [Change::Overtaken], "it has its replica until the move is done");
        apply(&mut state, &[Command::ReplicasMoved { placed: move_to(1), number: 1 }]);
        assert_eq!(apply(&mut state, &[voters(&[1, 2], 1)]), [Change::VotersAltered]);
        assert_eq!(apply(&mut state, std::slice::from_ref(&unregister)), [Change::Overtaken]);
        assert_eq!(apply(&mut state, &[voters(&[1], 1)]), [Change::Overtaken]);
        assert_eq!(apply(&mut state, &[voters(&[1, 3], 2)]), [Change::Overtaken]);
        assert_eq!(apply(&mut state, &[voters(&[1], 2)]), [Change::VotersAltered]);
        assert_eq!(
            apply(&mut state, std::slice::from_ref(&unregister)),
            [Change::BrokerUnregistered { id: BrokerId(2) }]
        );
        assert!(state.broker(BrokerId(2)).is_none() && state.address(BrokerId(2)).is_none());
        // What was planned before comes to nothing.
        assert_eq!(apply(&mut state, &[unregister]), [Change::Overtaken]);
        assert_eq!(apply(&mut state, &[register(2)]), [Change::RegisterRejected { id: BrokerId(2) }]);
        assert_eq!(apply(&mut state, &[Command::MoveReplicas { moves: vec![move_to(2)] }]), [Change::Overtaken]);
        let late = apply(&mut state, &[Command::DeleteTopics { ids: vec![ID] }, create("u", 2)]);
        assert!(matches!(&late[..], [Change::CreateRejected { .. }]), "{late:?}");
    }

    #[test]
    fn there_are_so_many_brokers_and_no_more() {
        let mut state = State::default();
        for id in 0..MAX_BROKERS as i32 {
            assert_eq!(apply(&mut state, &[register(id)]), [Change::BrokerRegistered { id: BrokerId(id) }]);
        }
        let Command::RegisterPeer { broker, .. } = register(99) else { unreachable!("what it is made as") };
        assert_eq!(state.refuses(&broker), Some(RegisterRefusal::TooMany));
        assert_eq!(apply(&mut state, &[register(99)]), [Change::RegisterRejected { id: BrokerId(99) }]);
        assert_eq!(apply(&mut state, &[register(3)]), [Change::BrokerRegistered { id: BrokerId(3) }]);
    }
}
