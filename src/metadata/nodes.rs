//! What is known of brokers beyond what clients are told.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::types::{BrokerId, PeerAddress};

/// The brokers of a cluster as they know each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nodes {
    /// Where registered brokers listen for the others. Those that run alone, or registered with an earlier version, are not
    /// among them.
    pub addresses: BTreeMap<BrokerId, PeerAddress>,
    /// Brokers that were removed. Their numbers are not given again: what one of them promised, another would not know of.
    pub removed: BTreeSet<BrokerId>,
    /// Who is to vote on the metadata; none where those do that the cluster began with.
    pub voters: Option<Voters>,
}

/// Who is to vote on the metadata.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Voters {
    /// The brokers.
    pub brokers: Vec<BrokerId>,
    /// How many times they were changed.
    pub number: u32,
}
