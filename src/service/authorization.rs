//! Reads `Authorization`: the token that a request brings, by Bearer or as the password of Basic.
//!
//! Works on names and bytes, so that HTTP and gRPC share it. It must not know whether a token is good.

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use zeroize::Zeroizing;

/// Clients leave the padding out now and then.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The longest value that is decoded: a token and the longest owner's name fit in several times.
const MAX_BASIC: usize = 2048;

/// What a request brings. Nothing in it is ever printed: there is no `Debug`.
pub enum Authorization<'a> {
    /// No credential, or one of a scheme that is none of ours: RFC 6750 has both answered alike.
    Missing,
    /// Given twice, joined by a comma, or not what its scheme says.
    Malformed,
    /// A token by Bearer.
    Bearer(&'a [u8]),
    /// A user name and a password.
    Basic(Basic),
}

/// A user name and a password, wiped on drop.
pub struct Basic {
    text: Zeroizing<Vec<u8>>,
    colon: usize,
}

impl<'a> Authorization<'a> {
    /// Reads the one `Authorization` among these headers; names match in any case, as do schemes.
    ///
    /// Two of them are malformed even if they agree, and so is a comma, by which proxies join two into one: it must not depend
    /// on who reads which of them.
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

    /// The token: what Bearer brings, or the password of Basic, whatever its user name. `git`, `docker` and `npm` send a
    /// user name because they must, and our Secrets put the owner there; it proves nothing.
    ///
    /// # Errors
    /// When there is none.
    pub fn token(&self) -> Result<&[u8], NoToken> {
        match self {
            Self::Missing => Err(NoToken::Missing),
            Self::Malformed => Err(NoToken::Malformed),
            Self::Bearer(token) => Ok(token),
            Self::Basic(basic) => Ok(basic.password()),
        }
    }
}

/// Why a request brings no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoToken {
    /// No credential of a scheme that is ours.
    #[error("no token was sent")]
    Missing,
    /// It cannot be read.
    #[error("Authorization was sent twice or cannot be read")]
    Malformed,
}

impl Basic {
    // Into a buffer of its final size: one that grows would leave a copy behind.
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

    /// What stands before the first colon.
    pub fn user(&self) -> &[u8] {
        &self.text[..self.colon]
    }

    /// What follows it.
    pub fn password(&self) -> &[u8] {
        &self.text[self.colon + 1..]
    }
}

/// RFC 9110's token68, the grammar of what follows `Bearer`.
fn is_token68(text: &[u8]) -> bool {
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    let body = &text[..text.len() - padding];
    !body.is_empty() && body.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(byte))
}
