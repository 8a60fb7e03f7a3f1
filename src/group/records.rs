//! The records of the groups' topic, in Kafka's own formats: versions first, big-endian, no tagged fields.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};

use super::consumer::Part;
use crate::record::Entry;

/// Versions of keys. The version says what a record is about.
const OFFSET_KEYS: std::ops::RangeInclusive<i16> = 0..=1;
const OFFSET_KEY: i16 = 1;
const GROUP_KEY: i16 = 2;

/// Versions of values that are written, the last without tagged fields; older ones are read as well.
const OFFSET_VALUE: i16 = 3;
const GROUP_VALUE: i16 = 3;

/// A record of the groups' topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// How far a partition was read.
    Offset {
        /// The group.
        group: Arc<str>,
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: i32,
        /// Nothing where it is forgotten.
        value: Option<Committed>,
    },
    /// A whole generation of a group.
    Group {
        /// The group.
        group: Arc<str>,
        /// Nothing where the group is deleted.
        value: Option<Generation>,
    },
    /// A part of a group of the consumer protocol.
    Consumer {
        /// The group.
        group: Arc<str>,
        /// The part.
        part: Part,
    },
}

/// An offset that was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The next record to read.
    pub offset: i64,
    /// The leader epoch of the last record that was read, or -1.
    pub epoch: i32,
    /// What the client wanted to be kept with it.
    pub metadata: String,
    /// When it was committed, milliseconds since the Unix epoch.
    pub time_ms: i64,
}

/// The members of a group with their assignments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// The type of the group; empty where nobody has said.
    pub protocol_type: String,
    /// The number.
    pub generation: i32,
    /// The protocol that was selected.
    pub protocol: Option<String>,
    /// The leader.
    pub leader: Option<String>,
    /// Since when the group is in this state, milliseconds since the Unix epoch, or -1.
    pub since_ms: i64,
    /// The members; none where the group is empty.
    pub members: Vec<GenerationMember>,
}

/// A member in a [`Generation`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenerationMember {
    /// The member.
    pub member_id: String,
    /// The static member's own name.
    pub instance: Option<String>,
    /// What its client calls itself.
    pub client_id: String,
    /// Where it is.
    pub client_host: String,
    /// Its rebalance timeout in milliseconds, or -1.
    pub rebalance_ms: i32,
    /// Its session timeout in milliseconds.
    pub session_ms: i32,
    /// What it said for the protocol.
    pub subscription: Bytes,
    /// What it is assigned.
    pub assignment: Bytes,
}

/// A record cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// It ends too early, or has a length below zero.
    #[error("the record is cut short")]
    Short,
    /// A text is not UTF-8.
    #[error("a text is not UTF-8")]
    Text,
    /// A value's version is not one that this broker reads.
    #[error("a value has version {0}")]
    Version(i16),
}

impl Record {
    /// The group that the record is about.
    pub fn group(&self) -> &Arc<str> {
        match self {
            Record::Offset { group, .. } | Record::Group { group, .. } | Record::Consumer { group, .. } => group,
        }
    }

    /// The record with its key.
    pub fn encode(&self) -> Entry {
        let mut key = Vec::new();
        let mut out = Vec::new();
        let has_value = match self {
            Record::Offset { group, topic, partition, value } => {
                key.put_i16(OFFSET_KEY);
                put_text(&mut key, group);
                put_text(&mut key, topic);
                key.put_i32(*partition);
                if let Some(value) = value {
                    out.put_i16(OFFSET_VALUE);
                    out.put_i64(value.offset);
                    out.put_i32(value.epoch);
                    put_text(&mut out, &value.metadata);
                    out.put_i64(value.time_ms);
                }
                value.is_some()
            }
            Record::Group { group, value } => {
                key.put_i16(GROUP_KEY);
                put_text(&mut key, group);
                if let Some(value) = value {
                    put_generation(&mut out, value);
                }
                value.is_some()
            }
            Record::Consumer { group, part } => return part.encode(group),
        };
        Entry { key: Some(key.into()), value: has_value.then(|| out.into()) }
    }

