//! Parsing of a token that a client presents.
//!
//! This is the verifier's hot path: it allocates nothing, copies nothing of the secret, and rejects
//! malformed text before any lookup.

use std::{convert::Infallible, fmt};

use super::{
    TokenHash, TokenId,
    base62::{self, WIDTH_32, WIDTH_256},
    prefix,
};

/// Number of characters after the `_`.
const BODY_LEN: usize = TokenId::LEN + WIDTH_256 + WIDTH_32;

/// Borrowed text that is a well-formed token. `Debug` prints only prefix and ID.
#[derive(Clone, Copy)]
pub struct Presented<'a>(&'a str);

/// Why text is not a token. The error omits the text, which may contain most of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ParseError {
    /// It is shorter or longer than any token.
    #[error("a token has 64 to 77 characters")]
    Length,
    /// The `_` is missing or in the wrong place.
    #[error("a token has exactly one \"_\", 61 characters before its end")]
    Separator,
    /// The text before the `_` is not a prefix.
    #[error("the prefix of a token has 2 to 15 lower-case ASCII letters and digits, starting with a letter")]
    Prefix,
    /// A character after the `_` is not base62.
    #[error("a token has only ASCII letters and digits after the \"_\"")]
    Alphabet,
    /// The checksum does not match: the token is mistyped, truncated or invented.
    #[error("the token's checksum does not match")]
    Checksum,
    /// The secret encodes a number of 2^256 or more, which is never minted.
    #[error("the token's secret is out of range")]
    Range,
}

impl ParseError {
    /// Returns the name of this error in metrics, events and logs.
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

// A decision accepts the text of a token as well as a parsed token.
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
    /// Minimum length of a token, in characters and bytes.
    pub const MIN_LEN: usize = prefix::MIN_LEN + 1 + BODY_LEN;

    /// Maximum length of a token, in characters and bytes.
    pub const MAX_LEN: usize = prefix::MAX_LEN + 1 + BODY_LEN;

    /// Parses text or arbitrary bytes as a token, cheap checks first. White space is not trimmed.
    ///
    /// # Errors
    /// Returns the first rule that the text breaks, in the order of the variants of [`ParseError`].
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
        // Always succeeds, because every byte is ASCII.
        str::from_utf8(input).map(Self).map_err(|_| ParseError::Alphabet)
    }

    /// Finds the tokens anywhere in a text. The checksum tells where a token begins and ends, so any text may surround it.
    pub fn find_in(text: &'a [u8]) -> impl Iterator<Item = Self> {
        memchr::memchr_iter(b'_', text).filter_map(|separator| {
            let end = separator + 1 + BODY_LEN;
            let begins = (prefix::MIN_LEN..=prefix::MAX_LEN).filter_map(|length| separator.checked_sub(length));
            begins.filter_map(|begin| text.get(begin..end)).find_map(|candidate| Self::parse(candidate).ok())
        })
    }

    /// Wraps text that was parsed or minted before.
    pub(super) fn trusted(text: &'a str) -> Self {
        Self(text)
    }

    /// Returns the plain token, which only this module may copy into a [`Token`](super::Token).
    pub(super) fn expose(&self) -> &'a str {
        self.0
    }

    /// Returns the prefix, without the `_`.
    pub fn prefix(&self) -> &'a str {
        &self.0[..self.0.len() - BODY_LEN - 1]
    }

    /// Returns the ID of the credential.
    pub fn id(&self) -> TokenId {
        let body = &self.0[self.0.len() - BODY_LEN..];
        body[..TokenId::LEN].parse().expect("the grammar has been checked")
    }

    /// Computes SHA-256 of the whole text.
    pub fn hash(&self) -> TokenHash {
        TokenHash::of(self.0)
    }
}

/// Computes the checksum that follows `text`: CRC-32 as in IEEE 802.3, clause 3.2.9 (as in zlib and
/// PNG), in base62.
///
/// It detects every error within 32 successive bits, and so every single wrong character. Any other
/// error goes undetected with a probability of one in four billion.
pub(super) fn checksum(text: &[u8]) -> [u8; WIDTH_32] {
    base62::encode_32(crc32fast::hash(text))
}

/// Returns the digits of the secret, which the checksum follows.
fn secret(signed: &[u8]) -> &[u8] {
    &signed[signed.len() - WIDTH_256..]
}

impl fmt::Debug for Presented<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}…", self.prefix(), self.id())
    }
}
