//! The records of groups of the consumer protocol, in Kafka's own formats: keys of old form, values of version 0 with
//! compact lengths and tagged fields.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use uuid::Uuid;

use crate::group::records::{FormatError, put_text, take, text};
use crate::record::Entry;

/// Partitions by the ids of their topics.
pub type Partitions = BTreeMap<Uuid, BTreeSet<i32>>;

/// Versions of keys: what a record is about.
const EPOCH_KEY: i16 = 3;
const MEMBER_KEY: i16 = 5;
const TARGET_EPOCH_KEY: i16 = 6;
const TARGET_KEY: i16 = 7;
const CURRENT_KEY: i16 = 8;
const REGEX_KEY: i16 = 16;

/// The version of all values.
const VALUE: i16 = 0;

/// Tag of the hash in an epoch's value.
const HASH_TAG: u32 = 0;
/// Tag of what is known of a member of the classic protocol, in a member's value.
const CLASSIC_TAG: u32 = 0;

/// A record about a part of a group; without a value that part is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// The epoch of the group, with the hash of the topics that it reads.
    Epoch(Option<(i32, i64)>),
    /// What a member says of itself.
    Member(Arc<str>, Option<Metadata>),
    /// The epoch of the target assignment.
    TargetEpoch(Option<i32>),
    /// What a member is to get.
    Target(Arc<str>, Option<Partitions>),
    /// What a member has.
    Current(Arc<str>, Option<Current>),
    /// What a regular expression stands for.
    Regex(String, Option<Resolved>),
}

/// What a member says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// The static member's own name.
    pub instance: Option<String>,
    /// Where its client stands.
    pub rack: Option<String>,
    /// What its client calls itself.
    pub client_id: String,
    /// The client's address.
    pub client_host: String,
    /// The topics that it reads by their names.
    pub topics: BTreeSet<String>,
    /// The regular expression for the topics that it reads; never empty.
    pub regex: Option<String>,
    /// So long it may take to give partitions back, in milliseconds.
    pub rebalance_ms: i32,
    /// The assignor that it wants.
    pub assignor: Option<String>,
    /// There for a member that speaks the classic protocol.
    pub classic: Option<ClassicMember>,
}

/// What a member of the classic protocol says beyond.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassicMember {
    /// After such a silence it is no member any more, in milliseconds.
    pub session_ms: i32,
    /// The protocols that it knows, the best first, with what it says for each; at least one.
    pub protocols: Vec<(String, Bytes)>,
}

impl Metadata {
    /// Memory of its texts, in bytes.
    pub fn bytes(&self) -> usize {
        let optional = [&self.instance, &self.rack, &self.regex, &self.assignor];
        let protocols = self.classic.iter().flat_map(|classic| &classic.protocols);
        optional.into_iter().flatten().map(String::len).sum::<usize>()
            + self.client_id.len()
            + self.client_host.len()
            + self.topics.iter().map(|topic| topic.len() + 48).sum::<usize>()
            + protocols.map(|(name, metadata)| name.len() + metadata.len() + 64).sum::<usize>()
    }
}

/// Where a member is on its way to its assignment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(i8)]
pub enum MemberState {
    /// It has what it is to have.
    #[default]
    Stable = 0,
    /// It must give partitions back before it comes to the next epoch.
    UnrevokedPartitions = 1,
    /// It waits for partitions that others have not given back.
    UnreleasedPartitions = 2,
}

/// What a member has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Current {
    /// The epoch that it knows, or is being told.
    pub epoch: i32,
    /// The one before: the answer that told it of `epoch` may have been lost.
    pub previous_epoch: i32,
    /// Where it is on its way.
    pub state: MemberState,
    /// What it may read.
    pub assigned: Partitions,
    /// What it is to give back.
    pub revoking: Partitions,
}

impl Current {
    /// Whether nothing is left to do for it up to an epoch.
    pub fn is_reconciled_to(&self, epoch: i32) -> bool {
        self.state == MemberState::Stable && self.epoch == epoch
    }
}