    /// Reads a record. Nothing where it is of a kind that this broker does not write, or has no key.
    ///
    /// # Errors
    /// Where it is of a known kind and malformed.
    pub fn decode(entry: &Entry) -> Result<Option<Record>, FormatError> {
        let Some(mut key) = entry.key.clone() else { return Ok(None) };
        let version = key.try_get_i16().map_err(|_| FormatError::Short)?;
        if OFFSET_KEYS.contains(&version) {
            let (group, topic) = (text(&mut key)?, text(&mut key)?);
            let partition = key.try_get_i32().map_err(|_| FormatError::Short)?;
            let value = entry.value.clone().map(offset_value).transpose()?;
            return Ok(Some(Record::Offset { group: group.into(), topic: topic.into(), partition, value }));
        }
        if version == GROUP_KEY {
            let group = text(&mut key)?.into();
            let value = entry.value.clone().map(group_value).transpose()?;
            return Ok(Some(Record::Group { group, value }));
        }
        let part = Part::decode(version, &mut key, entry.value.clone())?;
        Ok(part.map(|(group, part)| Record::Consumer { group, part }))
    }
}

fn put_generation(out: &mut Vec<u8>, value: &Generation) {
    out.put_i16(GROUP_VALUE);
    put_text(out, &value.protocol_type);
    out.put_i32(value.generation);
    put_nullable(out, value.protocol.as_deref());
    put_nullable(out, value.leader.as_deref());
    out.put_i64(value.since_ms);
    out.put_i32(value.members.len() as i32);
    for member in &value.members {
        put_text(out, &member.member_id);
        put_nullable(out, member.instance.as_deref());
        put_text(out, &member.client_id);
        put_text(out, &member.client_host);
        out.put_i32(member.rebalance_ms);
        out.put_i32(member.session_ms);
        put_bytes(out, &member.subscription);
        put_bytes(out, &member.assignment);
    }
}

fn offset_value(mut value: Bytes) -> Result<Committed, FormatError> {
    let version = value.try_get_i16().map_err(|_| FormatError::Short)?;
    if !(0..=OFFSET_VALUE).contains(&version) {
        return Err(FormatError::Version(version));
    }
    let offset = value.try_get_i64().map_err(|_| FormatError::Short)?;
    let epoch = if version >= 3 { value.try_get_i32().map_err(|_| FormatError::Short)? } else { -1 };
    let metadata = text(&mut value)?;
    let time_ms = value.try_get_i64().map_err(|_| FormatError::Short)?;
    Ok(Committed { offset, epoch, metadata, time_ms })
}

fn group_value(mut value: Bytes) -> Result<Generation, FormatError> {
    let value = &mut value;
    let version = value.try_get_i16().map_err(|_| FormatError::Short)?;
    if !(0..=GROUP_VALUE).contains(&version) {
        return Err(FormatError::Version(version));
    }
    let int = |value: &mut Bytes| value.try_get_i32().map_err(|_| FormatError::Short);
    let protocol_type = text(value)?;
    let generation = int(value)?;
    let (protocol, leader) = (nullable(value)?, nullable(value)?);
    let since_ms = if version >= 2 { value.try_get_i64().map_err(|_| FormatError::Short)? } else { -1 };
    let count = int(value)?;
    let mut members = Vec::new();
    for _ in 0..count {
        members.push(GenerationMember {
            member_id: text(value)?,
            instance: if version >= 3 { nullable(value)? } else { None },
            client_id: text(value)?,
            client_host: text(value)?,
            rebalance_ms: if version >= 1 { int(value)? } else { -1 },
            session_ms: int(value)?,
            subscription: bytes(value)?,
            assignment: bytes(value)?,
        });
    }
    Ok(Generation { protocol_type, generation, protocol, leader, since_ms, members })
}

pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    // Texts come from requests, whose strings are no longer than this.
    let len = i16::try_from(text.len()).expect("a text of at most 32,767 bytes");
    out.put_i16(len);
    out.put_slice(text.as_bytes());
}

fn put_nullable(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => put_text(out, text),
        None => out.put_i16(-1),
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.put_i32(bytes.len() as i32);
    out.put_slice(bytes);
}

fn nullable(from: &mut Bytes) -> Result<Option<String>, FormatError> {
    let len = from.try_get_i16().map_err(|_| FormatError::Short)?;
    if len == -1 {
        return Ok(None);
    }
    let bytes = take(from, usize::try_from(len).map_err(|_| FormatError::Short)?)?;
    String::from_utf8(bytes.to_vec()).map(Some).map_err(|_| FormatError::Text)
}

pub(super) fn text(from: &mut Bytes) -> Result<String, FormatError> {
    nullable(from)?.ok_or(FormatError::Short)
}

