//! The hash of a token, the only form in which tokens are stored outside Secrets.
//!
//! The status, the verifier's index and reports of leaked tokens use it.

use std::{fmt, str::FromStr};

use sha2::{Digest, Sha256};

/// SHA-256 of the whole text of a token, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenHash([u8; 32]);

/// The error for text that is not a token hash. It omits the text, which may be a token in the wrong
/// field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a token hash: SHA-256 as 64 lower-case hexadecimal digits")]
pub struct InvalidHash;

impl TokenHash {
    /// Hashes text whose grammar has been checked.
    pub(super) fn of(token: &str) -> Self {
        Self(Sha256::digest(token).into())
    }

    /// Returns the 32 bytes of the hash.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for TokenHash {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl FromStr for TokenHash {
    type Err = InvalidHash;

    /// Parses strictly, so that each hash has exactly one text: upper-case digits are refused.
    fn from_str(text: &str) -> Result<Self, InvalidHash> {
        let (pairs, []) = text.as_bytes().as_chunks() else {
            return Err(InvalidHash);
        };
        let pairs: &[[u8; 2]; 32] = pairs.try_into().map_err(|_| InvalidHash)?;
        let mut bytes = [0; 32];
        for (byte, &[high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = nibble(high)? << 4 | nibble(low)?;
        }
        Ok(Self(bytes))
    }
}

fn nibble(digit: u8) -> Result<u8, InvalidHash> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(InvalidHash),
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
