//! Fetch sessions (KIP-227): a client names its partitions once and then only what changed.
//!
//! A session lives with its connection. A client that comes back on another is told so and begins anew.

use kafka_protocol::messages::{FetchRequest, TopicName};
use uuid::Uuid;

use crate::limits::FETCH_SESSIONS_PER_CONN;
use crate::protocol::ErrorCode;
use crate::types::{LeaderEpoch, Map, Offset};

/// A partition that is fetched, as the client names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FetchKey {
    /// The topic's name; empty from version 13 on.
    pub topic: TopicName,
    /// The topic's id; nil before version 13.
    pub topic_id: Uuid,
    /// The partition's number.
    pub partition: i32,
}

/// What a client wants of a partition, and what it was told of it last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Which.
    pub key: FetchKey,
    /// First offset wanted.
    pub offset: Offset,
    /// Most bytes.
    pub max_bytes: i32,
    /// The leader epoch that the client believes in, or -1.
    pub epoch: LeaderEpoch,
    /// The high watermark and log start that the client was told, in a session.
    pub told: Option<(Offset, Offset)>,
}

/// The sessions of one connection.
#[derive(Default)]
pub struct Sessions {
    by_id: Map<i32, Session>,
}

struct Session {
    next_epoch: i32,
    partitions: Vec<Wanted>,
}

/// How a Fetch request stands to sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionUse {
    /// Outside of any session: answer all partitions.
    None,
    /// The first request of this session: answer all partitions.
    Full(i32),
    /// A later request of this session: answer what is new.
    Incremental(i32),
}

const FINAL_EPOCH: i32 = -1;
const INITIAL_EPOCH: i32 = 0;

impl Sessions {
    /// What a Fetch request asks for, session included. `fresh_id` makes an id for a new session.
    ///
    /// # Errors
    /// The error of the whole response where the session is not known, or not at this epoch.
    pub fn begin(
        &mut self,
        request: &FetchRequest,
        fresh_id: impl FnOnce() -> i32,
    ) -> Result<(SessionUse, Vec<Wanted>), ErrorCode> {
        let (id, epoch) = (request.session_id, request.session_epoch);
        if epoch == FINAL_EPOCH || epoch == INITIAL_EPOCH {
            if id != 0 {
                self.by_id.remove(&id);
            }
            let wanted = named(request);
            if epoch == FINAL_EPOCH || self.by_id.len() >= FETCH_SESSIONS_PER_CONN {
                return Ok((SessionUse::None, wanted));
            }
            let id = fresh_id();
            self.by_id.insert(id, Session { next_epoch: 1, partitions: wanted.clone() });
            return Ok((SessionUse::Full(id), wanted));
        }
        let session = self.by_id.get_mut(&id).ok_or(ErrorCode::FetchSessionIdNotFound)?;
        if epoch != session.next_epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        session.next_epoch = if epoch == i32::MAX { 1 } else { epoch + 1 };
        for topic in &request.forgotten_topics_data {
            session.partitions.retain(|known| {
                (&known.key.topic, known.key.topic_id) != (&topic.topic, topic.topic_id)
                    || !topic.partitions.contains(&known.key.partition)
            });
        }
        let positions: Map<FetchKey, usize> =
            session.partitions.iter().enumerate().map(|(at, known)| (known.key.clone(), at)).collect();
        for wanted in named(request) {
            match positions.get(&wanted.key) {
                Some(&at) => {
                    let told = session.partitions[at].told;
                    session.partitions[at] = Wanted { told, ..wanted };
                }
                None => session.partitions.push(wanted),
            }
        }
        Ok((SessionUse::Incremental(id), session.partitions.clone()))
    }

