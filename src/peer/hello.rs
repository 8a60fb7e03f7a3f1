//! The greeting that opens each connection between brokers; `docs/formats/peer.md` describes its bytes.
//!
//! The dialler says who it is, the other answers who it is and whether it goes along. Both then know that they are of
//! one cluster, that the other is the broker that was meant, and that it has not lost its disk since it was last known.

use zerocopy::little_endian::{I32, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::VERSION;
use crate::limits::{MAX_CLUSTER_ID_BYTES, MAX_SHARDS};
use crate::types::BrokerId;

const HELLO_MAGIC: [u8; 4] = *b"RLPH";
const WELCOME_MAGIC: [u8; 4] = *b"RLPW";

const _: () = assert!(Hello::BYTES == 116 && MAX_CLUSTER_ID_BYTES == 64);
const _: () = assert!(Welcome::BYTES == 32);

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHello {
    magic: [u8; 4],
    version: U16,
    cluster_id_len: u8,
    reserved: u8,
    directory_id: [u8; 16],
    incarnation: U64,
    number: U64,
    broker: I32,
    shard: U16,
    shards: U16,
    cluster_id: [u8; MAX_CLUSTER_ID_BYTES],
    crc: U32,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawWelcome {
    magic: [u8; 4],
    version: U16,
    verdict: u8,
    reserved: u8,
    directory_id: [u8; 16],
    broker: I32,
    crc: U32,
}

/// What a broker says first on a connection that it has made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// Its cluster.
    pub cluster_id: String,
    /// Its number in the cluster.
    pub broker: BrokerId,
    /// Its data directory.
    pub directory_id: [u8; 16],
    /// Rises with each start of the broker on that directory.
    pub incarnation: u64,
    /// The shard that sends on this connection.
    pub shard: u16,
    /// How many shards it has.
    pub shards: u16,
    /// Rises with each connection that the process makes.
    pub number: u64,
}

/// The answer to a [`Hello`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Welcome {
    /// The number in the cluster of the broker that answers.
    pub broker: BrokerId,
    /// Its data directory.
    pub directory_id: [u8; 16],
    /// Why it wants nothing to do with the dialler, if so.
    pub verdict: Result<(), Refusal>,
}

/// Why a greeting was refused. The numbers are on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[repr(u8)]
pub enum Refusal {
    /// Of another version of this protocol.
    #[error("it speaks another version of the protocol between brokers")]
    Version = 1,
    /// Of another cluster.
    #[error("it belongs to another cluster")]
    OtherCluster = 2,
    /// Removed from the cluster.
    #[error("it was removed from the cluster")]
    Removed = 3,
    /// With the number of the broker that answers.
    #[error("it has the node.id of the broker that it talks to")]
    SameId = 4,
    /// With another data directory than the broker of that number is known to have.
    #[error("it has another data directory than the broker of that number had: its disk was replaced or emptied")]
    OtherDirectory = 5,
    /// A later connection of the same shard was there already, or a later start of the broker.
    #[error("a later connection was there already")]
    Superseded = 6,
}

impl Refusal {
    const ALL: [Refusal; 6] = [
        Refusal::Version,
        Refusal::OtherCluster,
        Refusal::Removed,
        Refusal::SameId,
        Refusal::OtherDirectory,
        Refusal::Superseded,
    ];
}

/// Why a greeting came to nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HelloError {
    /// The bytes are no greeting.
    #[error("what it says is no greeting of a ringlog broker")]
    Malformed,
    /// Of a version that this one does not know.
    #[error("it speaks version {0} of the protocol between brokers, this broker version {VERSION}")]
    Version(u16),
    /// The other refused this broker.
    #[error("it refuses this broker: {0}")]
    Refused(Refusal),
    /// Another broker answered than was meant.
    #[error("broker {} answers at the address of broker {}", found.0, meant.0)]
    OtherBroker {
        /// The broker that answered.
        found: BrokerId,
        /// The broker that was meant.
        meant: BrokerId,
    },
    /// The broker that answered has lost its disk.
    #[error("broker {} came with another data directory than it had: its disk was replaced or emptied", broker.0)]
    OtherDirectory {
        /// The broker.
        broker: BrokerId,
    },
}

impl Hello {
    /// Bytes of a hello, in every version.
    pub const BYTES: usize = size_of::<RawHello>();

