//! Parsing small, untrusted JSON files: rejecting repeated keys.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::path::Path;

use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error as _, MapAccess, Visitor};

use crate::error::{Error, Result};

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

/// Prepares a name from a file for a message: escapes control characters and truncates to 120 characters.
pub(crate) fn escaped(name: &str) -> String {
    let mut text: String = name.chars().take(120).flat_map(char::escape_debug).collect();
    if name.chars().nth(120).is_some() {
        text.push('…');
    }
    text
}

/// Parses JSON; errors name the file.
pub(crate) fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| Error::format(path, format!("bad JSON: {e}")))
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
        let long = format!("{}\n", "x".repeat(200));
        assert_eq!(escaped(&long), format!("{}…", "x".repeat(120)));
        assert_eq!(escaped("a\nb"), "a\\nb");
    }
}
