//! Issuing new credentials of tokens that there are.

use k8s_openapi::jiff::SignedDuration;
use pat_operator::rest::{
    error::{Conflict, RestError},
    model::ChangeToken,
};
use serde_json::json;

use super::inside::{Inside, ada, hire, left, order};
use crate::support::process::place::{Place, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn regenerate_delivers_a_new_token_and_the_old_one_keeps_its_grace_period() {
    let place = Place::new("rest-regen").await;
    let _operator = place.operator().start();
    hire(&place).await;
    let inside = Inside::new(&place, place.client.clone()).await;
    let (service, caller) = (&inside.service, inside.caller(&place).await);
    let first = service.create(&caller, order("Regenerated")).await.expect("a token");
    let hour = Some(SignedDuration::from_hours(1));
    first.receipt.confirm();
    let second = service.regenerate(&caller, &first.item, hour).await.expect("a new token");
    second.receipt.confirm();
    assert!(inside.lets_in(&first.token).await && inside.lets_in(&second.token).await);
    assert_eq!((second.item.id, second.item.grace_period), (first.item.id, hour));
    assert_eq!(left(&place).await.1, Vec::<String>::new(), "it was taken out of its Secret");

    let third = service.regenerate(&caller, &second.item, Some(SignedDuration::ZERO)).await.expect("a new token");
    assert!(inside.lets_in(&third.token).await);
    eventually("the others are dead", async || {
        !inside.lets_in(&first.token).await && !inside.lets_in(&second.token).await
    })
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
    hire(&place).await;
    let inside = Inside::new(&place, place.client.clone()).await;
    let uid = place.pats().get("app").await.unwrap().metadata.uid.unwrap().parse().unwrap();
    let item = inside.service.item(uid).expect("it is known");
    let issued = inside.service.regenerate(&inside.caller(&place).await, &item, None).await.expect("a new token");
    let (now, old) = (place.value("elsewhere", "secret").await, place.value("elsewhere", "old").await);
    assert_eq!((now.as_deref(), old), (Some(issued.token.expose()), Some(before)));
    assert!(inside.lets_in(&issued.token).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_controller_regenerate_is_undone() {
    let place = Place::new("rest-no-regen").await;
    let operator = place.operator().start();
    hire(&place).await;
    let inside = Inside::new(&place, place.client.clone()).await;
    let caller = inside.caller(&place).await;
    let first = inside.service.create(&caller, order("Waiting")).await.expect("a token");
    operator.terminate().await;
    let failure = inside.service.regenerate(&caller, &first.item, Some(SignedDuration::from_hours(1))).await;
    assert!(matches!(failure, Err(RestError::Unavailable { .. })), "{failure:?}");
    let spec = place.pats().get(&first.item.name).await.unwrap().spec;
    assert_eq!((spec.rotate_if_issued_before, spec.grace_period), (None, None));
    assert!(inside.lets_in(&first.token).await);
}
