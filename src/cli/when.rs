//! Points in time on the command line.

use std::time::UNIX_EPOCH;

/// Reads a time as `2026-01-31T12:00:00Z`, `2026-01-31 12:00:00` or as milliseconds since the Unix epoch, and gives those
/// milliseconds. A time without a zone is UTC's.
///
/// # Errors
/// Text that is none of them, or a time before 1970.
pub fn time_ms(text: &str) -> Result<i64, String> {
    const EXPECTED: &str = "expected a time as 2026-01-31T12:00:00Z, or milliseconds since 1970";
    if let Ok(millis) = text.parse::<i64>() {
        return if millis >= 0 { Ok(millis) } else { Err(EXPECTED.into()) };
    }
    let time = humantime::parse_rfc3339_weak(text).map_err(|_| EXPECTED.to_owned())?;
    let since = time.duration_since(UNIX_EPOCH).map_err(|_| EXPECTED.to_owned())?;
    i64::try_from(since.as_millis()).map_err(|_| EXPECTED.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_each_form() {
        assert_eq!(time_ms("2026-01-01T00:00:00Z"), Ok(1_767_225_600_000));
        assert_eq!(time_ms("2026-01-01 00:00:00.250"), Ok(1_767_225_600_250));
        assert_eq!(time_ms("1767225600000"), Ok(1_767_225_600_000));
        for text in ["yesterday", "2026-13-01T00:00:00Z", "-1", ""] {
            assert!(time_ms(text).is_err(), "{text}");
        }
    }
}
