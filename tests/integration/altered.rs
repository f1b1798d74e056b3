//! Secrets that something changes: a MutatingAdmissionPolicy on each write, or another client after each write.
//!
//! The operator compares the API server's answer with what it sent. It must neither mint without end nor write without end, and the
//! status must tell what differs.

use std::collections::BTreeSet;

use crate::support::{
    process::place::eventually_within,
    stage::{SOON, Stage},
};
use k8s_openapi::api::{
    admissionregistration::v1::{MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding},
    core::v1::Secret,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use pat_operator::api::{Condition, ConditionType};
use serde_json::{Value, json};

const LABEL: &str = "app.kubernetes.io/managed-by";

/// A spec whose Secret has a template, a label and an annotation.
fn spec() -> Value {
    json!({
        "rotation": {"interval": "30d"},
        "gracePeriod": "1h",
        "secret": {
            "previousKey": "old",
            "labels": {"team": "a"},
            "annotations": {"note": "n"},
            "template": {"data": {"env": "TOKEN={{ token }}"}},
        },
    })
}

/// A MutatingAdmissionPolicy for the Secrets of one stage.
struct Alteration(String);

impl Alteration {
    /// Applies this JSONPatch expression (CEL) to every Secret, and waits until it is in force: `changes` tells a changed probe.
    async fn start(stage: &Stage, expression: &str, changes: fn(&Secret) -> bool) -> Self {
        let name = stage.namespace.name().to_owned();
        let policy = json!({
            "metadata": {"name": name},
            "spec": {
                "failurePolicy": "Fail",
                "reinvocationPolicy": "Never",
                "matchConstraints": {
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}},
                    "resourceRules": [
                        {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["secrets"]},
                    ],
                },
                // Only Secrets that hold a token are changed, so that a cleared one stays as it is.
                "matchConditions": [{"name": "token", "expression": "has(object.data) && 'token' in object.data"}],
                "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}],
            },
        });
        let policies: Api<MutatingAdmissionPolicy> = Api::all(stage.client.clone());
        let policy = serde_json::from_value(policy).expect("a policy");
        policies.create(&PostParams::default(), &policy).await.expect("the policy is created");
        let binding = json!({"metadata": {"name": name}, "spec": {"policyName": name}});
        let bindings: Api<MutatingAdmissionPolicyBinding> = Api::all(stage.client.clone());
        let binding = serde_json::from_value(binding).expect("a binding");
        bindings.create(&PostParams::default(), &binding).await.expect("the binding is created");
        eventually_within(3 * SOON, "the policy is in force", async || changes(&probe(stage).await)).await;
        Self(name)
    }

    /// Removes the policy, and waits until it is no longer in force.
    async fn end(self, stage: &Stage, changes: fn(&Secret) -> bool) {
        let bindings: Api<MutatingAdmissionPolicyBinding> = Api::all(stage.client.clone());
        let policies: Api<MutatingAdmissionPolicy> = Api::all(stage.client.clone());
        bindings.delete(&self.0, &DeleteParams::default()).await.expect("the binding is deleted");
        policies.delete(&self.0, &DeleteParams::default()).await.expect("the policy is deleted");
        eventually_within(3 * SOON, "the policy is not in force", async || !changes(&probe(stage).await)).await;
    }
}

/// What the API server makes of a Secret with a token, a label, an annotation and an owner.
async fn probe(stage: &Stage) -> Secret {
    let secret = json!({
        "metadata": {
            "name": "probe",
            "labels": {LABEL: "pat-operator", "team": "a"},
            "annotations": {"note": "n"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "probe", "uid": "probe"}],
        },
        "data": {"token": "cHJvYmUx", "env": "eA=="},
    });
    let secret = serde_json::from_value(secret).expect("a Secret");
    let params = PostParams { dry_run: true, ..Default::default() };
    stage.secrets().create(&params, &secret).await.expect("the probe is accepted")
}

fn token_differs(secret: &Secret) -> bool {
    secret.data.as_ref().and_then(|data| data.get("token")).is_none_or(|token| token.0 != b"probe1")
}

async fn condition(stage: &Stage, type_: ConditionType) -> Condition {
    stage.condition("app", type_).await.unwrap_or_else(|| panic!("condition {type_} is missing"))
}

/// Reconciles the PAT whenever it is due, for this long, and on each echo in between. Returns the requests other than those of events.
async fn live_for(stage: &mut Stage, hours: i64) -> Vec<String> {
    let (client, requests) = stage.recording();
    stage.restart_with(client);
    let end = stage.now().plus(k8s_openapi::jiff::SignedDuration::from_hours(hours));
    while stage.now() < end {
        let wake = stage.reconcile("app").await.expect("the run succeeds");
        // An echo of the last write: nothing is due yet.
        stage.reconcile("app").await.expect("the run succeeds");
        match wake {
            Some(at) if at < end => stage.hand.set(at.max(stage.now()).timestamp()),
            _ => stage.hand.set(end.timestamp()),
        }
    }
    requests.take().into_iter().filter(|request| !request.contains("/events")).collect()
}