/// What a regular expression stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// The topics.
    pub topics: BTreeSet<String>,
    /// The version of the metadata at which it was so.
    pub version: i64,
    /// When, milliseconds since the Unix epoch.
    pub time_ms: i64,
}

impl Resolved {
    /// Memory, in bytes.
    pub fn bytes(&self) -> usize {
        128 + self.topics.iter().map(|topic| topic.len() + 48).sum::<usize>()
    }
}

impl Part {
    /// Whether it says that something is gone.
    pub fn is_end(&self) -> bool {
        match self {
            Part::Epoch(value) => value.is_none(),
            Part::Member(_, value) => value.is_none(),
            Part::TargetEpoch(value) => value.is_none(),
            Part::Target(_, value) => value.is_none(),
            Part::Current(_, value) => value.is_none(),
            Part::Regex(_, value) => value.is_none(),
        }
    }

    /// The record with its key.
    pub fn encode(&self, group: &str) -> Entry {
        let (mut key, mut out) = (Vec::new(), Vec::new());
        let (kind, name) = match self {
            Part::Epoch(_) => (EPOCH_KEY, None),
            Part::Member(id, _) => (MEMBER_KEY, Some(&**id)),
            Part::TargetEpoch(_) => (TARGET_EPOCH_KEY, None),
            Part::Target(id, _) => (TARGET_KEY, Some(&**id)),
            Part::Current(id, _) => (CURRENT_KEY, Some(&**id)),
            Part::Regex(regex, _) => (REGEX_KEY, Some(&**regex)),
        };
        key.put_i16(kind);
        put_text(&mut key, group);
        if let Some(name) = name {
            put_text(&mut key, name);
        }
        out.put_i16(VALUE);
        let has_value = match self {
            Part::Epoch(value) => value.map(|(epoch, hash)| put_epoch(&mut out, epoch, hash)),
            Part::Member(_, value) => value.as_ref().map(|value| put_member(&mut out, value)),
            Part::TargetEpoch(value) => value.map(|epoch| {
                out.put_i32(epoch);
                put_varint(&mut out, 0);
            }),
            Part::Target(_, value) => value.as_ref().map(|value| {
                put_partitions(&mut out, value);
                put_varint(&mut out, 0);
            }),
            Part::Current(_, value) => value.as_ref().map(|value| put_current(&mut out, value)),
            Part::Regex(_, value) => value.as_ref().map(|value| {
                put_texts(&mut out, &value.topics);
                out.put_i64(value.version);
                out.put_i64(value.time_ms);
                put_varint(&mut out, 0);
            }),
        };
        Entry { key: Some(key.into()), value: has_value.map(|()| out.into()) }
    }

    /// Reads a record of one of these kinds, `kind` being the version of its key and `key` the rest: the group and the
    /// part. Nothing where it is of another kind.
    ///
    /// # Errors
    /// Where it is malformed.
    pub fn decode(kind: i16, key: &mut Bytes, value: Option<Bytes>) -> Result<Option<(Arc<str>, Part)>, FormatError> {
        if !matches!(kind, EPOCH_KEY | MEMBER_KEY | TARGET_EPOCH_KEY | TARGET_KEY | CURRENT_KEY | REGEX_KEY) {
            return Ok(None);
        }
        let group: Arc<str> = text(key)?.into();
        let mut value = match value {
            None => None,
            Some(mut value) => match value.try_get_i16().map_err(|_| FormatError::Short)? {
                VALUE => Some(value),
                other => return Err(FormatError::Version(other)),
            },
        };
        let value = value.as_mut();
        let part = match kind {
            EPOCH_KEY => Part::Epoch(value.map(epoch).transpose()?),
            TARGET_EPOCH_KEY => Part::TargetEpoch(value.map(int).transpose()?),
            MEMBER_KEY => Part::Member(text(key)?.into(), value.map(member).transpose()?),
            TARGET_KEY => Part::Target(text(key)?.into(), value.map(partitions).transpose()?),
            CURRENT_KEY => Part::Current(text(key)?.into(), value.map(current).transpose()?),
            _ => Part::Regex(text(key)?, value.map(resolved).transpose()?),
        };
        Ok(Some((group, part)))
    }
}

