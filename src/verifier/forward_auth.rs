//! Forward auth (nginx's `auth_request`, Traefik's `forwardAuth`, Caddy's `forward_auth`), and Envoy's ext_authz over HTTP.
//!
//! The token is a Bearer token, or the password of Basic with any user name: `git`, `docker` and `npm` support only Basic, and the
//! Secret presets write the owner as its user name.

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, Uri},
    response::Response,
};

use super::{
    Protocol, Verifier,
    proxy::ProxyDecision,
    requirements::{InvalidRequirements, MisconfigurationLog, ProxyRequirements},
    response::{self, Challenge},
};

/// Path of forward auth.
pub const PATH: &str = "/auth/forward";

/// The header in which proxies send the path and query of the client.
const FORWARDED_URI: &str = "x-forwarded-uri";

/// The name of this protocol in logs.
const FORWARD_AUTH: &str = "forward auth";

/// Prefix of all paths of Envoy's ext_authz over HTTP.
pub const ENVOY_PREFIX: &str = "/auth/envoy/";

/// Answers a request of nginx, Traefik or Caddy: `/auth/forward?scope=…&scope=…&audience=…`, with any method.
///
/// The query has the requirements. The status is 200, 401 or 403 and no other, because nginx turns any other into 500, which looks
/// like a fault of the service. So a malformed header is 401, and "unavailable" is 403 with a body that says so.
pub fn answer(verifier: &Verifier, log: &MisconfigurationLog, uri: &Uri, headers: &HeaderMap) -> Response {
    let query = uri.query().unwrap_or_default();
    if is_query_of_client(query, headers) {
        return misconfigured(log, FORWARD_AUTH, &InvalidRequirements::ClientQuery);
    }
    let requirements = match ProxyRequirements::from_query(query) {
        Ok(requirements) => requirements,
        Err(error) => return misconfigured(log, FORWARD_AUTH, &error),
    };
    let decision = ProxyDecision::on(verifier, Protocol::ForwardAuth, response::plain(headers), &requirements);
    let status = |challenge: &Challenge| match challenge {
        Challenge::Missing | Challenge::InvalidRequest | Challenge::InvalidToken => StatusCode::UNAUTHORIZED,
        Challenge::InsufficientScope { .. } => StatusCode::FORBIDDEN,
    };
    response::to_proxy(&decision, status, StatusCode::FORBIDDEN)
}

/// Answers a request whose target had a fragment: part of the requirements is lost.
pub fn refuse_fragment(log: &MisconfigurationLog) -> Response {
    misconfigured(log, FORWARD_AUTH, &InvalidRequirements::Fragment)
}

/// Answers a request with too many headers.
pub fn refuse_headers(message: String) -> Response {
    response::text(StatusCode::FORBIDDEN, message)
}

/// Whether the proxy handed on the query of its client, which then states the requirements.
///
/// Caddy keeps the client's query if its `uri` has none (<https://caddyserver.com/docs/caddyfile/directives/forward_auth>). Traefik and Caddy
/// send the client's URI in this header; nginx does not.
fn is_query_of_client(query: &str, headers: &HeaderMap) -> bool {
    let client_query = |uri: &'_ HeaderValue| {
        let uri = uri.as_bytes();
        uri.iter().position(|byte| *byte == b'?').is_some_and(|at| &uri[at + 1..] == query.as_bytes())
    };
    !query.is_empty() && headers.get_all(FORWARDED_URI).iter().any(client_query)
}

/// Answers a request of Envoy: `/auth/envoy/scope=a,b/audience=c/-/…`, with any method.
///
/// Envoy appends the path and query of the client to its configured prefix. So the path has the requirements, `/-/` ends them, and
/// the rest is ignored: a client must not be able to weaken the requirements.
///
/// Only status 200 lets the request pass. "Unavailable" is 503, which Envoy treats as an error and handles according to its
/// `failure_mode_allow`, which must stay off.
pub fn answer_envoy(verifier: &Verifier, log: &MisconfigurationLog, uri: &Uri, headers: &HeaderMap) -> Response {
    let path = uri.path().strip_prefix(ENVOY_PREFIX).unwrap_or_default();
    let requirements = match ProxyRequirements::from_path(path) {
        Ok(requirements) => requirements,
        Err(error) => return misconfigured(log, "Envoy over HTTP", &error),
    };
    let decision = ProxyDecision::on(verifier, Protocol::EnvoyHttp, response::plain(headers), &requirements);
    response::to_proxy(&decision, Challenge::status, StatusCode::SERVICE_UNAVAILABLE)
}

fn misconfigured(log: &MisconfigurationLog, protocol: &'static str, error: &InvalidRequirements) -> Response {
    log.log(protocol, error);
    response::misconfigured(error)
}
