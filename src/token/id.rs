//! The ID of a token: its public name in status, events, logs and revocation lists. It is drawn
//! independently of the secret.

use std::{fmt, str::FromStr};

use rand::TryCryptoRng;

use super::base62::{self, digit_from_random};

/// The public name of a credential: 12 base62 characters. It authenticates nothing and may be shown
/// anywhere.
///
/// 62^12 is about 2^71, so the probability that two of a million credentials share an ID is below one
/// in a billion. IDs are ordered as text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenId([u8; TokenId::LEN]);

/// The error for text that is not a token ID. It omits the text, which may be a token in the wrong
/// field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a token ID: 12 ASCII letters and digits")]
pub struct InvalidId;

/// Random bytes per draw, nearly always enough for an ID (12.4 are needed on average).
const DRAW: usize = 16;

/// Maximum number of draws before the generator counts as broken. A sound generator needs more with a
/// probability below 2^-1000.
const MAX_DRAWS: usize = 16;

impl TokenId {
    /// Number of characters in an ID.
    pub const LEN: usize = 12;

    /// Draws an ID uniformly from all 62^12, or returns `None` if the generator is stuck.
    pub(super) fn random<R: TryCryptoRng + ?Sized>(rng: &mut R) -> Result<Option<Self>, R::Error> {
        let mut id = [0; Self::LEN];
        let mut empty = id.iter_mut();
        for _ in 0..MAX_DRAWS {
            let mut bytes = [0; DRAW];
            rng.try_fill_bytes(&mut bytes)?;
            for digit in bytes.into_iter().filter_map(digit_from_random) {
                match empty.next() {
                    Some(place) => *place = digit,
                    None => return Ok(Some(Self(id))),
                }
            }
            if empty.len() == 0 {
                return Ok(Some(Self(id)));
            }
        }
        Ok(None)
    }

    /// Returns the ID as text.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).expect("base62 is ASCII")
    }
}

impl AsRef<str> for TokenId {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl TryFrom<&[u8]> for TokenId {
    type Error = InvalidId;

    fn try_from(text: &[u8]) -> Result<Self, InvalidId> {
        match text.try_into() {
            Ok(id) if base62::is_base62(text) => Ok(Self(id)),
            _ => Err(InvalidId),
        }
    }
}

impl FromStr for TokenId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        text.as_bytes().try_into()
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
