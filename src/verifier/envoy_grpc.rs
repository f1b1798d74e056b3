//! Envoy's ext_authz over gRPC: `envoy.service.auth.v3.Authorization/Check`, and `grpc.health.v1` beside it.
//!
//! What is needed stands in the route's `context_extensions`: `scope`, separated by spaces or commas, `audience`, and
//! `strip-authorization`, which keeps the token from the upstream. A client cannot change them.
//!
//! Every denial stands in the answer, with OK as gRPC's status: an error of gRPC is a fault to Envoy, which
//! `failure_mode_allow` lets pass. It must not know how a token is judged.

mod charged;
mod codec;
#[cfg(test)]
mod tests;
mod wire;

use std::{borrow::Cow, future, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{HeaderValue, Request, Response, StatusCode, header},
    routing::post,
};
use prost::Message;
use tokio_util::sync::CancellationToken;
use tonic::{Code, server::UnaryService};
use tonic_health::{
    ServingStatus,
    pb::health_server::{Health, HealthServer},
    server::HealthReporter,
};

use self::{
    charged::{Charged, Full},
    codec::{CheckCodec, Question},
    wire::{
        CheckRequest, CheckResponse, DeniedHttpResponse, HeaderValueOption, HttpResponse, HttpStatus, OkHttpResponse,
        Status, Struct, Value,
    },
};
use super::{
    Protocol, Verifier,
    challenge::Challenge,
    demand::{self, InvalidRequirements, Mistakes, Requirements},
    identity::{self, Identity},
    outcome::{self, Outcome},
};
use crate::service::{HttpServer, http::NoRoom};

/// The service's name, as health checks ask for it.
pub const SERVICE: &str = "envoy.service.auth.v3.Authorization";

/// The one method.
const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

/// The largest question: Envoy's largest header (96 KiB) and what it tells of the connection. Without `with_request_body`, of
/// which there is no use here, there is no more.
const MAX_QUESTION: usize = 192 * 1024;

/// How often it is looked whether the verifier can answer.
const HEALTH_EVERY: Duration = Duration::from_secs(1);

/// Answers until cancelled.
pub async fn serve(server: HttpServer, verifier: Arc<Verifier>, cancellation: CancellationToken) {
    let (reporter, health) = tonic_health::server::health_reporter();
    tell_health(&reporter, &verifier).await;
    let telling = async {
        loop {
            tokio::time::sleep(HEALTH_EVERY).await;
            tell_health(&reporter, &verifier).await;
        }
    };
    tokio::select! {
        () = server.serve(router(Arc::clone(&verifier), health), cancellation) => {}
        () = telling => {}
    }
}

/// `SERVING` unless it is to stop, or every answer would be that nobody can tell.
async fn tell_health(reporter: &HealthReporter, verifier: &Verifier) {
    let status = if verifier.is_serving() { ServingStatus::Serving } else { ServingStatus::NotServing };
    for service in ["", SERVICE] {
        reporter.set_service_status(service, status).await;
    }
}

fn router<H: Health>(verifier: Arc<Verifier>, health: HealthServer<H>) -> Router {
    let check = Arc::new(Check { verifier, mistakes: Mistakes::default() });
    let answer = async move |request: Request<Body>| {
        let _timing = check.verifier.time(Protocol::EnvoyGrpc);
        let (head, body) = request.into_parts();
        let (body, full) = Charged::new(&head.headers, body, check.verifier.memory());
        let mut grpc = tonic::server::Grpc::new(CheckCodec).max_decoding_message_size(MAX_QUESTION);
        grpc.unary(Asked { check: &check, full }, Request::from_parts(head, body)).await.map(Body::new)
    };
    Router::new()
        .route(CHECK, post(answer))
        .route_service("/grpc.health.v1.Health/{method}", health)
        .fallback(async || unimplemented())
}

/// Answers one message, without gRPC around it; for fuzzing, which has no connection.
pub fn answer_message(verifier: Arc<Verifier>, message: &[u8]) -> Vec<u8> {
    let check = Check { verifier, mistakes: Mistakes::default() };
    check.answer(CheckRequest::decode(message).ok()).encode_to_vec()
}

/// What a gRPC client is told about a method that is not there.
fn unimplemented() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from_static("12"));
    response
}

/// What every question is answered from.
struct Check {
    verifier: Arc<Verifier>,
    mistakes: Mistakes,
}

/// The method as tonic calls it.
struct Asked<'a> {
    check: &'a Check,
    full: Full,
}

impl UnaryService<Question> for Asked<'_> {
    type Response = CheckResponse;
    type Future = future::Ready<Result<tonic::Response<CheckResponse>, tonic::Status>>;

    fn call(&mut self, question: tonic::Request<Question>) -> Self::Future {
        let answer = if self.full.is_so() { no_room() } else { self.check.answer(question.into_inner()) };
        future::ready(Ok(tonic::Response::new(answer)))
    }
}

/// What is answered where there is no room for the question.
fn no_room() -> CheckResponse {
    let mut answer = denied(StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, format!("{NoRoom}\n"), None);
    if let Some(HttpResponse::Denied(denied)) = &mut answer.http_response {
        denied.headers.push(HeaderValueOption::set("retry-after", "1"));
    }
    answer
}

