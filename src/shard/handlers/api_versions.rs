//! ApiVersions: which requests the broker answers, in which versions.

use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};

use crate::protocol::ErrorCode;
use crate::protocol::versions::{APIS, Api};

/// The answer to a request of a supported version: the table of APIs. There are no features to announce, as the
/// broker gates nothing on a cluster-wide feature level.
pub fn handle(version: i16, request: &ApiVersionsRequest) -> ApiVersionsResponse {
    // From version 3 on a client says what it is; the words go to logs and metrics, hence the check (KIP-511).
    let named = is_software_word(&request.client_software_name) && is_software_word(&request.client_software_version);
    if version >= 3 && !named {
        return ApiVersionsResponse::default().with_error_code(ErrorCode::InvalidRequest.code());
    }
    ApiVersionsResponse::default().with_api_keys(APIS.iter().map(entry).collect())
}

/// The answer to a request of a version that is not supported. It is sent in version 0, the one that every client
/// reads, and names the versions of ApiVersions itself so that the client can ask again (KIP-511).
pub fn unsupported_version() -> ApiVersionsResponse {
    let own = APIS.iter().filter(|api| api.key == kafka_protocol::messages::ApiKey::ApiVersions);
    ApiVersionsResponse::default()
        .with_error_code(ErrorCode::UnsupportedVersion.code())
        .with_api_keys(own.map(entry).collect())
}

fn entry(api: &Api) -> ApiVersion {
    ApiVersion::default().with_api_key(api.key as i16).with_min_version(api.announced_min()).with_max_version(api.max)
}

/// Letters, digits, dots and dashes, beginning and ending with a letter or a digit.
fn is_software_word(word: &str) -> bool {
    let bytes = word.as_bytes();
    let ends = [bytes.first(), bytes.last()];
    ends.iter().all(|end| end.is_some_and(u8::is_ascii_alphanumeric))
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::protocol::StrBytes;

    fn request(name: &'static str, version: &'static str) -> ApiVersionsRequest {
        ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str(name))
            .with_client_software_version(StrBytes::from_static_str(version))
    }

    fn range(response: &ApiVersionsResponse, key: i16) -> Option<(i16, i16)> {
        let entry = response.api_keys.iter().find(|entry| entry.api_key == key)?;
        Some((entry.min_version, entry.max_version))
    }

    #[test]
    fn every_api_of_the_table_is_announced() {
        let response = handle(4, &request("apache-kafka-java", "4.1.0"));
        assert_eq!(response.error_code, 0);
        assert_eq!(response.api_keys.len(), APIS.len());
        assert_eq!(range(&response, 0), Some((0, 13)), "librdkafka wants Produce from version 0");
        assert_eq!(range(&response, 1), Some((4, 17)));
        assert_eq!(range(&response, 18), Some((0, 4)));
        assert_eq!(range(&response, 9), Some((1, 9)));
        assert_eq!(range(&response, 28), None, "no transactions");
    }

    #[test]
    fn a_client_must_say_what_it_is_from_version_3_on() {
        for (name, version) in [("", "1"), ("a", ""), ("-a", "1"), ("a", "1."), ("a b", "1"), ("ä", "1"), ("a", "1\n")]
        {
            let response = handle(3, &request(name, version));
            assert_eq!(response.error_code, ErrorCode::InvalidRequest.code(), "{name:?} {version:?}");
            assert!(response.api_keys.is_empty());
        }
        assert_eq!(handle(2, &request("", "")).error_code, 0);
        for (name, version) in [("librdkafka", "2.6.0-RC1"), ("x", "1"), ("a.b-c", "0.0.0")] {
            assert_eq!(handle(3, &request(name, version)).error_code, 0, "{name:?} {version:?}");
        }
    }

    #[test]
    fn another_version_is_told_the_versions_to_ask_in() {
        let response = unsupported_version();
        assert_eq!(response.error_code, ErrorCode::UnsupportedVersion.code());
        assert_eq!(response.api_keys.len(), 1);
        assert_eq!(range(&response, 18), Some((0, 4)));
    }
}
