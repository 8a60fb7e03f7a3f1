//! What is known of brokers beyond what clients are told.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::types::{BrokerId, PeerAddress};

/// The brokers of a cluster as they know each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nodes {
    /// Where registered brokers listen for the others. Those that run alone, or registered with an earlier version, are not
    /// among them.
    pub addresses: BTreeMap<BrokerId, PeerAddress>,
}
