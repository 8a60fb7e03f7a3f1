//! Offsets that nobody needs any more, and groups of which nothing is left.

use super::state::{Group, State};
use super::{Cx, Record, Then, subscription};

impl Group {
    /// Forgets offsets that are older than `offsets.retention.minutes`, and the group where it is empty and none are
    /// left. Their age counts from the moment at which the group became empty; where it never had members, reads
    /// the topic no more, or is one of the consumer protocol, from their commit.
    pub(super) fn expire_offsets(&mut self, cx: &mut Cx<'_>) {
        if self.in_flight > 0 {
            return;
        }
        let oldest = cx.now().wall_ms.saturating_sub(cx.settings.offsets_retention_ms);
        let empty = match &self.consumer {
            Some(group) => group.is_empty(),
            None => self.state == State::Empty,
        };
        let consumers = self.protocol_type.as_deref() == Some(subscription::CONSUMER);
        let emptied = match (&self.protocol_type, self.state) {
            _ if self.consumer.is_some() => None,
            (None, State::Empty) => None,
            (Some(_), State::Empty) => Some(self.since_ms).filter(|since| *since >= 0),
            (_, State::Stable) if consumers && self.topics.is_some() => None,
            _ => return,
        };
        let mut records: Vec<Record> = Vec::new();
        let mut kept = 0;
        for (topic, partitions) in &self.offsets {
            let read = !empty && self.reads(topic);
            for (partition, committed) in partitions {
                if !read && emptied.unwrap_or(committed.time_ms) <= oldest {
                    records.push(self.forgotten(topic, *partition));
                } else {
                    kept += 1;
                }
            }
        }
        let ends = empty && self.pending.is_empty() && kept == 0;
        if ends && self.recorded {
            records.extend(self.end_records());
        }
        if !records.is_empty() {
            self.write(cx, records, Then::Nothing);
        }
        if ends && self.consumer.is_some() {
            self.append_change(cx, self.end_records(), Then::Nothing);
        }
    }
}
