//! Fault injection: a Kubernetes client that loses or delays requests and answers, or refuses them. It records each request.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use axum::http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use base64::{Engine, prelude::BASE64_STANDARD};
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tower::Service;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The `Retry-After` of an injected 429, in seconds.
pub const RETRY_AFTER: u64 = 7;

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process dies before the request is sent.
    DieBefore,
    /// The request takes effect, and the process dies before it gets the answer.
    DieAfter,
    /// The answer is 409.
    Conflict,
    /// The answer is 429 with a `Retry-After`.
    TooMany,
    /// The answer is 500.
    Internal,
    /// The answer to this and all later requests is 500, until [`Faults::heal`].
    Outage,
    /// The connection breaks before the request is sent.
    LostBefore,
    /// The request takes effect, and the answer is lost.
    LostAfter,
    /// The connection breaks, and the request takes effect later, just before the nth request after it.
    Late(usize),
    /// The request is recorded but not sent, and the process does nothing more.
    Freeze,
}

/// A recorded request.
#[derive(Clone)]
pub struct Recorded {
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

/// A client with faults, and its recorded requests. Clones share them.
#[derive(Clone)]
pub struct Faults {
    client: Client,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    plan: Option<Planned>,
    /// A late request, and the number of the request before which it takes effect.
    landing: Option<(usize, Recorded)>,
    sent: Vec<Recorded>,
    hit: Option<Recorded>,
    dead: bool,
    outage: bool,
    landed: Option<(Recorded, StatusCode)>,
}

/// A fault for one of the requests that count.
#[derive(Clone, Copy)]
struct Planned {
    counts: fn(&Recorded) -> bool,
    /// How many of them still come before.
    left: usize,
    fault: Fault,
}

enum Way {
    Through,
    Broken,
    Answered(StatusCode, &'static str),
    ThenBroken,
}

impl Recorded {
    async fn of(request: Request<Body>) -> Result<Self, BoxError> {
        let (parts, body) = request.into_parts();
        let body = body.collect_bytes().await?.to_vec();
        Ok(Self { method: parts.method, uri: parts.uri, headers: parts.headers, body })
    }

