//! Callers that lose their permission while a token is issued do not receive it.

use futures::future::join_all;
use k8s_openapi::jiff::SignedDuration;
use kube::api::{Patch, PatchParams};
use pat_operator::{
    api::{Owner, OwnerKind},
    rest::{error::RestError, model::ChangeToken},
};
use serde_json::{Value, json};

use super::{
    in_process::{InProcessApi, SCOPES, mint_caller_as, new_token, remaining},
    stage::describe,
};
use crate::support::process::place::{Place, eventually};

fn user(name: &str) -> Owner {
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

/// How callers lose their permission: their PAT, the change, and the expected error.
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
    let disabled = user(&format!("eve@{}.example.com", place.name()));
    for (name, _, _) in losses() {
        mint_caller_as(&place, name, &user(&format!("{name}@example.com"))).await;
    }
    mint_caller_as(&place, "caller-disabled", &disabled).await;
    controller.terminate().await;

    let api = InProcessApi::new(&place, place.client.clone()).await;
    let mut cases = losses();
    cases.push(("caller-disabled", Value::Null, RestError::Unauthenticated));
    let callers = join_all(cases.iter().map(|(name, _, _)| api.caller_of(&place, name))).await;
    let asking: Vec<_> = callers
        .into_iter()
        .zip(&cases)
        .map(|(caller, (name, _, _))| {
            let (service, order) = (api.service.clone(), new_token(&format!("Of {name}")));
            tokio::spawn(async move { service.create(&caller, order).await })
        })
        .collect();
    // They are authenticated, and their tokens wait for a controller.
    eventually("all objects are there", async || remaining(&place).await.0.len() == cases.len()).await;
    for (name, loss, _) in &cases {
        if loss.is_object() {
            set(&place, name, loss.clone()).await;
        }
    }
    let owner = describe(&place, &disabled, json!({"disabled": true})).await;
    let refused = ["caller-revoked", "caller-disabled"];
    eventually("the server knows of it", async || {
        let mut refusals = 0;
        for name in refused {
            refusals += usize::from(!api.accepts_text(&place.token(name).await).await);
        }
        let narrowed = api.caller_of(&place, "caller-narrowed").await.scopes.len() == SCOPES.len() - 1;
        let powerless = api.caller_of(&place, "caller-without-rights").await.scopes.len() == SCOPES.len() - 1;
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
    let kept = kept.expect("the caller that kept its permission has the token");
    assert!(api.accepts(&kept.token).await);
    eventually("nothing else is left", async || remaining(&place).await == (vec![kept.item.name.clone()], vec![]))
        .await;
    kept.receipt.confirm();
    owner.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn caller_that_loses_permission_during_regenerate_gets_no_token_and_it_is_revoked() {
    let place = Place::new("rest-judged-regen").await;
    let controller = place.operator().start();
    let owner = user("ada@example.com");
    mint_caller_as(&place, "caller-first", &owner).await;
    mint_caller_as(&place, "caller-second", &owner).await;
    let api = InProcessApi::new(&place, place.client.clone()).await;
    let caller = api.caller_of(&place, "caller-first").await;
    let created = api.service.create(&caller, new_token("App")).await.expect("a token");
    created.receipt.confirm();
    controller.terminate().await;

    let (service, item) = (api.service.clone(), created.item.clone());
    let hour = Some(SignedDuration::from_hours(1));
    let asking = tokio::spawn(async move { service.regenerate(&caller, &item, hour).await });
    eventually("the rotation is requested", async || {
        place.pats().get(&created.item.name).await.unwrap().spec.rotate_if_issued_before.is_some()
    })
    .await;
    set(&place, "caller-first", json!({"revoked": true})).await;
    let token = place.token("caller-first").await;
    eventually("the server knows of it", async || !api.accepts_text(&token).await).await;
    let _controller = place.operator().start();
    assert_eq!(asking.await.expect("no panic").unwrap_err(), RestError::Unauthenticated);
    eventually("the new credential is revoked", async || {
        let status = place.status(&created.item.name).await;
        let revoked = place.pats().get(&created.item.name).await.unwrap().spec.revoked_credentials;
        !revoked.is_empty() && status.credentials.iter().all(|one| !revoked.contains(&one.id.to_string()))
    })
    .await;
    assert!(api.accepts(&created.token).await, "the former one goes on");

    // A caller that regenerates its own token gets the new one.
    let caller = api.caller_of(&place, "caller-second").await;
    let own = api.service.item(caller.id).expect("it is known");
    let replaced = api.service.regenerate(&caller, &own, Some(SignedDuration::ZERO)).await.expect("a new token");
    assert!(api.accepts(&replaced.token).await);
    // The old one can no longer change anything.
    let change = ChangeToken { display_name: Some("Other".into()), ..ChangeToken::default() };
    let refused = api.service.change(&caller, &created.item, change).await;
    assert_eq!(refused.unwrap_err(), RestError::Unauthenticated);
    assert_eq!(api.service.delete(&caller, &created.item, |_, _| Ok(())).await, Err(RestError::Unauthenticated));
}
