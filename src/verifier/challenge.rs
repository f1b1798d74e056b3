//! What RFC 6750 says to somebody whose token was not accepted.
//!
//! The text of the header only. It must not know which status a protocol can send it with.

use crate::{auth::decision::Denial, service::authorization::NoToken};

/// The realm of every challenge.
pub const REALM: &str = "pat-operator";

/// A reason to refuse, as RFC 6750 names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// No token was sent; who did not try is told no error.
    Missing,
    /// It was sent twice or cannot be read.
    InvalidRequest,
    /// It is not good, or not for this audience.
    InvalidToken,
    /// It lacks a scope.
    InsufficientScope {
        /// All that are needed, separated by spaces.
        scope: String,
    },
}

impl Challenge {
    /// The challenge to a denied token; `scope` are the scopes that were asked for, separated by spaces.
    ///
    /// It is the same for unknown, revoked, expired, another's and a disabled owner's: what exactly is wrong is nobody's business who does not hold a
    /// good token.
    pub fn to(denial: &Denial, scope: impl FnOnce() -> String) -> Self {
        match denial {
            Denial::Malformed(_)
            | Denial::Unknown { .. }
            | Denial::Dead(..)
            | Denial::OwnerDisabled(_)
            | Denial::Audience(_) => Self::InvalidToken,
            Denial::Scope(_) => Self::InsufficientScope { scope: scope() },
        }
    }

    /// RFC 6750's status. nginx's `auth_request` cannot be given 400.
    pub fn status(&self) -> u16 {
        match self {
            Self::Missing | Self::InvalidToken => 401,
            Self::InvalidRequest => 400,
            Self::InsufficientScope { .. } => 403,
        }
    }

    /// RFC 6750's error code; none if no token was sent.
    pub fn error(&self) -> Option<&'static str> {
        match self {
            Self::Missing => None,
            Self::InvalidRequest => Some("invalid_request"),
            Self::InvalidToken => Some("invalid_token"),
            Self::InsufficientScope { .. } => Some("insufficient_scope"),
        }
    }

    /// What a person reads in the body, one line.
    pub fn words(&self) -> &'static str {
        match self {
            Self::Missing => "a token is needed: Authorization: Bearer …\n",
            Self::InvalidRequest => "Authorization was sent twice or cannot be read\n",
            Self::InvalidToken => "the token is not accepted: unknown, expired, revoked, or for another audience\n",
            Self::InsufficientScope { .. } => "the token lacks a scope\n",
        }
    }

    /// The value of `WWW-Authenticate`. Scopes have no quotes and no backslashes in them.
    pub fn header(&self) -> String {
        let mut text = format!("Bearer realm=\"{REALM}\"");
        if let Some(error) = self.error() {
            text.push_str(&format!(", error=\"{error}\""));
        }
        if let Self::InsufficientScope { scope } = self {
            text.push_str(&format!(", scope=\"{scope}\""));
        }
        text
    }
}

impl From<NoToken> for Challenge {
    fn from(reason: NoToken) -> Self {
        match reason {
            NoToken::Missing => Self::Missing,
            NoToken::Malformed => Self::InvalidRequest,
        }
    }
}
