//! Changes to tokens, with a controller that writes too, and other field managers.

use kube::api::{Patch, PatchParams};
use pat_operator::rest::{
    error::{Conflict, RestError},
    model::ChangeToken,
};
use serde_json::json;

use super::in_process::{InProcessApi, ada, mint_caller, new_token};
use crate::support::process::place::{Place, eventually, is_ready};

#[tokio::test(flavor = "multi_thread")]
async fn change_takes_effect_at_once_and_only_on_its_fields() {
    let place = Place::new("rest-change").await;
    let _operator = place.operator().start();
    mint_caller(&place).await;
    let api = InProcessApi::new(&place, place.client.clone()).await;
    let (service, caller) = (&api.service, api.caller(&place).await);
    let created = service.create(&caller, new_token("First")).await.expect("a token");
    let change = ChangeToken { scopes: Some(vec!["repo:write".into()]), ..ChangeToken::default() };
    let changed = service.change(&caller, &created.item, change).await.expect("its own scopes");
    assert_eq!((&changed.scopes, &*changed.display_name), (&vec!["repo:write".to_owned()], "First"));
    assert!(changed.updated_at >= created.item.updated_at && changed.generation > created.item.generation);

    let wider = ChangeToken { scopes: Some(vec!["admin".into()]), ..ChangeToken::default() };
    assert_eq!(
        service.change(&caller, &changed, wider).await.unwrap_err(),
        RestError::Forbidden("your token lacks the scope admin".into())
    );
    // The token was changed since it was read.
    let stale = ChangeToken { display_name: Some("Other".into()), ..ChangeToken::default() };
    assert_eq!(
        service.change(&caller, &created.item, stale).await.unwrap_err(),
        RestError::Conflict(Conflict::Changed)
    );
    let nothing = service.change(&caller, &changed, ChangeToken::default()).await.expect("no change");
    assert_eq!(nothing.generation, changed.generation);

    let revoke = ChangeToken { revoked: Some(true), ..ChangeToken::default() };
    let revoked = service.change(&caller, &changed, revoke).await.expect("it is revoked");
    assert!(revoked.revoked && !api.accepts(&created.token).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn field_of_a_gitops_tool_is_not_changed() {
    let place = Place::new("rest-git").await;
    let operator = place.operator().start();
    place.apply("app", json!({"owner": ada(), "displayName": "From Git", "scopes": ["repo:read"]})).await;
    place.ready("app").await;
    mint_caller(&place).await;
    operator.terminate().await;
    let api = InProcessApi::new(&place, place.client.clone()).await;
    let caller = api.caller(&place).await;
    let uid = place.pats().get("app").await.unwrap().metadata.uid.unwrap().parse().unwrap();
    let item = api.service.item(uid).expect("it is known");
    let rename = ChangeToken { display_name: Some("Mine".into()), ..ChangeToken::default() };
    let managed = Conflict::Managed { field: "spec.displayName".into(), manager: "person".into() };
    assert_eq!(api.service.change(&caller, &item, rename).await.unwrap_err(), RestError::Conflict(managed));
    // A field that Git does not set can be changed, and Git can still take it over.
    let same = ChangeToken { display_name: Some("From Git".into()), revoked: Some(true), ..ChangeToken::default() };
    let revoked = api.service.change(&caller, &item, same).await.expect("a free field");
    assert!(revoked.revoked);
    let pat = place.pats().get("app").await.unwrap();
    let ours =
        pat.metadata.managed_fields.iter().flatten().find(|one| one.manager.as_deref() == Some("pat-operator-api"));
    let fields = serde_json::to_value(&ours.expect("an entry of its own").fields_v1).unwrap();
    assert_eq!(fields, json!({"f:spec": {"f:revoked": {}}}));
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_status_writes_are_no_conflict_and_one_credential_can_be_revoked() {
    let place = Place::new("rest-status").await;
    let _operator = place.operator().arg("--publish-lead=0s").start();
    mint_caller(&place).await;
    let api = InProcessApi::new(&place, place.client.clone()).await;
    let (service, caller) = (&api.service, api.caller(&place).await);
    let created = service.create(&caller, new_token("Busy")).await.expect("a token");
    let item = created.item.clone();
    let params = PatchParams { field_manager: Some("pat-operator-verifier".into()), ..PatchParams::default() };
    for second in 0..3 {
        let used = json!({"status": {"lastUsedAt": format!("2026-01-01T00:00:0{second}Z")}});
        place.pats().patch_status(&item.name, &params, &Patch::Merge(used)).await.expect("a use");
    }
    let change = ChangeToken { revoke_credential: Some(created.token.id()), ..ChangeToken::default() };
    let changed = service.change(&caller, &item, change.clone()).await.expect("no conflict");
    assert_eq!(changed.revoked_credentials, [created.token.id().as_str()]);
    assert!(!api.accepts(&created.token).await);
    let again = service.change(&caller, &changed, change).await.expect("it is dead already");
    assert_eq!(again.generation, changed.generation);
    eventually("the dead credential is gone", async || {
        let status = place.status(&item.name).await;
        status.credentials.iter().all(|one| one.id != created.token.id()) && !is_ready(&status)
    })
    .await;
}
