//! Revokes the tokens whose parent is revoked: those that its holder created or regenerated, and in turn theirs.
//!
//! Every replica does so. A second revocation changes nothing.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Writer, delivery::DeliveryBackoff};
use crate::{
    index::PatUid,
    rest::{
        error::RestError,
        model::{ChangeToken, TokenItem},
    },
};

/// The number of tokens that are revoked concurrently.
const CONCURRENT_REVOCATIONS: usize = 16;

/// The shortest time between two passes over the parents, as every status update changes the store.
const PASS_INTERVAL: Duration = Duration::from_secs(1);

impl Writer {
    /// Revokes the tokens whose parent is revoked, now and after each change of the store. Never ends.
    pub(in crate::rest) async fn cascade_revocations(&self) {
        let mut changes = self.store.changes();
        let mut retries = Retries::default();
        loop {
            changes.mark_unchanged();
            let due = retries.due(self.store.children_of_revoked(), Instant::now());
            let mut revoking = stream::iter(due)
                .map(async |child| (child.id, self.revoke_child(&child).await))
                .buffer_unordered(CONCURRENT_REVOCATIONS);
            while let Some((child, revoked)) = revoking.next().await {
                if !revoked {
                    retries.failed(child, &self.stopping);
                }
            }
            sleep(PASS_INTERVAL).await;
            // The store outlives this task, so the channel is never closed.
            let changed = changes.changed();
            match retries.first() {
                Some(at) => drop(timeout_at(at, changed).await),
                None => drop(changed.await),
            }
        }
    }

    async fn revoke_child(&self, child: &TokenItem) -> bool {
        let revoked = self.change(child, &ChangeToken { revoked: Some(true), ..ChangeToken::default() }).await;
        let (name, parent) = (&child.name, child.parent.map(|parent| parent.hyphenated()));
        match revoked {
            Ok(_) => info!(name, parent, "revoked a token because its parent is revoked"),
            Err(RestError::NotFound) => {}
            Err(error) => {
                warn!(name, parent, %error, "cannot revoke a token whose parent is revoked yet");
                return false;
            }
        }
        true
    }
}

/// The children whose revocation failed, with the next try of each: one that cannot be revoked delays no other.
#[derive(Default)]
struct Retries(HashMap<PatUid, Retry>);

struct Retry {
    backoff: DeliveryBackoff,
    at: Instant,
}

impl Retries {
    /// Returns those of these children that may be tried now, and forgets all others.
    fn due(&mut self, mut children: Vec<Arc<TokenItem>>, now: Instant) -> Vec<Arc<TokenItem>> {
        let present: HashSet<PatUid> = children.iter().map(|child| child.id).collect();
        self.0.retain(|child, _| present.contains(child));
        children.retain(|child| self.0.get(&child.id).is_none_or(|retry| retry.at <= now));
        children
    }

    fn failed(&mut self, child: PatUid, stopping: &CancellationToken) {
        let retry =
            self.0.entry(child).or_insert_with(|| Retry { backoff: DeliveryBackoff::default(), at: Instant::now() });
        retry.at = Instant::now() + retry.backoff.next(stopping);
    }

    /// Returns when the first of them may be tried again.
    fn first(&self) -> Option<Instant> {
        self.0.values().map(|retry| retry.at).min()
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, sync::Mutex};

    use axum::{
        body::Body,
        http::{Method, Request, Response},
    };
    use kube::Client;
    use serde_json::{Value, json};

    use super::*;
    use crate::rest::fixture::{NAMESPACE, RestFixture};

    /// A PAT that this number identifies.
    fn pat(number: u128, spec: &Value) -> Value {
        json!({
            "apiVersion": "pat-operator.io/v1alpha1", "kind": "PersonalAccessToken",
            "metadata": {
                "namespace": NAMESPACE, "name": format!("pat-{number}"), "uid": PatUid::from(number).hyphenated(), "generation": 1,
                "resourceVersion": "1", "creationTimestamp": "2026-01-01T00:00:00Z",
            },
            "spec": spec,
        })
    }

    fn child_of(number: u128) -> Value {
        json!({"parent": {"name": format!("pat-{number}"), "uid": PatUid::from(number).hyphenated()}})
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_cannot_be_revoked_delays_no_other() {
        let fixture = Arc::new(RestFixture::new());
        for (number, spec) in [(1, json!({"revoked": true})), (2, child_of(1)), (3, json!({})), (4, child_of(3))] {
            fixture.put(pat(number, &spec));
        }
        let patched = Arc::new(Mutex::new(Vec::new()));
        let (objects, log) = (fixture.clone(), patched.clone());
        // The API server refuses each change of the PAT 2.
        let api_server = tower::service_fn(move |request: Request<kube::client::Body>| {
            let number: u128 =
                request.uri().path().rsplit_once('-').and_then(|(_, number)| number.parse().ok()).unwrap();
            let (code, body) = match *request.method() {
                Method::PATCH => {
                    log.lock().unwrap().push(number);
                    let revoked = pat(number, &json!({"revoked": true}));
                    if number != 2 {
                        objects.put(revoked.clone());
                    }
                    if number == 2 { (500, json!({"kind": "Status", "code": 500})) } else { (200, revoked) }
                }
                _ => (200, pat(number, &child_of(number - 1))),
            };
            let response = Response::builder().status(code).body(Body::from(body.to_string())).unwrap();
            std::future::ready(Ok::<_, Infallible>(response))
        });
        let client = Client::new(api_server, NAMESPACE);
        let writer = Writer::new(client, NAMESPACE.into(), fixture.index.clone(), fixture.store.clone());
        let cascade = tokio::spawn(async move { writer.cascade_revocations().await });
        sleep(Duration::from_secs(40)).await;
        // The time of the runtime is paused: the tries are 1, 2, 4, 8 and 16 s apart, and then 30 s.
        let tries = patched.lock().unwrap().len();
        assert!((4..=6).contains(&tries), "{tries}");

        fixture.put(pat(3, &json!({"revoked": true})));
        sleep(3 * PASS_INTERVAL).await;
        assert_eq!(patched.lock().unwrap()[tries..], [4], "the next try of the PAT 2 is not due");
        sleep(Duration::from_secs(60)).await;
        assert!(patched.lock().unwrap()[tries + 1..].contains(&2), "it is tried again");
        cascade.abort();
    }
}
