//! Envoy's ext_authz over gRPC: `envoy.service.auth.v3.Authorization/Check`, and `grpc.health.v1`.
//!
//! The `context_extensions` of a route have its requirements: `scope`, separated by spaces or commas, and `audience`. With
//! `strip-authorization: "true"`, Envoy does not forward the token. Clients cannot change them.
//!
//! Every denial is a response with the gRPC status OK, because Envoy treats a gRPC error as a fault, which `failure_mode_allow`
//! lets pass.

mod framing;
mod messages;
#[cfg(test)]
mod tests;

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
    framing::{BudgetExceeded, BudgetedBody, CheckCodec, DecodedRequest},
    messages::{
        CheckRequest, CheckResponse, DeniedHttpResponse, HeaderValueOption, HttpResponse, HttpStatus, OkHttpResponse,
        RpcStatus, Struct, Value,
    },
};
use super::{
    Protocol, Verifier,
    proxy::{self, IdentityHeaders, ProxyDecision},
    requirements::{self, InvalidRequirements, MisconfigurationLog, ProxyRequirements},
    response::{Challenge, misconfiguration},
};
use crate::service::{HttpServer, http::BudgetExhausted};

/// The name of the service in health checks.
pub const SERVICE: &str = "envoy.service.auth.v3.Authorization";

/// The path of the only method.
const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

/// Maximum size of a request: Envoy's largest header (96 KiB) and its attributes. `with_request_body` is not supported.
const MAX_MESSAGE: usize = 192 * 1024;

/// How often the health status is updated.
const HEALTH_INTERVAL: Duration = Duration::from_secs(1);

/// Serves until cancelled.
pub async fn serve(server: HttpServer, verifier: Arc<Verifier>, cancellation: CancellationToken) {
    let (reporter, health) = tonic_health::server::health_reporter();
    report_health(&reporter, &verifier).await;
    let reporting = async {
        loop {
            tokio::time::sleep(HEALTH_INTERVAL).await;
            report_health(&reporter, &verifier).await;
        }
    };
    tokio::select! {
        () = server.serve(router(Arc::clone(&verifier), health), cancellation) => {}
        () = reporting => {}
    }
}

/// Reports `SERVING`, unless the verifier is draining or its index is not current enough.
async fn report_health(reporter: &HealthReporter, verifier: &Verifier) {
    let status = if verifier.is_serving() { ServingStatus::Serving } else { ServingStatus::NotServing };
    for service in ["", SERVICE] {
        reporter.set_service_status(service, status).await;
    }
}

fn router<H: Health>(verifier: Arc<Verifier>, health: HealthServer<H>) -> Router {
    let service = Arc::new(CheckService { verifier, misconfigurations: MisconfigurationLog::default() });
    let answer = async move |request: Request<Body>| {
        let _timer = service.verifier.start_timer(Protocol::EnvoyGrpc);
        let (head, body) = request.into_parts();
        let (body, exceeded) = BudgetedBody::new(&head.headers, body, service.verifier.memory());
        let mut grpc = tonic::server::Grpc::new(CheckCodec).max_decoding_message_size(MAX_MESSAGE);
        grpc.unary(CheckCall { service: &service, exceeded }, Request::from_parts(head, body)).await.map(Body::new)
    };
    Router::new()
        .route(CHECK, post(answer))
        .route_service("/grpc.health.v1.Health/{method}", health)
        .fallback(async || unimplemented())
}

/// Answers one message without gRPC framing, for fuzzing.
pub fn answer_message(verifier: Arc<Verifier>, message: &[u8]) -> Vec<u8> {
    let service = CheckService { verifier, misconfigurations: MisconfigurationLog::default() };
    service.answer(CheckRequest::decode(message).ok()).encode_to_vec()
}

/// Returns the response for an unknown method.
fn unimplemented() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from_static("12"));
    response
}

/// Answers requests.
struct CheckService {
    verifier: Arc<Verifier>,
    misconfigurations: MisconfigurationLog,
}

/// One call of the method by tonic.
struct CheckCall<'a> {
    service: &'a CheckService,
    exceeded: BudgetExceeded,
}

impl UnaryService<DecodedRequest> for CheckCall<'_> {
    type Response = CheckResponse;
    type Future = future::Ready<Result<tonic::Response<CheckResponse>, tonic::Status>>;

    fn call(&mut self, request: tonic::Request<DecodedRequest>) -> Self::Future {
        let answer = if self.exceeded.get() { budget_exceeded() } else { self.service.answer(request.into_inner()) };
        future::ready(Ok(tonic::Response::new(answer)))
    }
}

/// Returns the denial for a request that exceeds the memory budget.
fn budget_exceeded() -> CheckResponse {
    let mut answer = denied(StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, format!("{BudgetExhausted}\n"), None);
    if let Some(HttpResponse::Denied(denied)) = &mut answer.http_response {
        denied.headers.push(HeaderValueOption::set("retry-after", "1"));
    }
    answer
}

/// The configuration of a route.
struct RouteConfig<'a> {
    requirements: ProxyRequirements<'a>,
    /// Whether to remove the token before the request is forwarded.
    strip_authorization: bool,
}

