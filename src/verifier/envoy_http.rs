//! Envoy's ext_authz over HTTP.
//!
//! `/auth/envoy/scope=a,b/audience=c/-/…`: Envoy appends the client's path and query to the prefix that it was given and keeps
//! the client's method. So what is needed stands in the path, `/-/` ends it, and what follows is never read: a client must not be
//! able to ask for less.
//!
//! Exactly 200 allows. 503 when nobody can tell: Envoy counts it as an error and then does as its `failure_mode_allow` says, which
//! has to stay off.

use axum::{
    http::{HeaderMap, StatusCode, Uri},
    response::Response,
};

use super::{
    Protocol, Verifier,
    demand::{Mistakes, Requirements},
    outcome, reply,
};

/// What every path begins with.
pub const PREFIX: &str = "/auth/envoy/";

/// Answers an Envoy that asks whether it may let a request pass.
pub fn answer(verifier: &Verifier, mistakes: &Mistakes, uri: &Uri, headers: &HeaderMap) -> Response {
    let path = uri.path().strip_prefix(PREFIX).unwrap_or_default();
    let needed = match Requirements::from_path(path) {
        Ok(needed) => needed,
        Err(error) => {
            mistakes.tell("Envoy over HTTP", &error);
            return reply::misconfigured(&error);
        }
    };
    let outcome = outcome::judge(verifier, Protocol::EnvoyHttp, reply::plain(headers), &needed);
    let refused = |challenge: &super::challenge::Challenge| {
        StatusCode::from_u16(challenge.status()).unwrap_or(StatusCode::FORBIDDEN)
    };
    reply::to_proxy(&outcome, refused, StatusCode::SERVICE_UNAVAILABLE)
}