    /// The hello's bytes.
    ///
    /// # Panics
    /// Where the cluster's id is longer than [`MAX_CLUSTER_ID_BYTES`], which the configuration excludes.
    pub fn encode(&self) -> [u8; Hello::BYTES] {
        let mut cluster_id = [0; MAX_CLUSTER_ID_BYTES];
        cluster_id[..self.cluster_id.len()].copy_from_slice(self.cluster_id.as_bytes());
        let mut raw = RawHello {
            magic: HELLO_MAGIC,
            version: VERSION.into(),
            cluster_id_len: self.cluster_id.len() as u8,
            reserved: 0,
            directory_id: self.directory_id,
            incarnation: self.incarnation.into(),
            number: self.number.into(),
            broker: self.broker.0.into(),
            shard: self.shard.into(),
            shards: self.shards.into(),
            cluster_id,
            crc: 0.into(),
        };
        raw.crc = checksum(raw.as_bytes()).into();
        zerocopy::transmute!(raw)
    }

    /// Reads what [`Hello::encode`] wrote.
    ///
    /// # Errors
    /// Bytes that are no hello, or one of another version.
    pub fn decode(bytes: &[u8; Hello::BYTES]) -> Result<Hello, HelloError> {
        let raw: &RawHello = zerocopy::transmute_ref!(bytes);
        if raw.magic != HELLO_MAGIC {
            return Err(HelloError::Malformed);
        }
        if raw.version.get() != VERSION {
            return Err(HelloError::Version(raw.version.get()));
        }
        let (shard, shards) = (raw.shard.get(), raw.shards.get());
        let cluster_id = raw.cluster_id.get(..usize::from(raw.cluster_id_len)).unwrap_or_default();
        let cluster_id = std::str::from_utf8(cluster_id).unwrap_or_default();
        let sound = raw.crc.get() == checksum(bytes)
            && shard < shards
            && shards <= MAX_SHARDS
            && !cluster_id.is_empty()
            && raw.broker.get() >= 0;
        if !sound {
            return Err(HelloError::Malformed);
        }
        Ok(Hello {
            cluster_id: cluster_id.to_owned(),
            broker: BrokerId(raw.broker.get()),
            directory_id: raw.directory_id,
            incarnation: raw.incarnation.get(),
            shard,
            shards,
            number: raw.number.get(),
        })
    }

    /// Whether the broker `own` of the cluster `cluster_id` may talk to the sender, which may be one that joins. Whether it is
    /// still the broker that it was is not judged here.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, cluster_id: &str, own: BrokerId) -> Result<(), Refusal> {
        if self.cluster_id != cluster_id {
            Err(Refusal::OtherCluster)
        } else if self.broker == own {
            Err(Refusal::SameId)
        } else {
            Ok(())
        }
    }
}

impl Welcome {
    /// Bytes of a welcome, in every version.
    pub const BYTES: usize = size_of::<RawWelcome>();

    /// The welcome's bytes.
    pub fn encode(&self) -> [u8; Welcome::BYTES] {
        let mut raw = RawWelcome {
            magic: WELCOME_MAGIC,
            version: VERSION.into(),
            verdict: self.verdict.err().map_or(0, |refusal| refusal as u8),
            reserved: 0,
            directory_id: self.directory_id,
            broker: self.broker.0.into(),
            crc: 0.into(),
        };
        raw.crc = checksum(raw.as_bytes()).into();
        zerocopy::transmute!(raw)
    }

    /// Reads what [`Welcome::encode`] wrote.
    ///
    /// # Errors
    /// Bytes that are no welcome, or one of another version.
    pub fn decode(bytes: &[u8; Welcome::BYTES]) -> Result<Welcome, HelloError> {
        let raw: &RawWelcome = zerocopy::transmute_ref!(bytes);
        if raw.magic != WELCOME_MAGIC {
            return Err(HelloError::Malformed);
        }
        if raw.version.get() != VERSION {
            return Err(HelloError::Version(raw.version.get()));
        }
        if raw.crc.get() != checksum(bytes) {
            return Err(HelloError::Malformed);
        }
        let verdict = match raw.verdict {
            0 => Ok(()),
            number => match Refusal::ALL.into_iter().find(|refusal| *refusal as u8 == number) {
                Some(refusal) => Err(refusal),
                None => return Err(HelloError::Malformed),
            },
        };
        Ok(Welcome { broker: BrokerId(raw.broker.get()), directory_id: raw.directory_id, verdict })
    }

    /// Whether this is the answer of the broker that was `meant`, which goes along, with the data directory that it is
    /// known to have, if one is known.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, meant: BrokerId, known: Option<[u8; 16]>) -> Result<(), HelloError> {
        // Who it is comes first: the refusal of the wrong one says nothing of the right one.
        if self.broker != meant {
            return Err(HelloError::OtherBroker { found: self.broker, meant });
        }
        self.verdict.map_err(HelloError::Refused)?;
        if known.is_some_and(|known| known != self.directory_id) {
            return Err(HelloError::OtherDirectory { broker: meant });
        }
        Ok(())
    }
}

