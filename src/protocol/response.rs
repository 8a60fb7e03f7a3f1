//! Typed messages to response frames.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{self, ApiKey};
use kafka_protocol::protocol::{Decodable, Encodable};
use thiserror::Error;

use super::versions::for_each_api;

/// A response cannot be put into the version that the client asked for: a bug of the handler, which set a field that
/// the version lacks or a string that is too long for it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("cannot encode a {api:?} response of version {version}: {detail}")]
pub struct EncodeError {
    /// The API.
    pub api: ApiKey,
    /// The version.
    pub version: i16,
    /// What does not fit.
    pub detail: String,
}

macro_rules! response_body {
    ($($name:ident: $request:ident, $response:ident, $min:literal..=$max:literal, $schema:ident;)*) => {
        /// The body of a response.
        #[derive(Debug, Clone, PartialEq)]
        #[allow(missing_docs, reason = "the variants are Kafka's messages")]
        pub enum ResponseBody {
            $($name(messages::$response),)*
        }

        impl ResponseBody {
            /// The API of the response.
            pub fn api(&self) -> ApiKey {
                match self {
                    $(ResponseBody::$name(_) => ApiKey::$name,)*
                }
            }

            /// Reads the body of an answer to an API in the table, from another broker.
            ///
            /// # Errors
            /// What the decoder says.
            pub fn decode(api: ApiKey, version: i16, buf: &mut Bytes) -> Result<ResponseBody, String> {
                match api {
                    $(ApiKey::$name => match messages::$response::decode(buf, version) {
                        Ok(body) => Ok(ResponseBody::$name(body)),
                        Err(error) => Err(format!("{error:#}")),
                    },)*
                    _ => unreachable!("{api:?} is not in the table of APIs"),
                }
            }

            /// Writes the body.
            ///
            /// # Errors
            /// What the encoder says, where the version cannot hold it.
            pub fn encode(&self, buf: &mut BytesMut, version: i16) -> Result<(), String> {
                match self {
                    $(ResponseBody::$name(body) => body.encode(buf, version).map_err(|e| format!("{e:#}")),)*
                }
            }
        }

        $(impl From<messages::$response> for ResponseBody {
            fn from(body: messages::$response) -> ResponseBody {
                ResponseBody::$name(body)
            }
        })*
    };
}
for_each_api!(response_body);

impl ResponseBody {
    /// Tells the client how long it must wait with its next request, in milliseconds, where answers of this kind have a
    /// place for that.
    pub fn set_throttle_ms(&mut self, throttle_ms: i32) {
        macro_rules! set {
            ($($name:ident)*) => {
                match self {
                    $(ResponseBody::$name(body) => body.throttle_time_ms = throttle_ms,)*
                    ResponseBody::DescribeQuorum(_) => {}
                }
            };
        }
        set! {
            Produce Fetch ListOffsets Metadata OffsetCommit OffsetFetch FindCoordinator JoinGroup Heartbeat
            LeaveGroup SyncGroup DescribeGroups ListGroups ApiVersions CreateTopics DeleteTopics DeleteRecords
            InitProducerId OffsetForLeaderEpoch DescribeConfigs AlterConfigs DescribeLogDirs CreatePartitions
            DeleteGroups ElectLeaders IncrementalAlterConfigs OffsetDelete DescribeClientQuotas
            AlterClientQuotas DescribeCluster DescribeProducers ConsumerGroupHeartbeat ConsumerGroupDescribe
            ListConfigResources DescribeTopicPartitions AlterPartitionReassignments ListPartitionReassignments
            DescribeAcls CreateAcls DeleteAcls UnregisterBroker AddRaftVoter RemoveRaftVoter
        }
    }
}

/// A response frame, length prefix included. `version` is that of the request.
pub fn encode(correlation_id: i32, version: i16, body: &ResponseBody) -> Result<Bytes, EncodeError> {
    let api = body.api();
    let mut buf = BytesMut::with_capacity(256);
    buf.put_i32(0);
    buf.put_i32(correlation_id);
    // Header version 1 ends in tagged fields, of which there are none.
    if api.response_header_version(version) >= 1 {
        buf.put_u8(0);
    }
    body.encode(&mut buf, version).map_err(|detail| EncodeError { api, version, detail })?;
    let length = i32::try_from(buf.len() - 4).map_err(|_| EncodeError {
        api,
        version,
        detail: format!("{} bytes", buf.len()),
    })?;
    buf[..4].copy_from_slice(&length.to_be_bytes());
    Ok(buf.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::versions::APIS;
    use kafka_protocol::messages::{ResponseHeader, ResponseKind};
    use kafka_protocol::protocol::StrBytes;

    fn parse(api: ApiKey, version: i16, frame: Bytes) -> (i32, ResponseKind) {
        let (length, mut rest) = (i32::from_be_bytes(frame[..4].try_into().unwrap()), frame.slice(4..));
        assert_eq!(length as usize, rest.len());
        let header = ResponseHeader::decode(&mut rest, api.response_header_version(version)).unwrap();
        let body = ResponseKind::decode(api, &mut rest, version).unwrap();
        assert!(rest.is_empty());
        (header.correlation_id, body)
    }

    macro_rules! empty_bodies {
        ($($name:ident: $request:ident, $response:ident, $min:literal..=$max:literal, $schema:ident;)*) => {
            fn empty_bodies() -> Vec<ResponseBody> {
                vec![$(messages::$response::default().into(),)*]
            }
        };
    }
    for_each_api!(empty_bodies);

    #[test]
    fn a_client_reads_every_version() {
        for (api, body) in APIS.iter().zip(empty_bodies()) {
            assert_eq!(body.api(), api.key);
            for version in api.min..=api.max {
                let frame = encode(-7, version, &body).unwrap();
                let (correlation_id, _) = parse(api.key, version, frame);
                assert_eq!(correlation_id, -7, "{:?} version {version}", api.key);
            }
        }
    }

    #[test]
    fn a_client_that_must_wait_can_be_told_so_in_every_version() {
        for (api, mut body) in APIS.iter().zip(empty_bodies()) {
            body.set_throttle_ms(0x0102_0304);
            for version in api.min..=api.max {
                let frame = encode(1, version, &body).unwrap_or_else(|error| panic!("{error}"));
                let told = frame.windows(4).any(|bytes| bytes == [1, 2, 3, 4]);
                assert!(told || version < 3 || api.key == ApiKey::DescribeQuorum, "{:?} version {version}", api.key);
            }
        }
    }

    #[test]
    fn the_header_of_api_versions_has_no_tagged_fields() {
        // Whatever the version: a client reads it before it knows which versions the broker speaks.
        let body = messages::ApiVersionsResponse::default().into();
        let frame = encode(9, 4, &body).unwrap();
        assert_eq!(frame[..10], [0, 0, 0, frame.len() as u8 - 4, 0, 0, 0, 9, 0, 0]);
        assert_eq!(frame[10], 1, "an empty compact array follows the error code at once");
    }

    #[test]
    fn a_field_that_the_version_lacks_is_an_error() {
        let name = StrBytes::from_string("a".repeat(40_000));
        let topic = messages::delete_topics_response::DeletableTopicResult::default().with_name(Some(name.into()));
        let body = messages::DeleteTopicsResponse::default().with_responses(vec![topic]).into();
        let error = encode(1, 1, &body).unwrap_err();
        assert_eq!((error.api, error.version), (ApiKey::DeleteTopics, 1));
        assert!(encode(1, 4, &body).is_ok(), "compact strings have room");
    }
}