fn put_epoch(out: &mut Vec<u8>, epoch: i32, hash: i64) {
    out.put_i32(epoch);
    if hash == 0 {
        return put_varint(out, 0);
    }
    put_varint(out, 1);
    put_varint(out, HASH_TAG);
    put_varint(out, 8);
    out.put_i64(hash);
}

fn epoch(value: &mut Bytes) -> Result<(i32, i64), FormatError> {
    let epoch = int(value)?;
    let mut hash = 0;
    tagged(value, |tag, mut field| {
        if tag == HASH_TAG {
            hash = long(&mut field)?;
        }
        Ok(())
    })?;
    Ok((epoch, hash))
}

fn put_member(out: &mut Vec<u8>, member: &Metadata) {
    put_nullable(out, member.instance.as_deref());
    put_nullable(out, member.rack.as_deref());
    put_bytes(out, member.client_id.as_bytes());
    put_bytes(out, member.client_host.as_bytes());
    put_texts(out, &member.topics);
    put_nullable(out, member.regex.as_deref());
    out.put_i32(member.rebalance_ms);
    put_nullable(out, member.assignor.as_deref());
    let Some(classic) = &member.classic else { return put_varint(out, 0) };
    // A structure that may be null has a byte in front that says that it is not.
    let mut field = vec![1];
    field.put_i32(classic.session_ms);
    put_varint(&mut field, classic.protocols.len() as u32 + 1);
    for (name, metadata) in &classic.protocols {
        put_bytes(&mut field, name.as_bytes());
        put_bytes(&mut field, metadata);
        put_varint(&mut field, 0);
    }
    put_varint(&mut field, 0);
    put_varint(out, 1);
    put_varint(out, CLASSIC_TAG);
    put_varint(out, field.len() as u32);
    out.put_slice(&field);
}

fn member(value: &mut Bytes) -> Result<Metadata, FormatError> {
    let mut member = Metadata {
        instance: nullable(value)?,
        rack: nullable(value)?,
        client_id: compact(value)?,
        client_host: compact(value)?,
        topics: texts(value)?,
        regex: nullable(value)?.filter(|regex| !regex.is_empty()),
        rebalance_ms: int(value)?,
        assignor: nullable(value)?,
        classic: None,
    };
    tagged(value, |tag, mut field| {
        if tag == CLASSIC_TAG && varint(&mut field)? == 1 {
            member.classic = Some(classic(&mut field)?);
        }
        Ok(())
    })?;
    Ok(member)
}

fn classic(field: &mut Bytes) -> Result<ClassicMember, FormatError> {
    let session_ms = int(field)?;
    let mut protocols = Vec::new();
    for _ in 0..array(field)? {
        let name = compact(field)?;
        let len = length(field)?.ok_or(FormatError::Short)?;
        // Bytes of their own: a slice would keep all of what was read from the disk in memory.
        protocols.push((name, Bytes::copy_from_slice(&take(field, len)?)));
        tagged(field, |_, _| Ok(()))?;
    }
    if protocols.is_empty() {
        return Err(FormatError::Short);
    }
    Ok(ClassicMember { session_ms, protocols })
}

fn put_current(out: &mut Vec<u8>, current: &Current) {
    out.put_i32(current.epoch);
    out.put_i32(current.previous_epoch);
    out.put_i8(current.state as i8);
    put_partitions(out, &current.assigned);
    put_partitions(out, &current.revoking);
    put_varint(out, 0);
}

fn current(value: &mut Bytes) -> Result<Current, FormatError> {
    let (epoch, previous_epoch) = (int(value)?, int(value)?);
    let state = match value.try_get_i8().map_err(|_| FormatError::Short)? {
        1 => MemberState::UnrevokedPartitions,
        2 => MemberState::UnreleasedPartitions,
        // A state that a later version may know: the member is led on from the beginning.
        _ => MemberState::Stable,
    };
    Ok(Current { epoch, previous_epoch, state, assigned: partitions(value)?, revoking: partitions(value)? })
}

