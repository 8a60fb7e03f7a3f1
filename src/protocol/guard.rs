//! Checks a request frame before it is decoded.
//!
//! The decoders of `kafka-protocol` reserve memory for as many elements as a count on the wire declares, so that one
//! frame of a few bytes can abort the process. The guard walks the frame by its schema without allocating anything,
//! and lets it pass only when every count and length in it is backed by bytes that are there.

use thiserror::Error;

use super::schema::{Field, Kind};
use super::versions::Api;
use crate::limits::MAX_REQUEST_ELEMENTS;

/// Bytes of API key, version and correlation id, the same in every header version.
pub(super) const FIXED_HEADER: usize = 8;

/// Largest string, in bytes; Kafka's bound, also where the length's encoding could hold more.
const MAX_STRING: usize = i16::MAX as usize;

/// What is wrong with a frame, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{field} at byte {at}: {problem}")]
pub struct Violation {
    /// The field, by Kafka's name.
    pub field: &'static str,
    /// The byte of the frame behind what was read last.
    pub at: usize,
    /// What is wrong.
    pub problem: Problem,
}

/// What can be wrong with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Problem {
    /// The frame ends within a field, or a length goes beyond its end.
    #[error("{needed} bytes needed, {left} left")]
    Short {
        /// Bytes that the field needs.
        needed: usize,
        /// Bytes that there are.
        left: usize,
    },
    /// More elements declared than the bytes left can hold.
    #[error("{count} elements declared, {left} bytes left")]
    Count {
        /// Elements.
        count: usize,
        /// Bytes that there are.
        left: usize,
    },
    /// More elements in the whole request than [`MAX_REQUEST_ELEMENTS`].
    #[error("more than {MAX_REQUEST_ELEMENTS} elements in one request")]
    TooMany,
    /// A length or count below zero that does not mean null.
    #[error("a length of {0}")]
    Negative(i64),
    /// Null where the version allows none.
    #[error("null is not allowed")]
    Null,
    /// A structure that may be null is neither that nor marked as present.
    #[error("a structure marked with {0}")]
    Marker(i8),
    /// A string of more than 32,767 bytes.
    #[error("a string of {0} bytes")]
    LongString(usize),
    /// A variable-length integer of more than 32 bits.
    #[error("a varint of more than 32 bits")]
    Varint,
    /// A tagged field that is not as long as it declares.
    #[error("a tagged field that leaves {0} of its bytes")]
    TagLength(usize),
}

/// Checks a whole frame (without its length prefix) of a supported version of `api`. When it passes, decoding it
/// allocates memory in proportion to the frame's length and to at most [`MAX_REQUEST_ELEMENTS`] elements.
pub fn check(frame: &[u8], api: &Api, version: i16) -> Result<(), Violation> {
    let mut walker =
        Walker { frame, at: 0, version, flexible: version >= api.schema.flexible, elements: 0, field: "header" };
    walker.skip(FIXED_HEADER)?;
    walker.field = "client_id";
    walker.legacy_string(true)?;
    if api.key.request_header_version(version) >= 2 {
        walker.tagged_fields(&[])?;
    }
    // Bytes behind the body are no violation: Kafka ignores them, and librdkafka leaves three of them behind a
    // request for the metadata of all topics.
    walker.structure(api.schema.fields)
}

struct Walker<'a> {
    frame: &'a [u8],
    at: usize,
    version: i16,
    flexible: bool,
    /// Elements of arrays and tagged fields so far.
    elements: usize,
    /// The field being walked, for the message.
    field: &'static str,
}

