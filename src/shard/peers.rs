//! The other brokers of the cluster as a shard sees them: what goes to them, what came, which of them are there.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Shard;
use super::ask::encode_question;
use super::event::Effect;
use super::mesh::{Leader, Op, OpKind, Question, RequestId, ShardMessage};
use crate::limits::{
    AWAY_MS, BALANCE_MS, DISK_SLOW_MS, LEADERS_PER_MESSAGE, LEASE_BACK_MS, LEASE_MS, PEER_SILENT_MS, RAFT_TICK_MS,
    REST_TICKS, SHOWN_HUNG_MS, SHOWN_MS, STATUS_MS,
};
use crate::peer::{self, DiskState, FrameHeader, PeerMessage, Status};
use crate::types::{BrokerId, LogId, Map, Mono, Now, PeerAddress, ShardId};

/// Another broker.
#[derive(Default)]
struct Peer {
    /// There is a connection to it.
    connected: bool,
    /// When something came from it last.
    heard: Option<Mono>,
    /// What it last said of itself.
    status: Status,
    /// It counts as there: connected, and heard of late.
    alive: bool,
    outbox: Vec<PeerMessage>,
}

/// All of them.
#[derive(Default)]
pub(super) struct Peers {
    by_id: Map<BrokerId, Peer>,
    /// In a fixed order, for replays.
    order: Vec<BrokerId>,
    /// Where they listen, and whether they said so themselves since this start.
    addresses: BTreeMap<BrokerId, (PeerAddress, bool)>,
    /// When this shard looked at the clock last without having been told of anything.
    last_tick: Mono,
    next_status: Mono,
    next_raft_tick: Mono,
    next_balance: Mono,
    /// Until when this broker leads nothing, because its disk hung.
    no_lead_until: Option<Mono>,
    /// Until when the disk counts as hanging, or as slow; it is put off while it does.
    hangs_until: Mono,
    /// See `hangs_until`.
    slow_until: Mono,
    /// A write of this broker's disk has failed.
    failed: bool,
    /// This broker is about to stop.
    pub(super) leaving: bool,
}

impl Peers {
    pub(super) fn new(own: BrokerId, configured: &[PeerAddress]) -> Peers {
        let mut peers = Peers::default();
        for address in configured.iter().filter(|address| address.id != own) {
            peers.reach(address.clone(), false);
        }
        peers
    }

    /// Notes where another broker listens, as it said itself or not; whether that is news. What it said itself is newer than
    /// all that is known otherwise.
    fn reach(&mut self, address: PeerAddress, itself: bool) -> bool {
        let id = address.id;
        if self.addresses.get(&id).is_some_and(|(known, itself_then)| *known == address || *itself_then && !itself) {
            return false;
        }
        if self.addresses.insert(id, (address, itself)).is_none() {
            self.by_id.insert(id, Peer::default());
            self.order.push(id);
        }
        true
    }

    /// Another broker is none any more; whether it was one.
    pub(super) fn forget(&mut self, peer: BrokerId) -> bool {
        self.order.retain(|known| *known != peer);
        self.addresses.remove(&peer);
        self.by_id.remove(&peer).is_some()
    }

    /// How many others there are.
    pub(super) fn count(&self) -> usize {
        self.order.len()
    }

    /// Whether there are others at all.
    pub(super) fn any(&self) -> bool {
        !self.order.is_empty()
    }