fn resolved(value: &mut Bytes) -> Result<Resolved, FormatError> {
    Ok(Resolved { topics: texts(value)?, version: long(value)?, time_ms: long(value)? })
}

fn put_partitions(out: &mut Vec<u8>, partitions: &Partitions) {
    put_varint(out, partitions.len() as u32 + 1);
    for (topic, numbers) in partitions {
        out.put_slice(topic.as_bytes());
        put_varint(out, numbers.len() as u32 + 1);
        numbers.iter().for_each(|number| out.put_i32(*number));
        put_varint(out, 0);
    }
}

fn partitions(value: &mut Bytes) -> Result<Partitions, FormatError> {
    let mut all = Partitions::new();
    for _ in 0..array(value)? {
        let id = take(value, 16)?;
        let id = Uuid::from_slice(&id).map_err(|_| FormatError::Short)?;
        let numbers = (0..array(value)?).map(|_| int(value)).collect::<Result<BTreeSet<i32>, FormatError>>()?;
        all.entry(id).or_default().extend(numbers);
        tagged(value, |_, _| Ok(()))?;
    }
    Ok(all)
}

fn put_varint(out: &mut Vec<u8>, mut value: u32) {
    while value > 0x7f {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u32 + 1);
    out.put_slice(bytes);
}

fn put_nullable(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => put_bytes(out, text.as_bytes()),
        None => put_varint(out, 0),
    }
}

fn put_texts(out: &mut Vec<u8>, texts: &BTreeSet<String>) {
    put_varint(out, texts.len() as u32 + 1);
    texts.iter().for_each(|text| put_bytes(out, text.as_bytes()));
}

fn int(value: &mut Bytes) -> Result<i32, FormatError> {
    value.try_get_i32().map_err(|_| FormatError::Short)
}

fn long(value: &mut Bytes) -> Result<i64, FormatError> {
    value.try_get_i64().map_err(|_| FormatError::Short)
}

fn varint(value: &mut Bytes) -> Result<u32, FormatError> {
    let mut result = 0;
    for shift in (0..32).step_by(7) {
        let byte = value.try_get_u8().map_err(|_| FormatError::Short)?;
        result |= u32::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(result);
        }
    }
    Err(FormatError::Short)
}

/// A length; nothing where what it is of is null.
fn length(value: &mut Bytes) -> Result<Option<usize>, FormatError> {
    Ok(varint(value)?.checked_sub(1).map(|len| len as usize))
}

fn array(value: &mut Bytes) -> Result<usize, FormatError> {
    length(value)?.ok_or(FormatError::Short)
}

fn nullable(value: &mut Bytes) -> Result<Option<String>, FormatError> {
    let Some(len) = length(value)? else { return Ok(None) };
    String::from_utf8(take(value, len)?.to_vec()).map(Some).map_err(|_| FormatError::Text)
}

fn compact(value: &mut Bytes) -> Result<String, FormatError> {
    nullable(value)?.ok_or(FormatError::Short)
}

fn texts(value: &mut Bytes) -> Result<BTreeSet<String>, FormatError> {
    (0..array(value)?).map(|_| compact(value)).collect()
}

