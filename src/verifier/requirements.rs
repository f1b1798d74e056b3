//! Reads what a proxy was told to ask for: the scopes and the audience that a request needs.
//!
//! Strict, because a requirement that is misspelt and ignored would open a door. It must not know any token, nor which
//! proxy it is.

use std::{
    borrow::Cow,
    collections::HashSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use percent_encoding::percent_decode_str;
use tracing::warn;

use crate::{
    auth::decision::{Audience, Demand},
    service::clock::uptime,
};

/// The most scopes that can be asked for; no token has more.
const MAX_SCOPES: usize = 64;

/// The longest scope or audience that a token can have, with room to spare.
const MAX_LENGTH: usize = 512;

/// How many different mistakes are told in the log, until they are forgotten.
const MAX_WARNINGS: usize = 64;

/// How long it is remembered what was told.
const REMEMBERED: Duration = Duration::from_hours(1);

/// How much of what is unknown is told: less than the shortest prefix, `_` and id of a token together.
const TOLD: usize = 14;

/// Where the requirements end in Envoy's path, and the client's own path begins.
const END: &str = "-";

/// What a request needs: each of the scopes, and the audience if there is one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requirements<'a> {
    scopes: Vec<Cow<'a, str>>,
    audience: Option<Cow<'a, str>>,
}

/// Why requirements cannot be read. The answer to all of it is a denial: whoever set up the proxy made a mistake.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRequirements {
    /// Neither `scope` nor `audience`.
    #[error("{0:?} is no requirement: there are scope=… and audience=…")]
    Unknown(String),
    /// No scope-token of RFC 6749.
    #[error(
        "a scope is 1 to {MAX_LENGTH} visible ASCII characters without quote and backslash, percent-encoded (%2B for a plus)"
    )]
    Scope,
    /// Too many of them.
    #[error("at most {MAX_SCOPES} scopes can be required")]
    TooManyScopes,
    /// No audience.
    #[error("an audience is 1 to {MAX_LENGTH} visible ASCII characters, percent-encoded (%2B for a plus)")]
    Audience,
    /// More than one.
    #[error("only one audience can be required")]
    TwoAudiences,
    /// The path does not say where the requirements end.
    #[error("the requirements of a path end with /-/")]
    Endless,
}

impl InvalidRequirements {
    /// The one name of this error for metrics, events and logs.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Unknown(_) => "RequirementUnknown",
            Self::Scope => "RequirementScope",
            Self::TooManyScopes => "RequirementTooManyScopes",
            Self::Audience => "RequirementAudience",
            Self::TwoAudiences => "RequirementTwoAudiences",
            Self::Endless => "RequirementEndless",
        }
    }
}

impl<'a> Requirements<'a> {
    /// Reads a query: `scope=a&scope=b&audience=c`, one scope each, in percent-encoding. No query: any good token will do.
    ///
    /// # Errors
    /// Anything else in it.
    pub fn from_query(query: &'a str) -> Result<Self, InvalidRequirements> {
        let mut read = Self::default();
        for part in query.split('&').filter(|_| !query.is_empty()) {
            match part.split_once('=') {
                Some(("scope", scope)) => read.require_scope(decoded(scope).ok_or(InvalidRequirements::Scope)?)?,
                Some(("audience", one)) => read.require_audience(decoded(one).ok_or(InvalidRequirements::Audience)?)?,
                _ => return Err(unknown(part)),
            }
        }
        Ok(read)
    }

    /// Reads the beginning of a path: `scope=a,b/audience=c/-/…`, in percent-encoding. What follows `-/` is not looked at.
    ///
    /// # Errors
    /// Anything else before it, and a path without it.
    pub fn from_path(path: &'a str) -> Result<Self, InvalidRequirements> {
        let mut read = Self::default();
        let mut segments = path.split('/');
        while let Some(segment) = segments.next() {
            match segment.split_once('=') {
                Some(("scope", scopes)) => {
                    for scope in scopes.split(',') {
                        read.require_scope(decoded(scope).ok_or(InvalidRequirements::Scope)?)?;
                    }
                }
                Some(("audience", one)) => read.require_audience(decoded(one).ok_or(InvalidRequirements::Audience)?)?,
                // Something must follow: `/-` alone may be the client's path, cut off or not.
                None if segment == END && segments.next().is_some() => return Ok(read),
                None if segment == END => return Err(InvalidRequirements::Endless),
                _ => return Err(unknown(segment)),
            }
        }
        Err(InvalidRequirements::Endless)
    }