/// Whether a request may change an object.
fn is_write(request: &&String) -> bool {
    !request.starts_with("GET ") && !request.contains("dryRun")
}

/// What makes the operator write a token.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Cause {
    FirstMint,
    Rotation,
    Repair,
}

/// Prepares a stage on which the next reconcile writes a new token.
async fn before(cause: Cause) -> Stage {
    let stage = Stage::new("altered").await;
    stage.apply("app", spec()).await;
    if cause != Cause::FirstMint {
        stage.settle("app").await;
    }
    stage
}

async fn trigger(stage: &Stage, cause: Cause) {
    match cause {
        Cause::FirstMint => {}
        Cause::Rotation => stage.advance("30d"),
        Cause::Repair => {
            // No two tokens are issued at the same instant.
            stage.advance("1m");
            stage.secrets().delete("app", &DeleteParams::default()).await.expect("it is deleted");
        }
    }
}

/// A policy defeats the write of a token: at most one token is minted while it is in force, and the status tells. `words` are in the
/// message.
async fn assert_defeated(cause: Cause, expression: &str, words: &[&str]) {
    let mut stage = before(cause).await;
    let former = stage.status("app").await.revision.unwrap_or_default();
    let policy = Alteration::start(&stage, expression, token_differs).await;
    trigger(&stage, cause).await;
    let requests = live_for(&mut stage, 3).await;
    let writes = requests.iter().filter(is_write).count();
    assert!(writes <= 8, "{cause:?}: {writes} writes in 3 hours: {requests:#?}");
    assert!(requests.len() <= 250, "{cause:?}: {} requests in 3 hours", requests.len());

    let status = stage.status("app").await;
    assert_eq!(status.revision, Some(former + 1), "{cause:?}: one token is minted");
    assert_eq!(status.unplanned_mints.len(), 1, "{cause:?}: it counts as unplanned");
    assert_eq!(stage.ready("app").await, ("False".into(), "SecretAltered".into()), "{cause:?}");
    let message = condition(&stage, ConditionType::Stalled).await.message;
    for word in words.iter().chain(&["field manager \"pat-operator\"", "mutating admission policy"]) {
        assert!(message.contains(word), "{cause:?}: {word:?} is not in {message:?}");
    }
    let events = stage.events("app").await;
    assert_eq!(events.iter().filter(|(reason, _)| reason == "SecretAltered").count(), 1, "{events:?}");

    // A new leader knows nothing of it.
    live_for(&mut stage, 1).await;
    assert_eq!(
        stage.status("app").await.revision,
        Some(former + 1),
        "{cause:?}: a fresh process sends a dry run first"
    );
    assert_eq!(stage.ready("app").await, ("False".into(), "SecretAltered".into()), "{cause:?}");

    policy.end(&stage, token_differs).await;
    stage.advance("5m");
    stage.settle("app").await;
    assert_eq!(stage.ready("app").await, ("True".into(), "Issued".into()), "{cause:?}");
    assert_eq!(stage.condition("app", ConditionType::Stalled).await, None);
    let token = stage.value("app", "token").await;
    assert!(stage.accepts("app", &token).await, "{cause:?}");
}

const REMOVE: &str = r#"[JSONPatch{op: "remove", path: "/data/token"}]"#;
const REPLACE: &str = r#"[JSONPatch{op: "replace", path: "/data/token", value: "anVuaw=="}]"#;
/// The base64 text of a token has no padding, so a line break can be appended to it.
const APPEND: &str = r#"[JSONPatch{op: "replace", path: "/data/token", value: object.data.token + "Cg=="}]"#;

