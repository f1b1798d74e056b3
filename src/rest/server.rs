//! The router of all dialects, and what every request gets: an id, a tracing span, an access log line, metrics and headers.
//!
//! tower-http's `CatchPanicLayer` and `TimeoutLayer` have response bodies of their own; here an error has the format of its dialect.
//! `TraceLayer` does not log a request whose client has disconnected.

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{MatchedPath, Request},
    http::{HeaderValue, Method, StatusCode, header},
    middleware::{self, Next},
    response::Response,
};
use futures::FutureExt;
use tracing::{Instrument, error, info, info_span};

use super::{
    cryptlex,
    dialect::{CRYPTLEX, Dialect, SAILPOINT},
    error::RestError,
    metrics::Metrics,
    oauth, openapi,
    request::{CALLER, CallerCell, RequestId},
    response, sailpoint,
    service::TokenService,
    truefoundry,
};
use crate::service::http::timeout;

/// The time limit of a request: creating a token waits for the controller. The HTTP server's own limit is a little longer, so that the
/// error comes from here.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(45);

/// Creates the router of the whole API.
pub fn router(service: Arc<TokenService>, metrics: Arc<Metrics>) -> Router {
    router_with_timeout(service, metrics, REQUEST_TIMEOUT)
}

/// Creates the same router with another time limit.
pub fn router_with_timeout(service: Arc<TokenService>, metrics: Arc<Metrics>, limit: Duration) -> Router {
    let routes = Router::new()
        .merge(oauth::routes(service.clone()))
        .merge(openapi::routes())
        .merge(truefoundry::routes(service.clone()))
        .nest(CRYPTLEX, cryptlex::routes(service.clone()))
        // SailPoint's clients look for the token endpoint below their base URL.
        .nest(SAILPOINT, sailpoint::routes(service.clone()).merge(oauth::routes(service)))
        .fallback(async || plain_error(StatusCode::NOT_FOUND, "No resource at this path."));
    with_middleware(routes, metrics, limit)
}

/// Adds what every request gets.
pub(super) fn with_middleware(routes: Router, metrics: Arc<Metrics>, limit: Duration) -> Router {
    routes.layer(middleware::from_fn(move |request: Request, next: Next| handle(metrics.clone(), limit, request, next)))
}

/// The status of a request whose client has disconnected, as nginx logs it.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// A request, logged and counted when it is dropped: with its response, or without one.
struct AccessLog {
    metrics: Arc<Metrics>,
    caller: CallerCell,
    began: Instant,
    id: RequestId,
    dialect: Dialect,
    method: Method,
    route: String,
    status: Option<u16>,
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        let (status, took) = (self.status.unwrap_or(CLIENT_CLOSED_REQUEST), self.began.elapsed());
        let Self { metrics, caller, id, dialect, method, route, .. } = self;
        metrics.answered(*dialect, route, status, took);
        let (owner, token) = caller.get().map(|(owner, token)| (owner.as_str(), token.as_str())).unzip();
        let (dialect, took_ms) = (dialect.as_str(), milliseconds(took));
        let message = if self.status.is_some() { "answered" } else { "client disconnected before the response" };
        info!(target: "pat_operator::access", %id, dialect, %method, route, status, took_ms, owner, token, "{message}");
    }
}

/// Returns whole microseconds as milliseconds, so with at most three decimals.
fn milliseconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e3
}

async fn handle(metrics: Arc<Metrics>, limit: Duration, mut request: Request, next: Next) -> Response {
    let (began, id, caller) = (Instant::now(), RequestId::random(), CallerCell::default());
    let dialect = Dialect::of(request.uri().path());
    let route = request.extensions().get::<MatchedPath>().map_or("none".to_owned(), |path| path.as_str().to_owned());
    let method = request.method().clone();
    // The route's template and never the path or the query, which may hold a token.
    let span = info_span!("request", %id, dialect = dialect.as_str(), %method, route);
    request.extensions_mut().insert(id.clone());
    let shared = caller.clone();
    let mut log = AccessLog { metrics, caller, began, id, dialect, method, route, status: None };
    let answering = timeout(limit, AssertUnwindSafe(CALLER.scope(shared, next.run(request))).catch_unwind());
    let mut response = match answering.instrument(span.clone()).await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => {
            // The panic hook has written the cause.
            span.in_scope(|| error!("request handler panicked"));
            error_response(dialect, RestError::Internal, &log.id)
        }
        Err(_) => error_response(dialect, RestError::Timeout, &log.id),
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(id) = HeaderValue::from_str(&log.id.0) {
        headers.insert("x-request-id", id);
    }
    log.status = Some(response.status().as_u16());
    response
}

/// Writes an error that occurred outside of the dialect in the dialect's format.
fn error_response(dialect: Dialect, error: RestError, id: &RequestId) -> Response {
    match dialect {
        Dialect::Sailpoint => sailpoint::error_response(error, id),
        Dialect::Truefoundry => truefoundry::error_response(error),
        Dialect::Cryptlex => cryptlex::error_response(error),
        Dialect::Oauth => oauth::error_response(error),
        Dialect::Other => plain_error(error.status(), &error.to_string()),
    }
}

/// An error outside of every dialect.
fn plain_error(status: StatusCode, message: &str) -> Response {
    response::json(status, &serde_json::json!({ "message": message }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_have_at_most_three_decimals() {
        for (nanos, text) in
            [(0, "0"), (999, "0"), (1_234_567, "1.234"), (20_000_001_999, "20000.001"), (100_100_000, "100.1")]
        {
            assert_eq!(milliseconds(Duration::from_nanos(nanos)).to_string(), text);
        }
    }
}