/// What a route's configuration asks for.
struct Route<'a> {
    needed: Requirements<'a>,
    /// Whether the upstream must not get the token.
    strip: bool,
}

impl Check {
    fn answer(&self, question: Question) -> CheckResponse {
        let Some(CheckRequest { attributes: Some(attributes) }) = question else {
            return denied(StatusCode::FORBIDDEN, Code::PermissionDenied, "the question cannot be read\n", None);
        };
        let extensions = attributes.context_extensions.iter().map(|entry| (&*entry.key, &*entry.value));
        let route = match Route::read(extensions) {
            Ok(route) => route,
            Err(error) => {
                self.mistakes.tell("Envoy over gRPC", &error);
                let words = format!("this check is set up wrongly: {error}\n");
                return denied(StatusCode::FORBIDDEN, Code::PermissionDenied, words, None);
            }
        };
        let http = attributes.request.and_then(|request| request.http).unwrap_or_default();
        let raw = http.header_map.unwrap_or_default().headers;
        let raw = raw.iter().map(|header| {
            let value = if header.raw_value.is_empty() { &header.value } else { &header.raw_value };
            (&*header.key, &**value)
        });
        let headers = http.headers.iter().map(|entry| (&*entry.key, &*entry.value)).chain(raw);
        // What is no text is no name that means anything to anybody; HTTP has none.
        let headers = headers.map(|(name, value)| (str::from_utf8(name).unwrap_or_default(), value));
        match outcome::judge(&self.verifier, Protocol::EnvoyGrpc, headers, &route.needed) {
            Outcome::Allow(identity) => allowed(&identity, route.strip),
            Outcome::Challenge(challenge) => {
                let status = StatusCode::from_u16(challenge.status()).unwrap_or(StatusCode::FORBIDDEN);
                let code = if status == StatusCode::FORBIDDEN { Code::PermissionDenied } else { Code::Unauthenticated };
                denied(status, code, challenge.words(), Some(&challenge))
            }
            other @ (Outcome::Alias | Outcome::Unprintable) => {
                denied(StatusCode::FORBIDDEN, Code::PermissionDenied, other.words(), None)
            }
            other @ Outcome::Unavailable(_) => {
                denied(StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, other.words(), None)
            }
        }
    }
}

impl<'a> Route<'a> {
    /// Reads a route's `context_extensions`; nothing in them is ignored.
    fn read(extensions: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Result<Self, InvalidRequirements> {
        let mut route = Self { needed: Requirements::default(), strip: false };
        for (key, value) in extensions {
            let unknown = || demand::unknown(&String::from_utf8_lossy(key));
            let value = str::from_utf8(value).map_err(|_| unknown())?;
            match key {
                b"scope" => {
                    let mut scopes = value.split([' ', ',']).filter(|scope| !scope.is_empty()).peekable();
                    // An empty requirement is a mistake: some variable of a template was not set.
                    scopes.peek().ok_or(InvalidRequirements::Scope)?;
                    scopes.try_for_each(|scope| route.needed.require_scope(Cow::Borrowed(scope)))?;
                }
                b"audience" => route.needed.require_audience(Cow::Borrowed(value))?,
                b"strip-authorization" if value == "true" => route.strip = true,
                b"strip-authorization" if value == "false" => {}
                _ => return Err(unknown()),
            }
        }
        Ok(route)
    }
}

fn allowed(identity: &Identity, strip: bool) -> CheckResponse {
    let value = |wanted: &str| {
        let found = identity.headers().find(|(name, _)| *name == wanted);
        found.map(|(_, value)| value.to_owned()).unwrap_or_default()
    };
    let metadata = Struct::from([
        ("id", Value::from(value(identity::TOKEN_ID))),
        ("owner", Value::from(value(identity::USER))),
        ("scopes", value(identity::SCOPES).split_ascii_whitespace().map(str::to_owned).collect()),
    ]);
    let response = OkHttpResponse {
        headers: identity.headers().map(|(name, value)| HeaderValueOption::set(name, value)).collect(),
        headers_to_remove: if strip { vec!["authorization".to_owned()] } else { Vec::new() },
    };
    CheckResponse {
        status: Some(Status::default()),
        http_response: Some(HttpResponse::Ok(response)),
        dynamic_metadata: Some(metadata),
    }
}

fn denied(status: StatusCode, code: Code, words: impl Into<String>, challenge: Option<&Challenge>) -> CheckResponse {
    let mut headers = vec![
        HeaderValueOption::set("content-type", "text/plain; charset=utf-8"),
        HeaderValueOption::set("cache-control", "no-store"),
        HeaderValueOption::set("x-content-type-options", "nosniff"),
    ];
    headers.extend(challenge.map(|challenge| HeaderValueOption::set("www-authenticate", &challenge.header())));
    let body = words.into();
    CheckResponse {
        status: Some(Status { code: code as i32, message: body.trim_end().to_owned() }),
        http_response: Some(HttpResponse::Denied(DeniedHttpResponse {
            status: Some(HttpStatus { code: i32::from(status.as_u16()) }),
            headers,
            body,
        })),
        dynamic_metadata: None,
    }
}