/// CRC-32 (IEEE) of all but the last four bytes, where it stands.
fn checksum(bytes: &[u8]) -> u32 {
    crc32fast::hash(&bytes[..bytes.len() - size_of::<U32>()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello {
            cluster_id: "blue".to_owned(),
            broker: BrokerId(2),
            directory_id: [7; 16],
            incarnation: 0x0102,
            shard: 3,
            shards: 4,
            number: 0x0506,
        }
    }

    #[test]
    fn the_bytes_of_a_hello_never_change() {
        let bytes = hello().encode();
        let mut expected = b"RLPH\x03\0\x04\0".to_vec();
        expected.extend([7; 16]);
        expected.extend([2, 1, 0, 0, 0, 0, 0, 0]); // incarnation
        expected.extend([6, 5, 0, 0, 0, 0, 0, 0]); // number
        expected.extend([2, 0, 0, 0, 3, 0, 4, 0]); // broker, shard, shards
        expected.extend(b"blue");
        expected.extend([0; 60]);
        assert_eq!(bytes[..112], expected);
        // Computed with another implementation.
        assert_eq!(bytes[112..], HELLO_CRC);
        assert_eq!(Hello::decode(&bytes), Ok(hello()));
    }

    #[test]
    fn the_bytes_of_a_welcome_never_change() {
        let welcome = Welcome { broker: BrokerId(2), directory_id: [7; 16], verdict: Err(Refusal::OtherDirectory) };
        let bytes = welcome.encode();
        let mut expected = b"RLPW\x03\0\x05\0".to_vec();
        expected.extend([7; 16]);
        expected.extend([2, 0, 0, 0]);
        assert_eq!(bytes[..28], expected);
        assert_eq!(bytes[28..], WELCOME_CRC);
        for verdict in Refusal::ALL.into_iter().map(Err).chain([Ok(())]) {
            let welcome = Welcome { verdict, ..welcome };
            assert_eq!(Welcome::decode(&welcome.encode()), Ok(welcome));
        }
    }

    const HELLO_CRC: [u8; 4] = [0xd2, 0x3d, 0x66, 0xe9];
    const WELCOME_CRC: [u8; 4] = [0x1d, 0xb6, 0xfe, 0xa1];

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = hello().encode();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Hello::decode(&damaged).is_err(), "bit {bit}");
        }
        let bytes = Welcome { broker: BrokerId(1), directory_id: [1; 16], verdict: Ok(()) }.encode();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Welcome::decode(&damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn another_version_is_named_whatever_follows() {
        let mut bytes = [9; Hello::BYTES];
        bytes[..6].copy_from_slice(b"RLPH\x04\0");
        assert_eq!(Hello::decode(&bytes), Err(HelloError::Version(4)));
        let mut bytes = [9; Welcome::BYTES];
        bytes[..6].copy_from_slice(b"RLPW\x04\0");
        assert_eq!(Welcome::decode(&bytes), Err(HelloError::Version(4)));
    }

    #[test]
    fn a_hello_that_contradicts_itself_is_none() {
        for change in [
            |hello: &mut Hello| hello.shard = 4,
            |hello: &mut Hello| hello.shards = MAX_SHARDS + 1,
            |hello: &mut Hello| hello.cluster_id.clear(),
            |hello: &mut Hello| hello.broker = BrokerId(-1),
        ] {
            let mut hello = hello();
            change(&mut hello);
            assert_eq!(Hello::decode(&hello.encode()), Err(HelloError::Malformed), "{hello:?}");
        }
    }

    #[test]
    fn a_broker_talks_to_the_others_of_its_cluster_only() {
        assert_eq!(hello().check("blue", BrokerId(1)), Ok(()));
        assert_eq!(hello().check("red", BrokerId(1)), Err(Refusal::OtherCluster));
        assert_eq!(hello().check("blue", BrokerId(2)), Err(Refusal::SameId));
    }

    #[test]
    fn a_dialler_wants_the_broker_that_it_meant_with_the_disk_that_it_had() {
        let welcome = Welcome { broker: BrokerId(2), directory_id: [7; 16], verdict: Ok(()) };
        assert_eq!(welcome.check(BrokerId(2), None), Ok(()));
        assert_eq!(welcome.check(BrokerId(2), Some([7; 16])), Ok(()));
        let wiped = welcome.check(BrokerId(2), Some([8; 16]));
        assert_eq!(wiped, Err(HelloError::OtherDirectory { broker: BrokerId(2) }));
        let other = welcome.check(BrokerId(3), None);
        assert_eq!(other, Err(HelloError::OtherBroker { found: BrokerId(2), meant: BrokerId(3) }));
        let refused = Welcome { verdict: Err(Refusal::OtherCluster), ..welcome };
        assert_eq!(refused.check(BrokerId(2), None), Err(HelloError::Refused(Refusal::OtherCluster)));
    }
}
