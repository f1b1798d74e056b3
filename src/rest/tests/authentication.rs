//! Who is let in, and that whoever is not learns nothing by it.

use std::{
    num::NonZeroU32,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::http::{HeaderMap, header};
use k8s_openapi::jiff::SignedDuration;
use serde_json::json;

use super::super::{
    failure::Failure,
    rate::Rate,
    rights::{Deed, Reach},
    world::{Known, NOW, World, at},
};
use crate::{index::Freshness, token::Token};

const READ: &str = "sp:my-personal-access-tokens:read";

fn headers(values: &[&str]) -> HeaderMap {
    values.iter().map(|value| (header::AUTHORIZATION, value.parse().unwrap())).collect()
}

#[tokio::test]
async fn a_live_token_is_let_in_with_the_rights_of_its_scopes() {
    let mut world = World::new();
    let ada = world.user("ada", "Laptop", &[READ, "repo:read"]);
    let caller = world.service().caller(&ada.headers()).await.unwrap();
    assert_eq!((caller.owner.text(), caller.token_name, caller.id), ("ada".into(), "Laptop".into(), ada.id));
    assert_eq!(caller.credential, ada.token.id());
    assert_eq!(caller.scopes, [READ, "repo:read"]);
    assert!(caller.rights.may(Reach::My, Deed::Read) && !caller.rights.may(Reach::My, Deed::Manage));
    let used = world.index.get(&ada.token.hash()).unwrap().credential().last_used();
    assert_eq!(used, Some(at(NOW)), "the use is noted");
}

#[tokio::test]
async fn everything_else_is_refused_in_the_same_words() {
    let mut world = World::new();
    let ada = world.user("ada", "Laptop", &[READ]);
    let unknown = Token::mint(&"kpat".parse().unwrap()).unwrap();
    let other = json!({"kind": "User", "name": "bob"});
    let dead = [
        world.pat(json!({"owner": other, "revoked": true}), json!({})),
        world.pat(json!({"owner": other, "expiry": {"at": "2026-05-31T00:00:00Z"}}), json!({})),
        world.pat(json!({"owner": other, "revokeIfIssuedBefore": "2026-06-01T11:59:59Z"}), json!({})),
        world.pat(json!({"owner": other}), json!({"metadata": {"deletionTimestamp": "2026-06-01T11:00:00Z"}})),
        world.pat(json!({"owner": other, "audiences": ["https://elsewhere.example.com"]}), json!({})),
    ];
    let service = world.service();
    let bearer = ada.bearer();
    let mut wrong: Vec<HeaderMap> = dead.iter().map(Known::headers).collect();
    wrong.extend([
        headers(&[]),
        headers(&["Bearer"]),
        headers(&["Bearer "]),
        headers(&[&bearer, &bearer]),
        headers(&[&format!("{bearer}, {bearer}")]),
        headers(&[&bearer.replace("Bearer", "Basic")]),
        headers(&[&format!("Bearer {}", unknown.expose())]),
        headers(&[&format!("{bearer}x")]),
        headers(&["Bearer eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0.e30."]),
    ]);
    for headers in wrong {
        assert_eq!(service.caller(&headers).await.unwrap_err(), Failure::Unauthenticated, "{headers:?}");
    }
    assert!(service.caller(&ada.headers()).await.is_ok());
}

#[tokio::test]
async fn a_token_for_an_audience_calls_only_where_that_is_the_server_s() {
    let mut world = World::new();
    let known = world.pat(json!({"audiences": ["https://a.example.com", "https://b.example.com"]}), json!({}));
    let plain = world.pat(json!({}), json!({}));
    for (audience, taken) in
        [(None, false), (Some("https://b.example.com"), true), (Some("https://c.example.com"), false)]
    {
        world.settings.audience = audience.map(str::to_owned);
        let service = world.service();
        assert_eq!(service.caller(&known.headers()).await.is_ok(), taken, "{audience:?}");
        assert!(service.caller(&plain.headers()).await.is_ok());
    }
}

#[tokio::test]
async fn while_nobody_can_tell_the_answer_is_to_come_back() {
    let mut world = World::new();
    let ada = world.user("ada", "Laptop", &[READ]);
    let now = Arc::new(Mutex::new(Freshness::Starting));
    let told = now.clone();
    let service = world.service_while(move || *told.lock().unwrap());
    let unknown = headers(&[&format!("Bearer {}", Token::mint(&"kpat".parse().unwrap()).unwrap().expose())]);
    for (freshness, known_is_in, unknown_is_refused) in [
        (Freshness::Starting, false, false),
        (Freshness::Fresh, true, true),
        (Freshness::Stale, true, false),
        (Freshness::Lost, false, false),
    ] {
        *now.lock().unwrap() = freshness;
        for (headers, settled) in [(&ada.headers(), known_is_in), (&unknown, unknown_is_refused)] {
            let unavailable = matches!(service.caller(headers).await, Err(Failure::Unavailable { .. }));
            assert_eq!(unavailable, !settled, "{freshness:?}");
        }
    }
}

#[tokio::test]
async fn all_tokens_of_an_owner_share_one_budget_and_others_have_their_own() {
    let mut world = World::new();
    let one = NonZeroU32::MIN;
    world.settings.rate = Rate { per_second: one, burst: NonZeroU32::new(3).unwrap() };
    let [first, second] = ["One", "Two"].map(|name| world.user("ada", name, &[READ]));
    let bob = world.user("bob", "Three", &[READ]);
    let service = world.service();
    for known in [&first, &second, &first] {
        assert!(service.caller(&known.headers()).await.is_ok());
    }
    for known in [&first, &second] {
        let Err(Failure::TooMany { retry_after }) = service.caller(&known.headers()).await else { panic!("let in") };
        assert_eq!(retry_after, Duration::from_secs(1));
    }
    let id = first.id.to_string();
    let exchanged = service.exchange(id.as_bytes(), first.token.expose().as_bytes(), None);
    assert!(matches!(exchanged, Err(Failure::TooMany { .. })), "an exchange is a request as well");
    assert!(service.caller(&bob.headers()).await.is_ok());
}

#[tokio::test]
async fn failed_log_ins_are_answered_only_so_often_and_keep_nobody_out() {
    let mut world = World::new();
    let ada = world.user("ada", "Laptop", &[READ]);
    let service = world.service();
    let mut answers = Vec::new();
    for _ in 0..3_000 {
        answers.push(service.caller(&headers(&["Bearer junk"])).await.unwrap_err());
    }
    assert_eq!(answers[0], Failure::Unauthenticated);
    assert!(matches!(answers.last(), Some(Failure::TooMany { .. })));
    assert!(service.caller(&ada.headers()).await.is_ok());
}

#[tokio::test]
async fn an_access_token_has_the_scopes_that_both_it_and_its_pat_have_and_dies_with_the_pat() {
    let mut world = World::new();
    let owner = json!({"kind": "User", "name": "ada"});
    let spec = |scopes: &[&str]| json!({"owner": owner, "scopes": scopes});
    let ada = world.pat(spec(&["a", "b", READ]), json!({}));
    let service = world.service();
    let id = ada.id.to_string();
    let exchanged = service.exchange(id.as_bytes(), ada.token.expose().as_bytes(), Some(&["b", READ])).unwrap();
    let bearer = headers(&[&format!("Bearer {}", *exchanged.token)]);
    let caller = service.caller(&bearer).await.unwrap();
    assert_eq!((caller.scopes, caller.id, caller.credential), (vec!["b".into(), READ.into()], ada.id, ada.token.id()));

    // The PAT's scopes are changed, it is revoked, and comes back: always at once.
    let change = |spec: serde_json::Value, credentials: serde_json::Value| {
        json!({
            "metadata": {
                "namespace": "team", "name": "pat-1", "uid": ada.id.hyphenated(), "creationTimestamp": "2026-01-01T00:00:01Z",
            },
            "spec": spec, "status": {"credentials": credentials},
        })
    };
    let credentials = |id: &str| json!([{"id": id, "revision": 1, "sha256": ada.token.hash().to_string(), "state": "Active", "issuedAt": "2026-06-01T11:00:00Z"}]);
    let alive = credentials(ada.token.id().as_str());
    world.put(change(spec(&["a", "b"]), alive.clone()));
    assert_eq!(service.caller(&bearer).await.unwrap().scopes, ["b"]);
    let mut revoked = spec(&["b"]);
    revoked["revoked"] = json!(true);
    world.put(change(revoked, alive.clone()));
    assert_eq!(service.caller(&bearer).await.unwrap_err(), Failure::Unauthenticated);
    world.put(change(spec(&["b"]), alive));
    assert!(service.caller(&bearer).await.is_ok());
    // Another credential of the same PAT is not the one that it was given for.
    world.put(change(spec(&["b"]), credentials("otherotherid")));
    assert_eq!(service.caller(&bearer).await.unwrap_err(), Failure::Unauthenticated);
}

#[tokio::test]
async fn an_access_token_ends_with_what_ends_first() {
    let mut world = World::new();
    let owner = json!({"kind": "User", "name": "ada"});
    let hours = |hours: i64| at(NOW).plus(SignedDuration::from_hours(hours)).to_string();
    let credential_ends = |known: &Known, end: &str| {
        json!({"credentials": [{
            "id": known.token.id().as_str(), "revision": 1, "sha256": known.token.hash().to_string(), "state": "Active",
            "issuedAt": "2026-06-01T11:00:00Z", "expiresAt": end,
        }]})
    };
    let plain = world.pat(json!({"owner": owner}), json!({}));
    let short = world.pat(json!({"owner": owner, "accessTokenValidity": "15s"}), json!({}));
    let ending = world.pat(json!({"owner": owner, "expiry": {"at": hours(1)}}), json!({}));
    let grace = world.pat(json!({"owner": owner}), json!({}));
    world.put(json!({
        "metadata": {"namespace": "team", "name": "pat-4", "uid": grace.id.hyphenated(), "creationTimestamp": "2026-01-01T00:00:04Z"},
        "spec": {"owner": owner}, "status": credential_ends(&grace, &hours(2)),
    }));
    let service = world.service();
    for (known, seconds) in [(&plain, 43_200), (&short, 15), (&ending, 3_600), (&grace, 7_200)] {
        let exchanged =
            service.exchange(known.id.to_string().as_bytes(), known.token.expose().as_bytes(), None).unwrap();
        assert_eq!(exchanged.expires_in, seconds);
    }
    let exchanged = service.exchange(short.id.to_string().as_bytes(), short.token.expose().as_bytes(), None).unwrap();
    let bearer = headers(&[&format!("Bearer {}", *exchanged.token)]);
    assert!(service.caller(&bearer).await.is_ok());
    world.hand.advance(SignedDuration::from_secs(15));
    assert_eq!(service.caller(&bearer).await.unwrap_err(), Failure::Unauthenticated);
}
