//! Parsing small, untrusted JSON files: rejecting repeated keys.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::path::Path;

use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error as _, MapAccess, Visitor};

use crate::error::{Error, Result};
use crate::message::{escaped, parser_message};

/// A JSON object in which a repeated key is an error. The maps of serde silently keep the last value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct UniqueMap<V>(pub BTreeMap<String, V>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for UniqueMap<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(UniqueMapVisitor(PhantomData))
    }
}

struct UniqueMapVisitor<V>(PhantomData<V>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for UniqueMapVisitor<V> {
    type Value = UniqueMap<V>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object without repeated keys")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<UniqueMap<V>, A::Error> {
        let mut entries = BTreeMap::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value().map_err(|e| A::Error::custom(format!("'{}': {e}", escaped(&key))))?;
            if entries.insert(key.clone(), value).is_some() {
                return Err(A::Error::custom(format!("'{}' appears twice", escaped(&key))));
            }
        }
        Ok(UniqueMap(entries))
    }
}

/// Maximum number of values in a file. A parsed value takes up to a hundred bytes, many times those of its text. The
/// tokenizer of a vocabulary of 250,000 tokens has two million values.
const MAX_VALUES: usize = 1 << 22;

/// Parses JSON; errors name the file.
pub(crate) fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T> {
    // Each value follows one of these characters, except the outermost. Those inside strings count too, which only makes
    // the bound stricter.
    let values = bytes.iter().filter(|byte| matches!(byte, b',' | b'[' | b'{')).count();
    if values > MAX_VALUES {
        return Err(Error::format(path, format!("bad JSON: more than {MAX_VALUES} values")));
    }
    serde_json::from_slice(bytes).map_err(|e| Error::format(path, format!("bad JSON: {}", parser_message(e))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_keys_and_bad_values_are_named() {
        for (text, wanted) in [
            (r#"{"a": 1, "b": 2, "a": 3}"#, "'a' appears twice"),
            (r#"{"a": 1, "\u0061": 3}"#, "'a' appears twice"),
            (r#"{"a": "x"}"#, "'a': invalid type"),
            (r#"[1]"#, "an object without repeated keys"),
            (r#"{"a": 1} x"#, "trailing characters"),
        ] {
            let error = parse::<UniqueMap<u32>>(Path::new("f.json"), text.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with("f.json: ") && error.contains(wanted), "{text}: {error}");
        }
        // Would take gigabytes as a list of values.
        let many = format!("[{}0]", "0,".repeat(1 << 22));
        let error = parse::<serde_json::Value>(Path::new("f.json"), many.as_bytes()).unwrap_err().to_string();
        assert_eq!(error, "f.json: bad JSON: more than 4194304 values");
    }
}
