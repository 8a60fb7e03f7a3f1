//! Which connections are let in: so many in total, so many of one address. And which shard gets them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::types::ShardId;

/// Counts the connections of all shards. Connections come and go seldom enough for a lock.
pub(super) struct Admission {
    most: AtomicUsize,
    most_per_address: AtomicUsize,
    open: Mutex<Open>,
}

struct Open {
    by_shard: Vec<usize>,
    by_address: HashMap<IpAddr, usize>,
}

/// Why a connection is not let in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Refused {
    /// There are as many as there may be.
    #[error("as many connections are open as max.connections allows")]
    Total,
    /// Its address has as many as one may have.
    #[error("its address has as many connections as max.connections.per.ip allows")]
    Address,
}

impl Admission {
    /// For `shards` shards: at most `most` connections, and at most `most_per_address` of one address.
    pub(super) fn new(shards: usize, most: usize, most_per_address: usize) -> Arc<Admission> {
        let open = Open { by_shard: vec![0; shards], by_address: HashMap::new() };
        let (most, most_per_address) = (most.into(), most_per_address.into());
        Arc::new(Admission { most, most_per_address, open: Mutex::new(open) })
    }

    /// From now on there may be so many. Those that are open stay open.
    pub(super) fn limit(&self, most: usize, most_per_address: usize) {
        self.most.store(most, Ordering::Relaxed);
        self.most_per_address.store(most_per_address, Ordering::Relaxed);
    }

    /// A place for a connection from `address` which the shard `accepting` has accepted. It is given to the shard that
    /// has fewest, the accepting one among equals: a burst of connections would stay with one shard otherwise.
    pub(super) fn admit(self: &Arc<Admission>, address: IpAddr, accepting: ShardId) -> Result<Place, Refused> {
        // An IPv4 client of an IPv6 socket is the same client.
        let address = address.to_canonical();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.by_shard.iter().sum::<usize>() >= self.most.load(Ordering::Relaxed) {
            return Err(Refused::Total);
        }
        let of_address = open.by_address.entry(address).or_default();
        if *of_address >= self.most_per_address.load(Ordering::Relaxed) {
            return Err(Refused::Address);
        }
        *of_address += 1;
        let own = usize::from(accepting.0);
        let lightest = (0..open.by_shard.len()).min_by_key(|shard| (open.by_shard[*shard], *shard != own));
        let lightest = lightest.unwrap_or(own);
        open.by_shard[lightest] += 1;
        Ok(Place { admission: Arc::clone(self), shard: ShardId(lightest as u16), address })
    }
}

/// The place of one connection, which is free again when this is dropped.
pub(super) struct Place {
    admission: Arc<Admission>,
    /// The shard that gets the connection.
    pub(super) shard: ShardId,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.admission.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.by_shard[usize::from(self.shard.0)] -= 1;
        // Addresses without a connection are forgotten: there are too many of them to be kept.
        if let Some(count) = open.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u8) -> IpAddr {
        [192, 0, 2, n].into()
    }

    #[test]
    fn places_are_spread_over_the_shards_and_come_back() {
        let admission = Admission::new(3, 6, 6);
        let places: Vec<Place> = (0..6).map(|n| admission.admit(address(n), ShardId(1)).unwrap()).collect();
        let shards: Vec<u16> = places.iter().map(|place| place.shard.0).collect();
        assert_eq!(shards, [1, 0, 2, 1, 0, 2]);
        assert_eq!(admission.admit(address(9), ShardId(0)).err(), Some(Refused::Total));
        drop(places);
        assert!(admission.admit(address(9), ShardId(0)).is_ok());
        assert!(admission.open.lock().unwrap().by_address.is_empty(), "an address without connections was kept");
    }

    #[test]
    fn one_address_cannot_take_all_places() {
        let admission = Admission::new(1, 10, 2);
        let places = [0, 1].map(|_| admission.admit(address(1), ShardId(0)).unwrap());
        assert_eq!(admission.admit(address(1), ShardId(0)).err(), Some(Refused::Address));
        let mapped = IpAddr::V6(std::net::Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped());
        assert_eq!(admission.admit(mapped, ShardId(0)).err(), Some(Refused::Address));
        assert!(admission.admit(address(2), ShardId(0)).is_ok());
        drop(places);
        assert!(admission.admit(address(1), ShardId(0)).is_ok());
    }

    #[test]
    fn other_limits_hold_for_those_who_come() {
        let admission = Admission::new(1, 10, 10);
        let places = [0, 1].map(|_| admission.admit(address(1), ShardId(0)).unwrap());
        admission.limit(10, 1);
        assert_eq!(admission.admit(address(1), ShardId(0)).err(), Some(Refused::Address));
        admission.limit(2, 10);
        assert_eq!(admission.admit(address(2), ShardId(0)).err(), Some(Refused::Total));
        admission.limit(3, 10);
        assert!(admission.admit(address(2), ShardId(0)).is_ok());
        drop(places);
    }
}
