//! Tokens at an issuer that no object knows.

use k8s_openapi::jiff::SignedDuration;
use kube::{
    Api,
    api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams},
};
use pat_operator::api::TokenIssuer;
use serde_json::json;

use crate::support::remote_stage::{ISSUER, RemoteStage};

/// Issues a token, and removes its object as if no controller had seen it.
async fn lose(scene: &RemoteStage, name: &str) -> String {
    let token = scene.issue(name, json!({})).await;
    let pats = scene.stage.pats();
    pats.delete(name, &DeleteParams::default()).await.expect("it is being deleted");
    let free = json!({"metadata": {"finalizers": null}});
    pats.patch(name, &PatchParams::default(), &Patch::Merge(free)).await.expect("no finalizers");
    scene.stage.operator().catch_up(&scene.stage.client, scene.stage.namespace.name()).await;
    token
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_tokens_are_revoked_after_ten_minutes() {
    let scene = RemoteStage::new("orphans").await;
    scene.gitlab.with(|gitlab| gitlab.add_foreign("deploy"));
    let kept = scene.issue("kept", json!({})).await;
    let left = scene.issue("left", json!({"deletionPolicy": "Orphan"})).await;
    scene.stage.pats().delete("left", &DeleteParams::default()).await.expect("it is being deleted");
    scene.settle("left").await;
    let lost = lose(&scene, "lost").await;

    scene.poll().await;
    scene.stage.hand.advance(SignedDuration::from_secs(599));
    scene.poll().await;
    assert!(scene.accepts(&lost), "less than ten minutes");
    scene.stage.hand.advance(SignedDuration::from_secs(1));
    scene.poll().await;
    assert!(!scene.accepts(&lost), "ten minutes");

    // Everything else is untouched, also later.
    scene.stage.hand.advance(SignedDuration::from_hours(1));
    scene.settle("kept").await;
    assert!(scene.accepts(&kept) && scene.accepts(&left));
    assert_eq!(scene.gitlab.with(|gitlab| gitlab.live().len()), 3, "with the one of another client");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_a_former_issuer_of_the_same_name_are_left_alone() {
    let scene = RemoteStage::new("former").await;
    let lost = lose(&scene, "lost").await;
    let issuers: Api<TokenIssuer> = Api::namespaced(scene.stage.client.clone(), scene.stage.namespace.name());
    issuers.delete(ISSUER, &DeleteParams::default()).await.expect("it is being deleted");
    scene.until_issuers_are_known().await;
    scene.poll().await;
    assert!(issuers.get_opt(ISSUER).await.expect("an answer").is_none(), "no object has tokens of it");

    scene.put_issuer(ISSUER, json!({"secretRef": {"name": ISSUER}})).await;
    scene.until_issuers_are_known().await;
    scene.apply("kept", json!({})).await;
    scene.settle("kept").await;
    for _ in 0..3 {
        scene.stage.hand.advance(SignedDuration::from_mins(10));
        scene.poll().await;
    }
    assert!(scene.accepts(&lost));
}

#[tokio::test(flavor = "multi_thread")]
async fn token_of_an_object_restored_from_a_backup_is_kept_and_later_revoked() {
    let mut scene = RemoteStage::new("restored").await;
    scene.apply("app", json!({})).await;
    scene.settle("app").await;
    let (secrets, name) = scene.secret_of("app");
    let mut secret = secrets.get(&name).await.expect("the Secret");
    let token = lose(&scene, "app").await;
    let _ = secrets.delete(&name, &DeleteParams::default()).await;

    secret.metadata = ObjectMeta {
        name: Some(name.clone()),
        labels: secret.metadata.labels,
        annotations: secret.metadata.annotations,
        ..ObjectMeta::default()
    };
    secrets.create(&PostParams::default(), &secret).await.expect("the Secret of the backup");
    scene.stage.settings.restore_issued_before = Some(scene.stage.now().plus(SignedDuration::from_secs(1)));
    let client = scene.stage.client.clone();
    scene.restart_with(client).await;
    scene.apply("app", json!({})).await;
    scene.settle("app").await;
    assert_eq!(scene.stage.value("app", "token").await, token);
    assert!(scene.accepts(&token));

    // It is revoked after the next rotation. The object holds the names of two tokens, made for different UIDs.
    scene.stage.hand.advance(SignedDuration::from_hours(30 * 24));
    scene.settle("app").await;
    let second = scene.stage.value("app", "token").await;
    assert!(second != token && scene.accepts(&token), "grace period");
    scene.stage.hand.advance(SignedDuration::from_hours(25));
    scene.settle("app").await;
    scene.settle("app").await;
    assert!(!scene.accepts(&token) && scene.accepts(&second));

    let pats = scene.stage.pats();
    pats.delete("app", &DeleteParams::default()).await.expect("it is being deleted");
    for _ in 0..2 {
        scene.settle("app").await;
        scene.stage.hand.advance(SignedDuration::from_mins(3));
    }
    assert!(pats.get_opt("app").await.expect("an answer").is_none(), "no finalizer keeps it");
    assert!(scene.gitlab.with(|gitlab| gitlab.live().is_empty()));
}
