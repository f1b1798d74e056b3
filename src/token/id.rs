//! The id of a token: its public name.
//!
//! For status, events, logs and revocation lists. Must not know the secret: an id is drawn
//! independently of it.

use std::{fmt, str::FromStr};

use rand::TryCryptoRng;

use super::base62::{self, digit_from_random};

/// The public name of a credential: 12 base62 characters. It authenticates nothing and may be
/// printed anywhere.
///
/// 62^12 is about 2^71, so among a million credentials two share an id with odds below one in a
/// billion. Ordered as text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenId([u8; TokenId::LEN]);

/// A text that cannot be a token id. The text itself is left out: it may be a token put into the
/// wrong field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a token id is 12 ASCII letters and digits")]
pub struct InvalidId;

/// Random bytes taken at a time: nearly always enough for an id (12.4 are needed on average).
const DRAW: usize = 16;

/// Draws after which a generator that still has not yielded an id is taken to be broken. A sound
/// one needs more than 16 with a probability below 2^-1000.
const MAX_DRAWS: usize = 16;

impl TokenId {
    /// Characters in an id.
    pub const LEN: usize = 12;

    /// An id drawn uniformly from all 62^12, or `None` from a generator that is stuck.
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

    /// The id as text.
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