    /// Notes what the client is told of a partition. Partitions that gave records move to the end, so that each
    /// comes first in its turn.
    pub fn told(&mut self, id: i32, told: &[(FetchKey, (Offset, Offset), bool)]) {
        let Some(session) = self.by_id.get_mut(&id) else { return };
        let told: Map<&FetchKey, ((Offset, Offset), bool)> =
            told.iter().map(|(key, what, records)| (key, (*what, *records))).collect();
        let mut served = Vec::new();
        session.partitions.retain_mut(|known| match told.get(&known.key) {
            None => true,
            Some((what, records)) => {
                known.told = Some(*what);
                if *records {
                    served.push(known.clone());
                }
                !*records
            }
        });
        session.partitions.extend(served);
    }
}

fn named(request: &FetchRequest) -> Vec<Wanted> {
    let partitions = request.topics.iter().flat_map(|topic| topic.partitions.iter().map(move |p| (topic, p)));
    partitions
        .map(|(topic, partition)| Wanted {
            key: FetchKey { topic: topic.topic.clone(), topic_id: topic.topic_id, partition: partition.partition },
            offset: partition.fetch_offset,
            max_bytes: partition.partition_max_bytes,
            epoch: partition.current_leader_epoch,
            told: None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
    use kafka_protocol::protocol::StrBytes;

    fn name() -> TopicName {
        TopicName(StrBytes::from_static_str("t"))
    }

    fn request(id: i32, epoch: i32, partitions: &[(i32, i64)]) -> FetchRequest {
        let partitions = partitions
            .iter()
            .map(|(number, offset)| {
                FetchPartition::default().with_partition(*number).with_fetch_offset(*offset).with_partition_max_bytes(9)
            })
            .collect();
        let topic = FetchTopic::default().with_topic(name()).with_partitions(partitions);
        FetchRequest::default().with_session_id(id).with_session_epoch(epoch).with_topics(vec![topic])
    }

    fn numbers(wanted: &[Wanted]) -> Vec<(i32, i64)> {
        wanted.iter().map(|w| (w.key.partition, w.offset)).collect()
    }

    #[test]
    fn a_session_remembers_what_is_not_named_again() {
        let mut sessions = Sessions::default();
        let (mode, wanted) = sessions.begin(&request(0, 0, &[(0, 5), (1, 6)]), || 77).unwrap();
        assert_eq!((mode, numbers(&wanted)), (SessionUse::Full(77), vec![(0, 5), (1, 6)]));
        let (mode, wanted) = sessions.begin(&request(77, 1, &[(1, 9), (2, 0)]), || unreachable!()).unwrap();
        assert_eq!((mode, numbers(&wanted)), (SessionUse::Incremental(77), vec![(0, 5), (1, 9), (2, 0)]));
        let key = FetchKey { topic: name(), topic_id: Uuid::nil(), partition: 0 };
        sessions.told(77, &[(key, (8, 0), true)]);
        let forgotten = ForgottenTopic::default().with_topic(name()).with_partitions(vec![2]);
        let next = request(77, 2, &[]).with_forgotten_topics_data(vec![forgotten]);
        let (_, wanted) = sessions.begin(&next, || unreachable!()).unwrap();
        assert_eq!(numbers(&wanted), vec![(1, 9), (0, 5)], "the one that gave records comes last");
        assert_eq!(wanted[1].told, Some((8, 0)));
    }

    #[test]
    fn wrong_ids_and_epochs_are_refused() {
        let mut sessions = Sessions::default();
        assert_eq!(sessions.begin(&request(5, 1, &[]), || 1).unwrap_err(), ErrorCode::FetchSessionIdNotFound);
        sessions.begin(&request(0, 0, &[]), || 1).unwrap();
        assert_eq!(sessions.begin(&request(1, 2, &[]), || 2).unwrap_err(), ErrorCode::InvalidFetchSessionEpoch);
        assert_eq!(sessions.begin(&request(1, -1, &[]), || 2).unwrap().0, SessionUse::None);
        assert_eq!(sessions.begin(&request(1, 1, &[]), || 2).unwrap_err(), ErrorCode::FetchSessionIdNotFound);
    }
}
