//! `ringlog node status`.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::client::{Cluster, Failure, Shown};
use super::{Placed, partitions};

/// The brokers, a row each, in the order of their numbers. Those that are known by their replicas alone are not there.
///
/// # Errors
/// As [`Cluster::metadata`], and what the controller refuses.
pub fn run(cluster: &mut Cluster) -> Result<Shown, Failure> {
    let (metadata, placed) = partitions(cluster)?;
    let mut ids: BTreeSet<i32> = metadata.brokers.iter().map(|broker| broker.node_id.0).collect();
    ids.extend(placed.iter().flat_map(|placed| &placed.replicas));
    let mut shown = Shown::default();
    for id in ids {
        let broker = metadata.brokers.iter().find(|broker| broker.node_id.0 == id);
        let count = |holds: &dyn Fn(&Placed) -> bool| Value::from(placed.iter().filter(|placed| holds(placed)).count());
        shown.rows.push(vec![
            ("broker", id.into()),
            ("address", broker.map_or(Value::Null, |broker| format!("{}:{}", broker.host, broker.port).into())),
            ("rack", broker.and_then(|broker| broker.rack.as_ref()).map_or(Value::Null, |rack| rack.as_str().into())),
            ("there", broker.is_some().into()),
            ("controller", (metadata.controller_id.0 == id).into()),
            ("leads", count(&|placed| placed.leader == id)),
            ("replicas", count(&|placed| placed.replicas.contains(&id))),
            ("in_sync", count(&|placed| placed.in_sync.contains(&id))),
            ("coming", count(&|placed| placed.adding.contains(&id))),
            ("going", count(&|placed| placed.removing.contains(&id))),
        ]);
    }
    Ok(shown)
}