    /// The brokers that are there, this one not among them.
    pub(super) fn alive(&self) -> impl Iterator<Item = BrokerId> + '_ {
        self.order.iter().copied().filter(|peer| self.is_alive(*peer))
    }

    /// Whether this other broker is there.
    pub(super) fn is_alive(&self, peer: BrokerId) -> bool {
        self.by_id.get(&peer).is_some_and(|peer| peer.alive)
    }

    /// When something came from this other broker last.
    pub(super) fn heard(&self, peer: BrokerId) -> Option<Mono> {
        self.by_id.get(&peer)?.heard
    }

    /// Whether this other broker is there and its disk does not hang.
    pub(super) fn is_prompt(&self, peer: BrokerId) -> bool {
        self.by_id.get(&peer).is_some_and(|peer| peer.alive && peer.status.disk < DiskState::Hangs)
    }

    /// How long this other broker is waited for to show what is committed, in milliseconds. One whose disk hangs is, as
    /// clients ask it as well; but it may have to be sent what it cannot write.
    pub(super) fn shows_within_ms(&self, peer: BrokerId) -> u64 {
        match self.is_prompt(peer) {
            true => SHOWN_MS,
            false if self.is_alive(peer) => SHOWN_HUNG_MS,
            false => 0,
        }
    }

    /// Whether this other broker is there and its disk is well.
    pub(super) fn may_lead(&self, peer: BrokerId) -> bool {
        self.by_id.get(&peer).is_some_and(|peer| peer.alive && peer.status.leads)
    }

    /// Whether a broker can hold what its leader does: it is there, and its disk has not failed.
    pub(super) fn can_follow(&self, own: BrokerId, broker: BrokerId) -> bool {
        match self.by_id.get(&broker) {
            Some(peer) => peer.alive && peer.status.disk < DiskState::Failed,
            None => broker == own && !self.failed,
        }
    }

    /// How little a broker is fit to lead: the lower the better. The others count as this one sees them.
    pub(super) fn unfitness(&self, now: Now, own: BrokerId, broker: BrokerId) -> u8 {
        let (leads, disk, alive) = match self.by_id.get(&broker) {
            Some(peer) => (peer.status.leads, peer.status.disk, peer.alive),
            None => (self.leads(now), self.disk(now), broker == own),
        };
        match (alive, disk, leads) {
            (false, ..) | (true, DiskState::Failed, _) => 3,
            // A slow one may be about to hang, and for the same reason: brokers that share a device.
            (true, DiskState::Slow | DiskState::Hangs, _) => 2,
            (true, DiskState::Well, false) => 1,
            (true, DiskState::Well, true) => 0,
        }
    }

    /// Whether another broker is fitter to lead than this one. One that is about to stop is less fit than any that may lead,
    /// and no less than one that is about to stop too.
    pub(super) fn is_fitter(&self, now: Now, own: BrokerId, other: BrokerId) -> bool {
        match self.leaving {
            true => self.may_lead(other),
            false => self.unfitness(now, own, other) < self.unfitness(now, own, own),
        }
    }

    /// How a broker is, in words, as this one sees it.
    pub(super) fn condition(&self, now: Now, own: BrokerId, broker: BrokerId) -> &'static str {
        let (leads, disk, alive) = match self.by_id.get(&broker) {
            Some(peer) => (peer.status.leads, peer.status.disk, peer.alive),
            None => (self.leads(now), self.disk(now), broker == own),
        };
        match (alive, disk, leads) {
            (false, ..) => "gone",
            (true, DiskState::Failed, _) => "disk failed",
            (true, DiskState::Hangs, _) => "disk hangs",
            (true, DiskState::Slow, _) => "disk slow",
            (true, DiskState::Well, false) => "recovering",
            (true, DiskState::Well, true) => "well",
        }
    }

    /// Whether none of those before `own` in the order of `replicas` can lead.
    pub(super) fn is_first(&self, mut replicas: impl Iterator<Item = BrokerId>, own: BrokerId) -> bool {
        replicas.find(|replica| *replica == own || self.may_lead(*replica)) == Some(own)
    }

    /// Puts a message into the next frame for a broker; one that is not connected gets none.
    pub(super) fn send(&mut self, to: BrokerId, message: PeerMessage) {
        if let Some(peer) = self.by_id.get_mut(&to).filter(|peer| peer.connected) {
            peer.outbox.push(message);
        }
    }

    /// Puts a message into the next frame for each broker.
    pub(super) fn send_all(&mut self, message: &PeerMessage) {
        for at in 0..self.order.len() {
            self.send(self.order[at], message.clone());
        }
    }

    /// How this broker's disk takes writes just now.
    fn disk(&self, now: Now) -> DiskState {
        match now.mono {
            _ if self.failed => DiskState::Failed,
            now if now < self.hangs_until => DiskState::Hangs,
            now if now < self.slow_until => DiskState::Slow,
            _ => DiskState::Well,
        }
    }

    /// Whether this shard itself did not run for a while: what others did meanwhile waits to be looked at.
    fn was_away(&self, now: Now) -> bool {
        now.mono > self.last_tick.plus_millis(AWAY_MS)
    }

    /// Whether this broker may lead at `now`.
    pub(super) fn leads(&self, now: Now) -> bool {
        !self.failed && !self.leaving && self.no_lead_until.is_none_or(|until| now.mono >= until)
    }
}

