//! What is counted of the events that a shard takes.

use super::Shard;
use super::mesh::OpKind;
use super::requests::Origin;
use crate::metrics::ShardMetrics;
use crate::peer::DiskState;
use crate::protocol::{APIS, ErrorCode};
use crate::types::Now;

/// A shard's metrics, with nothing counted.
pub(super) fn metrics() -> ShardMetrics {
    ShardMetrics::new(APIS.iter().map(|api| api.name), ErrorCode::ALL.iter().map(|error| error.kafka_name()))
}

impl Shard {
    /// A response tells its client of this error, or of none.
    pub(super) fn count_error(&self, origin: Origin, code: i16) {
        if let Some(place) = ErrorCode::place_of(code) {
            self.metrics.apis[origin.api].errors[place].add(1);
        }
    }

    /// An append is in the log, and waits for its commit.
    pub(super) fn count_append(&self, now: Now, op: &OpKind) {
        let OpKind::Append { batch, since, .. } = op else { return };
        self.metrics.produce.queue.observe(now.mono.micros_since(*since));
        self.metrics.appended_batches.add(1);
        self.metrics.appended_bytes.add(batch.len() as u64);
        self.metrics.appended_records.add(batch.header.record_count.get() as u64);
    }

    /// Shows what the shard holds just now.
    pub(super) fn show_held(&self, now: Now) {
        let held = &self.metrics.held;
        held.connections.set(self.connections.len() as u64);
        held.requests.set(self.connections.unanswered() as u64);
        held.backlog.set(self.backlog.len() as u64);
        held.disk_well.set(u64::from(self.storage.disk_state(now) < DiskState::Hangs));
        held.may_lead.set(u64::from(self.peers.leads(now)));
        held.coordinates.set(u64::from(self.coordinator.as_ref().is_some_and(|coordinator| coordinator.leads())));
        held.metadata_applied.set(self.state.applied());
        self.storage.show_held(held);
    }
}