impl CheckService {
    fn answer(&self, request: DecodedRequest) -> CheckResponse {
        let _span = Protocol::EnvoyGrpc.span().entered();
        let Some(CheckRequest { attributes: Some(attributes) }) = request else {
            return denied(StatusCode::FORBIDDEN, Code::PermissionDenied, "the request is not readable\n", None);
        };
        let extensions = attributes.context_extensions.iter().map(|entry| (&*entry.key, &*entry.value));
        let route = match RouteConfig::parse(extensions) {
            Ok(route) => route,
            Err(error) => {
                self.misconfigurations.log("Envoy over gRPC", &error);
                return denied(StatusCode::FORBIDDEN, Code::PermissionDenied, misconfiguration(&error), None);
            }
        };
        let http = attributes.request.and_then(|request| request.http).unwrap_or_default();
        let raw = http.header_map.unwrap_or_default().headers;
        let raw = raw.iter().map(|header| {
            let value = if header.raw_value.is_empty() { &header.value } else { &header.raw_value };
            (&*header.key, &**value)
        });
        let headers = http.headers.iter().map(|entry| (&*entry.key, &*entry.value)).chain(raw);
        // A name that is not UTF-8 is not a header that matters here; HTTP does not allow it.
        let headers = headers.map(|(name, value)| (str::from_utf8(name).unwrap_or_default(), value));
        match ProxyDecision::on(&self.verifier, Protocol::EnvoyGrpc, headers, &route.requirements) {
            ProxyDecision::Allow(identity) => allowed(&identity, route.strip_authorization),
            ProxyDecision::Challenge(challenge) => {
                let status = challenge.status();
                let code = if status == StatusCode::FORBIDDEN { Code::PermissionDenied } else { Code::Unauthenticated };
                denied(status, code, challenge.message(), Some(&challenge))
            }
            other @ (ProxyDecision::AliasHeader | ProxyDecision::Unprintable) => {
                denied(StatusCode::FORBIDDEN, Code::PermissionDenied, other.message(), None)
            }
            other @ ProxyDecision::Unavailable(_) => {
                denied(StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, other.message(), None)
            }
        }
    }
}

impl<'a> RouteConfig<'a> {
    /// Parses the `context_extensions` of a route. Unknown keys are errors.
    fn parse(extensions: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Result<Self, InvalidRequirements> {
        let mut route = Self { requirements: ProxyRequirements::default(), strip_authorization: false };
        for (key, value) in extensions {
            let unknown = || requirements::unknown_requirement(&String::from_utf8_lossy(key));
            let value = str::from_utf8(value).map_err(|_| unknown())?;
            match key {
                b"scope" => {
                    let mut scopes = value.split([' ', ',']).filter(|scope| !scope.is_empty()).peekable();
                    // An empty requirement is an error, such as an unset variable of a template.
                    scopes.peek().ok_or(InvalidRequirements::Scope)?;
                    scopes.try_for_each(|scope| route.requirements.require_scope(Cow::Borrowed(scope)))?;
                }
                b"audience" => route.requirements.require_audience(Cow::Borrowed(value))?,
                b"strip-authorization" if value == "true" => route.strip_authorization = true,
                b"strip-authorization" if value == "false" => {}
                _ => return Err(unknown()),
            }
        }
        Ok(route)
    }
}

fn allowed(identity: &IdentityHeaders, strip: bool) -> CheckResponse {
    let value = |header: &str| {
        let found = identity.headers().find(|(name, _)| *name == header);
        found.map(|(_, value)| value.to_owned()).unwrap_or_default()
    };
    let metadata = Struct::from([
        ("id", Value::from(value(proxy::TOKEN_ID))),
        ("owner", Value::from(value(proxy::USER))),
        ("scopes", value(proxy::SCOPES).split_ascii_whitespace().map(str::to_owned).collect()),
    ]);
    let response = OkHttpResponse {
        headers: identity.headers().map(|(name, value)| HeaderValueOption::set(name, value)).collect(),
        headers_to_remove: if strip { vec!["authorization".to_owned()] } else { Vec::new() },
    };
    CheckResponse {
        status: Some(RpcStatus::default()),
        http_response: Some(HttpResponse::Ok(response)),
        dynamic_metadata: Some(metadata),
    }
}

fn denied(status: StatusCode, code: Code, message: impl Into<String>, challenge: Option<&Challenge>) -> CheckResponse {
    let mut headers = vec![
        HeaderValueOption::set("content-type", "text/plain; charset=utf-8"),
        HeaderValueOption::set("cache-control", "no-store"),
        HeaderValueOption::set("x-content-type-options", "nosniff"),
    ];
    headers.extend(challenge.map(|challenge| HeaderValueOption::set("www-authenticate", &challenge.header())));
    let body = message.into();
    CheckResponse {
        status: Some(RpcStatus { code: code as i32, message: body.trim_end().to_owned() }),
        http_response: Some(HttpResponse::Denied(DeniedHttpResponse {
            status: Some(HttpStatus { code: i32::from(status.as_u16()) }),
            headers,
            body,
        })),
        dynamic_metadata: None,
    }
}
