//! Reads the token from the `Authorization` header, as Bearer or as the password of Basic.
//!
//! It works on header names and bytes, so that HTTP and gRPC share it. The types of the `headers` crate copy the token and never zeroize
//! it.

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use percent_encoding::percent_decode;
use zeroize::Zeroizing;

/// Some clients leave out the padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The maximum length before decoding: several times a token with the longest user name.
const MAX_BASIC: usize = 2048;

/// The credential of a request. It has no `Debug`, so it is never printed.
pub enum Authorization<'a> {
    /// No credential, or one of an unknown scheme; RFC 6750 treats both alike.
    Missing,
    /// Sent twice, joined by a comma, or invalid for its scheme.
    Malformed,
    /// A Bearer token.
    Bearer(&'a [u8]),
    /// A user name and password.
    Basic(Basic),
}

/// A user name and password, zeroized on drop.
pub struct Basic {
    text: Zeroizing<Vec<u8>>,
    colon: usize,
}

impl<'a> Authorization<'a> {
    /// Reads the only `Authorization` header. Names and schemes match in any case.
    ///
    /// Two headers are malformed even if they agree, and so is a comma, by which proxies join two. Otherwise a proxy and the verifier could read
    /// different tokens.
    pub fn read(headers: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut values = headers.into_iter().filter(|(name, _)| name.eq_ignore_ascii_case("authorization"));
        match (values.next(), values.next()) {
            (None, _) => Self::Missing,
            (Some((_, value)), None) => Self::of_value(value),
            (Some(_), Some(_)) => Self::Malformed,
        }
    }

    fn of_value(value: &'a [u8]) -> Self {
        if value.contains(&b',') {
            return Self::Malformed;
        }
        // HTTP/1 drops blanks around a value (RFC 9110, 5.5); HTTP/2 and Envoy's gRPC may pass them on.
        let value = trim_blanks(value);
        let (scheme, rest) = match value.iter().position(|byte| *byte == b' ') {
            Some(space) => (&value[..space], value[space..].trim_ascii_start()),
            None => (value, &[][..]),
        };
        if scheme.eq_ignore_ascii_case(b"bearer") {
            if is_token68(rest) { Self::Bearer(rest) } else { Self::Malformed }
        } else if scheme.eq_ignore_ascii_case(b"basic") {
            Basic::decode(rest).map_or(Self::Malformed, Self::Basic)
        } else {
            Self::Missing
        }
    }

    /// Returns the Bearer token, or the password of Basic. The user name is ignored: `git`, `docker` and `npm` must send one, but it proves
    /// nothing.
    ///
    /// # Errors
    /// The request has no token.
    pub fn token(&self) -> Result<&[u8], NoToken> {
        match self {
            Self::Missing => Err(NoToken::Missing),
            Self::Malformed => Err(NoToken::Malformed),
            Self::Bearer(token) => Ok(token),
            Self::Basic(basic) => Ok(basic.password()),
        }
    }
}

/// Why a request has no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoToken {
    /// No credential, or one of an unknown scheme.
    #[error("no token was sent")]
    Missing,
    /// The header cannot be read.
    #[error("Authorization was sent twice or cannot be read")]
    Malformed,
}

impl Basic {
    // Decodes into a buffer of the final size: a growing one would leave copies behind.
    fn decode(encoded: &[u8]) -> Option<Self> {
        if encoded.len() > MAX_BASIC {
            return None;
        }
        let mut text = Zeroizing::new(vec![0; base64::decoded_len_estimate(encoded.len())]);
        let length = BASE64.decode_slice(encoded, &mut text).ok()?;
        text.truncate(length);
        let colon = text.iter().position(|byte| *byte == b':')?;
        Some(Self { text, colon })
    }

    /// Returns the part before the first colon.
    pub fn user(&self) -> &[u8] {
        &self.text[..self.colon]
    }

    /// Returns the part after the first colon.
    pub fn password(&self) -> &[u8] {
        &self.text[self.colon + 1..]
    }
}

/// Decodes percent-encoding without leaving copies behind.
pub fn percent_decoded(text: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut decoded = Zeroizing::new(Vec::with_capacity(text.len()));
    decoded.extend(percent_decode(text));
    decoded
}

fn trim_blanks(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Whether this is a token68 of RFC 9110, the grammar of a Bearer token.
fn is_token68(text: &[u8]) -> bool {
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    let body = &text[..text.len() - padding];
    !body.is_empty() && body.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(byte))
}
