//! The router of all dialects, and what every request gets: an id, a tracing span, an access log line, metrics and headers.
//!
//! tower-http's `CatchPanicLayer` and `TimeoutLayer` have response bodies of their own; here an error has the format of its dialect.
//! `TraceLayer` does not log a request whose client has disconnected.

use std::{
    fmt,
    panic::AssertUnwindSafe,
    sync::{Arc, OnceLock},
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
use rand::{TryRng, rngs::SysRng};
use tracing::{Instrument, error, info, info_span};

use super::{
    cryptlex, error::RestError, metrics::Metrics, oauth, openapi, response, sailpoint, service::TokenService,
    truefoundry,
};
use crate::{service::http::timeout, token::TokenId};

/// The time limit of a request: creating a token waits for the controller. The HTTP server's own limit is a little longer, so that the
/// error comes from here.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(45);

/// The base path of SailPoint's dialect.
pub const SAILPOINT: &str = "/sailpoint";

/// The base path of Cryptlex's dialect.
pub const CRYPTLEX: &str = "/cryptlex";

/// The base path of TrueFoundry's dialect. Its clients ignore the path of the URL that they are given.
pub const TRUEFOUNDRY: &str = "/api/svc";

/// The part of the API that a path belongs to, as metrics and log name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// SailPoint's personal access tokens.
    Sailpoint,
    /// TrueFoundry's personal access tokens and virtual accounts.
    Truefoundry,
    /// Cryptlex's personal access tokens.
    Cryptlex,
    /// The OAuth token endpoint.
    Oauth,
    /// Everything else.
    Other,
}

impl Dialect {
    /// All dialects.
    pub const ALL: [Self; 5] = [Self::Sailpoint, Self::Truefoundry, Self::Cryptlex, Self::Oauth, Self::Other];

    /// Returns the name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sailpoint => "sailpoint",
            Self::Truefoundry => "truefoundry",
            Self::Cryptlex => "cryptlex",
            Self::Oauth => "oauth",
            Self::Other => "other",
        }
    }

    fn of(path: &str) -> Self {
        let under = |mount: &str| path.strip_prefix(mount).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if path.ends_with(oauth::PATH) {
            Self::Oauth
        } else if under(SAILPOINT) {
            Self::Sailpoint
        } else if under(TRUEFOUNDRY) {
            Self::Truefoundry
        } else if under(CRYPTLEX) {
            Self::Cryptlex
        } else {
            Self::Other
        }
    }

    /// Writes an error that occurred outside of the dialect in the dialect's format.
    fn error_response(self, error: RestError, id: &RequestId) -> Response {
        match self {
            Self::Sailpoint => sailpoint::error_response(error, id),
            Self::Truefoundry => truefoundry::error_response(error),
            Self::Cryptlex => cryptlex::error_response(error),
            Self::Oauth => oauth::error_response(error),
            Self::Other => plain_error(error.status(), &error.to_string()),
        }
    }
}

/// The id of a request: 32 hexadecimal digits, in the request's extensions. It appears in the log, in the header `x-request-id` and in
/// errors. An id that the client sends is ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(pub String);

impl RequestId {
    /// Creates a random id. It is not a secret: without randomness it is all zeros.
    pub fn random() -> Self {
        let mut bytes = [0; 16];
        let _no_secret = SysRng.try_fill_bytes(&mut bytes);
        Self(format!("{:032x}", u128::from_be_bytes(bytes)))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

tokio::task_local! {
    /// The authenticated caller of the current request: owner and credential id.
    static CALLER: Arc<OnceLock<(String, TokenId)>>;
}

/// Records the caller for the access log. Outside of a request, it does nothing.
pub(super) fn record_caller(owner: &str, credential: TokenId) {
    let _only_the_first = CALLER.try_with(|caller| caller.set((owner.to_owned(), credential)).is_ok());
}

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
    caller: Arc<OnceLock<(String, TokenId)>>,
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
        let (dialect, took_ms) = (dialect.as_str(), took.as_secs_f64() * 1e3);
        let message = if self.status.is_some() { "answered" } else { "client disconnected before the response" };
        info!(target: "pat_operator::access", %id, dialect, %method, route, status, took_ms, owner, token, "{message}");
    }
}

async fn handle(metrics: Arc<Metrics>, limit: Duration, mut request: Request, next: Next) -> Response {
    let (began, id, caller) = (Instant::now(), RequestId::random(), Arc::<OnceLock<_>>::default());
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
            dialect.error_response(RestError::Internal, &log.id)
        }
        Err(_) => dialect.error_response(RestError::Timeout, &log.id),
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

/// An error outside of every dialect.
fn plain_error(status: StatusCode, message: &str) -> Response {
    response::json(status, &serde_json::json!({ "message": message }))
}
