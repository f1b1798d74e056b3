//! A token that a caller creates or regenerates has no more than the caller: it ends with the caller's PAT, which is its parent.

use axum::http::{HeaderMap, HeaderValue, header};
use k8s_openapi::jiff::SignedDuration;
use kube::api::{ListParams, Patch, PatchParams};
use pat_operator::{
    api::{Expiry, ParentToken, Time},
    rest::{error::RestError, model::ChangeToken},
};
use serde_json::{Value, json};

use super::{
    in_process::{InProcessApi, SCOPES, ada, mint_caller, mint_caller_as, new_token, remaining},
    stage::{ALL_MANAGE, MY_MANAGE, Stage},
};
use crate::support::process::place::{Place, eventually, in_seconds};

/// The PAT of a caller that ends in an hour.
const BRIEF: &str = "caller-brief";

/// Mints a caller's token that ends at this time, with this merged into its spec.
async fn mint_brief(place: &Place, end: &str, more: Value) {
    let mut spec = json!({"owner": ada(), "scopes": SCOPES, "expiry": {"at": end}});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    place.apply(BRIEF, spec).await;
    place.ready(BRIEF).await;
}

async fn uid(place: &Place, name: &str) -> String {
    place.pats().get(name).await.unwrap().metadata.uid.unwrap()
}

async fn parent(place: &Place, name: &str) -> Option<ParentToken> {
    place.pats().get(name).await.unwrap().spec.parent.map(|parent| *parent)
}

async fn revoke(place: &Place, name: &str) {
    let params = PatchParams { field_manager: Some("person".into()), ..PatchParams::default() };
    let patch = json!({"spec": {"revoked": true}});
    place.pats().patch(name, &params, &Patch::Merge(patch)).await.expect("it is revoked");
}

