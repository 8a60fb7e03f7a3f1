//! The configuration file: a flat table of dotted keys in TOML.

use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::keys::{Key, Kind};
use super::{ConfigError, Origin, Settings};

/// Takes every value of the file at `path`, whose text is `text`. TOML nests dotted keys (`node.id = 1`) and sections
/// (`[node]`); both, and quoted names, spell the same flat key.
///
/// # Errors
/// Text that is no TOML, a key that does not exist or is there twice, a value of another type than the key's.
pub fn read(path: &Path, text: &str, settings: &mut Settings) -> Result<(), ConfigError> {
    let file = File { path, text };
    let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
        path: path.into(),
        line: file.line(error.span().map_or(0, |span| span.start)),
        message: error.message().into(),
    })?;
    let mut seen = Vec::new();
    file.table("", table.get_ref(), &mut seen, settings)
}

struct File<'a> {
    path: &'a Path,
    text: &'a str,
}

impl File<'_> {
    fn table(
        &self,
        prefix: &str,
        table: &DeTable<'_>,
        seen: &mut Vec<(&'static str, usize)>,
        settings: &mut Settings,
    ) -> Result<(), ConfigError> {
        for (name, value) in table {
            let full = format!("{prefix}{}", name.get_ref());
            let line = self.line(name.span().start);
            let origin = Origin::File(self.path.into(), line);
            let Some(key) = Key::named(&full) else {
                if let DeValue::Table(inner) = value.get_ref()
                    && !inner.is_empty()
                {
                    self.table(&format!("{full}."), inner, seen, settings)?;
                    continue;
                }
                return Err(ConfigError::UnknownKey { origin, nearest: Key::nearest(&full), key: full });
            };
            if let Some((_, other)) = seen.iter().find(|(name, _)| *name == key.name) {
                return Err(ConfigError::Twice { origin, key: key.name, other: *other });
            }
            seen.push((key.name, line));
            match spelt(key.kind, value.get_ref()) {
                Some(text) => settings.set(key, text, origin),
                None => {
                    return Err(ConfigError::Value {
                        origin,
                        key: key.name,
                        text: described(value.get_ref()),
                        expected: key.kind.expected(),
                    });
                }
            }
        }
        Ok(())
    }

    /// The number of the line at byte `position`, counted from 1.
    fn line(&self, position: usize) -> usize {
        1 + self.text.bytes().take(position).filter(|byte| *byte == b'\n').count()
    }
}

/// The value as a flag would spell it, where its type fits the key's.
fn spelt(kind: Kind, value: &DeValue<'_>) -> Option<String> {
    match (kind, value) {
        (Kind::Integer { .. } | Kind::Size { .. }, DeValue::Integer(number)) => {
            Some(i64::from_str_radix(number.as_str(), number.radix()).ok()?.to_string())
        }
        (Kind::Bool, DeValue::Boolean(value)) => Some(value.to_string()),
        (Kind::Integer { .. } | Kind::Bool, _) => None,
        (_, DeValue::String(text)) => Some(text.to_string()),
        _ => None,
    }
}

/// The value as an error shows it.
fn described(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the text \"{text}\""),
        DeValue::Integer(number) => format!("the number {number}"),
        DeValue::Float(number) => format!("the number {number}"),
        DeValue::Boolean(value) => format!("the truth value {value}"),
        DeValue::Datetime(time) => format!("the time {time}"),
        DeValue::Array(_) => "a list".into(),
        DeValue::Table(_) => "a table".into(),
    }
}
