//! A read-only fixture for tests of this API and its dialects: tokens and owners in memory, a stopped clock, and callers with real tokens.

use std::{num::NonZeroU32, sync::Arc};

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, HeaderValue, Method, Request, Response, header},
};
use k8s_openapi::jiff::SignedDuration;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{
    access_token::{AccessTokenSigner, KEY_LENGTH},
    rate_limit::RateLimit,
    service::{RestConfig, TokenService},
    store::{OwnerStoreHandler, TokenStore, TokenStoreHandler},
};
use crate::{
    api::{StoredOwner, StoredPat, Time},
    index::{
        Freshness, Index, PatUid,
        events::{OwnerEventHandler, PatEventHandler},
    },
    service::{Clock, ClockHand, watch::WatchHandler},
    token::Token,
};

/// The namespace of all objects.
pub(crate) const NAMESPACE: &str = "team";

/// The current time, unless a test moves the clock.
pub(crate) const NOW: &str = "2026-06-01T12:00:00Z";

/// The message of [`RestError::Unauthenticated`](super::error::RestError::Unauthenticated).
pub(crate) const UNAUTHENTICATED: &str =
    "authentication failed: send the header Authorization: Bearer <token> with a valid personal access token";

/// Index, store and clock of a service.
pub(crate) struct RestFixture {
    pub(crate) index: Arc<Index>,
    pub(crate) store: Arc<TokenStore>,
    pub(crate) clock: Clock,
    pub(crate) hand: ClockHand,
    pub(crate) config: RestConfig,
    count: u128,
}

pub(crate) struct TestToken {
    pub(crate) id: PatUid,
    pub(crate) token: Token,
}

impl RestFixture {
    /// Creates an empty fixture.
    pub(crate) fn new() -> Self {
        let (clock, hand) = Clock::driven(NOW.parse().unwrap());
        let many = NonZeroU32::new(100_000).unwrap();
        let config = RestConfig {
            tenant: NAMESPACE.into(),
            audience: None,
            read_only: false,
            rate: RateLimit { per_second: many, burst: many },
        };
        Self { index: Arc::default(), store: Arc::default(), clock, hand, config, count: 0 }
    }

    /// Adds a PAT with this spec and one live credential, issued an hour ago. Uids are numbered from 1; each PAT is created a second after
    /// the one before. `extra` is a merge patch of the whole object.
    pub(crate) fn pat(&mut self, spec: Value, extra: Value) -> TestToken {
        self.count += 1;
        let id = PatUid::from(self.count);
        let token = Token::mint(&"kpat".parse().unwrap()).unwrap();
        let created = at("2026-01-01T00:00:00Z").plus(SignedDuration::from_secs(self.count as i64)).to_string();
        let issued = at(NOW).minus(SignedDuration::from_hours(1)).to_string();
        let mut object = json!({
            "metadata": {
                "namespace": NAMESPACE, "name": format!("pat-{}", self.count), "uid": id.hyphenated(), "generation": 1,
                "resourceVersion": self.count.to_string(), "creationTimestamp": created,
            },
            "spec": spec,
            "status": {
                "firstIssuedAt": issued, "lastIssuedAt": issued,
                "credentials": [{
                    "id": token.id().as_str(), "revision": 1, "sha256": token.hash().to_string(), "state": "Active",
                    "issuedAt": issued,
                }],
            },
        });
        json_patch::merge(&mut object, &extra);
        self.put(object);
        TestToken { id, token }
    }

    /// Adds a user's PAT with these scopes.
    pub(crate) fn user(&mut self, name: &str, display_name: &str, scopes: &[&str]) -> TestToken {
        let owner = json!({"kind": "User", "name": name});
        self.pat(json!({"owner": owner, "displayName": display_name, "scopes": scopes}), json!({}))
    }

    /// Adds a virtual account's PAT with these scopes.
    pub(crate) fn account(&mut self, name: &str, display_name: &str, scopes: &[&str]) -> TestToken {
        let owner = json!({"kind": "VirtualAccount", "name": name});
        self.pat(json!({"owner": owner, "displayName": display_name, "scopes": scopes}), json!({}))
    }

    /// Adds or changes a PAT, as its watch does.
    pub(crate) fn put(&self, object: Value) {
        let stored: StoredPat = serde_json::from_value(object).unwrap();
        TokenStoreHandler::new(PatEventHandler::new(self.index.clone(), None), self.store.clone()).apply(stored);
    }

    /// Adds a TokenOwner with this spec; its uid is this number.
    pub(crate) fn owner(&self, uid: u128, spec: Value) {
        let metadata = json!({
            "name": format!("owner-{uid}"), "uid": PatUid::from(uid).hyphenated(), "creationTimestamp": "2026-01-01T00:00:00Z",
        });
        let stored: StoredOwner = serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap();
        OwnerStoreHandler::new(OwnerEventHandler::new(self.index.clone()), self.store.clone()).apply(stored);
    }

    pub(crate) fn service(&self) -> Arc<TokenService> {
        self.service_with(|| Freshness::Fresh)
    }

    /// Creates a service with this freshness.
    pub(crate) fn service_with(&self, freshness: impl Fn() -> Freshness + Send + Sync + 'static) -> Arc<TokenService> {
        let (index, store) = (self.index.clone(), self.store.clone());
        let service = TokenService::new(index, store, freshness, self.clock.clone(), self.config.clone());
        let signer = AccessTokenSigner::new(&[7; KEY_LENGTH], format!("pat-operator-api:{NAMESPACE}"));
        Arc::new(service.with_signer(signer))
    }
}

impl TestToken {
    pub(crate) fn bearer(&self) -> String {
        format!("Bearer {}", self.token.expose())
    }

    pub(crate) fn headers(&self) -> HeaderMap {
        [(header::AUTHORIZATION, HeaderValue::try_from(self.bearer()).unwrap())].into_iter().collect()
    }
}

pub(crate) fn at(text: &str) -> Time {
    text.parse().unwrap()
}

/// Sends a request and reads the whole response.
pub(crate) async fn send(router: &Router, request: Request<Body>) -> (Response<()>, String) {
    let (parts, body) = router.clone().oneshot(request).await.unwrap().into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    (Response::from_parts(parts, ()), String::from_utf8(bytes.to_vec()).unwrap())
}

/// Sends a request with an optional caller and body (media type and text), and parses the response; `null` if it is empty.
pub(crate) async fn request(
    router: &Router,
    caller: Option<&TestToken>,
    method: Method,
    path: &str,
    body: Option<(&str, &str)>,
) -> (Response<()>, Value) {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(caller) = caller {
        request = request.header(header::AUTHORIZATION, caller.bearer());
    }
    if let Some((media_type, _)) = body {
        request = request.header(header::CONTENT_TYPE, media_type);
    }
    let body = body.map_or_else(Body::empty, |(_, text)| Body::from(text.to_owned()));
    let (response, text) = send(router, request.body(body).unwrap()).await;
    if text.is_empty() {
        return (response, Value::Null);
    }
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
    assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
    (response, serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text} is not JSON")))
}

/// Sends a GET request; returns status and JSON.
pub(crate) async fn get(router: &Router, caller: &TestToken, path: &str) -> (u16, Value) {
    let (response, json) = request(router, Some(caller), Method::GET, path, None).await;
    (response.status().as_u16(), json)
}

/// Runs a future in a test that is not asynchronous.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}
