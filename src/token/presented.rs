//! The grammar of a token, checked on text that somebody presents.
//!
//! For the verifier's hot path: nothing is allocated, nothing of the secret is copied, and junk is
//! refused before any look-up. Must not know whether the token was ever issued.

use std::{convert::Infallible, fmt};

use super::{
    TokenHash, TokenId,
    base62::{self, WIDTH_32, WIDTH_256},
    prefix,
};

/// Characters after the `_`.
const BODY_LEN: usize = TokenId::LEN + WIDTH_256 + WIDTH_32;

/// A borrowed text that is a well-formed token. `Debug` prints prefix and id only.
#[derive(Clone, Copy)]
pub struct Presented<'a>(&'a str);

/// Why a text is not a token. Says nothing of the text: it may be most of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ParseError {
    /// Shorter or longer than any token.
    #[error("a token has 64 to 77 characters")]
    Length,
    /// No `_` in the one place where it can be.
    #[error("a token has one \"_\", 61 characters before its end")]
    Separator,
    /// What comes before the `_` is not a prefix.
    #[error("a token's prefix is 2 to 15 lower-case ASCII letters and digits, a letter first")]
    Prefix,
    /// Something other than base62 after the `_`.
    #[error("after its \"_\" a token has only ASCII letters and digits")]
    Alphabet,
    /// The checksum is not that of the text before it: mistyped, cut off or made up.
    #[error("the token's checksum does not match")]
    Checksum,
    /// The secret stands for a number of 2^256 or more, which nobody mints.
    #[error("the token's secret is out of range")]
    Range,
}

impl ParseError {
    /// The one name of this error for metrics, events and logs.
    pub fn category(self) -> &'static str {
        match self {
            Self::Length => "TokenLength",
            Self::Separator => "TokenSeparator",
            Self::Prefix => "TokenPrefix",
            Self::Alphabet => "TokenAlphabet",
            Self::Checksum => "TokenChecksum",
            Self::Range => "TokenRange",
        }
    }
}

// Whoever decides on a token takes its text, or what has been read of it before.
impl<'a> TryFrom<&'a [u8]> for Presented<'a> {
    type Error = ParseError;

    fn try_from(text: &'a [u8]) -> Result<Self, ParseError> {
        Self::parse(text)
    }
}

impl From<Infallible> for ParseError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl<'a> Presented<'a> {
    /// The fewest characters (and bytes) of a token.
    pub const MIN_LEN: usize = prefix::MIN_LEN + 1 + BODY_LEN;

    /// The most characters (and bytes) of a token.
    pub const MAX_LEN: usize = prefix::MAX_LEN + 1 + BODY_LEN;

    /// Checks a text, or bytes of any kind, against the grammar of a token; cheap checks first.
    ///
    /// The text must be the token and nothing else: no white space is trimmed.
    ///
    /// # Errors
    /// The first rule that the text breaks, in the order of [`ParseError`]'s variants.
    pub fn parse(input: &'a (impl AsRef<[u8]> + ?Sized)) -> Result<Self, ParseError> {
        let input = input.as_ref();
        if !(Self::MIN_LEN..=Self::MAX_LEN).contains(&input.len()) {
            return Err(ParseError::Length);
        }
        let (head, body) = input.split_at(input.len() - BODY_LEN);
        let Some((b'_', prefix)) = head.split_last() else {
            return Err(ParseError::Separator);
        };
        if !prefix::is_prefix(prefix) {
            return Err(ParseError::Prefix);
        }
        if !base62::is_base62(body) {
            return Err(ParseError::Alphabet);
        }
        let (signed, check) = input.split_at(input.len() - WIDTH_32);
        if checksum(signed) != check {
            return Err(ParseError::Checksum);
        }
        if secret(signed) > base62::MAX_256.as_slice() {
            return Err(ParseError::Range);
        }
        // Always UTF-8: every byte has been found to be ASCII.
        str::from_utf8(input).map(Self).map_err(|_| ParseError::Alphabet)
    }

    /// A text that came out of [`parse`](Self::parse), or was minted.
    pub(super) fn trusted(text: &'a str) -> Self {
        Self(text)
    }

    /// The plain token; for this module only, which copies it into a [`Token`](super::Token).
    pub(super) fn expose(&self) -> &'a str {
        self.0
    }

    /// The prefix, without the `_`.
    pub fn prefix(&self) -> &'a str {
        &self.0[..self.0.len() - BODY_LEN - 1]
    }

    /// The public name of the credential.
    pub fn id(&self) -> TokenId {
        let body = &self.0[self.0.len() - BODY_LEN..];
        body[..TokenId::LEN].parse().expect("the grammar has been checked")
    }

    /// SHA-256 over the whole text; computed at each call.
    pub fn hash(&self) -> TokenHash {
        TokenHash::of(self.0)
    }
}

/// The checksum that follows `text`: CRC-32 as in IEEE 802.3, clause 3.2.9 (zlib's and PNG's), in
/// base62.
///
/// It finds every error within 32 successive bits: any one wrong character, for certain. Whatever
/// else happens to a token goes unnoticed once in four billion times.
pub(super) fn checksum(text: &[u8]) -> [u8; WIDTH_32] {
    base62::encode_32(crc32fast::hash(text))
}

/// The secret's digits: the last of what the checksum covers.
fn secret(signed: &[u8]) -> &[u8] {
    &signed[signed.len() - WIDTH_256..]
}

impl fmt::Debug for Presented<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}…", self.prefix(), self.id())
    }
}
