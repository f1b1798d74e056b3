//! HTTP responses of the verifier, and the challenges of RFC 6750.
//!
//! Every response is built here, so that no cache stores it and no browser guesses its content type.

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    response::Response,
};
use serde::Serialize;

use super::{
    proxy::{IDENTITY_HEADERS, ProxyDecision},
    requirements::InvalidRequirements,
};
pub use crate::service::http::{body::read as body, plain};
use crate::{auth::decision::Denial, service::authorization::NoToken};

/// The realm of every challenge.
pub const REALM: &str = "pat-operator";

/// Why a request is refused, in the terms of RFC 6750.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// The request has no token. RFC 6750 defines no error code for it.
    Missing,
    /// The token was sent twice or is not readable.
    InvalidRequest,
    /// The token is not valid, or not for this audience.
    InvalidToken,
    /// The token lacks a scope.
    InsufficientScope {
        /// All required scopes, separated by spaces.
        scope: String,
    },
}

impl Challenge {
    /// Returns the challenge for a denied token; `scope` returns the required scopes, separated by spaces.
    ///
    /// It is the same for unknown, expired and revoked tokens, wrong audiences and disabled owners: a client without a valid token
    /// does not learn what is wrong.
    pub fn of<C>(denial: &Denial<C>, scope: impl FnOnce() -> String) -> Self {
        match denial {
            Denial::Malformed(_)
            | Denial::Unknown { .. }
            | Denial::Inactive(..)
            | Denial::OwnerDisabled(_)
            | Denial::WrongAudience(_) => Self::InvalidToken,
            Denial::InsufficientScope(_) => Self::InsufficientScope { scope: scope() },
        }
    }

    /// Returns the HTTP status of RFC 6750. nginx's `auth_request` does not accept 400.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Missing | Self::InvalidToken => StatusCode::UNAUTHORIZED,
            Self::InvalidRequest => StatusCode::BAD_REQUEST,
            Self::InsufficientScope { .. } => StatusCode::FORBIDDEN,
        }
    }

    /// Returns the error code of RFC 6750, if there is one.
    pub fn error(&self) -> Option<&'static str> {
        match self {
            Self::Missing => None,
            Self::InvalidRequest => Some("invalid_request"),
            Self::InvalidToken => Some("invalid_token"),
            Self::InsufficientScope { .. } => Some("insufficient_scope"),
        }
    }

    /// Returns the message in the body: one line for people.
    pub fn message(&self) -> &'static str {
        match self {
            Self::Missing => "no token was sent: send it in the header Authorization: Bearer …\n",
            Self::InvalidRequest => "the header Authorization was sent twice or is malformed\n",
            Self::InvalidToken => {
                "the token is not accepted: it is unknown, expired, revoked, or for another audience\n"
            }
            Self::InsufficientScope { .. } => "the token lacks a required scope\n",
        }
    }

    /// Returns the value of `WWW-Authenticate`. Scopes contain neither quotes nor backslashes.
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

/// Builds a plain text response.
pub fn text(status: StatusCode, body: impl Into<Body>) -> Response {
    with_type(status, "text/plain; charset=utf-8", body.into(), IDENTITY_HEADERS.len())
}

/// Builds a JSON response.
pub fn json(status: StatusCode, content: &impl Serialize) -> Response {
    // Enough for most answers, because growing a buffer copies it.
    let mut bytes = Vec::with_capacity(512);
    match serde_json::to_writer(&mut bytes, content) {
        Ok(()) => with_type(status, "application/json", bytes.into(), 0),
        // Only a map with keys that are not text fails, and no answer has one.
        Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the response could not be encoded\n"),
    }
}

/// Builds a response with room for `extra` more headers, because growing a header map rebuilds it.
fn with_type(status: StatusCode, content_type: &'static str, body: Body, extra: usize) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.reserve(3 + extra);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Builds a response 405 with the allowed methods, as `Allow` lists them.
pub fn method_not_allowed(allowed: &'static str) -> Response {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, format!("method not allowed: use {allowed}\n"));
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

/// Reports whether the method is one of `allowed`, a list as in the header `Allow`.
pub fn is_allowed(method: &Method, allowed: &str) -> bool {
    allowed.split(", ").any(|one| one == method.as_str())
}

/// Adds `Retry-After` to a response for a request that exceeded the memory budget.
#[must_use]
pub fn with_retry_after(mut response: Response) -> Response {
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// Adds a challenge to a response.
#[must_use]
pub fn with_challenge(mut response: Response, challenge: &Challenge) -> Response {
    if let Ok(value) = HeaderValue::try_from(challenge.header()) {
        response.headers_mut().append(header::WWW_AUTHENTICATE, value);
    }
    response
}

/// Builds the response to a proxy. The proxy determines the statuses for a challenge and for "unavailable".
pub fn to_proxy(
    decision: &ProxyDecision,
    challenge_status: impl FnOnce(&Challenge) -> StatusCode,
    unavailable: StatusCode,
) -> Response {
    match decision {
        ProxyDecision::Allow(identity) => {
            let mut response = text(StatusCode::OK, Body::empty());
            for (name, value) in identity.headers() {
                match HeaderValue::from_str(value) {
                    Ok(value) => response.headers_mut().insert(HeaderName::from_static(name), value),
                    // Without this header, the proxy would pass on the one that the client sent.
                    Err(_) => return text(StatusCode::FORBIDDEN, ProxyDecision::Unprintable.message()),
                };
            }
            response
        }
        ProxyDecision::Challenge(challenge) => {
            with_challenge(text(challenge_status(challenge), challenge.message()), challenge)
        }
        ProxyDecision::AliasHeader | ProxyDecision::Unprintable => text(StatusCode::FORBIDDEN, decision.message()),
        ProxyDecision::Unavailable(_) => text(unavailable, decision.message()),
    }
}

/// Builds the response to a proxy with invalid requirements.
pub fn misconfigured(error: &InvalidRequirements) -> Response {
    text(StatusCode::FORBIDDEN, misconfiguration(error))
}

/// Returns the message for a proxy with invalid requirements.
pub fn misconfiguration(error: &InvalidRequirements) -> String {
    format!("the proxy is misconfigured: {error}\n")
}
