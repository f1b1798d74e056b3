//! A stub of Gitea: it keeps tokens in memory, and answers each request after a delay.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use axum::{
    Router,
    body::Bytes,
    extract::{Path, RawQuery, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::{delete, get},
};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

/// The time that each answer takes.
pub const DELAY: Duration = Duration::from_millis(50);

/// The numbers of requests.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Calls {
    /// Creations of tokens.
    pub creates: usize,
    /// Lists of all tokens, each counted once.
    pub lists: usize,
    /// The largest number of concurrent requests.
    pub most_at_once: usize,
}

/// A running stub. It ends on drop.
pub struct Vendor {
    /// Where it serves.
    pub url: String,
    state: Arc<Stub>,
    serving: JoinHandle<()>,
}

#[derive(Default)]
struct Stub {
    tokens: tokio::sync::Mutex<BTreeMap<usize, String>>,
    creates: AtomicUsize,
    lists: AtomicUsize,
    under_way: AtomicUsize,
    most_at_once: AtomicUsize,
}

impl Vendor {
    /// Starts it on a free port.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("no free port")?;
        let url = format!("http://{}", listener.local_addr()?);
        let state = Arc::new(Stub::default());
        let router = Router::new()
            .route("/api/v1/version", get(version))
            .route("/api/v1/users/{user}/tokens", get(list).post(create))
            .route("/api/v1/users/{user}/tokens/{id}", delete(revoke))
            .with_state(state.clone());
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap_or_default() });
        Ok(Self { url, state, serving })
    }

    /// The requests so far.
    pub fn calls(&self) -> Calls {
        let read = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        let Stub { creates, lists, most_at_once, .. } = &*self.state;
        Calls { creates: read(creates), lists: read(lists), most_at_once: read(most_at_once) }
    }
}

impl Drop for Vendor {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Stub {
    async fn wait(&self) {
        let now = self.under_way.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_at_once.fetch_max(now, Ordering::Relaxed);
        tokio::time::sleep(DELAY).await;
        self.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn version(State(stub): State<Arc<Stub>>) -> Response {
    stub.wait().await;
    json(&json!({"version": "1.26.0"}))
}

async fn create(State(stub): State<Arc<Stub>>, body: Bytes) -> Response {
    stub.wait().await;
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let id = stub.creates.fetch_add(1, Ordering::Relaxed) + 1;
    let name = body["name"].as_str().unwrap_or_default().to_owned();
    let answer = json!({"id": id, "name": name, "sha1": format!("{id:040x}")});
    stub.tokens.lock().await.insert(id, name);
    (StatusCode::CREATED, json(&answer)).into_response()
}

async fn list(State(stub): State<Arc<Stub>>, RawQuery(query): RawQuery) -> Response {
    stub.wait().await;
    let query = query.unwrap_or_default();
    let number = |name: &str| {
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        pairs.find(|(key, _)| key == name).and_then(|(_, value)| value.parse().ok()).unwrap_or(1usize)
    };
    let (page, limit) = (number("page"), number("limit"));
    // The check of the issuer reads one token.
    if page == 1 && limit > 1 {
        stub.lists.fetch_add(1, Ordering::Relaxed);
    }
    let tokens = stub.tokens.lock().await;
    let on_page = tokens.iter().skip(page.saturating_sub(1) * limit).take(limit);
    let items: Vec<_> = on_page.map(|(id, name)| json!({"id": id, "name": name})).collect();
    ([("x-total-count", tokens.len().to_string())], json(&items.into())).into_response()
}

fn json(value: &Value) -> Response {
    ([(CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

async fn revoke(State(stub): State<Arc<Stub>>, Path((_, id)): Path<(String, usize)>) -> StatusCode {
    stub.wait().await;
    match stub.tokens.lock().await.remove(&id) {
        Some(_) => StatusCode::NO_CONTENT,
        None => StatusCode::NOT_FOUND,
    }
}
