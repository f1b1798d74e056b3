//! An issuer whose credential is a token that it issues itself.

use k8s_openapi::jiff::SignedDuration;
use pat_operator::api::CredentialState;
use serde_json::json;

use crate::support::remote_stage::{ISSUER, RemoteStage};

/// The spec of a PAT for the administrator whose tokens may create others.
fn own_spec() -> serde_json::Value {
    json!({"gitLab": {"user": 42}, "scopes": ["api"]})
}

async fn scene(prefix: &str) -> RemoteStage {
    let scene = RemoteStage::new(prefix).await;
    scene.put_issuer(ISSUER, json!({"tokenRef": {"name": "own"}, "fallback": {"name": ISSUER}})).await;
    scene.until_issuers_are_known().await;
    scene
}

#[tokio::test(flavor = "multi_thread")]
async fn issuer_renews_its_own_credential() {
    let scene = scene("renewal").await;
    scene.apply("own", own_spec()).await;
    scene.apply("app", json!({})).await;

    // It begins with the fallback.
    scene.settle("own").await;
    let (is_ready, message) = scene.issuer_ready(ISSUER).await;
    let expected = format!("PersonalAccessToken {}/own has no token yet", scene.stage.namespace.name());
    assert!(is_ready && message.ends_with(&expected), "{message}");
    let first = scene.stage.value("own", "token").await;
    assert!(scene.accepts(&first));

    // From then on it uses its own token, also where the fallback no longer works.
    scene.put_credential(ISSUER, "glpat-wrong").await;
    scene.settle("app").await;
    assert_eq!(scene.stage.ready("app").await, ("True".into(), "Issued".into()));
    let (is_ready, message) = scene.issuer_ready(ISSUER).await;
    assert!(is_ready && message.ends_with("accepts the credential"), "{message}");

    // It rotates the token with that token, and works on with the new one after the old one has ended.
    let mut former = first;
    for rotation in 1..=10 {
        scene.stage.hand.advance(SignedDuration::from_hours(30 * 24));
        for name in ["own", "app"] {
            scene.settle(name).await;
        }
        let next = scene.stage.value("own", "token").await;
        assert!(next != former && scene.accepts(&former) && scene.accepts(&next), "rotation {rotation}");
        scene.stage.hand.advance(SignedDuration::from_hours(25));
        scene.settle("own").await;
        scene.stage.hand.advance(SignedDuration::from_secs(15));
        scene.settle("own").await;
        let credentials = scene.stage.status("own").await.remote_credentials;
        let states: Vec<_> = credentials.into_iter().map(|one| one.state).collect();
        assert_eq!(states, [CredentialState::Active], "rotation {rotation}");
        assert!(!scene.accepts(&former), "rotation {rotation}");
        scene.settle("app").await;
        assert_eq!(scene.stage.ready("app").await, ("True".into(), "Issued".into()), "rotation {rotation}");
        former = next;
    }
    assert_eq!(scene.gitlab.with(|gitlab| gitlab.unauthorized), 0, "no call was refused for its credential");
}

#[tokio::test(flavor = "multi_thread")]
async fn fallback_replaces_an_own_token_that_was_revoked() {
    let scene = scene("fallback").await;
    let first = scene.issue("own", own_spec()).await;
    scene.stage.hand.advance(SignedDuration::from_mins(5));
    scene.gitlab.with(|gitlab| gitlab.revoke(&first));

    // Two lists must show it.
    scene.settle("own").await;
    let (is_ready, message) = scene.issuer_ready(ISSUER).await;
    assert!(
        is_ready && message.contains("the other credential cannot be used: the issuer does not accept"),
        "{message}"
    );
    scene.stage.hand.advance(SignedDuration::from_secs(15));
    scene.settle("own").await;
    let second = scene.stage.value("own", "token").await;
    assert!(second != first && scene.accepts(&second));
    scene.settle("own").await;
    let (is_ready, message) = scene.issuer_ready(ISSUER).await;
    assert!(is_ready && message.ends_with("accepts the credential"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn token_of_another_issuer_is_no_credential() {
    let scene = RemoteStage::new("other-issuer").await;
    let token = scene.issue("theirs", json!({})).await;
    scene.put_issuer("second", json!({"tokenRef": {"name": "theirs"}})).await;
    scene.put_issuer("third", json!({"tokenRef": {"name": "missing"}, "fallback": {"name": "theirs"}})).await;
    scene.until_issuers_are_known().await;
    scene.poll().await;
    let namespace = scene.stage.namespace.name();
    let (is_ready, message) = scene.issuer_ready("second").await;
    let expected = format!("PersonalAccessToken {namespace}/theirs must name TokenIssuer \"second\" in spec.issuerRef");
    assert_eq!((is_ready, message), (false, expected));
    // The Secret of a token is no Secret for a credential.
    let (is_ready, message) = scene.issuer_ready("third").await;
    assert!(!is_ready && message.contains("must have type pat-operator.io/issuer-auth"), "{message}");
    assert!(!message.contains(&token));
}
