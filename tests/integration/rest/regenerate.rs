//! Regeneration of tokens.

use k8s_openapi::jiff::SignedDuration;
use pat_operator::{
    api::Expiry,
    rest::{
        error::{Conflict, RestError},
        model::ChangeToken,
    },
};
use serde_json::json;

use super::in_process::{InProcessApi, SCOPES, ada, mint_caller, new_token, remaining};
use crate::support::process::place::{Place, eventually, in_seconds};

#[tokio::test(flavor = "multi_thread")]
async fn regenerate_delivers_a_new_token_and_the_old_one_keeps_its_grace_period() {
    let place = Place::new("rest-regen").await;
    let _operator = place.operator().start();
    mint_caller(&place).await;
    let api = InProcessApi::new(&place, place.client.clone()).await;
    let (service, caller) = (&api.service, api.caller(&place).await);
    let first = service.create(&caller, new_token("Regenerated")).await.expect("a token");
    let hour = Some(SignedDuration::from_hours(1));
    first.receipt.confirm();
    let second = service.regenerate(&caller, &first.item, hour).await.expect("a new token");
    second.receipt.confirm();
    assert!(api.accepts(&first.token).await && api.accepts(&second.token).await);
    assert_eq!((second.item.id, second.item.grace_period), (first.item.id, hour));
    assert_eq!(remaining(&place).await.1, Vec::<String>::new(), "it was taken out of its Secret");

    let third = service.regenerate(&caller, &second.item, Some(SignedDuration::ZERO)).await.expect("a new token");
    assert!(api.accepts(&third.token).await);
    eventually("the others are dead", async || !api.accepts(&first.token).await && !api.accepts(&second.token).await)
        .await;

    let mut narrow = caller.clone();
    narrow.scopes.retain(|scope| scope != "repo:read");
    let refused = service.regenerate(&narrow, &third.item, hour).await.unwrap_err();
    assert_eq!(refused, RestError::Forbidden("your token lacks the scope repo:read".into()));
    let revoke = ChangeToken { revoked: Some(true), ..ChangeToken::default() };
    let revoked = service.change(&caller, &third.item, revoke).await.expect("it is revoked");
    let refused = service.regenerate(&caller, &revoked, hour).await.unwrap_err();
    assert!(matches!(refused, RestError::Conflict(Conflict::State(_))), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn token_in_a_permanent_secret_is_shown_and_stays() {
    let place = Place::new("rest-stays").await;
    let _operator = place.operator().arg("--publish-lead=0s").start();
    let spec = json!({"owner": ada(), "secret": {"name": "elsewhere", "key": "secret", "previousKey": "old"}});
    place.apply("app", spec).await;
    let status = place.until("app", "ready", crate::support::process::place::is_ready).await;
    assert_eq!(status.secret_name.as_deref(), Some("elsewhere"));
    let before = place.value("elsewhere", "secret").await.expect("a token");
    mint_caller(&place).await;
    let api = InProcessApi::new(&place, place.client.clone()).await;
    let uid = place.pats().get("app").await.unwrap().metadata.uid.unwrap().parse().unwrap();
    let item = api.service.item(uid).expect("it is known");
    let issued = api.service.regenerate(&api.caller(&place).await, &item, None).await.expect("a new token");
    let (now, old) = (place.value("elsewhere", "secret").await, place.value("elsewhere", "old").await);
    assert_eq!((now.as_deref(), old), (Some(issued.token.expose()), Some(before)));
    assert!(api.accepts(&issued.token).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_controller_regenerate_is_undone() {
    let place = Place::new("rest-no-regen").await;
    let operator = place.operator().start();
    mint_caller(&place).await;
    let api = InProcessApi::new(&place, place.client.clone()).await;
    let brief = json!({"owner": ada(), "scopes": SCOPES, "expiry": {"at": in_seconds(3600)}});
    place.apply("caller-brief", brief).await;
    place.ready("caller-brief").await;
    let first = api.service.create(&api.caller(&place).await, new_token("Waiting")).await.expect("a token");
    let brief = api.caller_of(&place, "caller-brief").await;
    operator.terminate().await;
    let failure = api.service.regenerate(&brief, &first.item, Some(SignedDuration::from_hours(1))).await;
    assert!(matches!(failure, Err(RestError::Unavailable { .. })), "{failure:?}");
    let spec = place.pats().get(&first.item.name).await.unwrap().spec;
    assert_eq!((spec.rotate_if_issued_before, spec.grace_period), (None, None));
    assert_eq!(spec.expiry, Some(Expiry { after: Some("90d".into()), ..Expiry::default() }));
    assert!(api.accepts(&first.token).await);
}