impl Shard {
    /// A connection to a broker is there, and goes on from nothing.
    pub(super) fn peer_up(&mut self, now: Now, peer: BrokerId) {
        let Some(known) = self.peers.by_id.get_mut(&peer) else { return };
        known.connected = true;
        known.heard.get_or_insert(now.mono);
        let status = self.status(now);
        if self.id == ShardId(0) {
            self.peers.send(peer, PeerMessage::Addresses(self.addresses()));
        }
        self.peers.send(peer, PeerMessage::Status(status));
        for led in self.led().into_iter().chain(self.lagging()) {
            self.peers.send(peer, led);
        }
        // What was meant for it while there was no connection was lost as well.
        self.send_again(peer);
        self.watch_peers(now);
    }

    /// Where this broker and all that it knows listen.
    pub(super) fn addresses(&self) -> Vec<PeerAddress> {
        let others = self.peers.addresses.values().map(|(address, _)| address);
        self.config.peer_address.iter().chain(others).cloned().collect()
    }

    /// Another broker listens here, as it said itself or not.
    pub(super) fn reach(&mut self, peer: PeerAddress, itself: bool) {
        let (own, removed) = (self.config.broker_id, self.state.is_removed(peer.id));
        if peer.id != own && !removed && self.peers.reach(peer.clone(), itself) {
            self.storage.share_with(self.peers.count() + 1);
            self.out.push(Effect::ReachPeer { peer });
        }
    }

    /// A broker says where it and others listen. Of those that are known here already it may know less.
    fn told_addresses(&mut self, from: BrokerId, addresses: Vec<PeerAddress>) {
        for address in addresses {
            if address.id == from || !self.peers.by_id.contains_key(&address.id) {
                let itself = address.id == from;
                self.reach(address, itself);
            }
        }
    }

    /// Sends a question to all brokers that are there, for one that does not know which of them leads. The metadata itself is
    /// the answer.
    pub(super) fn ask_all(&mut self, question: &Question, within_ms: u64) {
        let Some(question) = encode_question(question) else { return };
        let time_left_ms = within_ms as u32;
        self.peers.send_all(&PeerMessage::Ask { shard: self.id.0, number: 0, time_left_ms, question });
    }

    /// The logs that are led here, as messages.
    fn led(&self) -> Vec<PeerMessage> {
        let led = self.owned.iter().filter_map(|(log, owned)| owned.announced.map(|epoch| (*log, epoch)));
        let mut led: Vec<_> = led.collect();
        led.sort_unstable();
        led.chunks(LEADERS_PER_MESSAGE).map(|part| PeerMessage::Leaders(part.to_vec())).collect()
    }

    /// The connection to a broker is lost, with what was on its way.
    pub(super) fn peer_down(&mut self, now: Now, peer: BrokerId) {
        let Some(known) = self.peers.by_id.get_mut(&peer) else { return };
        known.connected = false;
        known.outbox.clear();
        self.watch_peers(now);
        self.send_again(peer);
    }

