//! What reached nobody is taken back, however long that takes; and what many tokens are changed by goes on to its end.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{Request, header},
};
use k8s_openapi::jiff::SignedDuration;
use pat_operator::rest::{error::RestError, server};
use serde_json::json;
use tower::ServiceExt;

use super::{
    inside::{CALLER, Inside, ada, hire, hire_before, left, order},
    stage::ALL_MANAGE,
};
use crate::support::{
    faults::{Fault, Faults},
    process::place::{Place, eventually, eventually_within},
};

/// Longer than an API server is waited for.
const LATE: Duration = Duration::from_secs(40);

#[tokio::test(flavor = "multi_thread")]
async fn undelivered_token_is_taken_back_when_the_api_server_recovers() {
    let place = Place::new("rest-owed").await;
    let _controller = place.operator().start();
    hire(&place).await;
    let faults = Faults::none(&place.client);
    let inside = Inside::new(&place, faults.client()).await;
    let caller = inside.caller(&place).await;
    let kept = inside.service.create(&caller, order("Kept")).await.expect("a token");
    kept.receipt.confirm();
    let hour = Some(SignedDuration::from_hours(1));
    let issued = inside.service.regenerate(&caller, &kept.item, hour).await.expect("a new token");
    let lost = inside.service.create(&caller, order("Lost")).await.expect("a token");
    let (revoked, gone, before) = (issued.token.id(), lost.item.name.clone(), faults.sent().len());
    faults.fail();
    drop((issued, lost));
    // Each is tried once and once more.
    eventually("it is tried", async || faults.sent().len() >= before + 4).await;
    assert!(inside.figures().contains("pat_operator_api_tokens_to_take_back 2"), "{}", inside.figures());
    faults.heal();
    eventually("both are taken back", async || {
        let spec = place.pats().get(&kept.item.name).await.unwrap().spec;
        spec.revoked_credentials.contains(&revoked.to_string()) && !left(&place).await.0.contains(&gone)
    })
    .await;
    eventually("they are counted", async || {
        let figures = inside.figures();
        figures.contains("pat_operator_api_tokens_to_take_back 0")
            && figures.contains("pat_operator_api_tokens_taken_back_total 2")
    })
    .await;
    assert!(inside.lets_in(&kept.token).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn token_not_taken_back_before_shutdown_is_counted_as_given_up() {
    let place = Place::new("rest-given-up").await;
    let _controller = place.operator().start();
    hire(&place).await;
    let faults = Faults::none(&place.client);
    let inside = Inside::new(&place, faults.client()).await;
    let lost = inside.service.create(&inside.caller(&place).await, order("Lost")).await.expect("a token");
    let before = faults.sent().len();
    faults.fail();
    drop(lost);
    eventually("it is tried", async || faults.sent().len() > before).await;
    assert!(!inside.service.finish(Duration::from_millis(100)).await, "there was too little time");
    assert!(inside.figures().contains("pat_operator_api_tokens_given_up_total 1"), "{}", inside.figures());
}

#[tokio::test(flavor = "multi_thread")]
async fn object_created_late_by_an_unanswered_request_is_taken_back() {
    let place = Place::new("rest-late").await;
    hire_before(&place).await;
    // It lands after the first look.
    let faults = Faults::at(&place.client, 0, Fault::Late(3));
    let inside = Inside::new(&place, faults.client()).await;
    let failure = inside.service.create(&inside.caller(&place).await, order("Late")).await.unwrap_err();
    assert!(matches!(failure, RestError::Unavailable { .. }), "{failure}");
    assert_eq!(left(&place).await, (vec![], vec![]));
    eventually_within(LATE, "it lands", async || faults.has_landed()).await;
    eventually_within(LATE, "it is taken back", async || left(&place).await == (vec![], vec![])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bulk_update_continues_when_the_client_disconnects() {
    const MANY: usize = 12;
    let place = Place::new("rest-many").await;
    let controller = place.operator().start();
    place.apply(CALLER, json!({"owner": ada(), "scopes": [ALL_MANAGE], "expiry": {"after": "1d"}})).await;
    place.ready(CALLER).await;
    controller.terminate().await;
    let names = place.apply_many("app", MANY, &json!({"owner": ada()})).await;
    let faults = Faults::none(&place.client);
    let inside = Inside::new(&place, faults.client()).await;
    inside.caller(&place).await;
    let mut ids = Vec::new();
    for name in &names {
        ids.push(place.pats().get(name).await.unwrap().metadata.uid.expect("a uid").replace('-', ""));
    }
    let patch = json!([{"op": "replace", "path": "/expirationDate", "value": "2100-01-01T00:00:00.000Z"}]);
    let request = Request::post("/sailpoint/personal-access-tokens/v1/bulk-update")
        .header(header::AUTHORIZATION, format!("Bearer {}", place.token(CALLER).await))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(json!({"ids": ids, "patch": patch}).to_string()))
        .unwrap();
    let router = server::router(inside.service.clone(), Arc::default());
    let asking = tokio::spawn(router.oneshot(request));
    eventually("the first is changed", async || {
        asking.is_finished() || faults.sent().iter().any(|sent| sent.is_write())
    })
    .await;
    asking.abort();
    match asking.await {
        Ok(answer) => panic!("it is answered already: {answer:?}"),
        Err(error) => assert!(error.is_cancelled()),
    }
    eventually("all are changed", async || {
        let pats = place.pats().list(&Default::default()).await.unwrap().items;
        pats.iter().filter(|pat| pat.spec.expiry.as_ref().is_some_and(|expiry| expiry.at.is_some())).count() == MANY
    })
    .await;
}
