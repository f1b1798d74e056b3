//! The server as a process: the token exchange, authentication, the key, and recorded uses.

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use pat_operator::{
    api::{PersonalAccessToken, TokenOwner},
    rest::access_token::KEY_SECRET_TYPE,
};
use serde_json::{Value, json};

use super::in_process::ada;
use crate::support::process::{
    api::ApiProcess,
    place::{Place, eventually},
};

const KEY: &str = "pat-operator-api-key";

async fn uid(place: &Place, name: &str) -> String {
    let pat: PersonalAccessToken = place.pats().get(name).await.unwrap();
    pat.metadata.uid.unwrap().replace('-', "")
}

#[tokio::test(flavor = "multi_thread")]
async fn token_works_until_revoked_or_its_owner_disabled_and_its_use_is_recorded() {
    let place = Place::new("rest-login").await;
    let _operator = place.operator().arg("--publish-lead=0s").start();
    // Owners are cluster-scoped, and tests share a cluster.
    let owner = json!({"kind": "User", "name": format!("{}@example.com", place.name())});
    let spec = json!({"owner": owner, "scopes": ["repo:read"]});
    place.apply("app", spec.clone()).await;
    let token = place.ready("app").await;
    let mut api = ApiProcess::start(&place, &["--last-used-interval=1s"]).await;
    let id = uid(&place, "app").await;
    let reply = api.exchange(&id, &token).await;
    assert_eq!((reply.status, &reply.json()["scope"]), (200, &json!("repo:read")), "{reply:?}");
    assert!(reply.headers.contains_key("x-request-id"));
    place.until("app", "used", |status| status.last_used_at.is_some()).await;
    api.process.logs(&["answered", "/oauth/token", r#""status":200"#, place.name()]).await;
    let access = reply.json()["access_token"].as_str().unwrap().to_owned();
    let metrics = api.process.metrics().await;
    let series = r#"pat_operator_api_requests_total{dialect="oauth",route="/oauth/token",status="200"}"#;
    assert_eq!(metrics.value(series), 1.0);

    let owners: Api<TokenOwner> = Api::all(place.client.clone());
    let disabled = |disabled: bool| -> TokenOwner {
        serde_json::from_value(json!({
            "apiVersion": "pat-operator.io/v1alpha1", "kind": "TokenOwner", "metadata": {"name": place.name()},
            "spec": {"subject": owner, "disabled": disabled},
        }))
        .unwrap()
    };
    owners.create(&PostParams::default(), &disabled(true)).await.expect("an owner");
    eventually("a disabled owner is refused", async || api.exchange(&id, &token).await.status == 401).await;
    owners.delete(place.name(), &DeleteParams::default()).await.expect("it is deleted");
    eventually("an enabled owner is accepted again", async || api.exchange(&id, &token).await.status == 200).await;

    let mut revoked = spec;
    revoked["revoked"] = json!(true);
    place.apply("app", revoked).await;
    eventually("a revoked token is refused", async || api.exchange(&id, &token).await.status == 401).await;
    let ended = api.process.terminate().await;
    let log = ended.stderr.join("\n");
    assert!(!log.contains(&token) && !log.contains(&access), "no token in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn token_of_another_namespace_is_unknown() {
    let [place, other] = [Place::new("rest-here").await, Place::new("rest-there").await];
    let [_one, _two] = [&place, &other].map(|place| place.operator().start());
    let [mine, theirs] = [&place, &other];
    for place in [mine, theirs] {
        place.apply("app", json!({"owner": ada()})).await;
    }
    let (good, bad) = (mine.ready("app").await, theirs.ready("app").await);
    let api = ApiProcess::start(mine, &[]).await;
    assert_eq!(api.exchange(&uid(mine, "app").await, &good).await.status, 200);
    let refused = api.exchange(&uid(theirs, "app").await, &bad).await;
    assert_eq!((refused.status, &refused.json()["error"]), (401, &json!("invalid_client")));
}

#[tokio::test(flavor = "multi_thread")]
async fn key_is_created_once_shared_by_replicas_and_void_when_deleted() {
    let place = Place::new("rest-key").await;
    let _operator = place.operator().start();
    place.apply("app", json!({})).await;
    let (token, id) = (place.ready("app").await, uid(&place, "app").await);
    let (one, two) = tokio::join!(ApiProcess::start(&place, &[]), ApiProcess::start(&place, &[]));
    let secret: Secret = place.secrets().get(KEY).await.expect("the key");
    assert_eq!((secret.type_.as_deref(), secret.immutable), (Some(KEY_SECRET_TYPE), Some(true)));
    for api in [&one, &two] {
        assert_eq!(api.exchange(&id, &token).await.status, 200);
    }
    let made = [&one, &two].iter().filter(|api| api.process.has_logged(&["created the key"])).count();
    assert_eq!(made, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn planted_key_is_refused_with_the_reason() {
    let place = Place::new("rest-planted").await;
    let plant = |name: &str, type_: &str, value: &[u8], owner: Value| -> Secret {
        let value = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, value);
        serde_json::from_value(json!({
            "metadata": {"name": name, "ownerReferences": owner}, "type": type_, "data": {"key": value},
        }))
        .unwrap()
    };
    // The owner must exist, or the Secret would be garbage-collected.
    let maps: Api<ConfigMap> = Api::namespaced(place.client.clone(), place.name());
    let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "x"}})).unwrap();
    let map = maps.create(&PostParams::default(), &map).await.expect("a ConfigMap");
    let owner = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": map.metadata.uid}]);
    for (name, type_, value, owner, words) in [
        ("opaque", "Opaque", [7; 32].as_slice(), json!([]), "its type is"),
        ("owned", KEY_SECRET_TYPE, &[7; 32], owner, "it is owned by ConfigMap"),
        ("short", KEY_SECRET_TYPE, &[7; 16], json!([]), "has 16 bytes and not 32"),
    ] {
        place.secrets().create(&PostParams::default(), &plant(name, type_, value, owner)).await.expect("a Secret");
        let secret = format!("--key-secret={name}");
        let line = ApiProcess::launch(&place, &place.kubeconfig(), &[&secret]).run().await.refusal();
        assert!(line.contains(words) && line.contains("--key-secret") && line.contains(name), "{name}: {line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rate_limited_owner_gets_retry_after() {
    let place = Place::new("rest-rate").await;
    let _operator = place.operator().start();
    for name in ["one", "two"] {
        place.apply(name, json!({"owner": ada()})).await;
    }
    let tokens = [place.ready("one").await, place.ready("two").await];
    let ids = [uid(&place, "one").await, uid(&place, "two").await];
    let api = ApiProcess::start(&place, &["--rate-limit=1", "--rate-burst=2"]).await;
    let mut refused = None;
    for turn in 0..40 {
        let reply = api.exchange(&ids[turn % 2], &tokens[turn % 2]).await;
        if reply.status == 429 {
            refused = Some(reply);
            break;
        }
        assert_eq!(reply.status, 200);
    }
    let refused = refused.expect("both tokens share one rate limit");
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(refused.headers["cache-control"], "no-store");
}
