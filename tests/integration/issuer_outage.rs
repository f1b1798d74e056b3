//! An issuer that does not answer for a long time, or that ends a token early.

use k8s_openapi::jiff::SignedDuration;
use kube::api::DeleteParams;
use pat_operator::api::{ConditionType, CredentialState};
use serde_json::json;

use crate::support::remote_stage::RemoteStage;

/// Advances the clock by some days, and reconciles every 8 hours.
async fn pass(scene: &RemoteStage, days: i64) {
    for _ in 0..3 * days {
        scene.stage.hand.advance(SignedDuration::from_hours(8));
        scene.settle("app").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn token_works_through_an_outage_of_almost_an_interval() {
    let scene = RemoteStage::new("outage").await;
    let first = scene.issue("app", json!({})).await;
    pass(&scene, 29).await;
    scene.gitlab.set_down(true);
    pass(&scene, 29).await;
    assert_eq!(scene.stage.value("app", "token").await, first);
    assert!(scene.accepts(&first), "it was requested for two intervals");
    assert_eq!(scene.stage.ready("app").await.0, "True");
    let told = scene.stage.condition("app", ConditionType::Reconciling).await.expect("a condition");
    assert_eq!(told.reason, "IssuerUnavailable");

    scene.gitlab.set_down(false);
    pass(&scene, 1).await;
    let second = scene.stage.value("app", "token").await;
    assert!(second != first && scene.accepts(&second));
    assert_eq!(scene.stage.ready("app").await, ("True".into(), "Issued".into()));
    pass(&scene, 2).await;
    assert!(!scene.accepts(&first));
    assert_eq!(scene.gitlab.with(|gitlab| gitlab.live().len()), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn object_of_a_server_that_never_comes_back_goes_after_its_tokens_have_expired() {
    let scene = RemoteStage::new("gone").await;
    scene.apply("app", json!({})).await;
    scene.settle("app").await;
    scene.gitlab.set_down(true);
    scene.stage.pats().delete("app", &DeleteParams::default()).await.expect("it is being deleted");
    pass(&scene, 59).await;
    assert_eq!(scene.stage.ready("app").await, ("False".into(), "Revoking".into()));
    pass(&scene, 3).await;
    assert!(scene.stage.pats().get_opt("app").await.expect("an answer").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn token_that_expired_early_is_replaced() {
    let scene = RemoteStage::new("early").await;
    let first = scene.issue("app", json!({})).await;
    scene.stage.hand.advance(SignedDuration::from_mins(5));
    scene.gitlab.with(|gitlab| gitlab.expire(&first));
    assert!(!scene.accepts(&first));
    // Two lists must show it.
    for _ in 0..3 {
        scene.stage.hand.advance(SignedDuration::from_mins(5));
        scene.settle("app").await;
    }
    let second = scene.stage.value("app", "token").await;
    assert!(second != first && scene.accepts(&second));
    let credentials = scene.stage.status("app").await.remote_credentials;
    assert!(credentials.iter().any(|one| one.state == CredentialState::Active), "{credentials:?}");
}