    /// Has Raft send again what a broker may not have got.
    fn send_again(&mut self, peer: BrokerId) {
        self.for_each_replica(|shard, log| {
            let owned = shard.owned.get_mut(&log).expect("it is there");
            owned.partition.broker_unreachable(peer);
            shard.wake(log);
            shard.touch(log);
        });
        if let Some(coordinator) = &mut self.coordinator {
            coordinator.peer_unreachable(peer);
        }
    }

    pub(super) fn for_each_replica(&mut self, mut act: impl FnMut(&mut Shard, LogId)) {
        let mut logs: Vec<LogId> =
            self.owned.iter().filter(|(_, owned)| owned.partition.is_replicated()).map(|(log, _)| *log).collect();
        logs.sort_unstable();
        for log in logs {
            act(self, log);
        }
    }

    /// A frame of another broker.
    pub(super) fn peer_frame(&mut self, now: Now, from: BrokerId, header: &FrameHeader, frame: Bytes) {
        let messages = match peer::decode(header, frame) {
            Ok(messages) => messages,
            Err(error) => return tracing::error!(from = from.0, %error, "a broker sent a frame that cannot be read"),
        };
        if let Some(known) = self.peers.by_id.get_mut(&from) {
            known.heard = Some(now.mono);
        }
        for message in messages {
            // One that joins says first where it can be answered.
            if !self.peers.by_id.contains_key(&from) && !matches!(message, PeerMessage::Addresses(_)) {
                continue;
            }
            if let (PeerMessage::Status(_) | PeerMessage::Addresses(_), ShardId(0)) = (&message, self.id) {
                // One shard of a broker speaks for all, to one.
                for shard in 1..self.shards {
                    let message = Box::new(message.clone());
                    self.send(ShardId(shard), ShardMessage::Peer { from, message });
                }
            }
            self.peer_message(now, from, message);
        }
        self.word_came(now);
        self.watch_peers(now);
    }

    /// Takes a message of another broker, or hands it to the shard that it is for.
    pub(super) fn peer_message(&mut self, now: Now, from: BrokerId, message: PeerMessage) {
        let owner = match &message {
            PeerMessage::Raft { log, .. }
            | PeerMessage::FetchLog { log, .. }
            | PeerMessage::LogPart { log, .. }
            | PeerMessage::HandOver { log, .. } => log.shard(self.shards),
            PeerMessage::Ask { .. } | PeerMessage::Applied { .. } => ShardId(0),
            PeerMessage::Told { shard, .. } => ShardId(*shard),
            PeerMessage::Leaders(_)
            | PeerMessage::Lagging(_)
            | PeerMessage::Rest(_)
            | PeerMessage::Addresses(_)
            | PeerMessage::Status(_)
            | PeerMessage::Hail => self.id,
        };
        if owner != self.id {
            // The other broker may have known this one with more shards.
            if owner.0 < self.shards {
                self.send(owner, ShardMessage::Peer { from, message: Box::new(message) });
            }
            return;
        }
        match message {
            PeerMessage::Raft { log: LogId::METADATA, message, .. } => self.metadata_stepped(now, from, message),
            PeerMessage::Raft { log, message, beside } => self.log_stepped(now, from, log, message, beside),
            PeerMessage::Leaders(leaders) => {
                let leader = |(log, epoch)| Leader { log, broker: from, epoch };
                self.spread_leaders(now, leaders.into_iter().map(leader).collect());
            }
            PeerMessage::Lagging(lagging) => self.spread_lagging(lagging),
            PeerMessage::Rest(logs) => self.rest_everywhere(from, logs),
            PeerMessage::Addresses(addresses) => self.told_addresses(from, addresses),
            PeerMessage::Applied { index } => self.peer_applied(now, from, index),
            PeerMessage::Ask { shard, number, time_left_ms, question } => {
                self.peer_asked(now, from, (shard, number), time_left_ms, &question);
            }
            PeerMessage::Told { number, reply, .. } => self.peer_told(now, number, &reply),
            PeerMessage::Status(status) => {
                if let Some(known) = self.peers.by_id.get_mut(&from) {
                    known.status = status;
                    known.heard = Some(now.mono);
                }
                self.compare_metadata(from, status);
            }
            PeerMessage::Hail => {
                let status = self.status(now);
                self.peers.send(from, PeerMessage::Status(status));
            }
            PeerMessage::FetchLog { log, offset, end } => self.copy_for_peer(now, from, log, offset, end),
            PeerMessage::HandOver { log, to } => self.asked_to_hand_over(now, log, to),
            PeerMessage::LogPart { log, offset, start, batches } => self.log_part(now, log, offset, start, &batches),
        }
    }

