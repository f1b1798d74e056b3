//! Whoever loses the right to a token while it is made does not get it, and neither does anybody else.

use futures::future::join_all;
use k8s_openapi::jiff::SignedDuration;
use kube::api::{Patch, PatchParams};
use pat_operator::{
    api::{Owner, OwnerKind},
    rest::{error::RestError, model::ChangeToken},
};
use serde_json::{Value, json};

use super::{
    inside::{Inside, SCOPES, hire_as, left, order},
    stage::describe,
};
use crate::support::process::place::{Place, eventually};

fn somebody(name: &str) -> Owner {
    Owner { kind: OwnerKind::User, name: name.into() }
}

async fn set(place: &Place, pat: &str, spec: Value) {
    let params = PatchParams { field_manager: Some("person".into()), ..PatchParams::default() };
    place.pats().patch(pat, &params, &Patch::Merge(json!({ "spec": spec }))).await.expect("it is changed");
}

fn lost() -> RestError {
    RestError::Forbidden("your token has lost scopes since the request began".into())
}

fn lacking() -> RestError {
    RestError::Forbidden("your token lacks the scope repo:read".into())
}

/// How callers of these tests lose their right: their PAT, what is set of it, and what they are told.
fn losses() -> Vec<(&'static str, Value, RestError)> {
    vec![
        ("caller-kept", json!({"description": "as it was"}), RestError::Internal),
        ("caller-revoked", json!({"revoked": true}), RestError::Unauthenticated),
        ("caller-narrowed", json!({"scopes": SCOPES[1..]}), lacking()),
        ("caller-without-rights", json!({"scopes": SCOPES[..2]}), lost()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn caller_that_loses_permission_during_create_gets_no_token_and_nothing_is_left() {
    let place = Place::new("rest-judged").await;
    let controller = place.operator().start();
    let disabled = somebody(&format!("eve@{}.example.com", place.name()));
    for (name, _, _) in losses() {
        hire_as(&place, name, &somebody(&format!("{name}@example.com"))).await;
    }
    hire_as(&place, "caller-disabled", &disabled).await;
    controller.terminate().await;

    let inside = Inside::new(&place, place.client.clone()).await;
    let mut cases = losses();
    cases.push(("caller-disabled", Value::Null, RestError::Unauthenticated));
    let callers = join_all(cases.iter().map(|(name, _, _)| inside.caller_of(&place, name))).await;
    let asking: Vec<_> = callers
        .into_iter()
        .zip(&cases)
        .map(|(caller, (name, _, _))| {
            let (service, order) = (inside.service.clone(), order(&format!("Of {name}")));
            tokio::spawn(async move { service.create(&caller, order).await })
        })
        .collect();
    // They are let in, and their tokens wait for a controller.
    eventually("all objects are there", async || left(&place).await.0.len() == cases.len()).await;
    for (name, loss, _) in &cases {
        if loss.is_object() {
            set(&place, name, loss.clone()).await;
        }
    }
    let owner = describe(&place, &disabled, json!({"disabled": true})).await;
    let refused = ["caller-revoked", "caller-disabled"];
    eventually("it is heard of", async || {
        let mut refusals = 0;
        for name in refused {
            refusals += usize::from(!inside.lets_in_text(&place.token(name).await).await);
        }
        let narrowed = inside.caller_of(&place, "caller-narrowed").await.scopes.len() == SCOPES.len() - 1;
        let powerless = inside.caller_of(&place, "caller-without-rights").await.scopes.len() == SCOPES.len() - 1;
        refusals == refused.len() && narrowed && powerless
    })
    .await;

    let _controller = place.operator().start();
    let mut kept = None;
    for ((name, _, expected), asking) in cases.iter().zip(asking) {
        match asking.await.expect("no panic") {
            Ok(created) if *name == "caller-kept" => kept = Some(created),
            Ok(created) => panic!("{name} got {}", created.item.name),
            Err(failure) => assert_eq!(failure, *expected, "{name}"),
        }
    }
    let kept = kept.expect("whoever has lost nothing has the token");
    assert!(inside.lets_in(&kept.token).await);
    eventually("nothing else is left", async || left(&place).await == (vec![kept.item.name.clone()], vec![])).await;
    kept.receipt.confirm();
    owner.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn caller_that_loses_permission_during_regenerate_gets_no_token_and_it_is_revoked() {
    let place = Place::new("rest-judged-regen").await;
    let controller = place.operator().start();
    let owner = somebody("ada@example.com");
    hire_as(&place, "caller-first", &owner).await;
    hire_as(&place, "caller-second", &owner).await;
    let inside = Inside::new(&place, place.client.clone()).await;
    let caller = inside.caller_of(&place, "caller-first").await;
    let created = inside.service.create(&caller, order("App")).await.expect("a token");
    created.receipt.confirm();
    controller.terminate().await;

    let (service, item) = (inside.service.clone(), created.item.clone());
    let hour = Some(SignedDuration::from_hours(1));
    let asking = tokio::spawn(async move { service.regenerate(&caller, &item, hour).await });
    eventually("it is ordered", async || {
        place.pats().get(&created.item.name).await.unwrap().spec.rotate_if_issued_before.is_some()
    })
    .await;
    set(&place, "caller-first", json!({"revoked": true})).await;
    let token = place.token("caller-first").await;
    eventually("it is heard of", async || !inside.lets_in_text(&token).await).await;
    let _controller = place.operator().start();
    assert_eq!(asking.await.expect("no panic").unwrap_err(), RestError::Unauthenticated);
    eventually("the new credential is revoked", async || {
        let status = place.status(&created.item.name).await;
        let revoked = place.pats().get(&created.item.name).await.unwrap().spec.revoked_credentials;
        !revoked.is_empty() && status.credentials.iter().all(|one| !revoked.contains(&one.id.to_string()))
    })
    .await;
    assert!(inside.lets_in(&created.token).await, "the former one goes on");

    // Whoever replaces the very token that he calls with, gets the new one.
    let caller = inside.caller_of(&place, "caller-second").await;
    let own = inside.service.item(caller.id).expect("it is known");
    let replaced = inside.service.regenerate(&caller, &own, Some(SignedDuration::ZERO)).await.expect("a new token");
    assert!(inside.lets_in(&replaced.token).await);
    // And with the old one nothing is changed any more.
    let change = ChangeToken { display_name: Some("Other".into()), ..ChangeToken::default() };
    let refused = inside.service.change(&caller, &created.item, change).await;
    assert_eq!(refused.unwrap_err(), RestError::Unauthenticated);
    assert_eq!(inside.service.delete(&caller, &created.item, |_, _| Ok(())).await, Err(RestError::Unauthenticated));
}
