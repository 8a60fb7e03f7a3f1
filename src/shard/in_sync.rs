//! Which replicas are in sync: what the leader of a log sees of its followers, and how the other brokers hear of it.
//!
//! A follower is in sync while its broker is there and it has held everything of its leader's log, as of some moment
//! of the last [`REPLICA_LAG_MS`], and its disk has failed no write.

use super::Shard;
use super::mesh::ShardMessage;
use crate::consensus::Group;
use crate::limits::{LEADERS_PER_MESSAGE, REPLICA_LAG_MS};
use crate::peer::{Lagging, PeerMessage};
use crate::types::{BrokerId, LogId, Mono, Now, ShardId};

/// The followers of a log that is led here.
#[derive(Default)]
pub(super) struct Followers {
    /// The term in which they are looked at.
    term: u64,
    by_broker: Vec<Follower>,
    /// Those that are not in sync as of the last look.
    lagging: Vec<BrokerId>,
    /// Whether the others were told of any in this term: then they are told again, also that there are none any more.
    told: bool,
}

struct Follower {
    broker: BrokerId,
    /// The end of the leader's log at some time.
    sample: (u64, Mono),
    /// When it was known last to hold everything that the leader held then.
    caught_up: Mono,
}

impl Followers {
    /// The replicas that are not in sync, those of lost brokers perhaps not among them.
    pub(super) fn lagging(&self) -> &[BrokerId] {
        &self.lagging
    }

    /// When a replica was known last to hold everything that its leader held then.
    pub(super) fn caught_up(&self, broker: BrokerId) -> Option<Mono> {
        self.by_broker.iter().find(|follower| follower.broker == broker).map(|follower| follower.caught_up)
    }

    /// Looks how far the followers of a group are that is led here. Whether something is to be told to the others.
    pub(super) fn look(&mut self, now: Mono, group: &Group) -> bool {
        let followers = group.followers().map(|broker| (broker, group.matched(broker).unwrap_or(0)));
        self.note(now, group.term(), group.last_index(), followers, &group.members().learners)
    }

    fn note(
        &mut self,
        now: Mono,
        term: u64,
        last: u64,
        matched: impl Iterator<Item = (BrokerId, u64)>,
        learners: &[BrokerId],
    ) -> bool {
        if self.term != term {
            *self = Followers { term, ..Followers::default() };
        }
        let before = std::mem::take(&mut self.by_broker);
        let looked_at = |(broker, matched)| {
            let sample = (last, now);
            match before.iter().find(|follower| follower.broker == broker) {
                Some(known) if matched < known.sample.0 => Follower { ..*known },
                Some(known) if matched < last => Follower { broker, sample, caught_up: known.sample.1 },
                // A new replica has nothing yet.
                None if learners.contains(&broker) => Follower { broker, sample, caught_up: Mono::default() },
                Some(_) | None => Follower { broker, sample, caught_up: now },
            }
        };
        self.by_broker = matched.map(looked_at).collect();
        // Who still learns does not count yet.
        let late = |follower: &&Follower| {
            learners.contains(&follower.broker) || now > follower.caught_up.plus_millis(REPLICA_LAG_MS)
        };
        let lagging: Vec<BrokerId> = self.by_broker.iter().filter(late).map(|follower| follower.broker).collect();
        let news = lagging != self.lagging;
        self.told |= news;
        self.lagging = lagging;
        news
    }

    /// The log rested, so all followers held everything until now.
    pub(super) fn rested(&mut self) {
        self.by_broker.clear();
    }
}

impl Shard {
    /// Looks at the followers of a log, if it is led here, and tells the others where one has fallen behind or come back.
    pub(super) fn look_at_followers(&mut self, now: Now, log: LogId) {
        let Some(owned) = self.owned.get_mut(&log) else { return };
        if !owned.partition.is_up() || !owned.partition.is_replicated() {
            return;
        }
        if owned.followers.look(now.mono, owned.partition.group()) {
            let (epoch, brokers) = (owned.partition.epoch(), owned.followers.lagging.clone());
            tracing::info!(%log, ?brokers, "the replicas that are not in sync");
            let lagging = vec![Lagging { log, epoch, brokers }];
            self.peers.send_all(&PeerMessage::Lagging(lagging.clone()));
            self.spread_lagging(lagging);
        }
        self.settle_appends(now, log);
    }

