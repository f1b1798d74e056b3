//! Puts the dialects together, and does for each request what all of them need: an id, a log line, figures, headers.
//!
//! It must not know where it listens, nor what any dialect says.

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
    context::Context, cryptlex, failure::Failure, metrics::Metrics, oauth, openapi, reply, request_id::RequestId,
    sailpoint, service::Service, truefoundry,
};
use crate::service::http::within;

/// How long a request may take: a new token is waited for, and the time for that is the service's to keep. Whoever serves this gives each
/// request a little longer, so that it is here that its end is told.
pub const LONGEST: Duration = Duration::from_secs(45);

/// Where SailPoint's clients are sent.
pub const SAILPOINT: &str = "/sailpoint";

/// Where Cryptlex's clients are sent.
pub const CRYPTLEX: &str = "/cryptlex";

/// Where TrueFoundry's clients look, whatever they are told.
pub const TRUEFOUNDRY: &str = "/api/svc";

/// What part of the API a path belongs to, as metrics and the log name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// SailPoint's personal access tokens.
    Sailpoint,
    /// TrueFoundry's, older and newer.
    Truefoundry,
    /// Cryptlex's.
    Cryptlex,
    /// The exchange of tokens.
    Oauth,
    /// All else.
    Other,
}

impl Dialect {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Sailpoint, Self::Truefoundry, Self::Cryptlex, Self::Oauth, Self::Other];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sailpoint => "sailpoint",
            Self::Truefoundry => "truefoundry",
            Self::Cryptlex => "cryptlex",
            Self::Oauth => "oauth",
            Self::Other => "other",
        }
    }

    /// Whose path this is.
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

    /// A failure of which no dialect knows, in the words of this one.
    fn failed(self, failure: Failure, id: &RequestId) -> Response {
        match self {
            Self::Sailpoint => sailpoint::failed(failure, id),
            Self::Truefoundry => truefoundry::failed(failure),
            Self::Cryptlex => cryptlex::failed(failure),
            Self::Oauth => oauth::failed(failure),
            Self::Other => problem(failure.status(), &failure.to_string()),
        }
    }
}

/// The whole API.
pub fn router(service: Arc<Service>, metrics: Arc<Metrics>) -> Router {
    router_within(service, metrics, LONGEST)
}

/// The same, where a request may take so long.
pub fn router_within(service: Arc<Service>, metrics: Arc<Metrics>, longest: Duration) -> Router {
    let routes = Router::new()
        .merge(oauth::routes(service.clone()))
        .merge(openapi::routes())
        // Its clients drop a path that they are given.
        .merge(truefoundry::routes(service.clone()))
        .nest(CRYPTLEX, cryptlex::routes(service.clone()))
        // SailPoint's clients look for it below their base URL.
        .nest(SAILPOINT, sailpoint::routes(service.clone()).merge(oauth::routes(service)))
        .fallback(async || problem(StatusCode::NOT_FOUND, "there is nothing here"));
    around(routes, metrics, longest)
}

/// What is done around each request.
pub(super) fn around(routes: Router, metrics: Arc<Metrics>, longest: Duration) -> Router {
    routes
        .layer(middleware::from_fn(move |request: Request, next: Next| answer(metrics.clone(), longest, request, next)))
}

/// What is told of a request that nobody waited for, as other servers do: the client has gone.
const GONE: u16 = 499;

/// A request, told at its end: when it is answered, or dropped before.
struct Told {
    metrics: Arc<Metrics>,
    context: Arc<Context>,
    began: Instant,
    id: RequestId,
    dialect: Dialect,
    method: Method,
    route: String,
    status: Option<u16>,
}

impl Told {
    fn answered(mut self, status: StatusCode) {
        self.status = Some(status.as_u16());
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let (status, took) = (self.status.unwrap_or(GONE), self.began.elapsed());
        let Self { metrics, context, id, dialect, method, route, .. } = self;
        metrics.answered(*dialect, route, status, took);
        let caller = context.caller();
        let (owner, token) = (caller.map(|(owner, _)| owner), caller.map(|(_, token)| token.as_str()));
        let (dialect, took_ms) = (dialect.as_str(), took.as_secs_f64() * 1e3);
        let what = if self.status.is_some() { "answered" } else { "nobody waits for the answer any more" };
        info!(target: "pat_operator::access", %id, dialect, %method, route, status, took_ms, owner, token, "{what}");
    }
}

async fn answer(metrics: Arc<Metrics>, longest: Duration, mut request: Request, next: Next) -> Response {
    let (began, id, context) = (Instant::now(), RequestId::new(), Arc::new(Context::default()));
    let dialect = Dialect::of(request.uri().path());
    let route = request.extensions().get::<MatchedPath>().map_or("none".to_owned(), |path| path.as_str().to_owned());
    let method = request.method().clone();
    let (shared, known) = (context.clone(), id.clone());
    let told = Told { metrics, context: shared, began, id: known, dialect, method, route: route.clone(), status: None };
    request.extensions_mut().insert(id.clone());
    let span = info_span!("request", %id);
    let answering = within(longest, AssertUnwindSafe(context.scope(next.run(request))).catch_unwind());
    let mut response = match answering.instrument(span.clone()).await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => {
            // What it was about stands in the panic's own message, which has been written already.
            span.in_scope(|| error!(route, "the answer to a request panicked"));
            dialect.failed(Failure::Internal, &id)
        }
        Err(_) => dialect.failed(Failure::TooLong, &id),
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(id) = HeaderValue::from_str(&id.0) {
        headers.insert("x-request-id", id);
    }
    told.answered(response.status());
    response
}

/// An error of no dialect.
fn problem(status: StatusCode, words: &str) -> Response {
    reply::json(status, &serde_json::json!({ "message": words }))
}
