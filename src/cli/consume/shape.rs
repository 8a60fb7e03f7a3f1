//! What is printed of a record.

use std::io::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};

use super::fetcher::Shown;

/// What is printed of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Its value.
    Value,
    /// Key, a tab, value.
    KeyValue,
    /// A JSON object.
    Json,
    /// Parts of it in a text.
    Template(Vec<Part>),
}

/// A part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Text as it is.
    Text(String),
    Topic,
    Partition,
    Offset,
    /// Milliseconds since the Unix epoch.
    Timestamp,
    /// The same for people, in UTC.
    Time,
    Key,
    Value,
    /// As `name=value,name=value`.
    Headers,
}

impl Shape {
    /// Reads a format's name, or a template.
    ///
    /// # Errors
    /// Text that is neither: no name, and nothing of a record in it.
    pub(super) fn parse(text: &str) -> Result<Shape, String> {
        match text {
            "value" => Ok(Shape::Value),
            "key-value" => Ok(Shape::KeyValue),
            "json" => Ok(Shape::Json),
            template => template_of(template),
        }
    }

    /// Prints a record and a line end.
    ///
    /// # Errors
    /// Output that cannot be written.
    pub(super) fn print(&self, topic: &str, record: &Shown<'_>, out: &mut impl Write) -> io::Result<()> {
        match self {
            Shape::Value => out.write_all(record.value.unwrap_or_default())?,
            Shape::KeyValue => {
                out.write_all(record.key.unwrap_or_default())?;
                out.write_all(b"\t")?;
                out.write_all(record.value.unwrap_or_default())?;
            }
            Shape::Json => write!(out, "{}", object(topic, record))?,
            Shape::Template(parts) => parts.iter().try_for_each(|part| part.print(topic, record, out))?,
        }
        out.write_all(b"\n")
    }
}

fn template_of(text: &str) -> Result<Shape, String> {
    const EXPECTED: &str = "expected value, key-value, json, or a template such as '{partition} {offset} {value}'";
    let text = text.replace("\\t", "\t").replace("\\n", "\n");
    let mut parts = Vec::new();
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once('{') {
        let (name, behind) = after.split_once('}').ok_or(EXPECTED)?;
        let part = match name {
            "topic" => Part::Topic,
            "partition" => Part::Partition,
            "offset" => Part::Offset,
            "timestamp" => Part::Timestamp,
            "time" => Part::Time,
            "key" => Part::Key,
            "value" => Part::Value,
            "headers" => Part::Headers,
            other => return Err(format!("a record has no {{{other}}}; {EXPECTED}")),
        };
        parts.extend([Part::Text(before.to_owned()), part]);
        rest = behind;
    }
    if parts.is_empty() {
        return Err(EXPECTED.into());
    }
    parts.push(Part::Text(rest.to_owned()));
    Ok(Shape::Template(parts))
}

impl Part {
    fn print(&self, topic: &str, record: &Shown<'_>, out: &mut impl Write) -> io::Result<()> {
        match self {
            Part::Text(text) => write!(out, "{text}"),
            Part::Topic => write!(out, "{topic}"),
            Part::Partition => write!(out, "{}", record.partition),
            Part::Offset => write!(out, "{}", record.offset),
            Part::Timestamp => write!(out, "{}", record.timestamp),
            Part::Time => write!(out, "{}", time(record.timestamp)),
            Part::Key => out.write_all(record.key.unwrap_or_default()),
            Part::Value => out.write_all(record.value.unwrap_or_default()),
            Part::Headers => {
                for (at, (name, value)) in record.headers.iter().enumerate() {
                    out.write_all(if at == 0 { b"" } else { b"," })?;
                    out.write_all(name)?;
                    out.write_all(b"=")?;
                    out.write_all(value.unwrap_or_default())?;
                }
                Ok(())
            }
        }
    }
}

/// A time for people. Producers may send any number: what is no time is shown as it is.
fn time(millis: i64) -> String {
    // The last moment of the year 9999.
    const LAST: u64 = 253_402_300_799_999;
    match u64::try_from(millis) {
        Ok(millis) if millis <= LAST => {
            humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(millis)).to_string()
        }
        _ => millis.to_string(),
    }
}

fn object(topic: &str, record: &Shown<'_>) -> Value {
    let headers: Vec<Value> = record
        .headers
        .iter()
        .map(|(name, value)| json!({ "name": String::from_utf8_lossy(name), "value": bytes(*value) }))
        .collect();
    json!({
        "topic": topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
        "key": bytes(record.key),
        "value": bytes(record.value),
        "headers": headers,
    })
}

fn bytes(bytes: Option<&[u8]>) -> Value {
    let Some(bytes) = bytes else { return Value::Null };
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => json!({ "hex": bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(format: &str, value: Option<&[u8]>) -> String {
        let headers = vec![(&b"a"[..], Some(&b"1"[..])), (&b"a"[..], None)];
        let record = Shown { partition: 2, offset: 7, timestamp: 1_767_225_600_250, key: Some(b"k"), value, headers };
        let mut out = Vec::new();
        Shape::parse(format).unwrap().print("t", &record, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_format_prints_a_line() {
        assert_eq!(printed("value", Some(b"v")), "v\n");
        assert_eq!(printed("value", None), "\n");
        assert_eq!(printed("key-value", Some(b"v")), "k\tv\n");
        let template = "{topic}-{partition}@{offset} {time} {timestamp}\\t{key}={value} [{headers}]";
        let expected = "t-2@7 2026-01-01T00:00:00.250Z 1767225600250\tk=v [a=1,a=]\n";
        assert_eq!(printed(template, Some(b"v")), expected);
        let json: Value = serde_json::from_str(&printed("json", Some(&[0, 255]))).unwrap();
        assert_eq!(
            (&json["value"], &json["key"], &json["offset"]),
            (&json!({ "hex": "00ff" }), &json!("k"), &json!(7))
        );
        assert_eq!(json["headers"][1], json!({ "name": "a", "value": null }));
        assert_eq!(time(-1), "-1");
        assert_eq!(time(i64::MAX), i64::MAX.to_string());
    }

    #[test]
    fn what_is_no_format_is_refused() {
        for text in ["xml", "{nothing}", "{value", ""] {
            assert!(Shape::parse(text).is_err(), "{text}");
        }
    }
}
