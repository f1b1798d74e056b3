//! Tests of every status, header and body of the HTTP protocols, over an index in memory.

mod connections;
mod envoy;
mod forward_auth;
mod introspection;
mod junk;
mod metrics;
mod owners;
mod tokenreview;

use std::sync::{Arc, Mutex};

use axum::{
    body::{Body, to_bytes},
    http::{HeaderMap, Method, Request},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::jiff::SignedDuration;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::{
    api::Time,
    index::{Freshness, Index, IndexFreshness, IndexedPat, OwnerDescription, PatUid},
    service::{Clock, ClockHand, http::MemoryBudget},
    token::Token,
    verifier::metrics::Metrics,
};

const ISSUER: &str = "https://tokens.example.com";

/// A verifier over an index that the test fills, with a clock that the test moves.
struct HttpFixture {
    index: Arc<Index>,
    now: Clock,
    hand: ClockHand,
    freshness: Arc<Mutex<Freshness>>,
    metrics: Arc<Metrics>,
    service: VerifierService,
}

/// A response.
#[derive(Debug)]
struct HttpAnswer {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl HttpAnswer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("text"))
    }

    fn all(&self, name: &str) -> Vec<&str> {
        self.headers.get_all(name).iter().map(|value| value.to_str().expect("text")).collect()
    }

    fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        serde_json::from_str(&self.body).expect("JSON")
    }
}

impl HttpFixture {
    /// Creates a fixture with all protocols enabled.
    fn new() -> Self {
        Self::with(HttpConfig {
            issuer: Some(ISSUER.parse().unwrap()),
            tokenreview: Some(TokenReviewConfig { username_prefix: Default::default() }),
        })
    }

    fn with(config: HttpConfig) -> Self {
        Self::with_memory(config, MemoryBudget::default())
    }

    /// Creates a fixture with this memory budget.
    fn with_memory(config: HttpConfig, memory: MemoryBudget) -> Self {
        let index = Arc::new(Index::default());
        let (now, hand) = Clock::driven("2026-01-01T00:00:00.9Z".parse().unwrap());
        let freshness = Arc::new(Mutex::new(Freshness::Fresh));
        let current = Arc::clone(&freshness);
        let metrics = Arc::new(Metrics::default());
        let current_freshness = move || *current.lock().unwrap();
        let verifier = Verifier::new(Arc::clone(&index), current_freshness, now.clone(), Arc::clone(&metrics));
        let service = VerifierService::new(Arc::new(verifier.with_memory(memory)), config, None);
        Self { index, now, hand, freshness, metrics, service }
    }

    /// Adds a `TokenOwner` with this name.
    fn describe(&self, name: &str, spec: Value) {
        let stored = json!({"metadata": {"name": name}, "spec": spec});
        self.index
            .owners()
            .put(OwnerDescription::read(&serde_json::from_value(stored).unwrap()).expect("a TokenOwner"));
    }

    /// Returns how many decisions of a protocol had this reason.
    fn counted(&self, protocol: &str, reason: &str) -> u64 {
        let parts = [format!("protocol=\"{protocol}\""), format!("reason=\"{reason}\"")];
        let line = |line: &&str| {
            line.starts_with("pat_operator_decisions_total{") && parts.iter().all(|part| line.contains(part))
        };
        let text = self.text();
        let line = text.lines().find(line).unwrap_or_else(|| panic!("no {parts:?} in:\n{text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Returns all metrics.
    fn text(&self) -> String {
        self.metrics.text(&self.index, &IndexFreshness::new(1, std::time::Duration::from_secs(300)))
    }

    /// Adds a PAT with one token; the number determines its uid and token.
    fn put(&self, number: u8, spec: Value) -> String {
        let token = token(number);
        let now: Time = self.now.now().into();
        self.index.put(pat(
            number,
            spec,
            json!({"credentials": [{
                "id": id(number),
                "revision": 1,
                "sha256": crate::token::Presented::parse(&token).unwrap().hash().to_string(),
                "state": "Active",
                "issuedAt": now,
                "expiresAt": now.plus(SignedDuration::from_hours(1)),
            }]}),
        ));
        token
    }

    fn remove(&self, number: u8) {
        self.index.remove(uid(number).parse().unwrap());
    }

    fn set_freshness(&self, freshness: Freshness) {
        *self.freshness.lock().unwrap() = freshness;
    }

    async fn ask(&self, method: &str, uri: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> HttpAnswer {
        let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap()).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.service.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        let body = String::from_utf8(to_bytes(body, 1 << 20).await.unwrap().to_vec()).unwrap();
        let answer = HttpAnswer { status: head.status.as_u16(), headers: head.headers, body };
        // Every answer must have these headers.
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer:?}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{answer:?}");
        assert!(!answer.body.contains("kpat_accessor00"), "an answer with a token: {answer:?}");
        answer
    }
}

fn pat(number: u8, spec: Value, status: Value) -> IndexedPat {
    let stored = json!({
        "metadata": {"namespace": "shop", "name": format!("app-{number}"), "uid": uid(number)},
        "spec": spec,
        "status": status,
    });
    IndexedPat::read(&serde_json::from_value(stored).unwrap()).expect("a PAT")
}

fn uid(number: u8) -> String {
    format!("00000000-0000-4000-8000-0000000000{number:02x}")
}

/// Returns the client ID for Basic.
fn client_id(number: u8) -> String {
    uid(number).parse::<PatUid>().unwrap().to_string()
}

fn id(number: u8) -> String {
    format!("accessor{number:04}")
}

/// Returns the token of this number, whether or not it is in the index.
fn token(number: u8) -> String {
    Token::from_parts(&Default::default(), id(number).parse().unwrap(), &[number; 32]).expose().to_owned()
}

/// Returns the token with another last character.
fn mistyped(token: &str) -> String {
    let last = if token.ends_with('0') { '1' } else { '0' };
    format!("{}{last}", &token[..token.len() - 1])
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

#[tokio::test]
async fn an_unknown_path_is_answered_with_the_available_paths() {
    let fixture = HttpFixture::new();
    for (method, path) in [("GET", "/"), ("POST", "/oauth2/token"), ("DELETE", "/auth"), ("GET", "/auth/forward/")] {
        let answer = fixture.ask(method, path, &[], "").await;
        assert_eq!(answer.status, 404, "{method} {path}");
        for there in ["/auth/forward", "/auth/envoy/", "/oauth2/introspect", "/.well-known/", "/k8s/tokenreview"] {
            assert!(answer.body.contains(there), "{there}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn protocols_that_are_not_enabled_are_not_found() {
    let fixture = HttpFixture::with(HttpConfig::default());
    for (method, path) in [("POST", "/k8s/tokenreview"), ("GET", "/.well-known/oauth-authorization-server")] {
        let answer = fixture.ask(method, path, &[], "").await;
        assert_eq!(answer.status, 404, "{path}");
        assert!(!answer.body.contains(path), "{answer:?}");
    }
}
