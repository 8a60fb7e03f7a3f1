//! Which names a topic may have.

/// Longest name, in bytes.
const MAX_LEN: usize = 249;

/// Checks a topic's name.
///
/// # Errors
/// What is wrong with it, as a sentence for the client.
pub fn validate(name: &str) -> Result<(), String> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let reason = if name.is_empty() {
        "it is empty".to_owned()
    } else if name == "." || name == ".." {
        format!("'{name}' is not allowed")
    } else if name.len() > MAX_LEN {
        format!("it has {} bytes, at most {MAX_LEN} are allowed", name.len())
    } else if !name.bytes().all(legal) {
        format!("'{}' has characters other than ASCII letters and digits, '.', '_' and '-'", name.escape_debug())
    } else {
        return Ok(());
    };
    Err(format!("Topic name is invalid: {reason}"))
}

/// Whether another name could differ from this one in nothing but '.' and '_'.
pub fn can_collide(name: &str) -> bool {
    name.contains(['.', '_'])
}

/// The name with '.' and '_' made equal: metric names cannot tell the two apart.
pub fn folded(name: &str) -> String {
    name.replace('.', "_")
}

/// Whether the topic is the broker's own rather than a user's.
pub fn is_internal(name: &str) -> bool {
    matches!(name, "__consumer_offsets" | "__transaction_state" | "__share_group_state")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legal_names() {
        for name in ["a", "A-9", "a.b_c", "...", "__consumer_offsets", &"x".repeat(249)] {
            assert_eq!(validate(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn illegal_names_say_why() {
        for (name, why) in [
            ("", "empty"),
            (".", "not allowed"),
            ("..", "not allowed"),
            (&"x".repeat(250), "250 bytes"),
            ("a b", "other than ASCII"),
            ("a/b", "other than ASCII"),
            ("tür", "other than ASCII"),
            ("a\n", "a\\n"),
        ] {
            let message = validate(name).unwrap_err();
            assert!(message.starts_with("Topic name is invalid: ") && message.contains(why), "{name}: {message}");
        }
    }

    #[test]
    fn only_dots_and_underscores_collide() {
        assert_eq!(folded("a.b_c"), folded("a_b.c"));
        assert_ne!(folded("a-b"), folded("a_b"));
        assert!(can_collide("a.b") && can_collide("a_b") && !can_collide("a-b"));
    }
}
