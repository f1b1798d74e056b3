//! A Kubernetes client whose watches break when the test says so. They restart only when the test allows it.
//!
//! Lists and all other requests pass through unchanged.

use std::{
    future::ready,
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes},
    http::{Request, Response, StatusCode},
};
use futures::{StreamExt, stream};
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};
use tower::Service;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How a watch breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// The watch sends an event of type ERROR with code 410.
    Expired,
    /// The watch sends an event of type ERROR with code 500.
    Failed,
    /// The response ends, as the API server does every few minutes.
    Ended,
    /// The connection breaks.
    Lost,
    /// The response ends. A watch from its resource version gets HTTP 410 until there was a new list.
    Refused,
}

impl Break {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Expired, Self::Failed, Self::Ended, Self::Lost, Self::Refused];

    /// The last item of the response's body.
    fn last(self) -> Option<Result<Bytes, BoxError>> {
        let error = |status| json!({"type": "ERROR", "object": status}).to_string() + "\n";
        match self {
            Self::Expired => Some(Ok(error(status(410, "Expired")).into())),
            Self::Failed => Some(Ok(error(status(500, "InternalError")).into())),
            Self::Lost => Some(Err("the connection broke".into())),
            Self::Ended | Self::Refused => None,
        }
    }
}

/// A client whose watches break. Clones share their watches.
#[derive(Clone)]
pub struct Breaks {
    client: Client,
    state: watch::Sender<State>,
}

#[derive(Clone, Copy, Default)]
struct State {
    /// How often all watches were broken.
    times: usize,
    how: Option<Break>,
    /// Whether new watches have to wait.
    held: bool,
    /// The number of watches that wait.
    waiting: usize,
}

impl Breaks {
    /// Creates the client. Nothing breaks yet.
    pub fn of(client: &Client) -> Self {
        Self { client: client.clone(), state: watch::Sender::default() }
    }

    /// The client for the watches.
    pub fn client(&self) -> Client {
        Client::new(self.clone(), "default")
    }

    /// Breaks all watches, and holds back new ones.
    pub fn break_all(&self, how: Break) {
        self.state.send_modify(|state| {
            state.times += 1;
            state.how = Some(how);
            state.held = true;
        });
    }

    /// Waits until this many watches are held back.
    pub async fn wait_until_held(&self, count: usize) {
        let mut state = self.state.subscribe();
        let all = state.wait_for(|state| state.waiting >= count);
        let waited = tokio::time::timeout(super::stage::SOON, all).await;
        waited.expect("the watches restart in time").expect("the sender is alive");
    }

    /// Lets the watches that are held back start.
    pub fn release_held(&self) {
        self.state.send_modify(|state| state.held = false);
    }

    async fn carry(&self, request: Request<kube::client::Body>) -> Result<Response<Body>, BoxError> {
        let query = request.uri().query().unwrap_or_default();
        let is = |pair| query.split('&').any(|one| one == pair);
        if !is("watch=true") {
            return Ok(self.client.send(request).await?.map(Body::new));
        }
        let from_list = is("sendInitialEvents=true");
        let mut state = self.state.subscribe();
        self.state.send_modify(|state| state.waiting += 1);
        let begun = *state.wait_for(|state| !state.held).await?;
        self.state.send_modify(|state| state.waiting -= 1);
        if begun.how == Some(Break::Refused) && !from_list {
            let mut answer = Response::new(Body::from(status(410, "Expired").to_string()));
            *answer.status_mut() = StatusCode::GONE;
            return Ok(answer);
        }
        let (tell, told) = oneshot::channel();
        let breaks = async move {
            let broken = state.wait_for(|state| state.times > begun.times).await;
            // The send fails if the watch has already ended.
            let _ = tell.send(broken.ok().and_then(|state| state.how).and_then(Break::last));
        };
        let last = stream::once(told).filter_map(|told| ready(told.ok().flatten()));
        let answer = self.client.send(request).await?.map(|body| {
            let data = Body::new(body).into_data_stream().map(|chunk| chunk.map_err(BoxError::from));
            Body::from_stream(data.take_until(Box::pin(breaks)).chain(last))
        });
        Ok(answer)
    }
}

fn status(code: u16, reason: &str) -> Value {
    json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": format!("a test's {code}"),
        "reason": reason,
        "code": code,
    })
}

impl Service<Request<kube::client::Body>> for Breaks {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<kube::client::Body>) -> Self::Future {
        let breaks = self.clone();
        Box::pin(async move { breaks.carry(request).await })
    }
}
