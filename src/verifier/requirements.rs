//! The requirements in a proxy's configuration: the scopes and the audience that a request needs.
//!
//! Parsing is strict, because ignoring a misspelt requirement would grant access.

use std::{
    borrow::Cow,
    collections::HashSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use percent_encoding::percent_decode_str;
use tracing::warn;

use crate::{
    auth::decision::{Audience, Requirements},
    service::clock::uptime,
    token::TokenId,
};

/// Maximum number of required scopes; no token has more.
const MAX_SCOPES: usize = 64;

/// Maximum length of a scope or an audience; those of tokens are shorter.
const MAX_LENGTH: usize = 512;

/// Maximum number of different errors logged per interval.
const MAX_LOGGED: usize = 64;

/// How often the same error is logged.
const LOG_INTERVAL: Duration = Duration::from_hours(1);

/// Maximum length of an unknown name in an error: less than the prefix, `_` and ID of a token together.
const MAX_NAME: usize = 14;

/// The length of the secret in a token.
const SECRET_LEN: usize = 43;

/// The path segment between the requirements and the client's path.
const END: &str = "-";

/// The requirements that a proxy states: all scopes, and the audience if there is one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyRequirements<'a> {
    scopes: Vec<Cow<'a, str>>,
    audience: Option<Cow<'a, str>>,
}

/// Why requirements are invalid. Every request is denied until the configuration of the proxy is fixed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRequirements {
    /// The name is neither `scope` nor `audience`.
    #[error("{0:?} is not a requirement: use scope=… or audience=…")]
    Unknown(String),
    /// A scope is not a scope-token of RFC 6749.
    #[error(
        "scope: must be 1 to {MAX_LENGTH} visible ASCII characters without quotation mark and backslash, percent-encoded (%2B for a plus)"
    )]
    Scope,
    /// There are too many scopes.
    #[error("scope: must be at most {MAX_SCOPES} scopes")]
    TooManyScopes,
    /// The audience is not an audience of a token.
    #[error("audience: must be 1 to {MAX_LENGTH} visible ASCII characters, percent-encoded (%2B for a plus)")]
    Audience,
    /// There is more than one audience.
    #[error("audience: must be only one")]
    SeveralAudiences,
    /// A scope has a token in it, which a challenge would repeat.
    #[error("scope: must be the name of a right, and not a token")]
    TokenInScope,
    /// The target of the request has a fragment.
    #[error("the URI has an unencoded #, which ends it: write %23")]
    Fragment,
    /// The proxy handed on the query of its client.
    #[error(
        "the query is that of the client's URI (X-Forwarded-Uri): write a query into the proxy's own URI, such as /auth/forward?scope=…"
    )]
    ClientQuery,
    /// The path does not end the requirements.
    #[error("the requirements in the path must end with /-/")]
    Unterminated,
}

impl InvalidRequirements {
    /// Returns the name of this error in metrics, events and logs.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Unknown(_) => "RequirementUnknown",
            Self::Scope => "RequirementScope",
            Self::TooManyScopes => "RequirementTooManyScopes",
            Self::Audience => "RequirementAudience",
            Self::SeveralAudiences => "RequirementTwoAudiences",
            Self::TokenInScope => "RequirementToken",
            Self::Fragment => "RequirementFragment",
            Self::ClientQuery => "RequirementClientQuery",
            Self::Unterminated => "RequirementEndless",
        }
    }
}

impl<'a> ProxyRequirements<'a> {
    /// Parses a query: `scope=a&scope=b&audience=c`, with one scope each, percent-encoded. Without a query, every valid token
    /// meets the requirements.
    ///
    /// # Errors
    /// Returns an error for anything else in the query.
    pub fn from_query(query: &'a str) -> Result<Self, InvalidRequirements> {
        let mut requirements = Self::default();
        for part in query.split('&').filter(|_| !query.is_empty()) {
            match part.split_once('=') {
                Some(("scope", scope)) => {
                    requirements.require_scope(decoded(scope).ok_or(InvalidRequirements::Scope)?)?
                }
                Some(("audience", one)) => {
                    requirements.require_audience(decoded(one).ok_or(InvalidRequirements::Audience)?)?
                }
                _ => return Err(unknown_requirement(part)),
            }
        }
        Ok(requirements)
    }

    /// Parses the start of a path: `scope=a,b/audience=c/-/…`, percent-encoded. What follows `-/` is ignored.
    ///
    /// # Errors
    /// Returns an error for anything else before `-/`, and for a path without it.
    pub fn from_path(path: &'a str) -> Result<Self, InvalidRequirements> {
        let mut requirements = Self::default();
        let mut segments = path.split('/');
        while let Some(segment) = segments.next() {
            match segment.split_once('=') {
                Some(("scope", scopes)) => {
                    for scope in scopes.split(',') {
                        requirements.require_scope(decoded(scope).ok_or(InvalidRequirements::Scope)?)?;
                    }
                }
                Some(("audience", one)) => {
                    requirements.require_audience(decoded(one).ok_or(InvalidRequirements::Audience)?)?
                }
                // A segment must follow: `/-` alone may belong to the path of the client.
                None if segment == END && segments.next().is_some() => return Ok(requirements),
                None if segment == END => return Err(InvalidRequirements::Unterminated),
                _ => return Err(unknown_requirement(segment)),
            }
        }
        Err(InvalidRequirements::Unterminated)
    }

