//! Deletion of tokens that are changed concurrently.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, Method, Request, header},
};
use pat_operator::{
    api::{Owner, OwnerKind},
    rest::server,
};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::in_process::{CALLER, InProcessApi, ada};
use crate::support::{
    faults::{Faults, Recorded},
    process::place::Place,
};

/// The scope to manage managed tokens.
const MANAGED_MANAGE: &str = "sp:managed-personal-access-tokens:manage";

/// The positions of the requests of a deletion without conflicts.
const READ: usize = 0;
const DELETE: usize = 1;

/// A change by another client.
fn concurrent_patch(place: &Place, name: &str, patch: &Value) -> Recorded {
    let path = format!("/apis/pat-operator.io/v1alpha1/namespaces/{}/personalaccesstokens/{name}", place.name());
    let merge = HeaderValue::from_static("application/merge-patch+json");
    Recorded {
        method: Method::PATCH,
        uri: format!("{path}?fieldManager=person").parse().unwrap(),
        headers: HeaderMap::from_iter([(header::CONTENT_TYPE, merge)]),
        body: patch.to_string().into_bytes(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrently_changed_token_is_checked_again_before_deletion() {
    let place = Place::new("rest-delete").await;
    let controller = place.operator().start();
    let manager = Owner { kind: OwnerKind::User, name: "eve@example.com".into() };
    place.apply(CALLER, json!({"owner": manager, "scopes": [MANAGED_MANAGE], "expiry": {"after": "1d"}})).await;
    place.ready(CALLER).await;
    controller.terminate().await;
    let bearer = format!("Bearer {}", place.token(CALLER).await);

    let withdrawn = json!({"spec": {"managed": false}});
    let labelled = json!({"metadata": {"labels": {"team": "a"}}});
    let (kept, gone) = (vec!["GET", "DELETE", "GET"], vec!["GET", "DELETE", "GET", "DELETE"]);
    for (name, change, at, status, sent) in [
        // Applied before the object is read: only the stale store still shows it as managed.
        ("withdrawn-before", &withdrawn, READ, 404, vec!["GET"]),
        ("withdrawn-meanwhile", &withdrawn, DELETE, 404, kept),
        ("labelled-meanwhile", &labelled, DELETE, 204, gone),
    ] {
        place.apply(name, json!({"owner": ada(), "managed": true})).await;
        let faults = Faults::landing(&place.client, at, concurrent_patch(&place, name, change));
        let api = InProcessApi::new(&place, faults.client()).await;
        api.caller(&place).await;
        let id = place.pats().get(name).await.unwrap().metadata.uid.expect("a uid").replace('-', "");
        let request = Request::delete(format!("/sailpoint/v3/personal-access-tokens/{id}"))
            .header(header::AUTHORIZATION, &bearer)
            .body(Body::empty())
            .unwrap();
        let router = server::router(api.service.clone(), Arc::default());
        let answer = router.oneshot(request).await.expect("an answer");
        assert_eq!(answer.status().as_u16(), status, "{name}");
        assert!(faults.has_landed(), "{name}");
        let requests: Vec<_> = faults.sent().iter().map(|one| one.method.to_string()).collect();
        assert_eq!(requests, sent, "{name}");
        let left = place.pats().get_opt(name).await.expect("an answer");
        assert_eq!(left.is_some(), status == 404, "{name}");
    }
}
