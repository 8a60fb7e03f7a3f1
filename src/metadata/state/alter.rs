//! Commands that change what is there already. Each is carried out as a whole or, where it was planned for what is no
//! longer so, not at all.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Change, Partition, State, Topic, Weight};
use crate::limits::{MAX_OWN_CONFIG_BYTES, MAX_QUOTA_BYTES, MAX_TOPIC_METADATA_BYTES};
use crate::metadata::command::{Configs, MorePartitions, OwnerConfigs, TopicConfigs};
use crate::metadata::own::OwnConfigs;
use crate::metadata::quotas::{QuotaChange, Quotas};
use crate::types::{BrokerId, LogId};

impl State {
    /// The configs of all brokers: those that they give to topics which set none of their own under the topic config's
    /// name, others under their own.
    pub fn defaults(&self) -> &BTreeMap<String, String> {
        &self.defaults
    }

    /// The configs of single brokers and of groups.
    pub fn own(&self) -> &OwnConfigs {
        &self.own
    }

    /// What a broker gives to topics where what is set in the metadata decides: its own, then what all have in common.
    pub fn given_by(&self, broker: BrokerId) -> Cow<'_, BTreeMap<String, String>> {
        over(&self.defaults, self.own.of_broker(broker))
    }

    /// The configs that a topic goes by on a broker, likewise: its own, then what the broker gives it.
    pub fn configs_of<'a>(&'a self, topic: &'a Topic, broker: BrokerId) -> Cow<'a, BTreeMap<String, String>> {
        match self.given_by(broker) {
            Cow::Borrowed(given) => over(given, &topic.configs),
            Cow::Owned(given) => Cow::Owned(over(&given, &topic.configs).into_owned()),
        }
    }

    pub(super) fn create_partitions(&mut self, topics: &[MorePartitions]) -> Vec<Change> {
        let mut next = self.next_log_id;
        let mut grown = Vec::with_capacity(topics.len());
        for more in topics {
            let removed = more.partitions.iter().any(|new| self.any_removed(&new.replicas));
            let same = |topic: &&Arc<Topic>| topic.partitions.len() == more.before as usize && !removed;
            let Some(topic) = self.topic_by_id(more.id).filter(same) else { return vec![Change::Overtaken] };
            let mut partitions = topic.partitions.to_vec();
            for new in &more.partitions {
                partitions.push(Partition { log: LogId(next), replicas: new.replicas.as_slice().into() });
                next += 1;
            }
            grown.push(Topic { partitions: partitions.into(), ..Topic::clone(topic) });
        }
        let Some(grown) = self.replace_topics(grown) else { return vec![Change::Full] };
        self.next_log_id = next;
        let created = |(topic, more): (Arc<Topic>, &MorePartitions)| Change::PartitionsCreated {
            topic,
            first: more.before as usize,
        };
        grown.into_iter().zip(topics).map(created).collect()
    }

    pub(super) fn alter_configs(
        &mut self,
        topics: &[TopicConfigs],
        defaults: Option<&Configs>,
        owners: &[OwnerConfigs],
    ) -> Vec<Change> {
        if defaults.is_some_and(|defaults| defaults.before != self.defaults) {
            return vec![Change::Overtaken];
        }
        let mut own = self.own.clone();
        for OwnerConfigs { owner, configs } in owners {
            if own.of(owner) != &configs.before {
                return vec![Change::Overtaken];
            }
            own.set(owner, configs.after.clone());
        }
        // What makes them smaller is always allowed.
        let bytes = Weight::of(&own).bytes;
        if bytes > self.own_weight.bytes && bytes > MAX_OWN_CONFIG_BYTES {
            return vec![Change::Full];
        }
        let mut altered = Vec::with_capacity(topics.len());
        for TopicConfigs { id, configs } in topics {
            let same = |topic: &&Arc<Topic>| topic.configs == configs.before;
            let Some(topic) = self.topic_by_id(*id).filter(same) else { return vec![Change::Overtaken] };
            altered.push(Topic { configs: configs.after.clone(), ..Topic::clone(topic) });
        }
        let Some(altered) = self.replace_topics(altered) else { return vec![Change::Full] };
        let mut changes: Vec<_> = altered.into_iter().map(|topic| Change::ConfigsAltered { topic }).collect();
        if let Some(defaults) = defaults {
            self.defaults = defaults.after.clone();
            changes.push(Change::DefaultsAltered);
        }
        self.set_own(own);
        changes.extend(owners.iter().map(|changed| Change::OwnConfigsAltered { owner: changed.owner.clone() }));
        changes
    }

    pub(super) fn set_own(&mut self, own: OwnConfigs) {
        self.own_weight = if own.is_empty() { Weight::default() } else { Weight::of(&own) };
        self.own = own;
    }

    /// All quotas that are set.
    pub fn quotas(&self) -> &Quotas {
        &self.quotas
    }

    pub(super) fn alter_quotas(&mut self, changes: &[QuotaChange]) -> Change {
        let mut quotas = self.quotas.clone();
        for QuotaChange { entity, quota, rate } in changes {
            let of_entity = quotas.entry(entity.clone()).or_default();
            match rate {
                Some(rate) => of_entity.insert(*quota, *rate),
                None => of_entity.remove(quota),
            };
            if of_entity.is_empty() {
                quotas.remove(entity);
            }
        }
        let before = self.quotas_weight.bytes;
        let after = Weight::of(&quotas).bytes;
        // What makes them smaller is always allowed.
        if after > before && after > MAX_QUOTA_BYTES {
            return Change::Full;
        }
        self.set_quotas(quotas);
        Change::QuotasAltered
    }

    pub(super) fn set_quotas(&mut self, quotas: Quotas) {
        self.quotas_weight = if quotas.is_empty() { Weight::default() } else { Weight::of(&quotas) };
        self.quotas = quotas;
    }

    /// Puts topics in the place of those with their ids; `None`, and nothing done, where there is no room for them.
    fn replace_topics(&mut self, topics: Vec<Topic>) -> Option<Vec<Arc<Topic>>> {
        let weighed: Vec<(Arc<Topic>, Weight)> = topics
            .into_iter()
            .map(|topic| {
                let weight = Weight::of(&topic);
                (Arc::new(topic), weight)
            })
            .collect();
        let before = weighed.iter().filter_map(|(topic, _)| self.by_id.get(&topic.id));
        let before: usize = before.map(|topic| Weight::of(&**topic).bytes).sum();
        let after: usize = weighed.iter().map(|(_, weight)| weight.bytes).sum();
        // What makes the topics smaller is always allowed.
        if after > before
            && self.topics_weight.bytes + self.moves_weight.bytes + after - before > MAX_TOPIC_METADATA_BYTES
        {
            return None;
        }
        for (topic, weight) in &weighed {
            self.take_topic(topic.id);
            self.insert_topic(topic, *weight);
        }
        Some(weighed.into_iter().map(|(topic, _)| topic).collect())
    }
}

/// The configs `above`, and those of `below` that it does not have.
fn over<'a>(
    below: &'a BTreeMap<String, String>,
    above: &'a BTreeMap<String, String>,
) -> Cow<'a, BTreeMap<String, String>> {
    match (below.is_empty(), above.is_empty()) {
        (true, _) => Cow::Borrowed(above),
        (false, true) => Cow::Borrowed(below),
        (false, false) => {
            let mut configs = below.clone();
            configs.extend(above.iter().map(|(name, value)| (name.clone(), value.clone())));
            Cow::Owned(configs)
        }
    }
}
