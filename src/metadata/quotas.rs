//! Client quotas: whom they are for, and which of them a client goes by.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Whom a quota is for: at least one of the two is given.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Entity {
    /// The user; `None` where the quota does not depend on it.
    pub user: Option<Scope>,
    /// What the client calls itself; `None` where the quota does not depend on it.
    pub client_id: Option<Scope>,
}

/// Which users, or which clients.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Scope {
    /// Each one that has none of its own.
    Default,
    /// This one.
    Named(String),
}

/// What is limited, for each broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Quota {
    /// Bytes of Produce requests a second.
    ProducerByteRate,
    /// Bytes of records in Fetch responses a second.
    ConsumerByteRate,
    /// Partitions that are created or deleted a second.
    ControllerMutationRate,
    /// Time that shards spend on a client's requests, in percent of a shard.
    RequestPercentage,
}

impl Quota {
    /// All there are.
    pub const ALL: [Quota; 4] =
        [Quota::ProducerByteRate, Quota::ConsumerByteRate, Quota::ControllerMutationRate, Quota::RequestPercentage];

    /// Kafka's name.
    pub fn name(self) -> &'static str {
        match self {
            Quota::ProducerByteRate => "producer_byte_rate",
            Quota::ConsumerByteRate => "consumer_byte_rate",
            Quota::ControllerMutationRate => "controller_mutation_rate",
            Quota::RequestPercentage => "request_percentage",
        }
    }

    /// The quota of this name.
    pub fn named(name: &str) -> Option<Quota> {
        Quota::ALL.into_iter().find(|quota| quota.name() == name)
    }
}

/// So many a second; a positive number. It is kept by its bits, so that what holds it can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate(u64);

impl Rate {
    /// The rate; `None` where it is no positive number.
    pub fn new(per_second: f64) -> Option<Rate> {
        (per_second.is_finite() && per_second > 0.0).then(|| Rate(per_second.to_bits()))
    }

    /// So many a second.
    pub fn per_second(self) -> f64 {
        f64::from_bits(self.0)
    }
}

/// One quota that is set, or removed where there is no rate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaChange {
    /// Whom it is for.
    pub entity: Entity,
    /// What is limited.
    pub quota: Quota,
    /// To how much.
    pub rate: Option<Rate>,
}

/// The quotas of all entities.
pub type Quotas = BTreeMap<Entity, BTreeMap<Quota, Rate>>;

/// A quota that a client goes by, and with whom it shares it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Applied<'a> {
    /// The rate.
    pub rate: Rate,
    /// The user, where the quota is that user's alone.
    pub user: Option<&'a str>,
    /// The client, where the quota is that client's alone.
    pub client_id: Option<&'a str>,
}

/// The quota of a client, in Kafka's order: what names both comes before what names one, users before clients, names
/// before defaults.
pub fn applied<'a>(quotas: &Quotas, quota: Quota, user: &'a str, client_id: &'a str) -> Option<Applied<'a>> {
    let name = |name: &str| Some(Scope::Named(name.to_owned()));
    let default = || Some(Scope::Default);
    let order = [
        (name(user), name(client_id)),
        (name(user), default()),
        (name(user), None),
        (default(), name(client_id)),
        (default(), default()),
        (default(), None),
        (None, name(client_id)),
        (None, default()),
    ];
    order.into_iter().find_map(|(by_user, by_client)| {
        let (user, client_id) = (by_user.is_some().then_some(user), by_client.is_some().then_some(client_id));
        let rate = *quotas.get(&Entity { user: by_user, client_id: by_client })?.get(&quota)?;
        Some(Applied { rate, user, client_id })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_particular_quota_counts() {
        let scope = |text: &str| match text {
            "" => None,
            "*" => Some(Scope::Default),
            name => Some(Scope::Named(name.to_owned())),
        };
        let order = [("u", "c"), ("u", "*"), ("u", ""), ("*", "c"), ("*", "*"), ("*", ""), ("", "c"), ("", "*")];
        let mut quotas = Quotas::new();
        for (place, (user, client)) in order.into_iter().enumerate().rev() {
            let entity = Entity { user: scope(user), client_id: scope(client) };
            let rate = Rate::new(place as f64 + 1.0).unwrap();
            quotas.insert(entity, [(Quota::ProducerByteRate, rate)].into());
            let found = applied(&quotas, Quota::ProducerByteRate, "u", "c").unwrap();
            assert_eq!(found.rate, rate, "{user} {client}");
            assert_eq!((found.user.is_some(), found.client_id.is_some()), (!user.is_empty(), !client.is_empty()));
        }
        let other = applied(&quotas, Quota::ProducerByteRate, "x", "y").unwrap();
        assert_eq!((other.rate.per_second(), other.user, other.client_id), (5.0, Some("x"), Some("y")));
        assert_eq!(applied(&quotas, Quota::ConsumerByteRate, "u", "c"), None);
    }

    #[test]
    fn rates_are_positive_numbers() {
        for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(Rate::new(wrong), None);
        }
        assert_eq!(Rate::new(0.5).unwrap().per_second(), 0.5);
        assert!(Quota::ALL.into_iter().all(|quota| Quota::named(quota.name()) == Some(quota)));
    }
}