#[tokio::test(flavor = "multi_thread")]
async fn removed_token_is_minted_once_and_reported() {
    for cause in [Cause::FirstMint, Cause::Rotation, Cause::Repair] {
        assert_defeated(cause, REMOVE, &["data.token is missing"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replaced_token_is_minted_once_and_reported() {
    for cause in [Cause::FirstMint, Cause::Rotation, Cause::Repair] {
        assert_defeated(cause, REPLACE, &["data.token has another value"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn token_with_a_line_break_is_minted_once_and_reported() {
    for cause in [Cause::FirstMint, Cause::Rotation, Cause::Repair] {
        assert_defeated(cause, APPEND, &["data.token has another value"]).await;
    }
}

/// A policy changes the write of a token, but the Secret holds the token. Repairs wait, and the status tells.
async fn assert_delayed(cause: Cause, expression: &str, ready: &str, word: &str, changes: fn(&Secret) -> bool) {
    let mut stage = before(cause).await;
    let former = stage.status("app").await.revision.unwrap_or_default();
    let policy = Alteration::start(&stage, expression, changes).await;
    trigger(&stage, cause).await;
    let requests = live_for(&mut stage, 3).await;
    let writes = requests.iter().filter(is_write).count();
    // A repair at most every five minutes.
    assert!(writes <= 3 * 12 + 20, "{cause:?} {word}: {writes} writes in 3 hours: {requests:#?}");
    assert_eq!(stage.status("app").await.revision, Some(former + 1), "{cause:?} {word}: one token is minted");
    let told = if ready == "True" { ConditionType::Reconciling } else { ConditionType::Stalled };
    let told = condition(&stage, told).await;
    assert_eq!(told.reason, "SecretAltered", "{cause:?}");
    assert!(told.message.contains(word), "{cause:?}: {word:?} is not in {:?}", told.message);
    assert_eq!(stage.ready("app").await.0, ready, "{cause:?} {word}");
    let token = stage.value("app", "token").await;
    assert!(stage.accepts("app", &token).await, "{cause:?} {word}");

    policy.end(&stage, changes).await;
    stage.advance("5m");
    stage.settle("app").await;
    assert_eq!(stage.ready("app").await, ("True".into(), "Issued".into()), "{cause:?} {word}");
    for abnormal in [ConditionType::Reconciling, ConditionType::Stalled] {
        assert_eq!(stage.condition("app", abnormal).await, None, "{cause:?} {word}");
    }
    assert_eq!(stage.value("app", "token").await, token, "{cause:?} {word}: the token is the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn added_key_is_removed_less_and_less_often() {
    let add = r#"[JSONPatch{op: "add", path: "/data/extra", value: "eA=="}]"#;
    let changes = |secret: &Secret| secret.data.as_ref().is_some_and(|data| data.contains_key("extra"));
    for cause in [Cause::FirstMint, Cause::Rotation, Cause::Repair] {
        assert_delayed(cause, add, "True", "data.extra was added", changes).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_changed_value_makes_the_token_unready() {
    let replace = r#"[JSONPatch{op: "add", path: "/data/env", value: "anVuaw=="}]"#;
    let changes = |secret: &Secret| secret.data.as_ref().is_some_and(|data| data["env"].0 == b"junk");
    assert_delayed(Cause::FirstMint, replace, "False", "data.env has another value", changes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stripped_metadata_is_restored_less_and_less_often() {
    let no_label = r#"[JSONPatch{op: "remove", path: "/metadata/labels"}]"#;
    assert_delayed(Cause::FirstMint, no_label, "True", "label \"app.kubernetes.io/managed-by\"", |secret| {
        secret.labels().is_empty()
    })
    .await;
    let no_annotation = r#"[JSONPatch{op: "remove", path: "/metadata/annotations/note"}]"#;
    assert_delayed(Cause::Rotation, no_annotation, "True", "annotation \"note\"", |secret| {
        !secret.annotations().contains_key("note")
    })
    .await;
    let no_owner = r#"[JSONPatch{op: "remove", path: "/metadata/ownerReferences"}]"#;
    assert_delayed(Cause::Repair, no_owner, "True", "the owner reference is missing", |secret| {
        secret.owner_references().is_empty()
    })
    .await;
}

/// Another client makes the same change again and again, for 20 minutes.
async fn assert_undone(patch: Value, ready: &str, word: &str) {
    let mut stage = before(Cause::Rotation).await;
    let (client, requests) = stage.recording();
    stage.restart_with(client);
    let token = stage.value("app", "token").await;
    let params = PatchParams { field_manager: Some("intruder".into()), ..Default::default() };
    for _ in 0..40 {
        stage.secrets().patch("app", &params, &Patch::Merge(&patch)).await.expect("the edit is accepted");
        stage.reconcile("app").await.expect("the run succeeds");
        stage.advance("30s");
    }
    let requests: Vec<_> = requests.take().into_iter().filter(|request| !request.contains("/events")).collect();
    let writes = requests.iter().filter(is_write).count();
    assert!(writes <= 20, "{word}: {writes} writes in 20 minutes");
    let told = if ready == "True" { ConditionType::Reconciling } else { ConditionType::Stalled };
    let told = condition(&stage, told).await;
    assert_eq!(told.reason, "SecretAltered");
    for word in [word, "another client keeps changing"] {
        assert!(told.message.contains(word), "{word:?} is not in {:?}", told.message);
    }
    assert_eq!(stage.ready("app").await.0, ready, "{word}");
    let events: BTreeSet<_> = stage.events("app").await.into_iter().map(|(reason, _)| reason).collect();
    assert!(events.contains("SecretAltered"), "{events:?}");

    // The other client has stopped.
    stage.advance("5m");
    stage.settle("app").await;
    stage.advance("10m");
    stage.settle("app").await;
    assert_eq!(stage.ready("app").await, ("True".into(), "Issued".into()), "{word}");
    assert_eq!(stage.condition("app", ConditionType::Reconciling).await, None, "{word}");
    assert_eq!(stage.value("app", "token").await, token, "{word}: no token was minted");
}

#[tokio::test(flavor = "multi_thread")]
async fn repairs_that_a_client_undoes_wait_and_are_reported() {
    for (patch, ready, word) in [
        (json!({"metadata": {"labels": {LABEL: null}}}), "True", "label \"app.kubernetes.io/managed-by\" is missing"),
        (json!({"metadata": {"ownerReferences": null}}), "True", "the owner reference is missing"),
        (json!({"metadata": {"annotations": {"pat-operator.io/render-hash": "0".repeat(64)}}}), "True", "render-hash"),
        (json!({"data": {"env": "anVuaw=="}}), "False", "a value in data is another"),
    ] {
        assert_undone(patch, ready, word).await;
    }
}
