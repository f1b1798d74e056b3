//! The prefix of a token: what tells people and secret scanners whose token it is.
//!
//! For spec validation and minting. Must not know the rest of the token.

use std::{fmt, str::FromStr};

/// A valid token prefix, `^[a-z][a-z0-9]{1,14}$`, without the `_` that follows it. The default is
/// `kpat`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenPrefix(String);

/// A text that cannot be a token prefix. The text itself is left out: it may be a token put into
/// the wrong field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a token prefix is 2 to 15 lower-case ASCII letters and digits, a letter first")]
pub struct InvalidPrefix;

/// The fewest characters of a prefix.
pub(super) const MIN_LEN: usize = 2;

/// The most characters of a prefix.
pub(super) const MAX_LEN: usize = 15;

/// Whether these bytes are a valid prefix.
pub(super) fn is_prefix(text: &[u8]) -> bool {
    (MIN_LEN..=MAX_LEN).contains(&text.len())
        && text[0].is_ascii_lowercase()
        && text.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

impl TokenPrefix {
    /// The prefix as text, 2 to 15 characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TokenPrefix {
    fn default() -> Self {
        Self("kpat".to_owned())
    }
}

impl FromStr for TokenPrefix {
    type Err = InvalidPrefix;

    fn from_str(text: &str) -> Result<Self, InvalidPrefix> {
        if is_prefix(text.as_bytes()) { Ok(Self(text.to_owned())) } else { Err(InvalidPrefix) }
    }
}

impl TryFrom<&str> for TokenPrefix {
    type Error = InvalidPrefix;

    fn try_from(text: &str) -> Result<Self, InvalidPrefix> {
        text.parse()
    }
}

impl fmt::Display for TokenPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
