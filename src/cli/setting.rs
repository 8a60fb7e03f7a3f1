//! `NAME=VALUE` arguments.

/// A name and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    pub name: String,
    pub value: String,
}

/// Reads `NAME=VALUE`; the value may be empty and may have further `=`.
///
/// # Errors
/// Text without a name or without `=`.
pub fn setting(text: &str) -> Result<Setting, String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok(Setting { name: name.into(), value: value.into() }),
        _ => Err("expected NAME=VALUE".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_equals_sign_counts() {
        let of = |text| setting(text).map(|setting| (setting.name, setting.value));
        assert_eq!(of("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(of("a="), Ok(("a".into(), String::new())));
        assert!(of("a").is_err() && of("=b").is_err());
    }
}
