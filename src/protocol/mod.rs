//! The Kafka protocol: request frames to typed messages, typed messages to response frames. No semantics.
//!
//! A frame is walked by [`guard`] before the generated decoders of the crate `kafka-protocol` see it: those reserve
//! memory for counts as they stand on the wire.

pub mod error;
pub mod fetch;
pub mod guard;
pub mod request;
pub mod response;
pub mod schema;
mod told;
pub mod versions;

pub use error::ErrorCode;
pub use fetch::{FetchResponse, FetchedPartition, FetchedTopic};
pub use kafka_protocol::messages::ApiKey;
pub use request::{FrameError, Request, RequestBody};
pub use response::{EncodeError, ResponseBody};
pub use versions::{APIS, Api};
