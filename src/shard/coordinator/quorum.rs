//! The members of the metadata's group: those who vote, and those who joined the cluster later and follow as observers. How
//! the brokers know each other.

use uuid::Uuid;

use crate::limits::REGISTER_AGAIN_MS;
use crate::metadata::command::NewBroker;
use crate::metadata::{Command, RegisterRefusal, codec};
use crate::shard::Shard;
use crate::shard::handlers::describe_quorum::{Quorum, Replica};
use crate::shard::mesh::{Question, RequestId};
use crate::shard::moves::{Goal, Step, has_learned, step};
use crate::types::{BrokerId, Deadline, LeaderEpoch, Mono, Now, PeerAddress};

/// Where a broker listens, if the data of an entry of the metadata's log say so.
pub(super) fn address_in(data: &[u8]) -> Option<PeerAddress> {
    match codec::decode_command(data) {
        Ok(Command::RegisterPeer { address, .. }) => Some(address),
        // Others are read, and found fault with, when they are applied.
        Ok(_) | Err(_) => None,
    }
}

impl Shard {
    /// The other brokers are let in only with the data directories that they registered, and are looked for where they said.
    pub(in crate::shard) fn know_peers(&mut self) {
        let brokers: Vec<BrokerId> = self.state.brokers().map(|broker| broker.id).collect();
        for broker in brokers {
            self.know_peer(broker);
        }
        let removed: Vec<BrokerId> = self.state.removed().collect();
        for broker in removed {
            self.forget_peer(broker);
        }
    }

    /// Looks for brokers where commands say that may not be committed: else nobody might be there to commit them with.
    pub(super) fn reach_noted(&mut self) {
        let noted = self.coordinator.as_mut().map(|coordinator| std::mem::take(&mut coordinator.noted));
        for address in noted.into_iter().flatten() {
            self.reach(address, false);
        }
    }

    /// Sees to it that the broker is registered with this start's incarnation.
    pub(super) fn register(&mut self, now: Now) {
        let own = self.config.broker_id;
        let Some(coordinator) = &mut self.coordinator else { return };
        // Who joins hears of the metadata only when it is registered.
        let joins = !coordinator.group.members().all().contains(&own);
        if !coordinator.started && !joins || coordinator.registered || now.mono < coordinator.next_register {
            return;
        }
        coordinator.next_register = now.mono.plus_millis(REGISTER_AGAIN_MS);
        let broker = NewBroker {
            id: own,
            host: self.config.advertised_host.clone(),
            port: self.config.advertised_port,
            rack: self.config.rack.clone(),
            incarnation: coordinator.incarnation,
            directory_id: self.config.directory_id,
        };
        let question = Question::Register(Box::new(broker), self.config.peer_address.clone());
        match joins && coordinator.leader().is_none() {
            true => self.ask_all(&question, REGISTER_AGAIN_MS),
            false => {
                let deadline = Deadline(coordinator.next_register);
                self.ask(now, RequestId { shard: self.id, number: 0 }, deadline, question);
            }
        }
    }

    /// A broker that asks again and again is not let in, and is told of once.
    pub(super) fn turn_away(&mut self, broker: &NewBroker, refusal: RegisterRefusal) {
        let coordinator = self.coordinator.as_mut().expect("the shard with the metadata's log");
        if coordinator.turned_away.insert((broker.id, broker.directory_id)) {
            tracing::error!(broker = broker.id.0, host = broker.host, "a broker is not let in: {refusal}");
        }
    }

    /// Takes the next step towards the members that the metadata's group is to have, where it is led here: whoever is
    /// registered and is to have no vote observes.
    pub(in crate::shard) fn tick_quorum(&mut self, now: Now) {
        let own = self.config.broker_id;
        let Some(coordinator) = self.coordinator.as_mut().filter(|coordinator| coordinator.leads()) else { return };
        let (group, followers) = (&coordinator.group, &coordinator.followers);
        let members = group.members().clone();
        let (brokers, number) = match self.state.voters() {
            Some(voters) => (&voters.brokers, voters.number),
            None => (&members.voters, members.number),
        };
        let registered = self.state.brokers().map(|broker| broker.id);
        let observers: Vec<BrokerId> = registered.filter(|broker| !brokers.contains(broker)).collect();
        let goal = Goal { brokers, observers: &observers, number, life: &|_| 0 };
        let next = match group.is_changing() {
            true => Step::Wait,
            false => step(own, &members, &goal, |broker| has_learned(group, followers, broker, now.mono)),
        };
        match next {
            Step::Wait | Step::Done => {}
            Step::Change(wanted) => {
                if coordinator.group.change_members(&wanted).is_ok() {
                    tracing::info!(?wanted, "the members of the metadata's group change");
                }
            }
            Step::HandOver => {
                let peers = &self.peers;
                coordinator.group.hand_over(|broker| peers.may_lead(broker));
            }
        }
        // Who joins may need what the log does not hold any more.
        if self.coordinator.as_ref().is_some_and(|coordinator| coordinator.group.takes_snapshot_wanted()) {
            self.checkpoint_metadata();
        }
    }

    /// How the metadata's group stands, which is led here.
    pub(super) fn quorum(&self, now: Now) -> Quorum {
        let coordinator = self.coordinator.as_ref().expect("the shard with the metadata's log");
        let (group, own) = (&coordinator.group, self.config.broker_id);
        let ago = |at: Mono| now.wall_ms - (now.mono.micros_since(at) / 1_000) as i64;
        let replica = |id: BrokerId| {
            let directory = self.state.broker(id).map(|broker| Uuid::from_bytes(broker.directory_id));
            let (log_end, heard, caught_up) = match id == own {
                true => (group.last_index(), Some(now.mono), Some(now.mono)),
                false => (group.matched(id).unwrap_or(0), self.peers.heard(id), coordinator.followers.caught_up(id)),
            };
            // One that learns has caught up never, as long as it has not.
            let caught_up = caught_up.filter(|at| *at > Mono::default());
            Replica {
                id,
                directory_id: directory.unwrap_or_default(),
                log_end: log_end as i64 + 1,
                heard_ms: heard.map_or(-1, ago),
                caught_up_ms: caught_up.map_or(-1, ago),
            }
        };
        let (observers, voters): (Vec<BrokerId>, Vec<BrokerId>) =
            group.members().all().into_iter().partition(|broker| group.members().learners.contains(broker));
        Quorum {
            leader: own,
            epoch: group.term() as LeaderEpoch,
            high_watermark: group.committed() as i64 + 1,
            voters: voters.into_iter().map(replica).collect(),
            observers: observers.into_iter().map(replica).collect(),
            addresses: self.addresses(),
        }
    }
}