impl Walker<'_> {
    fn left(&self) -> usize {
        self.frame.len() - self.at
    }

    #[cold]
    fn fail(&self, problem: Problem) -> Violation {
        Violation { field: self.field, at: self.at, problem }
    }

    fn skip(&mut self, bytes: usize) -> Result<(), Violation> {
        if bytes > self.left() {
            return Err(self.fail(Problem::Short { needed: bytes, left: self.left() }));
        }
        self.at += bytes;
        Ok(())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Violation> {
        match self.frame[self.at..].first_chunk::<N>() {
            Some(bytes) => {
                self.at += N;
                Ok(*bytes)
            }
            None => Err(self.fail(Problem::Short { needed: N, left: self.left() })),
        }
    }

    fn uvarint(&mut self) -> Result<u32, Violation> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21] {
            let [byte] = self.take::<1>()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        let [last] = self.take::<1>()?;
        if last > 0x0f {
            return Err(self.fail(Problem::Varint));
        }
        Ok(value | u32::from(last) << 28)
    }

    /// A length or count in the form of flexible versions; `None` is null.
    fn compact_length(&mut self, nullable: bool) -> Result<Option<usize>, Violation> {
        match self.uvarint()? {
            0 if nullable => Ok(None),
            0 => Err(self.fail(Problem::Null)),
            n => Ok(Some((n - 1) as usize)),
        }
    }

    /// A length or count as read from the fixed-width field of older versions; `None` is null.
    fn legacy_length(&self, length: i64, nullable: bool) -> Result<Option<usize>, Violation> {
        match usize::try_from(length) {
            Ok(length) => Ok(Some(length)),
            Err(_) if length == -1 && nullable => Ok(None),
            Err(_) if length == -1 => Err(self.fail(Problem::Null)),
            Err(_) => Err(self.fail(Problem::Negative(length))),
        }
    }

    fn long_length(&mut self, nullable: bool) -> Result<Option<usize>, Violation> {
        if self.flexible {
            return self.compact_length(nullable);
        }
        let length = i32::from_be_bytes(self.take()?);
        self.legacy_length(length.into(), nullable)
    }

    fn legacy_string(&mut self, nullable: bool) -> Result<(), Violation> {
        let length = i16::from_be_bytes(self.take()?);
        match self.legacy_length(length.into(), nullable)? {
            Some(length) => self.skip(length),
            None => Ok(()),
        }
    }

    fn string(&mut self, nullable: bool) -> Result<(), Violation> {
        if !self.flexible {
            return self.legacy_string(nullable);
        }
        match self.compact_length(nullable)? {
            Some(length) if length > MAX_STRING => Err(self.fail(Problem::LongString(length))),
            Some(length) => self.skip(length),
            None => Ok(()),
        }
    }

    fn count(&mut self, count: usize, least_size: usize) -> Result<(), Violation> {
        if count.checked_mul(least_size).is_none_or(|bytes| bytes > self.left()) {
            return Err(self.fail(Problem::Count { count, left: self.left() }));
        }
        // The frame's length bounds `count`, so this cannot overflow.
        self.elements += count;
        if self.elements > MAX_REQUEST_ELEMENTS {
            return Err(self.fail(Problem::TooMany));
        }
        Ok(())
    }

    fn value(&mut self, kind: Kind, nullable: bool) -> Result<(), Violation> {
        match kind {
            Kind::Fixed(size) => self.skip(size),
            Kind::String => self.string(nullable),
            Kind::Bytes => match self.long_length(nullable)? {
                Some(length) => self.skip(length),
                None => Ok(()),
            },
            Kind::Struct(fields) if nullable => match i8::from_be_bytes(self.take()?) {
                -1 => Ok(()),
                1 => self.structure(fields),
                other => Err(self.fail(Problem::Marker(other))),
            },
            Kind::Struct(fields) => self.structure(fields),
            Kind::Array(element) => {
                let Some(count) = self.long_length(nullable)? else {
                    return Ok(());
                };
                self.count(count, least_size(*element, self.version, self.flexible))?;
                if let Kind::Fixed(size) = *element {
                    return self.skip(count * size);
                }
                for _ in 0..count {
                    self.value(*element, false)?;
                }
                Ok(())
            }
        }
    }

    fn structure(&mut self, fields: &'static [Field]) -> Result<(), Violation> {
        for field in fields {
            if field.tag.is_none() && field.is_in(self.version) {
                self.field = field.name;
                self.value(field.kind, self.version >= field.nullable)?;
            }
        }
        if self.flexible {
            self.tagged_fields(fields)?;
        }
        Ok(())
    }

    fn tagged_fields(&mut self, fields: &'static [Field]) -> Result<(), Violation> {
        self.field = "tagged fields";
        let count = self.uvarint()? as usize;
        // A tag and a length are at least a byte each.
        self.count(count, 2)?;
        for _ in 0..count {
            let tag = self.uvarint()?;
            let length = self.uvarint()? as usize;
            let start = self.at;
            if length > self.left() {
                return Err(self.fail(Problem::Short { needed: length, left: self.left() }));
            }
            let known = fields.iter().find(|field| field.tag == Some(tag) && field.is_in(self.version));
            if let Some(field) = known {
                self.field = field.name;
                self.value(field.kind, self.version >= field.nullable)?;
                // The decoder goes by the field's own form and not by the length, so both must agree.
                if self.at != start + length {
                    return Err(self.fail(Problem::TagLength((start + length).saturating_sub(self.at))));
                }
            } else {
                self.skip(length)?;
            }
            self.field = "tagged fields";
        }
        Ok(())
    }
}

/// The fewest bytes that a value can take, never zero for the elements of an array.
fn least_size(kind: Kind, version: i16, flexible: bool) -> usize {
    match kind {
        Kind::Fixed(size) => size,
        Kind::String => 2 - usize::from(flexible),
        Kind::Bytes | Kind::Array(_) => 4 - 3 * usize::from(flexible),
        Kind::Struct(fields) => {
            let untagged = fields.iter().filter(|field| field.tag.is_none() && field.is_in(version));
            untagged.map(|field| least_size(field.kind, version, flexible)).sum::<usize>() + usize::from(flexible)
        }
    }
}

#[cfg(test)]
mod tests;
