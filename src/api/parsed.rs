//! Text that a cache keeps in its short form: a hash of 64 digits as 32 bytes, in place. It must not know what the text means.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A value whose text is read where it can be and kept as it stands where it cannot: a hand-edited entry spoils nothing but itself,
/// and is written back unchanged.
///
/// For types with one text for each value, such as [`TokenId`](crate::token::TokenId): two of them are equal if their texts are.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Parsed<T> {
    /// What the text says.
    Value(T),
    /// Text that says nothing.
    Text(Box<str>),
}

impl<T> Parsed<T> {
    /// What the text says, if it says something.
    pub fn value(&self) -> Option<&T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Text(_) => None,
        }
    }
}

impl<T: AsRef<str>> Parsed<T> {
    /// The text.
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
    fn every_text_is_written_back_as_it_was() {
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
    fn what_can_be_read_takes_no_room_elsewhere() {
        assert_eq!((size_of::<Parsed<TokenHash>>(), size_of::<Parsed<TokenId>>()), (40, 24));
    }
}