/// Goes over the tagged fields at the end of a structure.
fn tagged(value: &mut Bytes, mut each: impl FnMut(u32, Bytes) -> Result<(), FormatError>) -> Result<(), FormatError> {
    for _ in 0..varint(value)? {
        let (tag, len) = (varint(value)?, varint(value)?);
        each(tag, take(value, len as usize)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    fn partitions(all: &[(u128, &[i32])]) -> Partitions {
        all.iter().map(|(topic, numbers)| (id(*topic), numbers.iter().copied().collect())).collect()
    }

    fn metadata() -> Metadata {
        Metadata {
            instance: Some("i".into()),
            rack: None,
            client_id: "c".into(),
            client_host: "/h".into(),
            topics: ["t".to_owned(), "u".to_owned()].into(),
            regex: Some("x.*".into()),
            rebalance_ms: 258,
            assignor: Some("uniform".into()),
            classic: Some(ClassicMember { session_ms: 3, protocols: vec![("range".into(), Bytes::from_static(b"m"))] }),
        }
    }

    fn every_kind() -> Vec<Part> {
        let current = Current {
            epoch: 3,
            previous_epoch: 2,
            state: MemberState::UnrevokedPartitions,
            assigned: partitions(&[(1, &[0, 300]), (2, &[1])]),
            revoking: partitions(&[(1, &[5])]),
        };
        let resolved = Resolved { topics: ["x1".to_owned()].into(), version: 9, time_ms: 10 };
        vec![
            Part::Epoch(Some((7, -8))),
            Part::Epoch(Some((7, 0))),
            Part::Epoch(None),
            Part::Member("m".into(), Some(metadata())),
            Part::Member("m".into(), Some(Metadata::default())),
            Part::Member("m".into(), None),
            Part::TargetEpoch(Some(6)),
            Part::TargetEpoch(None),
            Part::Target("m".into(), Some(partitions(&[(9, &[0])]))),
            Part::Target("m".into(), None),
            Part::Current("m".into(), Some(current)),
            Part::Current("m".into(), None),
            Part::Regex("x.*".into(), Some(resolved)),
            Part::Regex("x.*".into(), None),
        ]
    }

    fn decode(entry: &Entry) -> Result<Option<(Arc<str>, Part)>, FormatError> {
        let mut key = entry.key.clone().unwrap();
        let kind = key.get_i16();
        Part::decode(kind, &mut key, entry.value.clone())
    }

    #[test]
    fn what_is_written_is_read_back() {
        for part in every_kind() {
            assert_eq!(decode(&part.encode("g")), Ok(Some(("g".into(), part))));
        }
    }

    #[test]
    fn records_are_as_kafka_writes_them() {
        let entry = Part::Epoch(Some((7, 1))).encode("g");
        assert_eq!(entry.key.unwrap()[..], [0, 3, 0, 1, b'g']);
        assert_eq!(entry.value.unwrap()[..], [0, 0, 0, 0, 0, 7, 1, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1]);

        let entry = Part::Target("m".into(), Some(partitions(&[(1, &[2])]))).encode("g");
        assert_eq!(entry.key.unwrap()[..], [0, 7, 0, 1, b'g', 0, 1, b'm']);
        let mut value = vec![0, 0, 2];
        value.extend(id(1).as_bytes());
        value.extend([2, 0, 0, 0, 2, 0, 0]);
        assert_eq!(entry.value.unwrap()[..], value);

        let entry = Part::Member("m".into(), Some(metadata())).encode("g");
        assert_eq!(entry.key.unwrap()[..], [0, 5, 0, 1, b'g', 0, 1, b'm']);
        let mut value = vec![0, 0, 2, b'i', 0, 2, b'c', 3, b'/', b'h', 3, 2, b't', 2, b'u', 4, b'x', b'.', b'*'];
        value.extend([0, 0, 1, 2, 8]);
        value.extend(b"uniform");
        value.extend([1, 0, 16, 1, 0, 0, 0, 3, 2, 6]);
        value.extend(b"range");
        value.extend([2, b'm', 0, 0]);
        assert_eq!(entry.value.unwrap()[..], value);
    }

    #[test]
    fn fields_of_later_versions_are_passed_over() {
        let mut entry = Part::TargetEpoch(Some(6)).encode("g");
        let mut value = vec![0, 0, 0, 0, 0, 6, 2, 4, 1, 9, 5, 0];
        entry.value = Some(value.clone().into());
        assert_eq!(decode(&entry), Ok(Some(("g".into(), Part::TargetEpoch(Some(6))))));
        value[1] = 1;
        entry.value = Some(value.into());
        assert_eq!(decode(&entry), Err(FormatError::Version(1)));
    }

    #[test]
    fn arbitrary_bytes_never_panic() {
        proptest::proptest!(|(key: Vec<u8>, value: Vec<u8>, kind in 3i16..17)| {
            let value = [vec![0, 0], value].concat();
            let _ = Part::decode(kind, &mut Bytes::from([vec![0, 0], key].concat()), Some(value.into()));
        });
    }
}
