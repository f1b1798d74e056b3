//! Puts the HTTP protocols together.
//!
//! It must not know where it listens, nor what any protocol says.

#[cfg(test)]
mod tests;

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    Router,
    extract::Request,
    http::{StatusCode, Uri},
    response::Response,
    routing::any,
};
use futures::{
    FutureExt,
    future::{BoxFuture, Either},
};
use tower::Service;

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

/// All HTTP protocols.
///
/// Every path takes every method and refuses those that are not for it: proxies ask with their clients' methods. What is asked
/// with each of somebody's requests does not take the way through a router, which costs more than the decision.
#[derive(Clone)]
pub struct Protocols {
    shared: Arc<Shared>,
    others: Router,
}

impl Protocols {
    /// The client is for callers of introspection who are ServiceAccounts; without it there are none.
    pub fn new(verifier: Arc<Verifier>, settings: Settings, client: Option<kube::Client>) -> Self {
        let callers = Callers::new(Arc::clone(&verifier), client);
        let shared = Arc::new(Shared { verifier, callers, mistakes: Mistakes::default(), settings });
        Self { others: others(&shared), shared }
    }
}

impl Service<Request> for Protocols {
    type Response = Response;
    type Error = Infallible;
    type Future = Either<Ready<Result<Response, Infallible>>, BoxFuture<'static, Result<Response, Infallible>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        match request.uri().path() {
            FORWARD => {
                let Shared { verifier, mistakes, .. } = &*self.shared;
                let _timing = verifier.time(Protocol::ForwardAuth);
                let answer = forward_auth::answer(verifier, mistakes, request.uri(), request.headers());
                Either::Left(ready(Ok(answer)))
            }
            introspection::PATH => {
                let shared = Arc::clone(&self.shared);
                let answer = async move {
                    let Shared { verifier, callers, settings, .. } = &*shared;
                    let _timing = verifier.time(Protocol::Introspection);
                    Ok(introspection::answer(verifier, callers, settings.issuer.as_ref(), request).await)
                };
                Either::Right(answer.boxed())
            }
            _ => Either::Right(self.others.call(request).boxed()),
        }
    }
}

/// Those that are asked now and then, and what is said where there is nothing.
fn others(shared: &Arc<Shared>) -> Router {
    let shared = Arc::clone(shared);
    let with = |answer: fn(&Shared, &Request) -> Response| {
        let shared = Arc::clone(&shared);
        any(move |request: Request| std::future::ready(answer(&shared, &request)))
    };
    let mut router = Router::new().route(
        &format!("{}{{*path}}", envoy_http::PREFIX),
        with(|shared, request| {
            let _timing = shared.verifier.time(Protocol::EnvoyHttp);
            envoy_http::answer(&shared.verifier, &shared.mistakes, request.uri(), request.headers())
        }),
    );
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
