//! Request frames to typed messages.

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::{self, ApiKey};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use thiserror::Error;

use super::guard::{self, FIXED_HEADER};
use super::versions::{Api, for_each_api};

/// A request as a client sent it. Strings and records in the body are slices of the frame.
#[derive(Debug, Clone)]
pub struct Request {
    /// The version of the request, one that [`Api`] supports; the response has the same.
    pub version: i16,
    /// The client's number for the request; the response repeats it.
    pub correlation_id: i32,
    /// What the client calls itself (Kafka's `client.id`).
    pub client_id: Option<StrBytes>,
    /// What it asks for.
    pub body: RequestBody,
}

/// Why a frame is not a request that the broker answers. But for an ApiVersions request of another version the
/// connection is closed, as Kafka does: the answer's form is not known.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The frame ends before the correlation id.
    #[error("a frame of {length} bytes is too short for a request header")]
    Truncated {
        /// Its length in bytes.
        length: usize,
    },
    /// The broker does not answer this API.
    #[error("API key {api_key} (version {version}) is not supported")]
    UnsupportedApi {
        /// The key.
        api_key: i16,
        /// The version.
        version: i16,
        /// The client's number for the request.
        correlation_id: i32,
    },
    /// The broker does not answer this version of the API.
    #[error("version {version} of {api:?} is not supported")]
    UnsupportedVersion {
        /// The API. When it is ApiVersions, the answer is the one of
        /// [`crate::shard::handlers::api_versions::unsupported_version`].
        api: ApiKey,
        /// The version.
        version: i16,
        /// The client's number for the request.
        correlation_id: i32,
    },
    /// The frame is not what its API and version call for.
    #[error("malformed {api:?} request (version {version}): {detail}")]
    Malformed {
        /// The API.
        api: ApiKey,
        /// The version.
        version: i16,
        /// What is wrong with it.
        detail: String,
    },
}

macro_rules! request_body {
    ($($name:ident: $request:ident, $response:ident, $min:literal..=$max:literal, $schema:ident;)*) => {
        /// The body of a request.
        #[derive(Debug, Clone, PartialEq)]
        #[allow(missing_docs, reason = "the variants are Kafka's messages")]
        pub enum RequestBody {
            $($name(messages::$request),)*
        }

        impl RequestBody {
            /// The API of the request.
            pub fn api(&self) -> ApiKey {
                match self {
                    $(RequestBody::$name(_) => ApiKey::$name,)*
                }
            }

            /// Reads the body of a request of an API in the table; from a client only what the guard let pass.
            ///
            /// # Errors
            /// What the decoder says.
            pub fn decode(api: ApiKey, version: i16, buf: &mut Bytes) -> Result<RequestBody, String> {
                match api {
                    $(ApiKey::$name => match messages::$request::decode(buf, version) {
                        Ok(body) => Ok(RequestBody::$name(body)),
                        Err(error) => Err(format!("{error:#}")),
                    },)*
                    _ => unreachable!("{api:?} is not in the table of APIs"),
                }
            }

            /// Writes the body, for another broker.
            ///
            /// # Errors
            /// What the encoder says, where the version cannot hold it.
            pub fn encode(&self, buf: &mut BytesMut, version: i16) -> Result<(), String> {
                match self {
                    $(RequestBody::$name(body) => body.encode(buf, version).map_err(|e| format!("{e:#}")),)*
                }
            }
        }
    };
}
for_each_api!(request_body);

/// Takes a request frame (without its length prefix) apart. Bytes behind the body are ignored, as Kafka does.
pub fn decode(frame: Bytes) -> Result<Request, FrameError> {
    if frame.len() < FIXED_HEADER {
        return Err(FrameError::Truncated { length: frame.len() });
    }
    let mut buf = frame;
    let mut fixed = &buf[..FIXED_HEADER];
    let (api_key, version, correlation_id) = (fixed.get_i16(), fixed.get_i16(), fixed.get_i32());

    let Some(api) = Api::by_key(api_key) else {
        return Err(FrameError::UnsupportedApi { api_key, version, correlation_id });
    };
    if !api.supports(version) {
        return Err(FrameError::UnsupportedVersion { api: api.key, version, correlation_id });
    }
    let malformed = |detail: String| FrameError::Malformed { api: api.key, version, detail };

    guard::check(&buf, api, version).map_err(|error| malformed(error.to_string()))?;
    let header_version = api.key.request_header_version(version);
    let header = messages::RequestHeader::decode(&mut buf, header_version).map_err(|e| malformed(format!("{e:#}")))?;
    let body = RequestBody::decode(api.key, version, &mut buf).map_err(malformed)?;
    Ok(Request { version, correlation_id, client_id: header.client_id, body })
}
