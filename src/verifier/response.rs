//! How every answer of the verifier is written.
//!
//! All answers come from here, so that none is ever stored by a cache on the way or guessed at by a browser. It must not know
//! what is answered.

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    response::Response,
};
use serde::Serialize;

use super::{challenge::Challenge, demand::InvalidRequirements, identity::NAMES, outcome::Outcome};
pub use crate::service::http::{body::read as body, plain};

/// An answer that a person reads.
pub fn text(status: StatusCode, words: impl Into<Body>) -> Response {
    with_type(status, "text/plain; charset=utf-8", words.into(), NAMES.len())
}

/// An answer that a program reads.
pub fn json(status: StatusCode, content: &impl Serialize) -> Response {
    // Room for most of them: a list that grows is copied again and again.
    let mut bytes = Vec::with_capacity(512);
    match serde_json::to_writer(&mut bytes, content) {
        Ok(()) => with_type(status, "application/json", bytes.into(), 0),
        // Only a map with keys that are no text fails, and there is none.
        Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the answer cannot be written\n"),
    }
}

/// With room for so many headers more: a map that grows is filled anew.
fn with_type(status: StatusCode, content_type: &'static str, body: Body, more: usize) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.reserve(3 + more);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// 405 and what would be allowed.
pub fn wrong_method(allowed: &'static str) -> Response {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, format!("only {allowed} is answered here\n"));
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

/// Whether the method is one of `allowed`, written as `Allow` has it.
pub fn is_allowed(method: &Method, allowed: &str) -> bool {
    allowed.split(", ").any(|one| one == method.as_str())
}

/// Says when to try again, to whoever was refused for want of room.
#[must_use]
pub fn try_again(mut response: Response) -> Response {
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// Adds a challenge to an answer.
#[must_use]
pub fn challenged(mut response: Response, challenge: &Challenge) -> Response {
    if let Ok(value) = HeaderValue::try_from(challenge.header()) {
        response.headers_mut().append(header::WWW_AUTHENTICATE, value);
    }
    response
}

/// Writes the answer to a proxy. `refused` and `unavailable` are the statuses that this proxy takes for them.
pub fn to_proxy(
    outcome: &Outcome,
    refused: impl FnOnce(&Challenge) -> StatusCode,
    unavailable: StatusCode,
) -> Response {
    match outcome {
        Outcome::Allow(identity) => {
            let mut response = text(StatusCode::OK, Body::empty());
            for (name, value) in identity.headers() {
                match HeaderValue::from_str(value) {
                    Ok(value) => response.headers_mut().insert(HeaderName::from_static(name), value),
                    // An allow without one of them would let the client's own through.
                    Err(_) => return text(StatusCode::FORBIDDEN, Outcome::Unprintable.words()),
                };
            }
            response
        }
        Outcome::Challenge(challenge) => challenged(text(refused(challenge), challenge.words()), challenge),
        Outcome::Alias | Outcome::Unprintable => text(StatusCode::FORBIDDEN, outcome.words()),
        Outcome::Unavailable(_) => text(unavailable, outcome.words()),
    }
}

/// Tells whoever set up a proxy what is wrong with it.
pub fn misconfigured(error: &InvalidRequirements) -> Response {
    text(StatusCode::FORBIDDEN, format!("this check is set up wrongly: {error}\n"))
}
