//! Puts the HTTP protocols together.
//!
//! It must not know where it listens, nor what any protocol says.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::{
    Router,
    extract::Request,
    http::{StatusCode, Uri},
    response::Response,
    routing::any,
};

use super::{
    Protocol, Verifier,
    caller::Callers,
    demand::Mistakes,
    envoy_http, forward_auth, introspection,
    metadata::{self, Issuer},
    reply,
    tokenreview::{self, TokenReviewSettings},
};

/// Where forward auth is.
const FORWARD: &str = "/auth/forward";

/// What is answered, and how.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The URL under which OAuth clients reach this verifier. Without it there is no metadata and no `iss`.
    pub issuer: Option<Issuer>,
    /// The API server's webhook; without it there is none.
    pub tokenreview: Option<TokenReviewSettings>,
}

struct Shared {
    verifier: Arc<Verifier>,
    callers: Callers,
    mistakes: Mistakes,
    settings: Settings,
}

/// All HTTP protocols. The client is for callers of introspection who are ServiceAccounts; without it there are none.
///
/// Every path takes every method and refuses those that are not for it: proxies ask with their clients' methods.
pub fn router(verifier: Arc<Verifier>, settings: Settings, client: Option<kube::Client>) -> Router {
    let callers = Callers::new(Arc::clone(&verifier), client);
    let shared = Arc::new(Shared { verifier, callers, mistakes: Mistakes::default(), settings });
    let with = |answer: fn(&Shared, &Request) -> Response| {
        let shared = Arc::clone(&shared);
        any(move |request: Request| std::future::ready(answer(&shared, &request)))
    };
    let timed = |protocol: Protocol, answer: fn(&Shared, &Request) -> Response| {
        let shared = Arc::clone(&shared);
        any(move |request: Request| {
            let timing = shared.verifier.time(protocol);
            let answer = answer(&shared, &request);
            drop(timing);
            std::future::ready(answer)
        })
    };
    let introspection = {
        let shared = Arc::clone(&shared);
        any(async move |request: Request| {
            let issuer = shared.settings.issuer.as_ref();
            let _timing = shared.verifier.time(Protocol::Introspection);
            introspection::answer(&shared.verifier, &shared.callers, issuer, request).await
        })
    };
    let mut router = Router::new()
        .route(
            FORWARD,
            timed(Protocol::ForwardAuth, |shared, request| {
                forward_auth::answer(&shared.verifier, &shared.mistakes, request.uri(), request.headers())
            }),
        )
        .route(
            &format!("{}{{*path}}", envoy_http::PREFIX),
            timed(Protocol::EnvoyHttp, |shared, request| {
                envoy_http::answer(&shared.verifier, &shared.mistakes, request.uri(), request.headers())
            }),
        )
        .route(introspection::PATH, introspection);
    if shared.settings.issuer.is_some() {
        let metadata = with(|shared, request| {
            let issuer = shared.settings.issuer.as_ref();
            issuer
                .and_then(|issuer| metadata::answer(issuer, request.method(), request.uri()))
                .unwrap_or_else(|| not_found(&shared.settings))
        });
        router =
            router.route(metadata::PATH, metadata.clone()).route(&format!("{}/{{*path}}", metadata::PATH), metadata);
    }
    if shared.settings.tokenreview.is_some() {
        let shared = Arc::clone(&shared);
        router = router.route(
            tokenreview::PATH,
            any(async move |request: Request| match &shared.settings.tokenreview {
                Some(settings) => {
                    let _timing = shared.verifier.time(Protocol::TokenReview);
                    tokenreview::answer(&shared.verifier, settings, request).await
                }
                None => not_found(&shared.settings),
            }),
        );
    }
    router.fallback(async move |_: Uri| not_found(&shared.settings))
}

/// Names what is there.
fn not_found(settings: &Settings) -> Response {
    let mut paths =
        vec![format!("{FORWARD}?scope=…&audience=…"), format!("{}scope=…/audience=…/-/", envoy_http::PREFIX)];
    paths.push(introspection::PATH.to_owned());
    if settings.issuer.is_some() {
        paths.push(metadata::PATH.to_owned());
    }
    if settings.tokenreview.is_some() {
        paths.push(tokenreview::PATH.to_owned());
    }
    reply::text(StatusCode::NOT_FOUND, format!("there are {} here\n", paths.join(", ")))
}
