//! A world for tests of this API and its dialects: tokens and owners in memory, a clock that stands still, and callers with tokens that
//! are real. Nothing can be written in it.

use std::{num::NonZeroU32, sync::Arc};

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, HeaderValue, Request, header},
    response::Response,
};
use k8s_openapi::jiff::SignedDuration;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{
    access_token::{KEY_LENGTH, Signer},
    feed::{OwnerFeed, TokenFeed},
    rate::Rate,
    service::{Service, Settings},
    store::Store,
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

/// The namespace of everything in it.
pub(crate) const NAMESPACE: &str = "team";

/// The present, unless a test moves it.
pub(crate) const NOW: &str = "2026-06-01T12:00:00Z";

/// See the module.
pub(crate) struct World {
    pub(crate) index: Arc<Index>,
    pub(crate) store: Arc<Store>,
    pub(crate) clock: Clock,
    pub(crate) hand: ClockHand,
    pub(crate) settings: Settings,
    count: u128,
}

/// A token of the world.
pub(crate) struct Known {
    /// The PAT's uid.
    pub(crate) id: PatUid,
    /// The token.
    pub(crate) token: Token,
}

impl World {
    /// With nobody in it.
    pub(crate) fn new() -> Self {
        let (clock, hand) = Clock::driven(NOW.parse().unwrap());
        let many = NonZeroU32::new(100_000).unwrap();
        let settings = Settings {
            tenant: NAMESPACE.into(),
            audience: None,
            read_only: false,
            rate: Rate { per_second: many, burst: many },
        };
        Self { index: Arc::default(), store: Arc::default(), clock, hand, settings, count: 0 }
    }

    /// A PAT with this spec and one live credential, issued an hour ago. It is created a second after the one before, and its uid is
    /// their number, from 1. `extra` is laid over the whole object, as a merge patch.
    pub(crate) fn pat(&mut self, spec: Value, extra: Value) -> Known {
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
        merge(&mut object, extra);
        self.put(object);
        Known { id, token }
    }

    /// A user's PAT with these scopes.
    pub(crate) fn user(&mut self, name: &str, display_name: &str, scopes: &[&str]) -> Known {
        let owner = json!({"kind": "User", "name": name});
        self.pat(json!({"owner": owner, "displayName": display_name, "scopes": scopes}), json!({}))
    }

    /// A virtual account's PAT with these scopes.
    pub(crate) fn account(&mut self, name: &str, display_name: &str, scopes: &[&str]) -> Known {
        let owner = json!({"kind": "VirtualAccount", "name": name});
        self.pat(json!({"owner": owner, "displayName": display_name, "scopes": scopes}), json!({}))
    }

    /// Any PAT, as the watch would bring it.
    pub(crate) fn put(&self, object: Value) {
        let stored: StoredPat = serde_json::from_value(object).unwrap();
        TokenFeed::new(PatEventHandler::new(self.index.clone(), None), self.store.clone()).apply(stored);
    }

    /// A TokenOwner with this spec; its uid is this number.
    pub(crate) fn owner(&self, uid: u128, spec: Value) {
        let metadata = json!({
            "name": format!("owner-{uid}"), "uid": PatUid::from(uid).hyphenated(), "creationTimestamp": "2026-01-01T00:00:00Z",
        });
        let stored: StoredOwner = serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap();
        OwnerFeed::new(OwnerEventHandler::new(self.index.clone()), self.store.clone()).apply(stored);
    }

    /// A service over it.
    pub(crate) fn service(&self) -> Arc<Service> {
        self.service_while(|| Freshness::Fresh)
    }

    /// The same, with a freshness of its own.
    pub(crate) fn service_while(&self, freshness: impl Fn() -> Freshness + Send + Sync + 'static) -> Arc<Service> {
        let service =
            Service::new(self.index.clone(), self.store.clone(), freshness, self.clock.clone(), self.settings.clone());
        Arc::new(service.with_signer(Signer::new(&[7; KEY_LENGTH], format!("pat-operator-api:{NAMESPACE}"))))
    }
}

impl Known {
    /// `Authorization: Bearer <token>`.
    pub(crate) fn bearer(&self) -> String {
        format!("Bearer {}", self.token.expose())
    }

    /// The same as headers.
    pub(crate) fn headers(&self) -> HeaderMap {
        [(header::AUTHORIZATION, HeaderValue::try_from(self.bearer()).unwrap())].into_iter().collect()
    }
}

/// A time.
pub(crate) fn at(text: &str) -> Time {
    text.parse().unwrap()
}

/// Sends a request and reads all of its answer.
pub(crate) async fn send(router: &Router, request: Request<Body>) -> (Response<()>, String) {
    let (parts, body) = router.clone().oneshot(request).await.unwrap().into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    (Response::from_parts(parts, ()), String::from_utf8(bytes.to_vec()).unwrap())
}

fn merge(object: &mut Value, patch: Value) {
    match patch {
        Value::Object(patch) => {
            if !object.is_object() {
                *object = json!({});
            }
            for (key, value) in patch {
                if value.is_null() {
                    object.as_object_mut().unwrap().remove(&key);
                } else {
                    merge(&mut object[&key], value);
                }
            }
        }
        value => *object = value,
    }
}