    fn request(&self) -> Request<Body> {
        let mut request = Request::new(Body::from(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }

    /// Sends the request again.
    pub async fn replay(&self, client: &Client) -> StatusCode {
        client.send(self.request()).await.expect("the API server answers").status()
    }

    /// Whether the request changes an object.
    pub fn is_write(&self) -> bool {
        self.method != Method::GET && !self.is_dry_run()
    }

    fn is_dry_run(&self) -> bool {
        self.uri.query().is_some_and(|query| query.contains("dryRun"))
    }

    /// Whether the request is about a Kubernetes event.
    pub fn is_event(&self) -> bool {
        self.uri.path().starts_with("/apis/events.k8s.io/")
    }

    /// Whether the body may contain tokens.
    pub fn is_secret_write(&self) -> bool {
        self.method != Method::GET && self.uri.path().contains("/secrets")
    }

    /// The body, if it is JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The part of the request that must not contain a token.
    pub fn public_text(&self) -> String {
        let body = if self.is_secret_write() { self.json()["metadata"].to_string() } else { self.json().to_string() };
        format!("{} {} {:?} {body}", self.method, self.uri, self.headers)
    }

    /// The values that the request writes into a Secret.
    pub fn secret_values(&self) -> Vec<String> {
        let body = self.json();
        let data = body["data"].as_object().filter(|_| self.is_secret_write()).cloned().unwrap_or_default();
        let decoded = data.values().filter_map(|value| BASE64_STANDARD.decode(value.as_str()?).ok());
        decoded.filter_map(|value| String::from_utf8(value).ok()).collect()
    }

    /// The method and the object, for messages.
    pub fn summary(&self) -> String {
        let path = self.uri.path();
        let tail: Vec<_> = path.split('/').skip_while(|part| *part != "namespaces").skip(2).collect();
        format!("{} {}{}", self.method, tail.join("/"), if self.is_dry_run() { " (dry run)" } else { "" })
    }
}

impl Faults {
    /// A client without faults, which only records.
    pub fn none(client: &Client) -> Self {
        Self { client: client.clone(), state: Arc::default() }
    }

    /// A client with a fault at request number `at`, counted from 0.
    pub fn at(client: &Client, at: usize, fault: Fault) -> Self {
        let faults = Self::none(client);
        faults.plan(|_| true, at, fault);
        faults
    }

    /// Plans a fault at the nth of the coming requests that count, counted from 0.
    pub fn plan(&self, counts: fn(&Recorded) -> bool, nth: usize, fault: Fault) {
        self.state().plan = Some(Planned { counts, left: nth, fault });
    }

    /// A client for which another process's request takes effect just before request number `at`.
    pub fn landing(client: &Client, at: usize, late: Recorded) -> Self {
        let faults = Self::none(client);
        faults.state().landing = Some((at, late));
        faults
    }

    /// The client with the faults.
    pub fn client(&self) -> Client {
        Client::new(self.clone(), "default")
    }

    /// All requests, whether they were sent or not.
    pub fn sent(&self) -> Vec<Recorded> {
        self.state().sent.clone()
    }

    /// The request that the fault hit.
    pub fn hit(&self) -> Option<Recorded> {
        self.state().hit.clone()
    }

    /// Whether the process has died.
    pub fn is_dead(&self) -> bool {
        self.state().dead
    }

    /// Ends the process: no later request is sent.
    pub fn die(&self) {
        self.state().dead = true;
    }

    /// Answers all requests with 500, until [`Faults::heal`].
    pub fn fail(&self) {
        self.state().outage = true;
    }

    /// Ends the outage.
    pub fn heal(&self) {
        self.state().outage = false;
    }

    /// Whether the late request has taken effect.
    pub fn has_landed(&self) -> bool {
        self.state().landed.is_some()
    }

    /// Sends the late request now, if it is still due. Returns it and the status of its answer.
    pub async fn land(&self) -> Option<(Recorded, StatusCode)> {
        let late = self.state().landing.take();
        if let Some((_, late)) = late {
            let status = late.replay(&self.client).await;
            self.state().landed = Some((late, status));
        }
        self.state().landed.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a request, and decides what happens to it.
    fn meet(&self, request: &Recorded) -> Way {
        let mut state = self.state();
        if state.dead {
            return Way::Broken;
        }
        let number = state.sent.len();
        state.sent.push(request.clone());
        if state.outage {
            return Way::Answered(StatusCode::INTERNAL_SERVER_ERROR, "InternalError");
        }
        let Some(planned) = state.plan.as_mut().filter(|planned| (planned.counts)(request)) else {
            return Way::Through;
        };
        if planned.left > 0 {
            planned.left -= 1;
            return Way::Through;
        }
        let fault = planned.fault;
        state.plan = None;
        state.hit = Some(request.clone());
        match fault {
            Fault::DieBefore | Fault::Freeze => {
                state.dead = true;
                Way::Broken
            }
            Fault::DieAfter => {
                state.dead = true;
                Way::ThenBroken
            }
            // The reasons are those of the API server.
            Fault::Conflict if request.method == Method::POST => Way::Answered(StatusCode::CONFLICT, "AlreadyExists"),
            Fault::Conflict => Way::Answered(StatusCode::CONFLICT, "Conflict"),
            Fault::TooMany => Way::Answered(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests"),
            Fault::Internal => Way::Answered(StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
            Fault::Outage => {
                state.outage = true;
                Way::Answered(StatusCode::INTERNAL_SERVER_ERROR, "InternalError")
            }
            Fault::LostBefore => Way::Broken,
            Fault::LostAfter => Way::ThenBroken,
            Fault::Late(after) => {
                if request.is_write() {
                    state.landing = Some((number + after, request.clone()));
                }
                Way::Broken
            }
        }
    }

    fn due(&self) -> bool {
        let state = self.state();
        state.landing.as_ref().is_some_and(|(at, _)| *at <= state.sent.len())
    }

    async fn carry(&self, request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let request = Recorded::of(request).await?;
        if self.due() {
            self.land().await;
        }
        let broken = || Err(io::Error::new(io::ErrorKind::ConnectionReset, "the connection broke").into());
        match self.meet(&request) {
            Way::Through => Ok(self.client.send(request.request()).await?),
            Way::Broken => broken(),
            Way::Answered(code, reason) => Ok(answer(code, reason)),
            Way::ThenBroken => {
                // The API server handles the whole request, but the answer is dropped.
                let answer = self.client.send(request.request()).await?;
                answer.into_body().collect_bytes().await?;
                broken()
            }
        }
    }
}

fn answer(code: StatusCode, reason: &str) -> Response<Body> {
    let wait = if code == StatusCode::TOO_MANY_REQUESTS { RETRY_AFTER } else { 0 };
    let status = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": format!("a test's {}", code.as_u16()),
        "reason": reason,
        "details": {"retryAfterSeconds": wait},
        "code": code.as_u16(),
    });
    let mut answer = Response::new(Body::from(status.to_string().into_bytes()));
    *answer.status_mut() = code;
    answer.headers_mut().insert(header::CONTENT_TYPE, "application/json".parse().expect("a header"));
    if wait > 0 {
        answer.headers_mut().insert(header::RETRY_AFTER, wait.into());
    }
    answer
}

impl Service<Request<Body>> for Faults {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let faults = self.clone();
        Box::pin(async move { faults.carry(request).await })
    }
}