    /// Requires another scope, given as plain text.
    ///
    /// # Errors
    /// Returns an error for text that no token can have as a scope, and for too many scopes.
    pub fn require_scope(&mut self, scope: Cow<'a, str>) -> Result<(), InvalidRequirements> {
        if !is_text(&scope) || scope.contains(['"', '\\']) {
            return Err(InvalidRequirements::Scope);
        }
        if may_be_token(&scope) {
            return Err(InvalidRequirements::TokenInScope);
        }
        if self.scopes.len() == MAX_SCOPES {
            return Err(InvalidRequirements::TooManyScopes);
        }
        self.scopes.push(scope);
        Ok(())
    }

    /// Requires the audience, given as plain text.
    ///
    /// # Errors
    /// Returns an error for text that no token can have as an audience, and for a second audience.
    pub fn require_audience(&mut self, audience: Cow<'a, str>) -> Result<(), InvalidRequirements> {
        if !is_text(&audience) {
            return Err(InvalidRequirements::Audience);
        }
        match self.audience.replace(audience) {
            None => Ok(()),
            Some(_) => Err(InvalidRequirements::SeveralAudiences),
        }
    }

    /// Returns the scopes separated by spaces, as a challenge lists them.
    pub fn scope_text(&self) -> String {
        self.scopes.join(" ")
    }

    /// Calls `decide` with the requirements in the form that a decision takes.
    pub fn with<T>(&self, decide: impl FnOnce(&Requirements<'_>) -> T) -> T {
        let scopes: Vec<&str> = self.scopes.iter().map(|scope| &**scope).collect();
        let audience = self.audience.as_deref();
        let audiences = audience.as_slice();
        let audience = if audiences.is_empty() { Audience::Unspecified } else { Audience::OneOf(audiences) };
        decide(&Requirements { scopes: &scopes, audience })
    }
}

/// Logs each misconfiguration of a proxy once an hour, because the proxy repeats it with every request.
#[derive(Debug, Default)]
pub struct MisconfigurationLog(Mutex<LoggedErrors>);

#[derive(Debug, Default)]
struct LoggedErrors {
    /// Uptime when the first error of this interval was logged.
    since: Duration,
    errors: HashSet<String>,
}

impl MisconfigurationLog {
    /// Logs the error, unless it was logged in this interval.
    pub fn log(&self, protocol: &'static str, error: &InvalidRequirements) {
        if self.should_log(protocol, error, uptime()) {
            warn!(protocol, %error, "a proxy states invalid requirements, so all its requests are denied: fix its configuration");
        }
    }

    /// Reports whether to log the error at this uptime, and then records it as logged.
    fn should_log(&self, protocol: &'static str, error: &InvalidRequirements, now: Duration) -> bool {
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Clients could fill the set with junk, so it is cleared regularly: real errors must still be logged.
        if logged.errors.is_empty() || now.saturating_sub(logged.since) >= LOG_INTERVAL {
            *logged = LoggedErrors { since: now, errors: HashSet::new() };
        }
        // The log must not grow with what clients send.
        logged.errors.len() < MAX_LOGGED && logged.errors.insert(format!("{protocol} {error}"))
    }
}

/// Returns the error for an unknown name, truncated.
pub fn unknown_requirement(name: &str) -> InvalidRequirements {
    // The error is logged, and the name may come from a client's path: it must not contain the secret of a token.
    InvalidRequirements::Unknown(name.split('=').next().unwrap_or_default().chars().take(MAX_NAME).collect())
}

/// Decodes percent-encoding. Returns `None` for an invalid escape, and for a plus, which some programs read as a space.
fn decoded(text: &str) -> Option<Cow<'_, str>> {
    let bytes = text.as_bytes();
    let is_valid = bytes.iter().enumerate().all(|(at, byte)| match byte {
        b'%' => bytes.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)),
        other => *other != b'+',
    });
    if is_valid { percent_decode_str(text).decode_utf8().ok() } else { None }
}

/// Whether text has the ID and the secret of a token in it, or something of that form: `_` and 55 letters and digits.
fn may_be_token(text: &str) -> bool {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_alphanumeric).count();
    text.split('_').skip(1).any(|rest| digits(rest) >= TokenId::LEN + SECRET_LEN)
}

fn is_text(text: &str) -> bool {
    (1..=MAX_LENGTH).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_logged_once_an_hour_and_junk_is_bounded() {
        let log = MisconfigurationLog::default();
        let (start, second) = (Duration::from_secs(5), Duration::from_secs(1));
        let should_log = |name: &str, now| log.should_log("a protocol", &unknown_requirement(name), now);
        assert!(should_log("scopes", start));
        assert!(!should_log("scopes", start + second), "it is logged once");
        assert!(
            log.should_log("another", &unknown_requirement("scopes"), start + second),
            "each protocol is logged on its own"
        );
        let junk = (0..1000).filter(|n| should_log(&format!("junk{n}"), start + second)).count();
        assert_eq!(junk, MAX_LOGGED - 2, "the log does not grow with junk");
        assert!(!should_log("audiences", start + LOG_INTERVAL - second));
        assert!(should_log("audiences", start + LOG_INTERVAL), "junk hides it for at most an hour");
        assert!(should_log("scopes", start + LOG_INTERVAL), "it is logged again after an hour");
        assert!(!should_log("scopes", start + LOG_INTERVAL + second));
    }
}
