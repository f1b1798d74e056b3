//! Forward auth, for nginx's `auth_request`, Traefik's `forwardAuth` and Caddy's `forward_auth`.
//!
//! `/auth/forward?scope=…&scope=…&audience=…`: what is needed stands in the query, the client's credential in its own
//! `Authorization`. The method and whatever else a proxy adds do not matter.
//!
//! The answer is 200, 401 or 403 and never anything else: nginx makes 500 of all others, and its users would see our
//! denial as a fault of theirs. So what is malformed is 401, and when nobody can tell it is 403 with a body that says so.
//!
//! Besides Bearer the token may be the password of Basic, whatever its user name: `git`, `docker` and `npm` can send nothing else,
//! and the presets of our Secrets put the owner there.

use axum::{
    http::{HeaderMap, StatusCode, Uri},
    response::Response,
};

use super::{
    Protocol, Verifier,
    challenge::Challenge,
    demand::{Mistakes, Requirements},
    outcome, reply,
};

/// Answers a proxy that asks whether it may let a request pass.
pub fn answer(verifier: &Verifier, mistakes: &Mistakes, uri: &Uri, headers: &HeaderMap) -> Response {
    let needed = match Requirements::from_query(uri.query().unwrap_or_default()) {
        Ok(needed) => needed,
        Err(error) => {
            mistakes.tell("forward auth", &error);
            return reply::misconfigured(&error);
        }
    };
    let outcome = outcome::judge(verifier, Protocol::ForwardAuth, reply::plain(headers), &needed);
    reply::to_proxy(&outcome, status, StatusCode::FORBIDDEN)
}

fn status(challenge: &Challenge) -> StatusCode {
    match challenge {
        Challenge::Missing | Challenge::InvalidRequest | Challenge::InvalidToken => StatusCode::UNAUTHORIZED,
        Challenge::InsufficientScope { .. } => StatusCode::FORBIDDEN,
    }
}