    /// One more scope, as plain text.
    ///
    /// # Errors
    /// What no token can have.
    pub fn require_scope(&mut self, scope: Cow<'a, str>) -> Result<(), InvalidRequirements> {
        if !is_text(&scope) || scope.contains(['"', '\\']) {
            return Err(InvalidRequirements::Scope);
        }
        if self.scopes.len() == MAX_SCOPES {
            return Err(InvalidRequirements::TooManyScopes);
        }
        self.scopes.push(scope);
        Ok(())
    }

    /// The audience, as plain text.
    ///
    /// # Errors
    /// What no token can have, and a second one.
    pub fn require_audience(&mut self, audience: Cow<'a, str>) -> Result<(), InvalidRequirements> {
        if !is_text(&audience) {
            return Err(InvalidRequirements::Audience);
        }
        match self.audience.replace(audience) {
            None => Ok(()),
            Some(_) => Err(InvalidRequirements::TwoAudiences),
        }
    }

    /// The scopes, separated by spaces, as a challenge names them.
    pub fn scope_text(&self) -> String {
        self.scopes.join(" ")
    }

    /// Hands on what is asked for, in the form that a decision takes.
    pub fn ask<T>(&self, decide: impl FnOnce(&Demand<'_>) -> T) -> T {
        let scopes: Vec<&str> = self.scopes.iter().map(|scope| &**scope).collect();
        let audience = self.audience.as_deref();
        let audiences = audience.as_slice();
        let audience = if audiences.is_empty() { Audience::Unnamed } else { Audience::OneOf(audiences) };
        decide(&Demand { scopes: &scopes, audience })
    }
}

/// Tells each mistake in a set-up once an hour: a proxy repeats it with every request.
#[derive(Debug, Default)]
pub struct Mistakes(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    /// The uptime when the first of them was told.
    since: Duration,
    mistakes: HashSet<String>,
}

impl Mistakes {
    /// Logs it unless it has been.
    pub fn tell(&self, protocol: &'static str, error: &InvalidRequirements) {
        if self.is_news(protocol, error, uptime()) {
            warn!(protocol, %error, "a proxy asks for something that cannot be understood, so every request is denied");
        }
    }

    /// Whether it is to be told at this uptime; then it counts as told.
    fn is_news(&self, protocol: &'static str, error: &InvalidRequirements, now: Duration) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Strangers could fill it with junk, after which no real mistake would ever be told.
        if told.mistakes.is_empty() || now.saturating_sub(told.since) >= REMEMBERED {
            *told = Told { since: now, mistakes: HashSet::new() };
        }
        // The log must not grow with what strangers send.
        told.mistakes.len() < MAX_WARNINGS && told.mistakes.insert(format!("{protocol} {error}"))
    }
}

/// Tells a name that is none of ours, or the beginning of it.
pub fn unknown(name: &str) -> InvalidRequirements {
    // Enough to be recognised, and not enough of a token for any of its secret: this is logged, and may be the client's path.
    InvalidRequirements::Unknown(name.split('=').next().unwrap_or_default().chars().take(TOLD).collect())
}

/// Percent-decoded; `None` for a broken escape, and for a bare plus, which means a space to some.
fn decoded(text: &str) -> Option<Cow<'_, str>> {
    let bytes = text.as_bytes();
    let sound = bytes.iter().enumerate().all(|(at, byte)| match byte {
        b'%' => bytes.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)),
        other => *other != b'+',
    });
    if sound { percent_decode_str(text).decode_utf8().ok() } else { None }
}

fn is_text(text: &str) -> bool {
    (1..=MAX_LENGTH).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_told_once_an_hour_however_much_junk_there_is() {
        let mistakes = Mistakes::default();
        let (start, second) = (Duration::from_secs(5), Duration::from_secs(1));
        let is_news = |name: &str, now| mistakes.is_news("a protocol", &unknown(name), now);
        assert!(is_news("scopes", start));
        assert!(!is_news("scopes", start + second), "it is told once");
        assert!(mistakes.is_news("another", &unknown("scopes"), start + second), "each protocol has its own");
        let junk = (0..1000).filter(|n| is_news(&format!("junk{n}"), start + second)).count();
        assert_eq!(junk, MAX_WARNINGS - 2, "the log does not grow with junk");
        assert!(!is_news("audiences", start + REMEMBERED - second));
        assert!(is_news("audiences", start + REMEMBERED), "junk hides it for an hour and no longer");
        assert!(is_news("scopes", start + REMEMBERED), "it is told again as long as it stands");
        assert!(!is_news("scopes", start + REMEMBERED + second));
    }
}
