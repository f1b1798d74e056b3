//! The HTTP service of the verifier: routes requests to the protocols.

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
use tracing::Instrument;

use super::{
    Protocol, Verifier,
    caller::CallerAuthenticator,
    forward_auth, introspection,
    metadata::{self, Issuer},
    requirements::MisconfigurationLog,
    response,
    tokenreview::{self, TokenReviewConfig},
};
use crate::service::http::DroppedFragment;

/// The maximum number of headers of a request.
const MAX_HEADERS: usize = 512;

/// Configuration of the HTTP service.
#[derive(Clone, Debug, Default)]
pub struct HttpConfig {
    /// The URL at which OAuth clients reach this verifier. Without it, there is no metadata and no `iss`.
    pub issuer: Option<Issuer>,
    /// The TokenReview webhook, if it is enabled.
    pub tokenreview: Option<TokenReviewConfig>,
}

struct HttpState {
    verifier: Arc<Verifier>,
    callers: CallerAuthenticator,
    misconfigurations: MisconfigurationLog,
    config: HttpConfig,
}

/// All HTTP protocols of the verifier as one service.
///
/// Every path accepts every method, and protocols reject those that they do not support: proxies send the methods of their clients.
/// The two busiest paths bypass the router, which would cost more than the decision.
#[derive(Clone)]
pub struct VerifierService {
    state: Arc<HttpState>,
    router: Router,
}

impl VerifierService {
    /// Creates the service. The client authenticates ServiceAccounts that call introspection; without it, only PATs may call.
    pub fn new(verifier: Arc<Verifier>, config: HttpConfig, client: Option<kube::Client>) -> Self {
        let callers = CallerAuthenticator::new(Arc::clone(&verifier), client);
        let state =
            Arc::new(HttpState { verifier, callers, misconfigurations: MisconfigurationLog::default(), config });
        Self { router: router(&state), state }
    }
}

impl Service<Request> for VerifierService {
    type Response = Response;
    type Error = Infallible;
    type Future = Either<Ready<Result<Response, Infallible>>, BoxFuture<'static, Result<Response, Infallible>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        if request.headers().len() > MAX_HEADERS {
            return Either::Left(ready(Ok(too_many_headers(request.uri().path()))));
        }
        match request.uri().path() {
            forward_auth::PATH if request.extensions().get::<DroppedFragment>().is_some() => {
                Either::Left(ready(Ok(forward_auth::refuse_fragment(&self.state.misconfigurations))))
            }
            forward_auth::PATH => {
                let _span = Protocol::ForwardAuth.span().entered();
                let HttpState { verifier, misconfigurations, .. } = &*self.state;
                let _timer = verifier.start_timer(Protocol::ForwardAuth);
                let answer = forward_auth::answer(verifier, misconfigurations, request.uri(), request.headers());
                Either::Left(ready(Ok(answer)))
            }
            introspection::PATH => {
                let state = Arc::clone(&self.state);
                let answer = async move {
                    let HttpState { verifier, callers, config, .. } = &*state;
                    let _timer = verifier.start_timer(Protocol::Introspection);
                    Ok(introspection::answer(verifier, callers, config.issuer.as_ref(), request).await)
                };
                Either::Right(answer.instrument(Protocol::Introspection.span()).boxed())
            }
            _ => Either::Right(self.router.call(request).boxed()),
        }
    }
}

/// Builds the response to a request with too many headers, in the words of its protocol.
fn too_many_headers(path: &str) -> Response {
    let message = format!("the request has more than {MAX_HEADERS} headers: send fewer\n");
    match path {
        forward_auth::PATH => forward_auth::refuse_headers(message),
        introspection::PATH => introspection::refuse_headers(),
        _ => response::text(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, message),
    }
}

/// Routes all other paths.
fn router(state: &Arc<HttpState>) -> Router {
    let state = Arc::clone(state);
    let with = |answer: fn(&HttpState, &Request) -> Response| {
        let state = Arc::clone(&state);
        any(move |request: Request| std::future::ready(answer(&state, &request)))
    };
    let mut router = Router::new().route(
        &format!("{}{{*path}}", forward_auth::ENVOY_PREFIX),
        with(|state, request| {
            let _span = Protocol::EnvoyHttp.span().entered();
            let _timer = state.verifier.start_timer(Protocol::EnvoyHttp);
            forward_auth::answer_envoy(&state.verifier, &state.misconfigurations, request.uri(), request.headers())
        }),
    );
    if state.config.issuer.is_some() {
        let metadata = with(|state, request| {
            let issuer = state.config.issuer.as_ref();
            issuer
                .and_then(|issuer| metadata::answer(issuer, request.method(), request.uri()))
                .unwrap_or_else(|| not_found(&state.config))
        });
        router =
            router.route(metadata::PATH, metadata.clone()).route(&format!("{}/{{*path}}", metadata::PATH), metadata);
    }
    if state.config.tokenreview.is_some() {
        let state = Arc::clone(&state);
        let answer = async move |request: Request| match &state.config.tokenreview {
            Some(config) => {
                let _timer = state.verifier.start_timer(Protocol::TokenReview);
                let answer = tokenreview::answer(&state.verifier, config, request);
                answer.instrument(Protocol::TokenReview.span()).await
            }
            None => not_found(&state.config),
        };
        router = router.route(tokenreview::PATH, any(answer));
    }
    router.fallback(async move |_: Uri| not_found(&state.config))
}

/// Builds a response 404 that lists the available paths.
fn not_found(config: &HttpConfig) -> Response {
    let mut paths = vec![
        format!("{}?scope=…&audience=…", forward_auth::PATH),
        format!("{}scope=…/audience=…/-/", forward_auth::ENVOY_PREFIX),
    ];
    paths.push(introspection::PATH.to_owned());
    if config.issuer.is_some() {
        paths.push(metadata::PATH.to_owned());
    }
    if config.tokenreview.is_some() {
        paths.push(tokenreview::PATH.to_owned());
    }
    response::text(StatusCode::NOT_FOUND, format!("not found: the paths are {}\n", paths.join(", ")))
}
