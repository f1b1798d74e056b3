//! Tokens under adverse conditions on a real API server: refused writes, lost and restored objects, forged Secrets, outages and stale caches.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use crate::support::is_left_out;
use crate::support::stage::{Requests, SOON, Stage};
use control_plane::{Access, Binary, Component, ControlPlane, Options};
use k8s_openapi::{
    api::{
        admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
        core::v1::{Namespace, ResourceQuota, Secret},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    jiff::SignedDuration,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use pat_operator::{
    api::{Condition, ConditionType, Credential, CredentialState, Parsed, StoredPat, Time},
    controller::{
        event_handlers::{EventHandler, PatHandler},
        namespaced_name::NamespacedName,
        stores::Stores,
    },
    planner::{
        intent::ControllerConfig,
        observed::{Ledger, OwnedMetadata, PAT_UID, SecretRecord, hash},
    },
    secret::{Digest, data_hash},
    token::{Token, TokenPrefix},
};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

const LABEL: &str = "app.kubernetes.io/managed-by";

// --- Helpers --------------------------------------------------------------------------------------------------------

async fn issued(prefix: &str, spec: Value) -> (Stage, String) {
    let stage = Stage::new(prefix).await;
    stage.apply("app", spec).await;
    stage.settle("app").await;
    let token = stage.value("app", "token").await;
    (stage, token)
}

/// A control plane without garbage collection of Secrets and namespaces.
async fn plane_without_garbage_collection() -> Access {
    static PLANE: OnceCell<ControlPlane> = OnceCell::const_new();
    let start = || ControlPlane::start(Options::default().without_controller_manager().apply("crds/"));
    PLANE.get_or_try_init(start).await.expect("a control plane").access()
}

async fn states(stage: &Stage, name: &str) -> Vec<(i64, CredentialState)> {
    stage.status(name).await.credentials.iter().map(|one| (one.revision, one.state)).collect()
}

async fn reasons(stage: &Stage, name: &str) -> Vec<String> {
    stage.events(name).await.into_iter().map(|(reason, _)| reason).collect()
}

async fn condition(stage: &Stage, name: &str, type_: ConditionType) -> Condition {
    let found = stage.condition(name, type_).await;
    found.unwrap_or_else(|| panic!("condition {type_} is missing"))
}

async fn assert_works(stage: &Stage, name: &str) -> String {
    assert_eq!(stage.ready(name).await, ("True".into(), "Issued".into()));
    for abnormal in [ConditionType::Stalled, ConditionType::Reconciling] {
        assert_eq!(stage.condition(name, abnormal).await, None);
    }
    let token = stage.value(name, "token").await;
    assert!(stage.accepts(name, &token).await);
    token
}

async fn assert_conflict(stage: &Stage, name: &str, word: &str) {
    let wake = stage.settle(name).await.expect("the PAT is reconciled again").since(stage.now());
    assert!((60..=600).contains(&wake.as_secs()), "the PAT is reconciled again after {wake}");
    assert_eq!(stage.ready(name).await, ("False".into(), "SecretConflict".into()));
    let stalled = condition(stage, name, ConditionType::Stalled).await;
    assert!(stalled.message.contains(word), "{word:?} is not in {:?}", stalled.message);
    assert_eq!(stage.status(name).await.credentials, []);
}

/// Polls until the condition holds.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + 3 * SOON;
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}: timed out");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

async fn reconcile(stage: &Stage, name: &str) -> Option<Time> {
    stage.reconcile(name).await.expect("the run succeeds")
}

/// Restarts the operator with a client that records its requests.
fn restart_recording(stage: &mut Stage) -> Requests {
    let (client, requests) = stage.recording();
    stage.restart_with(client);
    requests
}

// --- Refused writes -------------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn terminating_namespace_slows_retries() {
    let mut stage =
        Stage::on(plane_without_garbage_collection().await, "terminating", ControllerConfig::default()).await;
    stage.apply("app", json!({})).await;
    stage.apply("had", json!({})).await;
    stage.settle("had").await;
    let requests = restart_recording(&mut stage);
    let namespaces: Api<Namespace> = Api::all(stage.client.clone());
    namespaces
        .delete(stage.namespace.name(), &DeleteParams::default())
        .await
        .expect("deletion of the namespace starts");
    stage.secrets().delete("had", &DeleteParams::default()).await.expect("the Secret is deleted");
    for name in ["app", "had"] {
        let wake = reconcile(&stage, name).await.expect("the PAT is reconciled again").since(stage.now());
        assert!(wake.as_secs() >= 300, "{name}: reconciled again after {wake}");
        assert_eq!(stage.ready(name).await, ("False".into(), "NamespaceTerminating".into()), "{name}");
        let message = condition(&stage, name, ConditionType::Ready).await.message;
        assert!(message.contains("is being terminated"), "{name}: {message}");
        requests.take();
        for _ in 0..20 {
            assert_eq!(reconcile(&stage, name).await.map(|wake| wake > stage.now()), Some(true), "{name}");
        }
        let sent = requests.take();
        assert!(
            sent.len() <= 20 && sent.iter().all(|one| one.starts_with("GET ")),
            "{name}: at most one read per run: {sent:?}"
        );
        for _ in 0..3 {
            stage.advance("5m1s");
            reconcile(&stage, name).await;
            assert!(requests.writes().len() <= 1, "{name}: at most one attempt per run");
        }
        let pending = states(&stage, name).await.into_iter().filter(|one| one.1 == CredentialState::Pending);
        assert!(pending.count() <= 1, "{name}: pending hashes accumulate");
    }
}

