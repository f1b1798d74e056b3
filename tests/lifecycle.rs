//! The life of a token on the real API server: issue, rotation, grace, expiry, revocation.

mod support;

use serde_json::json;
use support::stage::Stage;

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_becomes_a_token_in_a_secret() {
    let stage = Stage::new("issue").await;
    stage.apply("app", json!({"scopes": ["read"]})).await;
    stage.settle("app").await;
    assert_eq!(stage.ready("app").await, ("True".into(), "Issued".into()));
    let token = stage.value("app", "token").await;
    assert!(stage.accepts("app", &token).await);
    assert_eq!(stage.events("app").await, [], "a plain first mint tells nobody");
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_keeps_the_old_token_alive_for_its_grace_period() {
    let stage = Stage::new("rotate").await;
    stage.apply("app", json!({"rotation": {"interval": "30d"}, "secret": {"previousKey": "old"}})).await;
    stage.settle("app").await;
    let first = stage.value("app", "token").await;
    stage.advance("30d");
    stage.settle("app").await;
    let second = stage.value("app", "token").await;
    assert_ne!(first, second);
    assert_eq!(stage.value("app", "old").await, first);
    assert!(stage.accepts("app", &first).await && stage.accepts("app", &second).await);
    stage.advance("1d");
    stage.settle("app").await;
    assert!(!stage.accepts("app", &first).await && stage.accepts("app", &second).await);
    assert!(!stage.data("app").await.contains_key("old"));
}
