//! One string field of a JSON object; the other fields are skipped without being stored.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::message::parser_message;

/// Why a JSON value has no text, and at which byte of it.
pub(super) struct Fault {
    pub at: usize,
    pub message: String,
}

impl Fault {
    /// An error of the parser, which reports a position by line and column.
    pub fn from_json(json: &str, error: &serde_json::Error) -> Self {
        let lines = json.split_inclusive('\n').take(error.line().saturating_sub(1));
        let at = lines.map(str::len).sum::<usize>() + error.column().saturating_sub(1);
        let message = error.to_string();
        let message = parser_message(message.rsplit_once(" at line ").map_or(&*message, |(what, _)| what));
        Fault { at: at.min(json.len()), message }
    }
}

/// The string in the field `field` of the object `json`.
pub(super) fn text(json: &str, field: &str) -> Result<String, Fault> {
    let fault = |at: &str, message: String| Fault { at: at.as_ptr() as usize - json.as_ptr() as usize, message };
    let trimmed = json.trim_ascii_start();
    if !trimmed.starts_with('{') {
        // Without this check, serde would complain about an array's first element.
        serde_json::from_str::<IgnoredAny>(json).map_err(|e| Fault::from_json(json, &e))?;
        let message = format!("{}, not an object with the field `{field}`", kind(trimmed));
        return Err(fault(trimmed, message));
    }
    let mut parser = serde_json::Deserializer::from_str(json);
    let found = Field(field).deserialize(&mut parser).and_then(|found| parser.end().map(|()| found));
    match found.map_err(|e| Fault::from_json(json, &e))? {
        Some(value) if value.get().starts_with('"') => serde_json::from_str(value.get()).map_err(|e| {
            let within = Fault::from_json(value.get(), &e);
            fault(&value.get()[within.at..], within.message)
        }),
        Some(value) => Err(fault(value.get(), format!("the field `{field}` is {}, not a string", kind(value.get())))),
        None => Err(fault(trimmed, format!("missing field `{field}`; --text-field names another one"))),
    }
}

/// What a valid JSON value is, by its first character.
fn kind(json: &str) -> &'static str {
    match json.as_bytes().first() {
        Some(b'[') => "an array",
        Some(b'{') => "an object",
        Some(b'"') => "a string",
        Some(b'n') => "null",
        Some(b't' | b'f') => "a boolean",
        _ => "a number",
    }
}

/// Parses an object and returns the value of its field of this name.
struct Field<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for Field<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Field<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(is_wanted) = map.next_key_seed(Key(self.0))? {
            if !is_wanted {
                map.next_value::<IgnoredAny>()?;
            } else if found.is_some() {
                return Err(A::Error::custom(format!("the field `{}` appears twice", self.0)));
            } else {
                found = Some(map.next_value()?);
            }
        }
        Ok(found)
    }
}

/// Whether a key is this one.
struct Key<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<bool, E> {
        Ok(key == self.0)
    }
}

/// Parses any value of type `T`.
pub(super) fn parse<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, Fault> {
    serde_json::from_str(json).map_err(|e| Fault::from_json(json, &e))
}