    /// Two brokers with the same commands applied have the same metadata, or one of them must not go on.
    fn compare_metadata(&mut self, from: BrokerId, status: Status) {
        if self.opened && status.applied == self.state.applied() && status.hash != self.state.hash() {
            let applied = status.applied;
            self.fatal(format!("the metadata differs from that of broker {} at index {applied}", from.0));
        }
    }

    fn status(&self, now: Now) -> Status {
        let (leads, disk) = (self.peers.leads(now), self.peers.disk(now));
        Status { leads, disk, applied: self.state.applied(), hash: self.state.hash() }
    }

    /// Tells all other brokers how this one is.
    pub(super) fn tell_status(&mut self, now: Now) {
        let status = self.status(now);
        self.peers.send_all(&PeerMessage::Status(status));
    }

    /// Does what is due by time.
    pub(super) fn tick_peers(&mut self, now: Now) {
        if !self.peers.any() {
            return;
        }
        if self.peers.was_away(now) {
            let away = now.mono.micros_since(self.peers.last_tick);
            for peer in self.peers.by_id.values_mut() {
                peer.heard = peer.heard.map(|heard| Mono(heard.0 + away).min(now.mono));
            }
        } else {
            self.watch_lease(now);
        }
        self.peers.last_tick = now.mono;
        // One shard speaks for the broker.
        if self.id == ShardId(0) && now.mono >= self.peers.next_status {
            self.peers.next_status = now.mono.plus_millis(STATUS_MS);
            self.tell_status(now);
        }
        self.watch_peers(now);
        if now.mono >= self.peers.next_raft_tick {
            self.peers.next_raft_tick = now.mono.plus_millis(RAFT_TICK_MS);
            self.tick_moves(now);
            self.tick_quorum(now);
            self.tick_replicas(now);
            if let Some(coordinator) = &mut self.coordinator {
                coordinator.tick(now.mono, self.peers.disk(now) >= DiskState::Hangs);
            }
        }
        if now.mono >= self.peers.next_balance {
            self.peers.next_balance = now.mono.plus_millis(BALANCE_MS);
            self.lead_where_preferred();
            // Whoever was between two connections when a leader came up hears of it now.
            for led in self.led().into_iter().chain(self.lagging()) {
                self.peers.send_all(&led);
            }
        }
    }

    /// Raft's time has passed for the groups that are awake.
    fn tick_replicas(&mut self, now: Now) {
        let mut resting = Vec::new();
        for log in self.awake.iter().copied().collect::<Vec<_>>() {
            let Some(owned) = self.owned.get_mut(&log) else {
                self.awake.remove(&log);
                continue;
            };
            owned.partition.tick();
            if owned.stands_at.take_if(|at| now.mono >= *at).is_some() && owned.partition.leader().is_none() {
                owned.partition.campaign();
            }
            owned.quiet_ticks += 1;
            if owned.quiet_ticks > REST_TICKS
                && let Some((term, index)) = owned.partition.rests_at()
            {
                resting.push((log, term, index));
                self.awake.remove(&log);
            }
            let installing = owned.partition.is_installing();
            self.touch(log);
            self.raft_moved(now, log, false);
            self.look_at_followers(now, log);
            if installing {
                self.fetch_next(now, log);
            }
        }
        for part in resting.chunks(LEADERS_PER_MESSAGE) {
            self.peers.send_all(&PeerMessage::Rest(part.to_vec()));
        }
    }

