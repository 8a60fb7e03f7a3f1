//! Why a command has not done what it was asked, and the exit code that says so.

use std::process::ExitCode;

use kafka_protocol::error::ResponseError;
use serde_json::{Value, json};

use crate::protocol::error::name_of;

/// Why a command has not done what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The broker says no.
    #[error("{what}: {}{}", name_of(*code), message.as_ref().map(|text| format!(": {text}")).unwrap_or_default())]
    Refused {
        /// What was refused.
        what: String,
        /// Kafka's code.
        code: i16,
        /// What the broker says beside it.
        message: Option<String>,
    },
    /// What was asked for makes no sense, which the arguments alone did not show.
    #[error("{0}")]
    Usage(String),
    /// No broker answers, or what answers is none.
    #[error("{0}")]
    Unreachable(String),
    /// Something else stands in the way: a file, a pipe, a name that nothing has.
    #[error("{0}")]
    Failed(String),
}

impl Failure {
    /// The exit code of a command that ends with it; [`EXIT_CODES`] says the same to people.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Refused { .. } | Failure::Failed(_) => 1,
            Failure::Usage(_) => 2,
            Failure::Unreachable(_) => 3,
        }
    }

    /// Kafka's code, where it was the broker that refused.
    pub fn code(&self) -> Option<ResponseError> {
        match self {
            Failure::Refused { code, .. } => ResponseError::try_from_code(*code),
            _ => None,
        }
    }

    /// Whether nothing was done, and another broker, or this one in a moment, will do it.
    pub fn passes(&self) -> bool {
        matches!(
            self.code(),
            Some(
                ResponseError::NotController
                    | ResponseError::NotCoordinator
                    | ResponseError::CoordinatorNotAvailable
                    | ResponseError::CoordinatorLoadInProgress
                    | ResponseError::NotLeaderOrFollower
                    | ResponseError::LeaderNotAvailable
                    | ResponseError::FencedLeaderEpoch
                    | ResponseError::UnknownLeaderEpoch
            )
        )
    }

    /// Whether trying again may help, though what was asked for may have been done: for what may be done twice.
    pub fn is_retriable(&self) -> bool {
        matches!(self, Failure::Unreachable(_)) || self.code().is_some_and(|code| code.is_retriable())
    }

    /// The failure for programs.
    pub fn json(&self) -> Value {
        match self {
            Failure::Refused { what, code, message } => {
                json!({ "what": what, "error": name_of(*code), "message": message })
            }
            Failure::Usage(text) => json!({ "what": null, "error": "usage", "message": text }),
            Failure::Unreachable(text) => json!({ "what": null, "error": "unreachable", "message": text }),
            Failure::Failed(text) => json!({ "what": null, "error": "failed", "message": text }),
        }
    }
}

/// What the help of every command that talks to a broker says about its end.
pub const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 the broker refused, and its error is shown by Kafka's name (or a file cannot be read or written);
2 the arguments make no sense; 3 no broker answers within the time. With several things to do, each that can be done is,
and the code is that of the first that cannot. With `--format json` errors are JSON too, one a line on standard error.";

/// Makes an error of a code in an answer; 0 is none.
///
/// # Errors
/// Any other code, as `what` refused.
pub fn check(code: i16, message: Option<&str>, what: impl FnOnce() -> String) -> Result<(), Failure> {
    if code == 0 {
        return Ok(());
    }
    let message = message.filter(|text| !text.is_empty()).map(str::to_owned);
    Err(Failure::Refused { what: what(), code, message })
}

/// The exit code of a command that could not do these things.
pub fn exit_code(failures: &[Failure]) -> ExitCode {
    failures.first().map_or(ExitCode::SUCCESS, |failure| failure.exit_code().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_has_kafka_s_name_and_the_broker_s_words() {
        let failure = check(36, Some("Topic 'a' already exists."), || "topic a".into()).unwrap_err();
        assert_eq!(failure.to_string(), "topic a: TOPIC_ALREADY_EXISTS: Topic 'a' already exists.");
        assert_eq!(failure.json()["error"], "TOPIC_ALREADY_EXISTS");
        assert_eq!(failure.exit_code(), 1);
        let failure = check(3, None, || "topic b".into()).unwrap_err();
        assert_eq!(failure.to_string(), "topic b: UNKNOWN_TOPIC_OR_PARTITION");
        assert!(!failure.passes(), "a topic that is not there is not waited for");
        assert!(check(41, None, String::new).unwrap_err().passes());
        assert!(Failure::Unreachable(String::new()).is_retriable() && !Failure::Usage(String::new()).is_retriable());
        assert_eq!(check(0, None, String::new), Ok(()));
        assert_eq!(Failure::Unreachable(String::new()).exit_code(), 3);
    }
}
