//! Plain tokens and passwords of other systems.

use std::fmt;

use serde::{Deserialize, Deserializer};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::token::TokenHash;

/// A token or a password of another system, zeroized on drop. `Debug` does not show it; [`expose`](Self::expose) is the only way to the text.
#[derive(Clone)]
pub struct PlainToken(Zeroizing<String>);

impl PlainToken {
    /// Takes the text over.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// Returns the text.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Computes SHA-256 of the text.
    pub fn hash(&self) -> TokenHash {
        TokenHash::from(<[u8; 32]>::from(Sha256::digest(self.0.as_bytes())))
    }
}

impl fmt::Debug for PlainToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlainToken(…)")
    }
}

impl<'de> Deserialize<'de> for PlainToken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_does_not_show_the_text() {
        let token = PlainToken::new("s3cret".to_owned());
        assert_eq!(format!("{token:?}"), "PlainToken(…)");
        assert_eq!(token.hash().to_string(), "1ec1c26b50d5d3c58d9583181af8076655fe00756bf7285940ba3670f99fcba0");
    }
}