    /// The followers of logs led here that are or were not in sync, as messages.
    pub(super) fn lagging(&self) -> Vec<PeerMessage> {
        // What was seen in an earlier term is said of that term alone: in this one it would not be taken back.
        let told = self.owned.iter().filter(|(_, owned)| {
            let followers = &owned.followers;
            owned.announced.is_some() && followers.told && followers.term == owned.partition.group().term()
        });
        let mut all: Vec<Lagging> = told
            .map(|(log, owned)| Lagging {
                log: *log,
                epoch: owned.partition.epoch(),
                brokers: owned.followers.lagging.clone(),
            })
            .collect();
        all.sort_unstable_by_key(|lagging| lagging.log);
        all.chunks(LEADERS_PER_MESSAGE).map(|part| PeerMessage::Lagging(part.to_vec())).collect()
    }

    /// Tells all shards, this one included, of replicas that are not in sync.
    pub(super) fn spread_lagging(&mut self, lagging: Vec<Lagging>) {
        for shard in (0..self.shards).map(ShardId) {
            if shard != self.id {
                self.send(shard, ShardMessage::Lagging(lagging.clone()));
            }
        }
        self.note_lagging(lagging);
    }

    /// Notes replicas that are not in sync.
    pub(super) fn note_lagging(&mut self, lagging: Vec<Lagging>) {
        for lagging in lagging {
            let newer = self.lagging.get(&lagging.log).is_none_or(|known| known.epoch <= lagging.epoch);
            if newer {
                match lagging.brokers.is_empty() {
                    true => self.lagging.remove(&lagging.log),
                    false => self.lagging.insert(lagging.log, lagging),
                };
            }
        }
    }

    /// Whether a replica holds what its leader does, as far as this shard knows. One that a move brings does when the move is
    /// done.
    pub(super) fn is_in_sync(&self, log: LogId, broker: BrokerId) -> bool {
        if self.state.moved(log).is_some_and(|moved| moved.beside.contains(&broker)) {
            return false;
        }
        let epoch = self.leaders.get(&log).map(|leader| leader.epoch);
        let lagging = self.lagging.get(&log).filter(|lagging| Some(lagging.epoch) == epoch);
        let follows = self.peers.can_follow(self.config.broker_id, broker);
        follows && lagging.is_none_or(|lagging| !lagging.brokers.contains(&broker))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: BrokerId = BrokerId(2);
    const SLOW: BrokerId = BrokerId(3);

    fn note(followers: &mut Followers, millis: u64, last: u64, fast: u64, slow: u64) -> bool {
        let matched = [(FAST, fast), (SLOW, slow)].into_iter();
        followers.note(Mono::default().plus_millis(millis), 1, last, matched, &[])
    }

    #[test]
    fn who_does_not_get_on_is_out_of_sync_until_it_has_all() {
        let mut followers = Followers::default();
        assert!(!note(&mut followers, 0, 10, 0, 0), "they are given time");
        assert!(!note(&mut followers, REPLICA_LAG_MS, 20, 19, 9));
        assert!(note(&mut followers, REPLICA_LAG_MS + 1, 30, 29, 9));
        assert_eq!(followers.lagging(), [SLOW]);
        assert!(!note(&mut followers, REPLICA_LAG_MS + 50, 40, 39, 12), "it holds what there was long ago");
        assert_eq!(followers.lagging(), [SLOW]);
        assert!(note(&mut followers, REPLICA_LAG_MS + 100, 40, 40, 40));
        assert!(followers.lagging().is_empty() && followers.told);
    }

    #[test]
    fn who_is_always_a_little_behind_is_in_sync() {
        let mut followers = Followers::default();
        for tick in 0..1_000 {
            assert!(!note(&mut followers, tick * 50, tick * 100, tick * 100, (tick * 100).saturating_sub(500)));
        }
        let caught_up = followers.caught_up(SLOW).unwrap();
        assert!(caught_up.micros_since(Mono::default()) >= (999 - 12) * 50_000);
    }

    #[test]
    fn a_rest_makes_nobody_late() {
        let mut followers = Followers::default();
        note(&mut followers, 0, 10, 10, 10);
        followers.rested();
        assert!(!note(&mut followers, 100_000, 11, 10, 10));
        assert!(!note(&mut followers, 100_050, 11, 11, 11));
    }
}
