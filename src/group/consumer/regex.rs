//! Regular expressions for topics (RE2's syntax, matched in linear time).

use std::collections::BTreeSet;

use regex::{Regex, RegexBuilder};

use super::records::Resolved;
use crate::group::{Error, Outside};
use crate::limits::{MAX_TOPIC_REGEX_BYTES, MAX_TOPIC_REGEX_PROGRAM_BYTES};

/// Understands a regular expression; it is to match whole names.
///
/// # Errors
/// Where it is none, or needs more memory than it may.
pub(super) fn compile(text: &str) -> Result<Regex, Error> {
    if text.len() > MAX_TOPIC_REGEX_BYTES {
        return Err(Error::InvalidRegex);
    }
    let build = |text: &str| RegexBuilder::new(text).size_limit(MAX_TOPIC_REGEX_PROGRAM_BYTES).build();
    // By itself first: a text that closes the parenthesis that is put around it is none.
    build(text).and_then(|_| build(&format!("^(?:{text})$"))).map_err(|_| Error::InvalidRegex)
}

/// What a regular expression stands for just now. One that was taken by another broker and is none here stands for no
/// topic.
pub(super) fn resolve(outside: Outside<'_>, text: &str) -> Resolved {
    let mut topics = BTreeSet::new();
    if let Ok(regex) = compile(text) {
        outside.topics.each_name(&mut |name| {
            if regex.is_match(name) {
                topics.insert(name.to_owned());
            }
        });
    }
    Resolved { topics, version: outside.topics.version() as i64, time_ms: outside.now.wall_ms }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_names_are_matched() {
        let regex = compile("a|b.*").unwrap();
        assert!(regex.is_match("a") && regex.is_match("bcd"));
        assert!(!regex.is_match("ab") && !regex.is_match("xa"));
    }

    #[test]
    fn what_is_none_or_too_large_is_refused() {
        for text in ["(", "a)(b", "a{1000}{1000}{1000}", "(?=a)", r"(a)\1", &"a".repeat(MAX_TOPIC_REGEX_BYTES + 1)] {
            assert_eq!(compile(text).unwrap_err(), Error::InvalidRegex, "{}", &text[..text.len().min(20)]);
        }
    }
}
