//! A broker that must not lead, or is about to stop, hands what it leads to others: clients find another leader at once
//! instead of a broker that is gone or refuses them.

use super::Shard;
use crate::partition::Partition;
use crate::types::Now;

impl Shard {
    /// The broker is about to stop.
    pub(super) fn leave(&mut self, now: Now) {
        self.peers.leaving = true;
        self.tell_status(now);
        self.hand_all_over(now);
    }

    /// Whether this shard leads nothing any more that another broker could, so that one that leaves may stop.
    pub fn has_left(&self, now: Now) -> bool {
        let fitter = |broker| self.peers.is_fitter(now, self.config.broker_id, broker);
        let stays = |partition: &Partition| partition.leads() && partition.replicas().any(fitter);
        !self.owned.values().any(|owned| stays(&owned.partition)) && !self.leads_metadata_before(fitter)
    }

    /// Hands everything over that a broker may lead which is fitter than this one. A hand-over that fails is tried again at
    /// each tick, also to another.
    pub(super) fn hand_all_over(&mut self, now: Now) {
        self.for_each_replica(|shard, log| {
            let (peers, own) = (&shard.peers, shard.config.broker_id);
            let fitter = |broker| peers.is_fitter(now, own, broker);
            let owned = shard.owned.get_mut(&log).expect("it is there");
            if owned.partition.hand_over(fitter) {
                shard.wake(log);
                shard.touch(log);
                shard.raft_moved(now, log, false);
            }
        });
        self.hand_metadata_over(now);
    }
}
