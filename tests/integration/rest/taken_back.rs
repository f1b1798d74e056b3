//! Undelivered tokens are taken back, however long it takes, and bulk updates run to their end.

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
    in_process::{CALLER, InProcessApi, ada, mint_caller, mint_caller_and_stop, new_token, remaining},
    stage::ALL_MANAGE,
};
use crate::support::{
    faults::{Fault, Faults},
    process::place::{Place, eventually, eventually_within},
};

/// Longer than the time limit of requests to the API server.
const LATE: Duration = Duration::from_secs(40);

#[tokio::test(flavor = "multi_thread")]
async fn undelivered_token_is_taken_back_when_the_api_server_recovers() {
    let place = Place::new("rest-owed").await;
    let _controller = place.operator().start();
    mint_caller(&place).await;
    let faults = Faults::none(&place.client);
    let api = InProcessApi::new(&place, faults.client()).await;
    let caller = api.caller(&place).await;
    let kept = api.service.create(&caller, new_token("Kept")).await.expect("a token");
    kept.receipt.confirm();
    let hour = Some(SignedDuration::from_hours(1));
    let issued = api.service.regenerate(&caller, &kept.item, hour).await.expect("a new token");
    let lost = api.service.create(&caller, new_token("Lost")).await.expect("a token");
    let (revoked, gone, before) = (issued.token.id(), lost.item.name.clone(), faults.sent().len());
    faults.fail();
    drop((issued, lost));
    // Each has two attempts.
    eventually("it is tried", async || faults.sent().len() >= before + 4).await;
    assert!(api.metrics_text().contains("pat_operator_api_tokens_to_take_back 2"), "{}", api.metrics_text());
    faults.heal();
    eventually("both are taken back", async || {
        let spec = place.pats().get(&kept.item.name).await.unwrap().spec;
        spec.revoked_credentials.contains(&revoked.to_string()) && !remaining(&place).await.0.contains(&gone)
    })
    .await;
    eventually("they are counted", async || {
        let figures = api.metrics_text();
        figures.contains("pat_operator_api_tokens_to_take_back 0")
            && figures.contains("pat_operator_api_tokens_taken_back_total 2")
    })
    .await;
    assert!(api.accepts(&kept.token).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn token_not_taken_back_before_shutdown_is_counted_as_given_up() {
    let place = Place::new("rest-given-up").await;
    let _controller = place.operator().start();
    mint_caller(&place).await;
    let faults = Faults::none(&place.client);
    let api = InProcessApi::new(&place, faults.client()).await;
    let lost = api.service.create(&api.caller(&place).await, new_token("Lost")).await.expect("a token");
    let before = faults.sent().len();
    faults.fail();
    drop(lost);
    eventually("it is tried", async || faults.sent().len() > before).await;
    assert!(!api.service.finish(Duration::from_millis(100)).await, "there was too little time");
    assert!(api.metrics_text().contains("pat_operator_api_tokens_given_up_total 1"), "{}", api.metrics_text());
}

#[tokio::test(flavor = "multi_thread")]
async fn object_created_late_by_an_unanswered_request_is_taken_back() {
    let place = Place::new("rest-late").await;
    mint_caller_and_stop(&place).await;
    // Applied after the first check.
    let faults = Faults::at(&place.client, 0, Fault::Late(3));
    let api = InProcessApi::new(&place, faults.client()).await;
    let failure = api.service.create(&api.caller(&place).await, new_token("Late")).await.unwrap_err();
    assert!(matches!(failure, RestError::Unavailable { .. }), "{failure}");
    assert_eq!(remaining(&place).await, (vec![], vec![]));
    eventually_within(LATE, "it lands", async || faults.has_landed()).await;
    eventually_within(LATE, "it is taken back", async || remaining(&place).await == (vec![], vec![])).await;
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
    let api = InProcessApi::new(&place, faults.client()).await;
    api.caller(&place).await;
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
    let router = server::router(api.service.clone(), Arc::default());
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