/// Bytes of their own: a slice would keep all of what was read from the disk in memory.
fn bytes(from: &mut Bytes) -> Result<Bytes, FormatError> {
    let len = from.try_get_i32().map_err(|_| FormatError::Short)?;
    let bytes = take(from, usize::try_from(len).map_err(|_| FormatError::Short)?)?;
    Ok(Bytes::copy_from_slice(&bytes))
}

pub(super) fn take(from: &mut Bytes, len: usize) -> Result<Bytes, FormatError> {
    if from.len() < len {
        return Err(FormatError::Short);
    }
    Ok(from.split_to(len))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn committed() -> Record {
        let value = Committed { offset: 258, epoch: 3, metadata: "m".into(), time_ms: 5 };
        Record::Offset { group: "g".into(), topic: "tt".into(), partition: 7, value: Some(value) }
    }

    fn generation() -> Record {
        let member = GenerationMember {
            member_id: "m-1".into(),
            instance: Some("i".into()),
            client_id: "c".into(),
            client_host: "/127.0.0.1".into(),
            rebalance_ms: 300_000,
            session_ms: 45_000,
            subscription: Bytes::from_static(b"sub"),
            assignment: Bytes::from_static(b"as"),
        };
        let dynamic = GenerationMember { member_id: "m-2".into(), instance: None, ..member.clone() };
        let value = Generation {
            protocol_type: "consumer".into(),
            generation: 4,
            protocol: Some("range".into()),
            leader: Some("m-1".into()),
            since_ms: 99,
            members: vec![member, dynamic],
        };
        Record::Group { group: "g".into(), value: Some(value) }
    }

    #[test]
    fn an_offset_is_as_kafka_writes_it() {
        let entry = committed().encode();
        let key: &[u8] = &[0, 1, 0, 1, b'g', 0, 2, b't', b't', 0, 0, 0, 7];
        let value: &[u8] = &[0, 3, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 3, 0, 1, b'm', 0, 0, 0, 0, 0, 0, 0, 5];
        assert_eq!((&entry.key.unwrap()[..], &entry.value.unwrap()[..]), (key, value));
    }

    #[test]
    fn a_group_without_members_is_as_kafka_writes_it() {
        let value = Generation {
            protocol_type: "c".into(),
            generation: 2,
            protocol: None,
            leader: None,
            since_ms: 1,
            members: Vec::new(),
        };
        let entry = Record::Group { group: "g".into(), value: Some(value) }.encode();
        assert_eq!(entry.key.unwrap()[..], [0, 2, 0, 1, b'g']);
        let value: &[u8] = &[0, 3, 0, 1, b'c', 0, 0, 0, 2, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
        assert_eq!(entry.value.unwrap()[..], *value);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let ends = [
            Record::Offset { group: "g".into(), topic: "t".into(), partition: 0, value: None },
            Record::Group { group: "g".into(), value: None },
        ];
        for record in [committed(), generation()].into_iter().chain(ends) {
            assert_eq!(Record::decode(&record.encode()), Ok(Some(record)));
        }
    }

    #[test]
    fn older_values_are_read() {
        let key = committed().encode().key;
        let value: &[u8] = &[0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 6];
        let entry = Entry { key, value: Some(Bytes::from_static(value)) };
        let Ok(Some(Record::Offset { value: Some(value), .. })) = Record::decode(&entry) else { panic!("not read") };
        assert_eq!(value, Committed { offset: 9, epoch: -1, metadata: String::new(), time_ms: 5 });
    }

    #[test]
    fn what_is_not_known_or_malformed_is_told_apart() {
        let other = Entry { key: Some(Bytes::from_static(&[0, 10, 0, 1, b'g'])), value: None };
        assert_eq!(Record::decode(&other), Ok(None));
        assert_eq!(Record::decode(&Entry { key: None, value: None }), Ok(None));
        for record in [committed(), generation()] {
            let entry = record.encode();
            let value = entry.value.clone().unwrap();
            for cut in 0..value.len() {
                let cut = Entry { value: Some(value.slice(..cut)), ..entry.clone() };
                assert_eq!(Record::decode(&cut), Err(FormatError::Short), "{cut:?}");
            }
            let mut newer = value.to_vec();
            newer[1] = 4;
            let newer = Entry { value: Some(newer.into()), ..entry };
            assert_eq!(Record::decode(&newer), Err(FormatError::Version(4)));
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic() {
        proptest::proptest!(|(key: Vec<u8>, value: Vec<u8>, kind in 0u8..18)| {
            let key = [vec![0, kind], key].concat();
            let _ = Record::decode(&Entry { key: Some(key.into()), value: Some(value.into()) });
        });
    }
}
