//! Configs that were set for single brokers and for groups.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::types::BrokerId;

static NONE: BTreeMap<String, String> = BTreeMap::new();

/// Something that can have configs of its own, beside topics and what all brokers have in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Owner {
    /// A broker. Names as in [`super::State::defaults`].
    Broker(BrokerId),
    /// A group.
    Group(String),
}

/// The configs of all owners, by their names; none is there without any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnConfigs {
    brokers: BTreeMap<BrokerId, BTreeMap<String, String>>,
    groups: BTreeMap<String, BTreeMap<String, String>>,
}

impl OwnConfigs {
    /// Those of a broker.
    pub fn of_broker(&self, id: BrokerId) -> &BTreeMap<String, String> {
        self.brokers.get(&id).unwrap_or(&NONE)
    }

    /// Those of a group.
    pub fn of_group(&self, group: &str) -> &BTreeMap<String, String> {
        self.groups.get(group).unwrap_or(&NONE)
    }

    /// The groups that have any, in the order of their names.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        self.groups.keys().map(String::as_str)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.brokers.is_empty() && self.groups.is_empty()
    }

    pub(super) fn of(&self, owner: &Owner) -> &BTreeMap<String, String> {
        match owner {
            Owner::Broker(id) => self.of_broker(*id),
            Owner::Group(group) => self.of_group(group),
        }
    }

    pub(super) fn set(&mut self, owner: &Owner, configs: BTreeMap<String, String>) {
        match (owner, configs.is_empty()) {
            (Owner::Broker(id), false) => self.brokers.insert(*id, configs),
            (Owner::Broker(id), true) => self.brokers.remove(id),
            (Owner::Group(group), false) => self.groups.insert(group.clone(), configs),
            (Owner::Group(group), true) => self.groups.remove(group),
        };
    }
}