    /// Something has happened to a log: its Raft group needs ticks.
    pub(super) fn wake(&mut self, log: LogId) {
        if let Some(owned) = self.owned.get_mut(&log).filter(|owned| owned.partition.is_replicated()) {
            owned.quiet_ticks = 0;
            if self.awake.insert(log) {
                owned.followers.rested();
            }
        }
    }

    /// Another broker lets logs rest, which may be other shards' here.
    fn rest_everywhere(&mut self, from: BrokerId, logs: Vec<(LogId, u64, u64)>) {
        let mut elsewhere: BTreeMap<ShardId, Vec<(LogId, u64, u64)>> = BTreeMap::new();
        for rest in logs {
            elsewhere.entry(rest.0.shard(self.shards)).or_default().push(rest);
        }
        for (shard, logs) in elsewhere {
            match shard == self.id {
                true => self.rest(from, &logs),
                false => {
                    let message = Box::new(PeerMessage::Rest(logs));
                    self.send(shard, ShardMessage::Peer { from, message });
                }
            }
        }
    }

    /// Another broker lets logs rest that it leads.
    fn rest(&mut self, from: BrokerId, logs: &[(LogId, u64, u64)]) {
        for &(log, term, index) in logs {
            if self.owned.get(&log).is_some_and(|owned| owned.partition.may_rest(from, term, index)) {
                self.awake.remove(&log);
            }
        }
    }

    /// Gives leaderships back to the replicas that should have them (`auto.leader.rebalance.enable`), where those are
    /// well and hold everything.
    fn lead_where_preferred(&mut self) {
        let own = self.config.broker_id;
        self.for_each_replica(|shard, log| {
            let peers = &shard.peers;
            let owned = shard.owned.get_mut(&log).expect("it is there");
            let preferred = owned.partition.replicas().next().filter(|preferred| *preferred != own);
            let Some(preferred) = preferred.filter(|preferred| peers.may_lead(*preferred)) else { return };
            if owned.partition.is_settled() && owned.partition.hand_over(|broker| broker == preferred) {
                shard.wake(log);
                shard.touch(log);
            }
        });
    }

    /// Somebody wants a log that is led here to be led by another replica.
    fn asked_to_hand_over(&mut self, now: Now, log: LogId, to: BrokerId) {
        let peers = &self.peers;
        let Some(owned) = self.owned.get_mut(&log) else { return };
        if owned.partition.hand_over(|broker| broker == to && peers.may_lead(broker)) {
            self.wake(log);
            self.touch(log);
            self.raft_moved(now, log, false);
        }
    }

    /// Notes who has come and who has gone.
    fn watch_peers(&mut self, now: Now) {
        if self.peers.was_away(now) {
            return;
        }
        for at in 0..self.peers.order.len() {
            let id = self.peers.order[at];
            let Some(peer) = self.peers.by_id.get_mut(&id) else { continue };
            let heard = peer.heard.is_some_and(|heard| now.mono < heard.plus_millis(PEER_SILENT_MS));
            let alive = peer.connected && heard;
            if std::mem::replace(&mut peer.alive, alive) == alive {
                continue;
            }
            match alive {
                true => tracing::info!(broker = id.0, "a broker is there"),
                false => {
                    tracing::warn!(broker = id.0, "a broker is gone, or silent");
                    self.peer_lost(now, id);
                }
            }
        }
    }

    /// A broker does not answer any more: the groups that it led need another leader at once.
    fn peer_lost(&mut self, now: Now, peer: BrokerId) {
        self.for_each_replica(|shard, log| {
            let lead = shard.peers.leads(now);
            let owned = shard.owned.get_mut(&log).expect("it is there");
            let led = owned.partition.broker_lost(peer);
            shard.wake(log);
            let owned = shard.owned.get_mut(&log).expect("it is there");
            // All at once they would take each other's votes; the others follow when their time-outs are over.
            if led && lead && shard.peers.is_first(owned.partition.replicas(), shard.config.broker_id) {
                owned.partition.campaign();
            }
            shard.touch(log);
            shard.raft_moved(now, log, false);
        });
        self.metadata_peer_lost(now, peer);
        self.word_came(now);
    }

