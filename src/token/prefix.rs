//! The prefix of a token, by which people and secret scanners recognise where it belongs.

use std::{fmt, str::FromStr};

/// A valid token prefix, `^[a-z][a-z0-9]{1,14}$`, without the `_` that follows it. The default is
/// `kpat`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenPrefix(String);

/// The error for text that is not a token prefix. It omits the text, which may be a token in the
/// wrong field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 2 to 15 lower-case ASCII letters and digits, starting with a letter")]
pub struct InvalidPrefix;

/// Minimum length of a prefix.
pub(super) const MIN_LEN: usize = 2;

/// Maximum length of a prefix.
pub(super) const MAX_LEN: usize = 15;

/// Reports whether `text` is a valid prefix.
pub(super) fn is_prefix(text: &[u8]) -> bool {
    (MIN_LEN..=MAX_LEN).contains(&text.len())
        && text[0].is_ascii_lowercase()
        && text.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

impl TokenPrefix {
    /// Returns the prefix as text.
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