/// Makes the API server deny Secrets in the stage's namespace, and waits until it does.
async fn deny_secrets(stage: &Stage, operations: &[&str]) {
    let name = stage.namespace.name();
    let policy = json!({
        "metadata": {"name": name},
        "spec": {
            "matchConstraints": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}},
                "resourceRules": [
                    {"apiGroups": [""], "apiVersions": ["v1"], "operations": operations, "resources": ["secrets"]},
                ],
            },
            "validations": [{"expression": "has(object.metadata.name) && object.metadata.name == 'probe-good'", "message": "the safe is full"}],
        },
    });
    let binding = json!({"metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]}});
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(stage.client.clone());
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(stage.client.clone());
    let policy = serde_json::from_value(policy).expect("a policy");
    policies.create(&PostParams::default(), &policy).await.expect("the policy is created");
    let binding = serde_json::from_value(binding).expect("a binding");
    bindings.create(&PostParams::default(), &binding).await.expect("the binding is created");
    until("the policy is in force", async || !accepts_secrets(stage, operations).await).await;
}

async fn allow_secrets(stage: &Stage, operations: &[&str]) {
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(stage.client.clone());
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(stage.client.clone());
    let name = stage.namespace.name();
    bindings.delete(name, &DeleteParams::default()).await.expect("the binding is deleted");
    policies.delete(name, &DeleteParams::default()).await.expect("the policy is deleted");
    until("the policy is no longer in force", async || accepts_secrets(stage, operations).await).await;
}

/// Checks by a dry run whether the API server accepts Secrets.
async fn accepts_secrets(stage: &Stage, operations: &[&str]) -> bool {
    if operations.contains(&"CREATE") {
        let secret = serde_json::from_value(json!({"metadata": {"name": "probe"}})).expect("a Secret");
        stage.secrets().create(&PostParams { dry_run: true, ..Default::default() }, &secret).await.is_ok()
    } else {
        let patch = json!({"metadata": {"annotations": {"probe": "x"}}});
        let params = PatchParams { dry_run: true, ..Default::default() };
        stage.secrets().patch("app", &params, &Patch::Merge(patch)).await.is_ok()
    }
}

/// Checks the handling of a Secret that cannot be created: the status reports it, retries are delayed, a fresh process starts with a dry run,
/// and at most one hash is pending. `lift` makes the Secret creatable.
async fn assert_refusal_is_handled(mut stage: Stage, word: &str, lift: impl AsyncFnOnce(&Stage)) {
    let requests = restart_recording(&mut stage);
    stage.apply("app", json!({})).await;
    let mut delay = 10;
    for _ in 0..3 {
        let wake = reconcile(&stage, "app").await.expect("the PAT is retried");
        assert_eq!(wake.since(stage.now()).as_secs(), delay);
        assert_eq!(stage.ready("app").await, ("False".into(), "ApiError".into()));
        let reconciling = condition(&stage, "app", ConditionType::Reconciling).await;
        assert_eq!(reconciling.reason, "ApiError");
        assert!(reconciling.message.contains(word), "{}", reconciling.message);
        assert_eq!(stage.condition("app", ConditionType::Stalled).await, None);
        assert_eq!(states(&stage, "app").await, [(1, CredentialState::Pending)]);
        requests.take();
        stage.hand.set(wake.minus(SignedDuration::from_millis(1)).timestamp());
        assert_eq!(reconcile(&stage, "app").await, Some(wake), "not before the delay has passed");
        assert_eq!(requests.writes(), Vec::<String>::new());
        stage.hand.set(wake.timestamp());
        delay *= 2;
    }
    assert_eq!(reasons(&stage, "app").await, ["ApiError"], "one event is published");

    let before = stage.versions().await;
    for _ in 0..4 {
        let requests = restart_recording(&mut stage);
        let wake = reconcile(&stage, "app").await.expect("the PAT is retried");
        assert_eq!(wake.since(stage.now()).as_secs(), 10);
        let writes = requests.writes();
        assert!(
            matches!(writes.as_slice(), [one] if one.starts_with("POST ") && one.contains("/secrets?") && one.contains("dryRun=All")),
            "a fresh process sends a dry run before it mints: {writes:?}"
        );
        stage.advance("1h");
    }
    assert_eq!(stage.versions().await, before, "no hash is published for a write that would be denied");

    lift(&stage).await;
    stage.advance("1h");
    let begin = stage.now();
    stage.settle("app").await;
    assert_works(&stage, "app").await;
    assert_eq!(states(&stage, "app").await.len(), 1, "the undelivered token is dropped");
    let status = stage.status("app").await;
    assert!(status.credentials[0].issued_at >= begin);
    assert_eq!(status.first_issued_at, Some(status.credentials[0].issued_at), "the lifetime starts now");
}

#[tokio::test(flavor = "multi_thread")]
async fn secret_denied_by_policy_is_retried_by_dry_run() {
    let stage = Stage::new("policy").await;
    deny_secrets(&stage, &["CREATE"]).await;
    assert_refusal_is_handled(stage, "the safe is full", async |stage| allow_secrets(stage, &["CREATE"]).await).await;
}

/// Sets the quota and its status. The quota controller does not run here.
async fn set_quota(stage: &Stage, secrets: &str) {
    let api: Api<ResourceQuota> = Api::namespaced(stage.client.clone(), stage.namespace.name());
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": {"secrets": secrets}}});
    let params = PatchParams::apply("tests").force();
    api.patch("q", &params, &Patch::Apply(&quota)).await.expect("the quota is applied");
    let status = json!({"status": {"hard": {"secrets": secrets}, "used": {"secrets": "0"}}});
    api.patch_status("q", &PatchParams::default(), &Patch::Merge(&status))
        .await
        .expect("the status of the quota is written");
    until("the quota is in force", async || accepts_secrets(stage, &["CREATE"]).await == (secrets != "0")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secret_denied_by_quota_is_retried_by_dry_run() {
    let stage = Stage::new("quota").await;
    set_quota(&stage, "0").await;
    assert_refusal_is_handled(stage, "exceeded quota", async |stage| set_quota(stage, "9").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_rotation_keeps_the_old_token_and_adds_one_hash() {
    let (mut stage, first) = issued("refused", json!({"rotation": {"interval": "30d"}})).await;
    deny_secrets(&stage, &["UPDATE"]).await;
    stage.advance("30d");
    stage.settle("app").await;
    assert_eq!(stage.ready("app").await, ("True".into(), "Issued".into()), "the old token is valid");
    let reconciling = condition(&stage, "app", ConditionType::Reconciling).await;
    assert_eq!(reconciling.reason, "ApiError");
    assert!(reconciling.message.contains("the safe is full"), "{}", reconciling.message);
    assert_eq!(states(&stage, "app").await, [(2, CredentialState::Pending), (1, CredentialState::Active)]);
    let before = stage.versions().await;
    for _ in 0..3 {
        stage.advance("10m");
        let requests = restart_recording(&mut stage);
        reconcile(&stage, "app").await;
        let writes = requests.writes();
        assert!(
            matches!(writes.as_slice(), [one] if one.starts_with("PATCH ") && one.contains("dryRun=All")),
            "{writes:?}"
        );
    }
    assert_eq!(stage.versions().await, before);
    allow_secrets(&stage, &["UPDATE"]).await;
    stage.advance("10m");
    stage.settle("app").await;
    let second = assert_works(&stage, "app").await;
    assert_ne!(first, second);
    assert_eq!(states(&stage, "app").await, [(3, CredentialState::Active), (1, CredentialState::Grace)]);
    assert!(stage.accepts("app", &first).await);
}

/// Checks that a token is rotated in its former Secret `app` while the Secret `other` cannot be written.
async fn assert_rotated_in_former_secret(stage: &Stage, former: &str, word: &str) {
    let message = condition(stage, "app", ConditionType::Reconciling).await.message;
    assert!(message.contains(word) && message.contains("rotated there"), "{message}");
    stage.advance("30d");
    stage.settle("app").await;
    let token = stage.value("app", "token").await;
    assert_ne!(token, former);
    assert!(stage.accepts("app", &token).await);
    assert_eq!(states(stage, "app").await, [(2, CredentialState::Active), (1, CredentialState::Grace)]);
    assert_eq!(stage.status("app").await.secret_name.as_deref(), Some("app"));
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_rename_does_not_stop_rotation() {
    let (stage, first) = issued("rename", json!({"rotation": {"interval": "30d"}})).await;
    deny_secrets(&stage, &["CREATE"]).await;
    stage.apply("app", json!({"rotation": {"interval": "30d"}, "secret": {"name": "other"}})).await;
    stage.reconcile("app").await.expect("the run succeeds");
    assert_eq!(stage.ready("app").await, ("True".into(), "Issued".into()));
    assert_rotated_in_former_secret(&stage, &first, "the safe is full").await;
    let second = stage.value("app", "token").await;

    allow_secrets(&stage, &["CREATE"]).await;
    stage.advance("5m");
    stage.settle("app").await;
    assert_eq!(stage.ready("app").await, ("True".into(), "Issued".into()));
    assert_eq!(stage.value("other", "token").await, second, "the token moves");
    assert!(stage.secret("app").await.is_none(), "the former Secret is deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn rename_to_a_taken_name_does_not_stop_rotation() {
    for label in [json!({}), json!({LABEL: "pat-operator"})] {
        let (mut stage, first) = issued("taken", json!({"rotation": {"interval": "30d"}})).await;
        let taken = json!({"metadata": {"name": "other", "labels": label}, "stringData": {"token": "theirs"}});
        let taken: Secret = serde_json::from_value(taken).expect("a Secret");
        stage.secrets().create(&PostParams::default(), &taken).await.expect("the Secret is created");
        stage.apply("app", json!({"rotation": {"interval": "30d"}, "secret": {"name": "other"}})).await;
        stage.reconcile("app").await.expect("the run succeeds");
        for days in 1..=2 {
            assert_eq!(stage.ready("app").await, ("False".into(), "SecretConflict".into()));
            let message = condition(&stage, "app", ConditionType::Stalled).await.message;
            assert!(message.contains("\"other\"") && message.contains("rotated there"), "{message}");
            stage.restart();
            stage.advance("30d");
            stage.settle("app").await;
            let token = stage.value("app", "token").await;
            assert!(token != first && stage.accepts("app", &token).await, "rotation {days}");
            assert_eq!(stage.value("other", "token").await, "theirs");
        }
        assert_eq!(stage.status("app").await.revision, Some(3));
        stage.secrets().delete("other", &DeleteParams::default()).await.expect("the Secret is deleted");
        stage.advance("10m");
        stage.settle("app").await;
        assert_eq!(stage.ready("app").await, ("True".into(), "Issued".into()));
        assert!(stage.secret("app").await.is_none(), "the former Secret is deleted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn revocation_works_before_the_secret_can_be_cleared() {
    let (mut stage, token) = issued("unwiped", json!({})).await;
    deny_secrets(&stage, &["UPDATE"]).await;
    stage.apply("app", json!({"revoked": true})).await;
    let wake = reconcile(&stage, "app").await.expect("the PAT is retried");
    assert!(!stage.accepts("app", &token).await);
    assert_eq!(stage.ready("app").await, ("False".into(), "Revoked".into()));
    assert_eq!(stage.value("app", "token").await, token);
    assert_eq!(stage.status("app").await.credentials, [], "the status lists live credentials only");
    let left = condition(&stage, "app", ConditionType::SecretNotCleared).await;
    assert!(left.reason == "ApiError" && left.message.contains("the safe is full"), "{left:?}");
    assert!(wake.since(stage.now()).as_secs() <= 300, "{wake}");
    // Without its label the Secret is not watched. The condition reminds the controller of it.
    let patch = Patch::Merge(json!({"metadata": {"labels": {LABEL: null}}}));
    allow_secrets(&stage, &["UPDATE"]).await;
    stage.secrets().patch("app", &PatchParams::default(), &patch).await.expect("the edit is accepted");
    deny_secrets(&stage, &["UPDATE"]).await;
    let versions = stage.versions().await;
    stage.restart();
    let wake = reconcile(&stage, "app").await.expect("a fresh process retries as well");
    assert!(wake.since(stage.now()).as_secs() <= 300, "{wake}");
    assert_eq!(stage.versions().await, versions, "the status stays the same");
    allow_secrets(&stage, &["UPDATE"]).await;
    stage.hand.set(wake.timestamp());
    stage.settle("app").await;
    assert_eq!(stage.data("app").await, BTreeMap::new());
    assert!(stage.condition("app", ConditionType::SecretNotCleared).await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn token_stays_revoked_if_the_secret_cannot_be_cleared_and_the_spec_is_undone() {
    let (mut stage, token) = issued("unwiped-undo", json!({"displayName": "app"})).await;
    deny_secrets(&stage, &["UPDATE"]).await;
    stage.apply("app", json!({"displayName": "app", "revoked": true})).await;
    for _ in 0..3 {
        // The API server may refuse this until the revocation is recorded.
        let _ = stage.try_apply("app", json!({"displayName": "app"})).await;
        assert!(!stage.accepts("app", &token).await);
        reconcile(&stage, "app").await;
        assert!(!stage.accepts("app", &token).await);
        assert_eq!(stage.value("app", "token").await, token, "it cannot be removed");
        stage.advance("10m");
    }
    allow_secrets(&stage, &["UPDATE"]).await;
    stage.restart();
    stage.settle("app").await;
    stage.apply("app", json!({"displayName": "app"})).await;
    stage.settle("app").await;
    assert!(!stage.accepts("app", &token).await);
    assert_ne!(assert_works(&stage, "app").await, token);
}

// --- Lost and restored objects --------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn recreated_pat_starts_over_after_garbage_collection() {
    if is_left_out(Binary::KubeControllerManager) {
        return;
    }
    let plane = ControlPlane::start(Options::default().apply("crds/")).await.expect("a control plane");
    let stage = Stage::on(plane.access(), "recreated", ControllerConfig::default()).await;
    stage.apply("app", json!({"rotation": {"interval": "30d"}})).await;
    stage.settle("app").await;
    let old = stage.value("app", "token").await;
    let uid = stage.secret("app").await.expect("a Secret").uid();
    // Without the garbage collector, the new PAT finds the Secret of the deleted one.
    let mut plane = plane;
    plane.kill(Component::ControllerManager);
    stage.pats().delete("app", &DeleteParams::default()).await.expect("the PAT is deleted");
    stage.apply("app", json!({"rotation": {"interval": "30d"}})).await;
    let before = stage.secret("app").await;
    assert_conflict(&stage, "app", "earlier PersonalAccessToken of this name").await;
    assert_eq!(stage.secret("app").await, before, "the Secret is untouched");
    assert!(!stage.accepts("app", &old).await);
    plane.restart(Component::ControllerManager).await.expect("the garbage collector runs again");
    until("the old Secret is garbage-collected", async || stage.secret("app").await.is_none()).await;
    stage.settle("app").await;
    let new = assert_works(&stage, "app").await;
    assert_ne!(new, old);
    assert!(!stage.accepts("app", &old).await);
    let secret = stage.secret("app").await.expect("a Secret");
    assert_ne!(secret.uid(), uid);
    assert_eq!(secret.owner_references()[0].uid, stage.pat("app").await.uid().expect("a uid"));

    // The new Secret is garbage-collected with its PAT, too.
    stage.pats().delete("app", &DeleteParams::default()).await.expect("the PAT is deleted");
    assert_eq!(reconcile(&stage, "app").await, None);
    until("the new Secret is garbage-collected", async || stage.secret("app").await.is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn recreated_pat_gets_no_token_of_its_predecessor() {
    let mut stage = Stage::on(plane_without_garbage_collection().await, "memory", ControllerConfig::default()).await;
    stage.apply("app", json!({})).await;
    deny_secrets(&stage, &["CREATE"]).await;
    stage.restart();
    reconcile(&stage, "app").await;
    let held = stage.status("app").await.credentials[0].id.clone();
    stage.pats().delete("app", &DeleteParams::default()).await.expect("the PAT is deleted");
    stage.apply("app", json!({})).await;
    allow_secrets(&stage, &["CREATE"]).await;
    stage.settle("app").await;
    assert_works(&stage, "app").await;
    let status = stage.status("app").await;
    assert_ne!(status.credentials[0].id, held);
    assert_eq!(status.revision, Some(1));
}

async fn lose_status(stage: &Stage, name: &str) {
    let patch = Patch::Merge(json!({"status": null}));
    stage.pats().patch_status(name, &PatchParams::default(), &patch).await.expect("the status is removed");
    assert_eq!(stage.status(name).await, Default::default());
}

/// Compares credentials. The ends of grace periods may differ by 10 seconds.
fn assert_same_credentials(left: &[Credential], right: &[Credential]) {
    let bare = |one: &Credential| (one.id.clone(), one.sha256.to_string(), one.revision, one.state, one.issued_at);
    assert_eq!(left.iter().map(bare).collect::<Vec<_>>(), right.iter().map(bare).collect::<Vec<_>>());
    for (left, right) in left.iter().zip(right) {
        let apart = match (left.expires_at, right.expires_at) {
            (Some(left), Some(right)) => left.since(right).abs(),
            (left, right) => {
                assert_eq!(left, right);
                SignedDuration::ZERO
            }
        };
        assert!(apart <= SignedDuration::from_secs(10), "{left:?} {right:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_status_is_rebuilt_from_the_secret() {
    for restart in [false, true] {
        let spec =
            json!({"rotation": {"interval": "30d"}, "expiry": {"after": "365d"}, "secret": {"previousKey": "old"}});
        let (mut stage, first) = issued("lost", spec).await;
        stage.advance("30d");
        stage.settle("app").await;
        let second = stage.value("app", "token").await;
        let before = stage.status("app").await;
        let secret = stage.secret("app").await;
        lose_status(&stage, "app").await;
        if restart {
            stage.restart();
        }
        stage.settle("app").await;
        let after = stage.status("app").await;
        assert_same_credentials(&before.credentials, &after.credentials);
        assert_eq!(
            (after.revision, after.first_issued_at, after.expires_at, after.next_rotation_at, &after.secret_name),
            (before.revision, before.first_issued_at, before.expires_at, before.next_rotation_at, &before.secret_name)
        );
        assert_eq!(stage.secret("app").await, secret, "the Secret is not written");
        assert!(stage.accepts("app", &first).await && stage.accepts("app", &second).await);
        assert_eq!(stage.ready("app").await, ("True".into(), "Issued".into()));
        assert_eq!(reasons(&stage, "app").await, ["Rotated", "Restored"]);
        stage.advance("30d");
        stage.settle("app").await;
        assert_eq!(stage.status("app").await.revision, Some(3), "rotation continues");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_default_lifetime_is_restored_unchanged() {
    let (mut stage, _) = issued("lostend", json!({})).await;
    let end = stage.status("app").await.expires_at;
    stage.advance("20d");
    lose_status(&stage, "app").await;
    stage.settings.default_lifetime = SignedDuration::from_hours(1000 * 24);
    stage.restart();
    stage.settle("app").await;
    assert_eq!(stage.status("app").await.expires_at, end);
    assert_works(&stage, "app").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_revoked_before_status_loss_stay_revoked() {
    let (stage, first) = issued("revoked", json!({"rotation": {"interval": "30d"}})).await;
    stage.advance("30d");
    stage.settle("app").await;
    let second = stage.value("app", "token").await;
    let id = Token::parse(&first).expect("a token").id().to_string();
    // Revoke the token, then remove the revocation from the manifest.
    stage.apply("app", json!({"rotation": {"interval": "30d"}, "revokedCredentials": [id]})).await;
    stage.settle("app").await;
    stage.apply("app", json!({"rotation": {"interval": "30d"}})).await;
    stage.settle("app").await;
    lose_status(&stage, "app").await;
    stage.settle("app").await;
    assert!(!stage.accepts("app", &first).await);
    assert!(stage.accepts("app", &second).await);
    assert_eq!(states(&stage, "app").await, [(2, CredentialState::Active)]);

    // The same with `revoked`, which covers all tokens.
    stage.apply("app", json!({"rotation": {"interval": "30d"}, "revoked": true})).await;
    stage.settle("app").await;
    lose_status(&stage, "app").await;
    stage.apply("app", json!({"rotation": {"interval": "30d"}})).await;
    stage.settle("app").await;
    let third = assert_works(&stage, "app").await;
    assert!(!stage.accepts("app", &first).await && !stage.accepts("app", &second).await);
    assert_ne!(third, second);
    assert_eq!(states(&stage, "app").await, [(3, CredentialState::Active)], "revisions continue");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_expired_during_status_loss_stay_expired() {
    let (stage, first) = issued("ended", json!({"rotation": {"interval": "30d"}})).await;
    stage.advance("30d");
    stage.settle("app").await;
    lose_status(&stage, "app").await;
    stage.advance("2d");
    stage.settle("app").await;
    assert!(!stage.accepts("app", &first).await, "its grace period is over");
    assert_works(&stage, "app").await;
    assert_eq!(states(&stage, "app").await, [(2, CredentialState::Active)]);
}

/// Deletes PAT and Secret, and restores both as a backup tool does: without status and with new uids.
async fn restore_backup(stage: &Stage, owner_references: bool) {
    let secret = stage.secret("app").await.expect("a Secret");
    let pat = stage.pat("app").await;
    stage.pats().delete("app", &DeleteParams::default()).await.expect("the PAT is deleted");
    let _already_deleted = stage.secrets().delete("app", &DeleteParams::default()).await;
    let bare = |metadata: &mut kube::core::ObjectMeta| {
        metadata.uid = None;
        metadata.resource_version = None;
        metadata.managed_fields = None;
        metadata.creation_timestamp = None;
    };
    let (mut secret, mut pat) = (secret, pat);
    bare(&mut secret.metadata);
    bare(&mut pat.metadata);
    pat.status = None;
    if !owner_references {
        secret.metadata.owner_references = None;
    }
    stage.secrets().create(&PostParams::default(), &secret).await.expect("the Secret is restored");
    stage.pats().create(&PostParams::default(), &pat).await.expect("the PAT is restored");
}

fn restoring(before: Time) -> ControllerConfig {
    ControllerConfig { restore_issued_before: Some(before), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn restored_backup_is_adopted_only_with_the_flag() {
    for owner_references in [false, true] {
        let mut stage =
            Stage::on(plane_without_garbage_collection().await, "backup", ControllerConfig::default()).await;
        let spec = json!({"rotation": {"interval": "30d"}, "secret": {"previousKey": "old"}});
        stage.apply("app", spec).await;
        stage.settle("app").await;
        let first = stage.value("app", "token").await;
        stage.advance("30d");
        stage.settle("app").await;
        let second = stage.value("app", "token").await;
        let before = stage.status("app").await;
        stage.advance("1h");
        restore_backup(&stage, owner_references).await;
        let restored = stage.secret("app").await;

        assert_conflict(&stage, "app", "--restore-issued-before").await;
        assert!(!stage.accepts("app", &second).await, "annotations alone are no proof");
        assert_eq!(stage.secret("app").await, restored);
        // A restore time before the newest credential is not sufficient.
        stage.settings = restoring(before.credentials[0].issued_at);
        stage.restart();
        assert_conflict(&stage, "app", "--restore-issued-before").await;
        assert_eq!(stage.secret("app").await, restored);

        stage.settings = restoring(stage.now());
        stage.restart();
        stage.settle("app").await;
        assert!(stage.accepts("app", &first).await && stage.accepts("app", &second).await);
        assert_eq!(stage.ready("app").await, ("True".into(), "Issued".into()));
        let after = stage.status("app").await;
        assert_same_credentials(&before.credentials, &after.credentials);
        assert_eq!((after.revision, after.first_issued_at), (before.revision, before.first_issued_at));
        assert_eq!(stage.data("app").await, BTreeMap::from([("old".into(), first), ("token".into(), second)]));
        let secret = stage.secret("app").await.expect("a Secret");
        let uid = stage.pat("app").await.uid().expect("a uid");
        assert_eq!(secret.owner_references().iter().map(|owner| &owner.uid).collect::<Vec<_>>(), [&uid]);
        assert_eq!(secret.annotations()[PAT_UID], uid);
        let mut published = reasons(&stage, "app").await;
        published.retain(|reason| !["Rotated", "SecretConflict"].contains(&reason.as_str()));
        assert_eq!(published, ["Restored"], "owner references: {owner_references}");

        // Without the flag, the adopted token stays as it is.
        let versions = stage.versions().await;
        stage.settings = ControllerConfig::default();
        stage.restart();
        stage.settle("app").await;
        assert_eq!(stage.versions().await, versions);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_or_foreign_backup_is_not_adopted() {
    for (what, patch) in [
        ("the token was edited", json!({"stringData": {"token": "x"}})),
        ("a key was added", json!({"stringData": {"extra": "x"}})),
        ("no annotations", json!({"metadata": {"annotations": null}})),
        (
            "another controller",
            json!({"metadata": {"ownerReferences": [
                {"apiVersion": "v1", "kind": "ConfigMap", "name": "them", "uid": "x", "controller": true},
            ]}}),
        ),
    ] {
        let mut stage =
            Stage::on(plane_without_garbage_collection().await, "nobackup", ControllerConfig::default()).await;
        stage.apply("app", json!({})).await;
        stage.settle("app").await;
        let token = stage.value("app", "token").await;
        restore_backup(&stage, false).await;
        stage
            .secrets()
            .patch("app", &PatchParams::default(), &Patch::Merge(patch))
            .await
            .expect("the edit is accepted");
        let before = stage.secret("app").await;
        stage.advance("1h");
        stage.settings = restoring(stage.now());
        stage.restart();
        assert_conflict(&stage, "app", "Secret").await;
        assert_eq!(stage.secret("app").await, before, "{what}");
        assert!(!stage.accepts("app", &token).await, "{what}");
    }
}

// --- Forged Secrets -------------------------------------------------------------------------------------------------

/// A Secret that looks like the operator's own, made by an attacker who knows this token.
fn forged(pat_uid: &str, token: &Token, issued_at: Time) -> Value {
    let data = BTreeMap::from([("token", token.expose())]);
    let hashes = data.iter().map(|(key, value)| (*key, *hash(value.as_bytes()).as_bytes()));
    let record = SecretRecord {
        pat_uid: pat_uid.into(),
        ledger: Ledger {
            revision: 1,
            first_issued_at: Some(issued_at),
            default_expires_at: None,
            live: vec![Credential {
                id: Parsed::Value(token.id()),
                revision: 1,
                sha256: Parsed::Value(token.hash()),
                state: CredentialState::Active,
                issued_at,
                expires_at: None,
                remote: None,
            }],
        },
        data_hash: data_hash(hashes),
        render_hash: Digest::default(),
        owned: OwnedMetadata::default(),
    };
    json!({
        "metadata": {"name": "app", "labels": {LABEL: "pat-operator"}, "annotations": record.annotations()},
        "stringData": data,
    })
}

async fn plant(stage: &Stage, secret: Value) -> Secret {
    let secret = serde_json::from_value(secret).expect("a Secret");
    stage.secrets().create(&PostParams::default(), &secret).await.expect("the Secret is planted")
}

fn attackers_token() -> Token {
    Token::mint(&TokenPrefix::default()).expect("a token")
}

#[tokio::test(flavor = "multi_thread")]
async fn secret_planted_in_advance_is_rejected() {
    let token = attackers_token();
    for labelled in [true, false] {
        let mut stage = Stage::new("planted").await;
        let mut secret = forged("00000000-0000-0000-0000-000000000000", &token, stage.now());
        if !labelled {
            secret["metadata"]["labels"] = json!({});
        }
        let planted = plant(&stage, secret).await;
        stage.apply("app", json!({})).await;
        for _ in 0..3 {
            assert_conflict(&stage, "app", "delete it").await;
            assert!(!stage.accepts("app", token.expose()).await);
            assert_eq!(stage.secret("app").await.as_ref(), Some(&planted), "the Secret is untouched");
            stage.advance("10m");
            stage.restart();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn planted_secret_with_only_uid_or_owner_is_rejected() {
    let token = attackers_token();
    let stage = Stage::new("planteduid").await;
    stage.apply("app", json!({"suspend": true})).await;
    stage.settle("app").await;
    let uid = stage.pat("app").await.uid().expect("a uid");
    plant(&stage, forged(&uid, &token, stage.now())).await;
    stage.apply("app", json!({"suspend": false})).await;
    assert_conflict(&stage, "app", "delete it").await;
    assert!(!stage.accepts("app", token.expose()).await);
    stage.secrets().delete("app", &DeleteParams::default()).await.expect("the Secret is deleted");

    // With the owner reference of the PAT the Secret is repaired like any damaged one, with a new token.
    let mut owned = forged("00000000-0000-0000-0000-000000000000", &token, stage.now());
    owned["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "pat-operator.io/v1alpha1", "kind": "PersonalAccessToken", "name": "app", "uid": uid, "controller": true,
    }]);
    plant(&stage, owned).await;
    stage.settle("app").await;
    assert!(!stage.accepts("app", token.expose()).await);
    assert_ne!(assert_works(&stage, "app").await, token.expose());
}

#[tokio::test(flavor = "multi_thread")]
async fn swapped_secret_is_never_accepted() {
    let (stage, former) = issued("swapped", json!({})).await;
    let token = attackers_token();
    let pat = stage.pat("app").await;
    let uid = pat.uid().expect("a uid");
    let owner = stage.secret("app").await.expect("a Secret").owner_references()[0].clone();
    stage.secrets().delete("app", &DeleteParams::default()).await.expect("the Secret is deleted");
    let mut secret = forged(&uid, &token, stage.now());
    secret["metadata"]["ownerReferences"] = json!([owner]);
    plant(&stage, secret).await;
    stage.settle("app").await;
    assert!(!stage.accepts("app", token.expose()).await);
    assert_ne!(assert_works(&stage, "app").await, token.expose());
    assert!(stage.accepts("app", &former).await, "in grace");
}

#[tokio::test(flavor = "multi_thread")]
async fn restore_flag_adopts_only_secrets_issued_before_its_time() {
    let token = attackers_token();
    for (early, adopted) in [(true, true), (false, false)] {
        let stage = Stage::with("line", restoring("2026-01-01T00:00:00Z".parse().expect("a time"))).await;
        let issued_at = if early { "2025-12-31T23:59:59Z" } else { "2026-01-01T00:00:00Z" };
        let issued_at: Time = issued_at.parse().expect("a time");
        plant(&stage, forged("00000000-0000-0000-0000-000000000000", &token, issued_at)).await;
        stage.apply("app", json!({"expiry": {"never": true}})).await;
        stage.settle("app").await;
        assert_eq!(stage.accepts("app", token.expose()).await, adopted, "{issued_at}");
        let reason = if adopted { "Issued" } else { "SecretConflict" };
        assert_eq!(stage.ready("app").await.1, reason);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_annotations_are_not_trusted_after_status_loss() {
    // The chart's policies prevent writes to both. Without the owner reference, the Secret is not trusted.
    let (stage, _) = issued("both", json!({})).await;
    let token = attackers_token();
    let uid = stage.pat("app").await.uid().expect("a uid");
    stage.secrets().delete("app", &DeleteParams::default()).await.expect("the Secret is deleted");
    plant(&stage, forged(&uid, &token, stage.now())).await;
    lose_status(&stage, "app").await;
    assert_conflict(&stage, "app", "delete it").await;
    assert!(!stage.accepts("app", token.expose()).await);
}

// --- Outages --------------------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn outage_of_one_interval_keeps_the_token_valid() {
    let (mut stage, first) = issued("outage", json!({"rotation": {"interval": "30d"}})).await;
    let issued_at = stage.status("app").await.credentials[0].issued_at;
    stage.hand.set(issued_at.plus(SignedDuration::from_hours(24 * 58)).timestamp());
    assert!(stage.accepts("app", &first).await);
    stage.restart();
    stage.settle("app").await;
    let second = assert_works(&stage, "app").await;
    assert_ne!(first, second);
    assert!(stage.accepts("app", &first).await, "its grace period has started");
    assert_eq!(reasons(&stage, "app").await, ["Rotated"]);
    stage.advance("1d1s");
    assert!(!stage.accepts("app", &first).await);

    // A rotation at the last moment does not extend the old token.
    let issued_at = stage.status("app").await.credentials[0].issued_at;
    let end = issued_at.plus(SignedDuration::from_hours(24 * 60)).ceil_second();
    stage.hand.set(end.minus(SignedDuration::from_mins(1)).timestamp());
    assert!(stage.accepts("app", &second).await);
    stage.restart();
    stage.settle("app").await;
    assert_ne!(assert_works(&stage, "app").await, second);
    let grace = stage.status("app").await.credentials[1].expires_at;
    assert_eq!(grace, Some(end), "the grace period does not exceed the original expiry");
    assert_eq!(reasons(&stage, "app").await, ["Rotated", "Rotated"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn outage_of_two_intervals_lapses_and_reissues_the_token() {
    let (mut stage, first) = issued("lapse", json!({"rotation": {"interval": "30d"}})).await;
    let issued_at = stage.status("app").await.credentials[0].issued_at;
    let end = issued_at.plus(SignedDuration::from_hours(24 * 60)).ceil_second();
    stage.hand.set(end.minus(SignedDuration::from_micros(1)).timestamp());
    assert!(stage.accepts("app", &first).await, "verifiers only compare times");
    stage.hand.set(end.timestamp());
    assert!(!stage.accepts("app", &first).await);
    stage.restart();
    stage.settle("app").await;
    assert_ne!(assert_works(&stage, "app").await, first);
    assert!(!stage.accepts("app", &first).await, "the token stays invalid");
    assert_eq!(states(&stage, "app").await, [(2, CredentialState::Active)]);
    assert_eq!(reasons(&stage, "app").await, ["Lapsed"]);
    assert_eq!(stage.status("app").await.unplanned_mints, [], "a lapse is not a repair");
}

// --- Unreadable objects ---------------------------------------------------------------------------------------------

/// The API of PATs as untyped objects.
fn raw(stage: &Stage) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("pat-operator.io", "v1alpha1", "PersonalAccessToken");
    Api::namespaced_with(stage.client.clone(), stage.namespace.name(), &ApiResource::from_gvk(&kind))
}

#[tokio::test(flavor = "multi_thread")]
async fn unreadable_object_does_not_block_others() {
    // A CRD that accepts everything would disturb other tests, hence a separate control plane.
    let plane = Options::default().without_controller_manager().apply("crds/");
    let plane = ControlPlane::start(plane).await.expect("a control plane");
    let mut stage = Stage::on(plane.access(), "unreadable", ControllerConfig::default()).await;
    let crds: Api<CustomResourceDefinition> = Api::all(stage.client.clone());
    let lax = json!([{"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema",
        "value": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
        {"op": "remove", "path": "/spec/versions/0/selectableFields"}]);
    let patch = Patch::Json::<()>(serde_json::from_value(lax).expect("a JSON patch"));
    let name = pat_operator::api::crd::NAME;
    crds.patch(name, &PatchParams::default(), &patch).await.expect("the CRD is relaxed");

    let broken = |name: &str, spec: Value, status: Value| {
        let kind = json!({"apiVersion": "pat-operator.io/v1alpha1", "kind": "PersonalAccessToken"});
        let mut object = kind;
        object["metadata"] = json!({"name": name});
        object["spec"] = spec;
        object["status"] = status;
        serde_json::from_value::<DynamicObject>(object).expect("an object")
    };
    let pats = raw(&stage);
    let objects = [
        broken("spec", json!({"scopes": 7}), Value::Null),
        broken("nospec", Value::Null, Value::Null),
        broken("listspec", json!([1]), Value::Null),
    ];
    for object in &objects {
        until("the relaxed CRD is in force", async || pats.create(&PostParams::default(), object).await.is_ok()).await;
    }
    let unreadable = broken("status", json!({}), Value::Null);
    pats.create(&PostParams::default(), &unreadable).await.expect("the object is accepted");
    let status = Patch::Merge(json!({"status": {"credentials": "none", "revision": "many"}}));
    pats.patch_status("status", &PatchParams::default(), &status).await.expect("the object is accepted");

    stage.apply("app", json!({})).await;
    stage.restart();
    let namespace = stage.namespace.name().to_owned();
    let key = |name: &str| NamespacedName::new(&namespace, name);
    until("all objects are in the cache", async || stage.operator().stores.keys().len() == 5).await;
    let run = async |name: &str| stage.operator().reconciler.reconcile(&key(name)).await.expect("the run succeeds");
    for name in ["spec", "nospec", "listspec", "status", "app"] {
        run(name).await;
    }
    assert_works(&stage, "app").await;
    for name in ["spec", "nospec", "listspec"] {
        let conditions = pats.get(name).await.expect("the object exists").data["status"]["conditions"].clone();
        let ready = &conditions.as_array().expect("conditions")[0];
        assert_eq!((&ready["status"], &ready["reason"]), (&json!("False"), &json!("InvalidSpec")), "{name}");
        assert!(ready["message"].as_str().expect("a message").starts_with("spec: "), "{name}: {ready}");
        assert_eq!(stage.secret(name).await, None);
    }
    assert_eq!(
        pats.get("status").await.expect("the object exists").data["status"]["revision"],
        "many",
        "the status is untouched"
    );
    assert_eq!(stage.secret("status").await, None);

    // Further runs write nothing.
    let before = pats.list(&ListParams::default()).await.expect("a list").metadata.resource_version;
    until("the cache contains the last write", async || {
        let all = pats.list(&ListParams::default()).await.expect("a list").items;
        all.iter().all(|pat| {
            let cached = stage.operator().stores.pat(&key(&pat.name_any()));
            cached.is_some_and(|cached| cached.metadata.resource_version == pat.metadata.resource_version)
        })
    })
    .await;
    for name in ["spec", "nospec", "listspec", "status", "app"] {
        run(name).await;
    }
    assert_eq!(pats.list(&ListParams::default()).await.expect("a list").metadata.resource_version, before);
    // A corrected spec is processed.
    let corrected = Patch::Merge(json!({"spec": {"scopes": ["read"]}}));
    pats.patch("spec", &PatchParams::default(), &corrected).await.expect("the spec is corrected");
    until("a token is issued for the corrected spec", async || {
        run("spec").await;
        stage.secret("spec").await.is_some()
    })
    .await;
}

#[test]
fn invalid_spec_and_invalid_status_are_told_apart() {
    let stores = Arc::new(Stores::default());
    let mut handler = PatHandler::new(stores.clone(), None);
    let object = |name: &str, spec: Value, status: Value| -> StoredPat {
        serde_json::from_value(json!({"metadata": {"namespace": "n", "name": name}, "spec": spec, "status": status}))
            .expect("an object always decodes")
    };
    for (index, (spec, status, spec_is_good, status_is_good)) in [
        (json!({}), json!({}), true, true),
        (json!({}), Value::Null, true, true),
        (json!({"secret": "x"}), json!({}), false, true),
        (json!("x"), json!("x"), false, false),
        (json!({"rotation": {"interval": 3}}), json!({}), false, true),
        (json!({"revokeIfIssuedBefore": "yesterday"}), json!({}), false, true),
        (json!({}), json!({"credentials": [{"id": 1}]}), true, false),
        (json!({}), json!({"firstIssuedAt": "x"}), true, false),
        (json!({}), json!({"credentials": [{"state": "Zombie"}]}), true, false),
        // Fields of a newer version are ignored.
        (json!({"new": 1}), json!({"new": [1]}), true, true),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("pat-{index}");
        handler.handle(kube::runtime::watcher::Event::Apply(object(&name, spec.clone(), status.clone())));
        let cached = stores.pat(&NamespacedName::new("n", &name)).expect("the object is in the cache");
        assert_eq!((cached.spec.is_ok(), cached.status.is_ok()), (spec_is_good, status_is_good), "{spec} {status}");
    }
    assert_eq!(stores.keys().len(), 10);
}

// --- Stale caches ---------------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn operator_blind_to_its_own_writes_does_not_repeat_them() {
    let stage = Stage::new("blind").await;
    let (client, requests) = stage.recording();
    let mut operator = stage.manual_operator(client);
    operator.show(stage.apply("app", json!({"rotation": {"interval": "30d"}})).await);
    for _ in 0..30 {
        operator.reconcile("app").await.expect("the run succeeds");
    }
    let methods = |writes: &[String]| -> Vec<String> {
        let verb = |write: &String| write.split_once(' ').expect("a method").0.to_owned();
        writes.iter().map(verb).collect()
    };
    let writes = requests.writes();
    assert_eq!(methods(&writes), ["PATCH", "POST", "PATCH"], "{writes:?}");
    let first = stage.value("app", "token").await;
    assert_eq!(states(&stage, "app").await, [(1, CredentialState::Active)]);

    stage.advance("30d");
    for _ in 0..30 {
        operator.reconcile("app").await.expect("the run succeeds");
        stage.hand.advance(SignedDuration::from_secs(1));
    }
    let writes = requests.writes();
    assert_eq!(methods(&writes), ["PATCH", "PATCH", "PATCH"], "{writes:?}");
    let second = stage.value("app", "token").await;
    assert_ne!(first, second);
    assert_eq!(states(&stage, "app").await, [(2, CredentialState::Active), (1, CredentialState::Grace)]);
    assert!(stage.accepts("app", &first).await && stage.accepts("app", &second).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn lagging_watches_cause_no_extra_writes() {
    let mut stage = Stage::new("hasty").await;
    let requests = restart_recording(&mut stage);
    stage.apply("app", json!({"rotation": {"interval": "30d"}})).await;
    stage.operator().catch_up(&stage.client, stage.namespace.name()).await;
    let key = NamespacedName::new(stage.namespace.name(), "app");
    for (revision, wait) in [(1, 0), (2, 30), (3, 30), (4, 30)] {
        stage.hand.advance(SignedDuration::from_hours(24 * wait));
        for _ in 0..40 {
            stage.operator().reconciler.reconcile(&key).await.expect("the run succeeds");
            stage.hand.advance(SignedDuration::from_millis(100));
        }
        let writes = requests.writes();
        // From the second rotation on, the end of a grace period is also written.
        assert!((3..=4).contains(&writes.len()), "{writes:?}");
        assert_eq!(writes.iter().filter(|write| write.contains("/secrets")).count(), 1, "{writes:?}");
        assert_eq!(stage.status("app").await.revision, Some(revision));
        assert_works(&stage, "app").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lagging_secret_watch_after_a_start_writes_nothing() {
    let (stage, token) = issued("lagging", json!({})).await;
    let before = stage.versions().await;
    let (client, requests) = stage.recording();
    let mut operator = stage.manual_operator(client);
    // The operator has seen the PAT, but not yet its Secret.
    operator.show(stage.pat("app").await);
    for _ in 0..5 {
        operator.reconcile("app").await.expect("the run succeeds");
    }
    assert_eq!(requests.writes(), Vec::<String>::new());
    assert_eq!(stage.versions().await, before);
    assert_eq!(stage.value("app", "token").await, token);
}

#[tokio::test(flavor = "multi_thread")]
async fn lagging_pat_watch_after_a_start_writes_nothing() {
    let stage = Stage::new("behind").await;
    let first_version = stage.apply("app", json!({"rotation": {"interval": "30d"}})).await;
    stage.settle("app").await;
    let old_pat = stage.pat("app").await;
    let old_secret = stage.secret("app").await.expect("a Secret");
    stage.advance("30d");
    stage.settle("app").await;
    let token = stage.value("app", "token").await;
    let before = stage.versions().await;
    let new_secret = stage.secret("app").await.expect("a Secret");
    // Every combination of states that a lagging watch can show.
    for (pat, secret) in [
        (&first_version, None),
        (&first_version, Some(&old_secret)),
        (&first_version, Some(&new_secret)),
        (&old_pat, None),
        (&old_pat, Some(&old_secret)),
        (&old_pat, Some(&new_secret)),
    ] {
        let mut operator = stage.manual_operator(stage.client.clone());
        operator.show(pat.clone());
        if let Some(secret) = secret {
            operator.show_secret(secret.clone());
        }
        for _ in 0..3 {
            operator.reconcile("app").await.expect("the run succeeds");
        }
        assert_eq!(stage.versions().await, before);
        assert_eq!(stage.value("app", "token").await, token);
    }
    assert_works(&stage, "app").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_view_of_a_deleted_pat_spares_its_successor() {
    let stage = Stage::new("ghost").await;
    let deleted = stage.apply("app", json!({})).await;
    stage.pats().delete("app", &DeleteParams::default()).await.expect("the PAT is deleted");
    let mut operator = stage.manual_operator(stage.client.clone());
    operator.show(deleted.clone());
    operator.reconcile("app").await.expect("the run succeeds");
    assert_eq!(stage.secret("app").await, None, "no Secret is created for a deleted PAT");

    stage.apply("app", json!({"suspend": true})).await;
    let before = stage.versions().await;
    let mut operator = stage.manual_operator(stage.client.clone());
    operator.show(deleted);
    operator.reconcile("app").await.expect("the run succeeds");
    assert_eq!(stage.versions().await, before, "the new PAT does not get the status of the deleted one");
}

#[tokio::test(flavor = "multi_thread")]
async fn restart_sends_no_request_for_idle_tokens() {
    let mut stage = Stage::new("idle").await;
    let spec = json!({"rotation": {"interval": "30d"}, "secret": {"previousKey": "old", "labels": {"a": "b"}}});
    stage.apply("app", spec).await;
    stage.apply("revoked", json!({"revoked": true})).await;
    stage.apply("expired", json!({"expiry": {"at": "2020-01-01T00:00:00Z"}})).await;
    stage.apply("asleep", json!({"suspend": true})).await;
    for name in ["app", "revoked", "expired", "asleep"] {
        stage.settle(name).await;
    }
    stage.advance("30d");
    stage.settle("app").await;
    let requests = restart_recording(&mut stage);
    for name in ["app", "revoked", "expired", "asleep"] {
        reconcile(&stage, name).await;
        assert_eq!(requests.take(), Vec::<String>::new(), "{name}");
    }
}
