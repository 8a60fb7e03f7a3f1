//! Metadata commands and snapshots as bytes.

use crate::codec::{self, CodecError};
use crate::limits::{MAX_METADATA_COMMAND_BYTES, MAX_METADATA_SNAPSHOT_BYTES};

use super::command::Command;
use super::state::Snapshot;

/// Why bytes are no command or no snapshot, or a command cannot be bytes.
#[derive(Debug, thiserror::Error)]
pub enum MetadataCodecError {
    /// More bytes than there may be.
    #[error("{len} bytes of metadata, at most {limit} are allowed")]
    TooLarge {
        /// Bytes there are.
        len: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Not written by this version, or damaged.
    #[error("metadata cannot be read: {0}")]
    Malformed(#[from] CodecError),
}

/// The command as the payload of a log entry.
///
/// # Errors
/// Where it has more than [`MAX_METADATA_COMMAND_BYTES`]: nothing was proposed, and the request is to be refused.
pub fn encode_command(command: &Command) -> Result<Vec<u8>, MetadataCodecError> {
    within(codec::encode(command), MAX_METADATA_COMMAND_BYTES)
}

/// Reads what [`encode_command`] wrote.
///
/// # Errors
/// Where the bytes are too many or no command of a known format.
pub fn decode_command(bytes: &[u8]) -> Result<Command, MetadataCodecError> {
    Ok(codec::decode(within(bytes, MAX_METADATA_COMMAND_BYTES)?)?)
}

/// The form of snapshots: what follows the format byte is bincode as in format 1, with more behind it.
const SNAPSHOT_FORMAT: u8 = 4;

/// What snapshots of format 1 lack: configs of all brokers, and quotas; there are none. Then what those of format 2 lack.
const LACKING_IN_1: &[u8] = &[0, 0, 0, 0, 0, 0, 0, 0];

/// What snapshots of format 2 lack: partitions whose replicas were moved, configs of single brokers, and of groups; there are
/// none. Then what those of format 3 lack.
const LACKING_IN_2: &[u8] = &[0, 0, 0, 0, 0, 0];

/// What snapshots of format 3 lack: where brokers listen for each other, brokers that were removed, and who is to vote on the
/// metadata; of none it is said.
const LACKING_IN_3: &[u8] = &[0, 0, 0];

/// The snapshot as bytes.
///
/// # Errors
/// Where it has more than [`MAX_METADATA_SNAPSHOT_BYTES`].
pub fn encode_snapshot(snapshot: &Snapshot) -> Result<Vec<u8>, MetadataCodecError> {
    let mut bytes = codec::encode(snapshot);
    bytes[0] = SNAPSHOT_FORMAT;
    within(bytes, MAX_METADATA_SNAPSHOT_BYTES)
}

/// Reads what [`encode_snapshot`] wrote.
///
/// # Errors
/// Where the bytes are too many or no snapshot of a known format.
pub fn decode_snapshot(bytes: &[u8]) -> Result<Snapshot, MetadataCodecError> {
    let bytes = within(bytes, MAX_METADATA_SNAPSHOT_BYTES)?;
    let mut whole = bytes.to_vec();
    let lacking = match whole.first() {
        Some(&SNAPSHOT_FORMAT) => &[][..],
        Some(3) => LACKING_IN_3,
        Some(2) => LACKING_IN_2,
        // Whatever else it may be, the decoder says.
        _ => return Ok(codec::decode(&[&whole, LACKING_IN_1].concat())?),
    };
    whole[0] = codec::FORMAT;
    whole.extend_from_slice(lacking);
    Ok(codec::decode(&whole)?)
}

fn within<B: AsRef<[u8]>>(bytes: B, limit: usize) -> Result<B, MetadataCodecError> {
    let len = bytes.as_ref().len();
    if len > limit {
        return Err(MetadataCodecError::TooLarge { len, limit });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::metadata::State;
    use crate::metadata::command::{
        Configs, MorePartitions, NewBroker, NewPartition, NewTopic, OwnerConfigs, Placed, TopicConfigs,
    };
    use crate::metadata::nodes::Voters;
    use crate::metadata::own::Owner;
    use crate::metadata::quotas::{Entity, Quota, QuotaChange, Rate, Scope};
    use crate::types::{BrokerId, PeerAddress};

    const ID: u128 = 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10;
    const ID_BYTES: [u8; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];

    fn create() -> Command {
        Command::CreateTopics {
            topics: vec![NewTopic {
                name: "t".to_owned(),
                id: Uuid::from_u128(ID),
                partitions: vec![NewPartition { replicas: vec![BrokerId(1), BrokerId(-2)] }],
                configs: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
            }],
        }
    }

    fn broker() -> NewBroker {
        NewBroker {
            id: BrokerId(1),
            host: "h".to_owned(),
            port: 9092,
            rack: Some("r".to_owned()),
            incarnation: 3,
            directory_id: [5; 16],
        }
    }

    fn register() -> Command {
        Command::RegisterBroker(broker())
    }

    fn register_peer() -> Command {
        let address = PeerAddress { id: BrokerId(1), host: "p".to_owned(), port: 9 };
        Command::RegisterPeer { broker: broker(), address }
    }

    fn alter_voters() -> Command {
        Command::AlterVoters(Voters { brokers: vec![BrokerId(1), BrokerId(2)], number: 1 })
    }

    fn alter() -> Command {
        let one = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        let configs = Configs { before: one("k", "v"), after: BTreeMap::new() };
        let defaults = Configs { before: BTreeMap::new(), after: one("d", "w") };
        Command::AlterConfigs {
            topics: vec![TopicConfigs { id: Uuid::from_u128(ID), configs }],
            defaults: Some(defaults),
        }
    }

    fn alter_own() -> Command {
        let one = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        let configs = |after| Configs { before: BTreeMap::new(), after };
        let of_broker = OwnerConfigs { owner: Owner::Broker(BrokerId(1)), configs: configs(one("b", "x")) };
        let of_group = OwnerConfigs { owner: Owner::Group("g".to_owned()), configs: configs(one("c", "y")) };
        Command::AlterOwnConfigs { topics: Vec::new(), defaults: None, owners: vec![of_broker, of_group] }
    }

    fn quota() -> Command {
        let entity = Entity { user: Some(Scope::Named("u".to_owned())), client_id: Some(Scope::Default) };
        let change = QuotaChange { entity, quota: Quota::ConsumerByteRate, rate: Rate::new(1.0) };
        Command::AlterQuotas { changes: vec![change] }
    }

    /// These bytes are on disks: where one of these fails, the format has changed and needs another number.
    #[test]
    fn the_bytes_of_commands_stay_as_they_are() {
        let golden = |command: &Command, parts: &[&[u8]]| {
            let bytes = parts.concat();
            assert_eq!(encode_command(command).unwrap(), bytes);
            assert_eq!(&decode_command(&bytes).unwrap(), command);
        };
        golden(&register(), &[&[1, 0], &[2], &[1, b'h'], &[251, 0x84, 0x23], &[1, 1, b'r'], &[3], &[5; 16]]);
        let peer = [&[2, 1, b'h', 251, 0x84, 0x23, 1, 1, b'r', 3], &[5; 16][..], &[2, 1, b'p', 9]].concat();
        golden(&register_peer(), &[&[1, 10], &peer]);
        golden(&alter_voters(), &[&[1, 11], &[2, 2, 4, 1]]);
        golden(&Command::UnregisterBroker { id: BrokerId(2) }, &[&[1, 12], &[4]]);
        golden(&create(), &[&[1, 1], &[1], &[1, b't'], &ID_BYTES, &[1, 2, 2, 3], &[1, 1, b'k', 1, b'v']]);
        let delete = Command::DeleteTopics { ids: vec![Uuid::from_u128(ID)] };
        golden(&delete, &[&[1, 2], &[1], &ID_BYTES]);
        let allocate = Command::AllocateProducerIds { broker: BrokerId(1), count: 1000 };
        golden(&allocate, &[&[1, 3], &[2], &[251, 0xe8, 0x03]]);
        let partitions = vec![NewPartition { replicas: vec![BrokerId(1)] }];
        let more = MorePartitions { id: Uuid::from_u128(ID), before: 7, partitions };
        golden(&Command::CreatePartitions { topics: vec![more] }, &[&[1, 4], &[1], &ID_BYTES, &[7], &[1, 1, 2]]);
        golden(&quota(), &[&[1, 6], &[1], &[1, 1, 1, b'u'], &[1, 0], &[1], &[1, 253], &1.0f64.to_le_bytes()]);
        let of_broker = [0, 2, 0, 1, 1, b'b', 1, b'x'];
        let of_group = [1, 1, b'g', 0, 1, 1, b'c', 1, b'y'];
        golden(&alter_own(), &[&[1, 9], &[0, 0], &[2], &of_broker, &of_group]);
        golden(&alter(), &[&[1, 5], &[1], &ID_BYTES, &[1, 1, b'k', 1, b'v'], &[0], &[1], &[0], &[1, 1, b'd', 1, b'w']]);
    }

    #[test]
    fn the_bytes_of_moves_stay_as_they_are() {
        let placed = Placed { topic: Uuid::from_u128(ID), partition: 3, replicas: vec![BrokerId(1), BrokerId(2)] };
        let bytes = [&ID_BYTES[..], &[3, 2, 2, 4]].concat();
        let wanted = Command::MoveReplicas { moves: vec![placed.clone()] };
        assert_eq!(encode_command(&wanted).unwrap(), [&[1, 7, 1], &bytes[..]].concat());
        let done = Command::ReplicasMoved { placed, number: 5 };
        assert_eq!(encode_command(&done).unwrap(), [&[1, 8], &bytes[..], &[5]].concat());
        assert_eq!(decode_command(&encode_command(&done).unwrap()).unwrap(), done);
    }

    #[test]
    fn the_bytes_of_a_snapshot_stay_as_they_are() {
        let mut state = State::default();
        state.apply(1, &register());
        state.apply(2, &create());
        state.apply(9, &Command::AllocateProducerIds { broker: BrokerId(1), count: 5 });
        let registered = &[&[1, 2, 1, b'h', 251, 0x84, 0x23, 1, 1, b'r', 3], &[5; 16][..]].concat()[..];
        let topic = [&[1, 1, b't'], &ID_BYTES[..], &[1, 1, 2, 2, 3], &[1, 1, b'k', 1, b'v']].concat();
        let first = [&[1, 9, 2, 10], registered, &topic].concat();
        assert_eq!(decode_snapshot(&first).unwrap(), state.snapshot());
        let second = [&[2, 9, 2, 10], registered, &topic, &[0, 0]].concat();
        assert_eq!(decode_snapshot(&second).unwrap(), state.snapshot());
        state.apply(10, &alter());
        let placed = Placed { topic: Uuid::from_u128(ID), partition: 0, replicas: vec![BrokerId(3)] };
        state.apply(11, &Command::MoveReplicas { moves: vec![placed] });
        let topic = [&[1, 1, b't'], &ID_BYTES[..], &[1, 1, 2, 2, 3], &[0]].concat();
        state.apply(12, &quota());
        let quotas = [&[1, 1, 1, 1, b'u', 1, 0, 1, 1, 253][..], &1.0f64.to_le_bytes()].concat();
        state.apply(13, &alter_own());
        let moves = [&[1, 1], &ID_BYTES[..], &[0], &[2, 2, 3], &[1, 1, 6, 1], &[1, 6], &[1, 1, 6]].concat();
        let own = &[1, 2, 1, 1, b'b', 1, b'x', 1, 1, b'g', 1, 1, b'c', 1, b'y'];
        let third = [&[13, 2, 10], registered, &topic, &[1, 1, b'd', 1, b'w'], &quotas, &moves, own].concat();
        assert_eq!(decode_snapshot(&[&[3], &third[..]].concat()).unwrap(), state.snapshot());
        state.apply(14, &register_peer());
        state.apply(15, &Command::RegisterBroker(NewBroker { id: BrokerId(2), directory_id: [6; 16], ..broker() }));
        state.apply(16, &alter_voters());
        state.apply(17, &Command::RegisterBroker(NewBroker { id: BrokerId(9), directory_id: [6; 16], ..broker() }));
        state.apply(18, &Command::UnregisterBroker { id: BrokerId(9) });
        let two = [&[2], &registered[1..], &[4, 1, b'h', 251, 0x84, 0x23, 1, 1, b'r', 3], &[6; 16][..]].concat();
        let third = [&[2, 10], &two[..], &third[3 + registered.len()..]].concat();
        let nodes = [1, 2, 2, 1, b'p', 9, 1, 18, 1, 2, 2, 4, 1];
        let bytes = [&[4, 18], &third[..], &nodes].concat();
        assert_eq!(encode_snapshot(&state.snapshot()).unwrap(), bytes);
        assert_eq!(decode_snapshot(&bytes).unwrap(), state.snapshot());
    }

    #[test]
    fn what_is_no_command_is_refused() {
        let bytes = encode_command(&create()).unwrap();
        for end in 0..bytes.len() {
            assert!(decode_command(&bytes[..end]).is_err(), "{end} of {} bytes", bytes.len());
        }
        let snapshot = encode_snapshot(&State::default().snapshot()).unwrap();
        for end in 0..snapshot.len() {
            assert!(decode_snapshot(&snapshot[..end]).is_err(), "{end} of {} bytes", snapshot.len());
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(matches!(decode_command(&longer), Err(MetadataCodecError::Malformed(CodecError::TrailingBytes(1)))));
        let newer = [&[2], &bytes[1..]].concat();
        assert!(matches!(decode_command(&newer), Err(MetadataCodecError::Malformed(CodecError::UnknownFormat(2)))));
        assert!(decode_command(&[1, 13, 0]).is_err(), "a variant of a later version");
    }

    #[test]
    fn too_many_bytes_are_refused_both_ways() {
        let limit = MAX_METADATA_COMMAND_BYTES;
        let command = Command::DeleteTopics { ids: vec![Uuid::nil(); limit / 16] };
        assert!(matches!(encode_command(&command), Err(MetadataCodecError::TooLarge { len, .. }) if len > limit));
        assert!(matches!(decode_command(&vec![1; limit + 1]), Err(MetadataCodecError::TooLarge { .. })));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            for format in 0..5 {
                let formatted = [&[format], &bytes[..]].concat();
                let _: Result<Command, _> = decode_command(&formatted);
                let _: Result<Snapshot, _> = decode_snapshot(&formatted);
            }
        }
    }
}