fn at(end: &str) -> Time {
    end.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn created_token_ends_with_the_callers_token_and_has_it_as_its_parent() {
    let place = Place::new("rest-parent").await;
    let _operator = place.operator().start();
    let end = in_seconds(3600);
    mint_brief(&place, &end, json!({})).await;
    let api = InProcessApi::new(&place, place.client.clone()).await;
    let (service, caller) = (&api.service, api.caller_of(&place, BRIEF).await);
    let brief = ParentToken { name: BRIEF.into(), uid: uid(&place, BRIEF).await };
    let never = Expiry { never: Some(true), ..Expiry::default() };
    let soon = Expiry { at: Some(at(&in_seconds(60))), ..Expiry::default() };
    for (name, wanted, limited) in [("Never", never, true), ("Soon", soon.clone(), false)] {
        let mut request = new_token(name);
        request.expiry = wanted;
        let created = service.create(&caller, request).await.expect("a token");
        let ends = if limited { at(&end) } else { soon.at.unwrap() };
        assert_eq!((created.item.expires_at(), created.limited_to), (Some(ends), limited.then_some(ends)), "{name}");
        assert_eq!(parent(&place, &created.item.name).await, Some(brief.clone()));
        created.receipt.confirm();
    }
    let children = ListParams::default().fields(&format!("spec.parent.uid={}", brief.uid));
    assert_eq!(place.pats().list(&children).await.expect("a selectable field").items.len(), 2);

    // With an access token, the limit is the end of the PAT behind it, and not the end of the access token.
    let secret = place.token(BRIEF).await;
    let exchanged = service.exchange(brief.uid.replace('-', "").as_bytes(), secret.as_bytes(), None).expect("a token");
    let bearer = HeaderValue::try_from(format!("Bearer {}", *exchanged.token)).unwrap();
    let headers: HeaderMap = [(header::AUTHORIZATION, bearer)].into_iter().collect();
    let caller = service.caller(&headers).await.expect("an access token is accepted");
    let created = service.create(&caller, new_token("By access token")).await.expect("a token");
    assert_eq!(created.item.expires_at(), Some(at(&end)));
    created.receipt.confirm();

    let mut request = new_token("Permitted");
    request.permissions =
        serde_json::from_value(json!([{"resourceFQN": "a:b", "resourceType": "cluster", "roleID": "admin"}])).unwrap();
    let refused = service.create(&caller, request).await.unwrap_err();
    assert_eq!(refused, RestError::Forbidden("your token lacks the permission admin on a:b".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn regenerated_token_has_no_permission_that_the_caller_lacks_and_ends_with_it() {
    let place = Place::new("rest-parent-regen").await;
    let _operator = place.operator().arg("--publish-lead=0s").start();
    let permissions = json!([{"resourceFQN": "a:b", "resourceType": "cluster", "roleID": "admin"}]);
    place.apply("robot", json!({"owner": ada(), "permissions": permissions, "rotation": {"interval": "30d"}})).await;
    place.ready("robot").await;
    let end = in_seconds(3600);
    mint_brief(&place, &end, json!({"permissions": permissions})).await;
    mint_caller(&place).await;
    let api = InProcessApi::new(&place, place.client.clone()).await;
    let service = &api.service;
    let plain = api.caller(&place).await;
    let robot = service.item(uid(&place, "robot").await.parse().unwrap()).expect("it is known");
    let hour = Some(SignedDuration::from_hours(1));
    let refused = service.regenerate(&plain, &robot, hour).await.unwrap_err();
    assert_eq!(refused, RestError::Forbidden("your token lacks the permission admin on a:b".into()));

    let brief = api.caller_of(&place, BRIEF).await;
    let issued = service.regenerate(&brief, &robot, hour).await.expect("a new token");
    assert_eq!((issued.item.expires_at(), issued.limited_to), (Some(at(&end)), Some(at(&end))));
    let expected = ParentToken { name: BRIEF.into(), uid: uid(&place, BRIEF).await };
    assert_eq!(parent(&place, "robot").await, Some(expected.clone()));
    // Another caller that never ends does not extend it, and a parent stays.
    let other = json!({"owner": ada(), "scopes": SCOPES, "permissions": permissions, "expiry": {"never": true}});
    place.apply("caller-other", other).await;
    place.ready("caller-other").await;
    let other = api.caller_of(&place, "caller-other").await;
    let again = service.regenerate(&other, &issued.item, hour).await.expect("a new token");
    assert_eq!((again.item.expires_at(), again.limited_to), (Some(at(&end)), None));
    assert_eq!(parent(&place, "robot").await, Some(expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn change_extends_no_token_beyond_the_end_of_the_callers_token() {
    let place = Place::new("rest-parent-change").await;
    let _operator = place.operator().start();
    let end = in_seconds(3600);
    mint_brief(&place, &end, json!({})).await;
    mint_caller(&place).await;
    let api = InProcessApi::new(&place, place.client.clone()).await;
    let service = &api.service;
    let (brief, caller) = (api.caller_of(&place, BRIEF).await, api.caller(&place).await);
    let created = service.create(&caller, new_token("App")).await.expect("a token");
    created.receipt.confirm();
    let expires = |at: Option<Time>| ChangeToken {
        expiry: Some(Expiry { at, never: at.is_none().then_some(true), ..Expiry::default() }),
        ..ChangeToken::default()
    };
    // A token that ends later may still be shortened, by any caller.
    let item = service.change(&brief, &created.item, expires(Some(at(&in_seconds(60))))).await.expect("a shorter life");
    let item = service.change(&brief, &item, expires(Some(at(&end)))).await.expect("the caller's own end");
    let own = service.item(brief.id).expect("it is known");
    for (item, later) in [(&item, None), (&item, Some(at(&in_seconds(7200)))), (&own, Some(at(&in_seconds(7200))))] {
        let refused = service.change(&brief, item, expires(later)).await.unwrap_err();
        let words = format!("your token ends at {}: it cannot extend a token beyond that", at(&end));
        assert_eq!(refused, RestError::Forbidden(words), "{later:?}");
    }
    service.change(&caller, &item, expires(None)).await.expect("this caller never ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn revocation_of_a_parent_ends_its_descendants_where_the_cascade_runs() {
    let place = Place::new("rest-cascade").await;
    let _operator = place.operator().start();
    mint_caller(&place).await;
    mint_caller_as(&place, "caller-later", &ada()).await;
    let api = InProcessApi::new(&place, place.client.clone()).await;
    let service = &api.service;
    let caller = api.caller(&place).await;
    let mut request = new_token("Child");
    request.scopes = SCOPES.map(str::to_owned).into();
    let child = service.create(&caller, request).await.expect("a token");
    child.receipt.confirm();
    let bearer = HeaderValue::try_from(format!("Bearer {}", child.token.expose())).unwrap();
    let headers: HeaderMap = [(header::AUTHORIZATION, bearer)].into_iter().collect();
    let as_child = service.caller(&headers).await.expect("the child is accepted");
    let grandchild = service.create(&as_child, new_token("Grandchild")).await.expect("a token");
    grandchild.receipt.confirm();
    let later = api.caller_of(&place, "caller-later").await;
    let other = service.create(&later, new_token("Other")).await.expect("a token");
    other.receipt.confirm();

    revoke(&place, "caller").await;
    let secret = place.token("caller-later").await;
    eventually("the revocation is known", async || service.item(caller.id).is_some_and(|item| item.revoked)).await;
    assert!(api.accepts(&child.token).await && api.accepts(&grandchild.token).await, "by default nothing follows");

    let cascade = tokio::spawn({
        let service = service.clone();
        async move { service.cascade_revocations().await }
    });
    eventually("both are revoked", async || !api.accepts(&child.token).await && !api.accepts(&grandchild.token).await)
        .await;
    for name in [&child.item.name, &grandchild.item.name] {
        assert_eq!(place.pats().get(name).await.unwrap().spec.revoked, Some(true), "{name}");
    }
    assert!(api.accepts(&other.token).await && api.accepts_text(&secret).await);
    revoke(&place, "caller-later").await;
    eventually("a later revocation is followed", async || !api.accepts(&other.token).await).await;
    assert_eq!(remaining(&place).await.0.len(), 3, "nothing is deleted");
    cascade.abort();
}

/// The header that says when the token of an answer ends.
fn warning(end: &str) -> String {
    format!("299 - \"the token ends at {}, because it cannot outlive the token that requested it\"", at(end))
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_all_dialects_say_that_the_token_ends_early() {
    let stage = Stage::new("rest-limited", &["--cascade-revocation"]).await;
    let end = in_seconds(3600);
    let account = json!({"kind": "VirtualAccount", "name": format!("{}/robot", stage.place.name())});
    let spec = json!({"owner": account, "scopes": [MY_MANAGE, ALL_MANAGE], "expiry": {"at": end}});
    stage.place.apply("robot", spec).await;
    let robot = stage.place.ready("robot").await;
    eventually("the token is known", async || {
        stage.api.call("GET", "/api/svc/v1/session", &robot, None).await.status == 200
    })
    .await;
    let soon = in_seconds(60);
    for (path, unlimited, limited, status) in [
        (
            "/sailpoint/personal-access-tokens/v1",
            json!({"name": "one", "expirationDate": soon}),
            json!({"name": "two", "userAwareTokenNeverExpires": true}),
            200,
        ),
        (
            "/sailpoint/v3/personal-access-tokens",
            json!({"name": "three", "expirationDate": soon}),
            json!({"name": "four"}),
            200,
        ),
        (
            "/api/svc/v1/personal-access-tokens",
            json!({"name": "five-a", "expirationDate": soon}),
            json!({"name": "six-a", "expirationDate": "2100-01-01"}),
            201,
        ),
        (
            "/cryptlex/v3/personal-access-tokens",
            json!({"name": "seven", "expiresAt": soon}),
            json!({"name": "eight"}),
            201,
        ),
    ] {
        let reply = stage.api.call("POST", path, &robot, Some(&unlimited)).await;
        assert_eq!((reply.status, reply.headers.get("warning")), (status, None), "{path}: {reply:?}");
        let reply = stage.api.call("POST", path, &robot, Some(&limited)).await;
        let told = reply.headers.get("warning").map(|value| value.to_str().unwrap().to_owned());
        assert_eq!((reply.status, told), (status, Some(warning(&end))), "{path}: {reply:?}");
        if path.starts_with("/sailpoint") {
            let shown = reply.json()["expirationDate"].as_str().map(at);
            // SailPoint's times have milliseconds.
            assert_eq!(shown.map(|time| time.floor_second()), Some(at(&end).floor_second()));
        }
    }
    let spec = json!({"owner": account, "rotation": {"interval": "30d"}});
    stage.place.apply("endless", spec).await;
    stage.place.ready("endless").await;
    let id = uid(&stage.place, "endless").await;
    let path = format!("/api/svc/v1/virtual-accounts/{id}/regenerate-token");
    let mut reply = None;
    eventually("it is regenerated", async || {
        let answer = stage.api.call("POST", &path, &robot, Some(&json!({"gracePeriodInMinutes": 5}))).await;
        reply = Some(answer.clone());
        answer.status == 200
    })
    .await;
    let reply = reply.unwrap();
    assert_eq!(reply.headers["warning"].to_str().unwrap(), warning(&end));
    let new = reply.json()["token"].as_str().unwrap().to_owned();
    stage.verifier.forwards(&new, 200).await;

    // The server was started with the cascade.
    revoke(&stage.place, "robot").await;
    stage.verifier.forwards(&new, 401).await;
    eventually("every child is revoked", async || {
        let all = stage.place.pats().list(&ListParams::default()).await.expect("PATs are listed").items;
        all.len() == 10 && all.iter().all(|pat| pat.spec.revoked == Some(true))
    })
    .await;
}