    /// A disk that takes no writes must not lead: what it leads goes to others, and it takes nothing back until it
    /// was well for a while, or, after a failure, until it is started again. Where no other is better off, it stays: a
    /// device that all share is no reason to move.
    fn watch_lease(&mut self, now: Now) {
        let state = self.storage.disk_state(now);
        if state > DiskState::Well {
            if state >= DiskState::Hangs && self.peers.leads(now) {
                self.metrics.leases_lost.add(1);
                let why = match state {
                    DiskState::Failed => "a write of the disk has failed",
                    _ if self.storage.no_room() => "the disk has no room",
                    _ => "the disk takes no writes",
                };
                tracing::warn!("{why}: this broker hands its leaderships over");
            }
            self.disk_is(now, state);
            for shard in (0..self.shards).map(ShardId) {
                if shard != self.id {
                    self.send(shard, ShardMessage::DiskIs(state));
                }
            }
        }
        if self.peers.leaving || self.peers.disk(now) >= DiskState::Hangs {
            self.hand_all_over(now);
        }
    }

    /// This or another shard has seen that the disk is slow, or takes no writes. The others are told at once: those whose
    /// own disk hangs must not take this one for a way out.
    pub(super) fn disk_is(&mut self, now: Now, state: DiskState) {
        let before = self.peers.disk(now);
        self.peers.slow_until = now.mono.plus_millis(DISK_SLOW_MS);
        self.peers.failed |= state == DiskState::Failed;
        if state >= DiskState::Hangs {
            self.peers.no_lead_until = Some(now.mono.plus_millis(LEASE_BACK_MS));
            self.peers.hangs_until = now.mono.plus_millis(LEASE_MS);
        }
        if self.peers.disk(now) != before {
            self.tell_status(now);
        }
    }

    /// Sends what has gathered for the other brokers.
    pub(super) fn send_to_peers(&mut self) {
        for at in 0..self.peers.order.len() {
            let to = self.peers.order[at];
            let Some(peer) = self.peers.by_id.get_mut(&to) else { continue };
            let messages = std::mem::take(&mut peer.outbox);
            if !messages.is_empty() {
                self.out.push(Effect::Peer { to, chunks: peer::encode(&messages) });
            }
        }
    }

    /// Asks the leader of a log for the next records that are missing here.
    pub(super) fn fetch_next(&mut self, now: Now, log: LogId) {
        let Some(owned) = self.owned.get_mut(&log) else { return };
        // A replica without a vote holds nobody up.
        if !owned.partition.votes() && !self.throttle.allows(now.mono) {
            return;
        }
        if let Some(wanted) = owned.partition.wanted(now) {
            let (offset, end) = (wanted.offset, wanted.end);
            self.peers.send(wanted.from, PeerMessage::FetchLog { log, offset, end });
        }
        self.touch(log);
    }

    /// Another broker wants records of a log.
    fn copy_for_peer(&mut self, now: Now, to: BrokerId, log: LogId, offset: i64, end: i64) {
        let request = RequestId { shard: self.id, number: 0 };
        self.run_op(now, Op { request, part: 0, log, kind: OpKind::Copy { to, offset, end } });
    }

    /// Records of a log that were asked for.
    fn log_part(&mut self, now: Now, log: LogId, offset: i64, start: i64, batches: &[crate::log::Chunk]) {
        let Some(owned) = self.owned.get_mut(&log) else { return };
        if !owned.partition.is_installing() {
            return self.mend_fetched(now, log, offset, batches);
        }
        if !owned.partition.votes() {
            self.throttle.took(batches.iter().map(|batch| batch.body.len()).sum());
        }
        let step = owned.partition.fetched(offset, start, batches);
        self.begin_flush(log, step);
    }
}
