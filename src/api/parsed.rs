//! Text that a cache stores in a compact form: a hash of 64 digits as 32 bytes, in place.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A value that is parsed from text if possible and otherwise kept as text.
///
/// An entry that was edited by hand affects only itself and is written back unchanged. Use it for types with exactly one text
/// per value, such as [`TokenId`](crate::token::TokenId), so that two values are equal if their texts are.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Parsed<T> {
    /// The parsed value.
    Value(T),
    /// Text that does not parse.
    Text(Box<str>),
}

impl<T> Parsed<T> {
    /// Returns the parsed value, if the text parses.
    pub fn value(&self) -> Option<&T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Text(_) => None,
        }
    }
}

impl<T: AsRef<str>> Parsed<T> {
    /// Returns the text.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Value(value) => value.as_ref(),
            Self::Text(text) => text,
        }
    }
}

impl<T: FromStr> From<&str> for Parsed<T> {
    fn from(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Text(text.into()), Self::Value)
    }
}

impl<T: PartialEq> PartialEq<T> for Parsed<T> {
    fn eq(&self, other: &T) -> bool {
        self.value() == Some(other)
    }
}

impl<T: fmt::Display> fmt::Display for Parsed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(value) => value.fmt(f),
            Self::Text(text) => f.pad(text),
        }
    }
}

impl<T: fmt::Display> fmt::Debug for Parsed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_string(), f)
    }
}

impl<T: fmt::Display> Serialize for Parsed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, T: FromStr> Deserialize<'de> for Parsed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Borrowed<'a>(#[serde(borrow)] Cow<'a, str>);
        let Borrowed(text) = Borrowed::deserialize(deserializer)?;
        Ok(Self::from(&*text))
    }
}

impl<T> JsonSchema for Parsed<T> {
    fn schema_name() -> Cow<'static, str> {
        "Text".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        String::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::{TokenHash, TokenId};

    #[test]
    fn every_text_is_written_back_unchanged() {
        let hash = "0123456789abcdef".repeat(4);
        for text in [hash.as_str(), &hash.to_uppercase(), &hash[1..], "", "0123456789ab", "grüße \"\\\n"] {
            let json = serde_json::to_string(text).unwrap();
            let as_hash: Parsed<TokenHash> = serde_json::from_str(&json).unwrap();
            let as_id: Parsed<TokenId> = serde_json::from_str(&json).unwrap();
            assert_eq!(
                (as_hash.value().is_some(), as_id.value().is_some()),
                (text == hash, text == "0123456789ab"),
                "{text}"
            );
            assert_eq!(
                (serde_json::to_string(&as_hash).unwrap(), serde_json::to_string(&as_id).unwrap()),
                (json.clone(), json)
            );
            assert_eq!((as_hash.to_string().as_str(), as_id.as_str()), (text, text));
        }
    }

    #[test]
    fn parsed_values_need_no_heap_allocation() {
        assert_eq!((size_of::<Parsed<TokenHash>>(), size_of::<Parsed<TokenId>>()), (40, 24));
    }
}
