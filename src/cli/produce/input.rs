//! Lines, and the keys and values in them.

use std::io::BufRead;
use std::sync::mpsc::SyncSender;

use bytes::Bytes;

use super::super::client::Failure;

/// A record that is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Input {
    /// The line that it was, counted from 1.
    pub(super) line: u64,
    pub(super) key: Option<Bytes>,
    pub(super) value: Option<Bytes>,
    /// Bytes of the line.
    pub(super) bytes_read: u64,
}

impl Input {
    /// Bytes of key and value.
    pub(super) fn bytes(&self) -> usize {
        self.key.as_ref().map_or(0, Bytes::len) + self.value.as_ref().map_or(0, Bytes::len)
    }
}

/// Reads a separator: `\t` stands for a tab.
///
/// # Errors
/// None at all.
pub(super) fn separator(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("expected some text".into()) } else { Ok(text.replace("\\t", "\t")) }
}

/// What lines are made of.
#[derive(Debug)]
pub(super) struct Parser {
    separator: Option<String>,
    null: Option<String>,
}

impl Parser {
    pub(super) fn new(separator: Option<String>, null: Option<String>) -> Parser {
        Parser { separator, null }
    }

    /// The record of a line.
    ///
    /// # Errors
    /// A line without the separator that it should have.
    fn parse(&self, line: u64, text: &[u8], bytes_read: u64) -> Result<Input, Failure> {
        let (key, value) = match &self.separator {
            None => (None, text),
            Some(separator) => {
                let at = text.windows(separator.len()).position(|window| window == separator.as_bytes());
                let at =
                    at.ok_or_else(|| Failure::Failed(format!("line {line}: it has no {separator:?} behind a key")))?;
                (Some(Bytes::copy_from_slice(&text[..at])), &text[at + separator.len()..])
            }
        };
        let null = self.null.as_ref().is_some_and(|null| null.as_bytes() == value);
        Ok(Input { line, key, value: (!null).then(|| Bytes::copy_from_slice(value)), bytes_read })
    }
}

/// Sends the records of all lines, until the last one, an error of the reader, or nobody that takes them.
pub(super) fn read(mut from: impl BufRead, parser: &Parser, to: &SyncSender<Result<Input, Failure>>) {
    let mut text = Vec::new();
    for line in 1.. {
        text.clear();
        let parsed = match from.read_until(b'\n', &mut text) {
            Ok(0) => return,
            Ok(read) => {
                let content = text.strip_suffix(b"\n").unwrap_or(&text);
                parser.parse(line, content, read as u64)
            }
            Err(error) => {
                // Whoever receives has gone only where nothing can be said to it any more.
                let _ = to.send(Err(Failure::Failed(format!("line {line} cannot be read: {error}"))));
                return;
            }
        };
        if to.send(parsed).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    #[test]
    fn lines_become_keys_and_values() {
        let parser = Parser::new(Some(separator("\\t").unwrap()), Some("NULL".into()));
        let (to, from) = sync_channel(9);
        read(&b"a\t1\nb\tNULL\nnone\n\t2\tx"[..], &parser, &to);
        drop(to);
        let read: Vec<_> = from.iter().collect();
        let bytes = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
        assert_eq!(read[0], Ok(Input { line: 1, key: bytes("a"), value: bytes("1"), bytes_read: 4 }));
        assert_eq!(read[1], Ok(Input { line: 2, key: bytes("b"), value: None, bytes_read: 7 }));
        assert!(matches!(&read[2], Err(Failure::Failed(why)) if why.contains("line 3")), "{read:?}");
        assert_eq!(read[3], Ok(Input { line: 4, key: bytes(""), value: bytes("2\tx"), bytes_read: 4 }));
        assert_eq!(read.len(), 4);
        let parser = Parser::new(None, None);
        assert_eq!(parser.parse(1, b"", 1).unwrap().value, bytes(""));
    }
}
