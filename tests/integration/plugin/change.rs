//! Changes of a spec: `extend`, fields that a GitOps tool or another manifest sets, and refused changes.

use kube::api::{Patch, PatchParams};
use pat_operator::api::PersonalAccessToken;
use serde_json::{Value, json};

use super::runner::PluginRunner;

async fn apply_as(runner: &PluginRunner, manager: &str, name: &str, spec: Value) {
    let manifest = json!({
        "apiVersion": "pat-operator.io/v1alpha1",
        "kind": "PersonalAccessToken",
        "metadata": {"name": name, "labels": {
            "kustomize.toolkit.fluxcd.io/name": "apps", "kustomize.toolkit.fluxcd.io/namespace": "flux-system",
        }},
        "spec": spec,
    });
    runner
        .place
        .pats()
        .patch(name, &PatchParams::apply(manager).force(), &Patch::Apply(&manifest))
        .await
        .expect("the manifest is applied");
}

async fn expiry(runner: &PluginRunner, name: &str) -> Value {
    let pat: PersonalAccessToken = runner.place.pats().get(name).await.unwrap();
    serde_json::to_value(pat.spec.expiry).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn extend_changes_the_expiry_and_keeps_the_token() {
    let (runner, _operator) = PluginRunner::with_operator("pat-extend").await;
    runner.pat("create ci --apply").success();
    runner.pat("wait ci --timeout 60s").success();
    let token = runner.place.token("ci").await;
    let default = runner.place.status("ci").await.expires_at.expect("the default end");
    let output = runner.pat("extend ci --by 10d").success();
    assert!(output.starts_with("ci expires at ") && output.contains("(in "), "{output}");
    let moved = default.plus(pat_operator::api::duration::parse("10d").unwrap());
    assert_eq!(expiry(&runner, "ci").await, json!({"at": moved}));
    assert!(runner.pat("extend ci --after 30d").success().starts_with("ci expires at "));
    assert_eq!(expiry(&runner, "ci").await, json!({"after": "30d"}));
    runner.pat("extend ci --by 1d --dry-run").success();
    assert_eq!(expiry(&runner, "ci").await, json!({"after": "30d"}), "a dry run saves nothing");
    runner.pat("extend ci --by 1d12h").success();
    assert_eq!(expiry(&runner, "ci").await, json!({"after": "31d12h"}));
    assert_eq!(runner.pat("extend ci --never").success(), "ci never expires\n");
    let refused = runner.pat("extend ci --by 1d").failed(1);
    assert!(refused.contains("no expiry to extend"), "{refused}");
    runner.place.until("ci", "without an expiry", |status| status.expires_at.is_none()).await;
    assert_eq!(runner.place.token("ci").await, token);
}

#[tokio::test(flavor = "multi_thread")]
async fn field_managed_by_gitops_is_not_changed() {
    let runner = PluginRunner::new("pat-gitops").await;
    apply_as(&runner, "kustomize-controller", "ci", json!({"expiry": {"after": "30d"}})).await;
    let refused = runner.pat("extend ci --by 10d").failed(1);
    for part in
        ["ci: spec.expiry is managed by Flux", "Kustomization flux-system/apps", "expiry: {after: \"40d\"}", "--force"]
    {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    assert_eq!(expiry(&runner, "ci").await, json!({"after": "30d"}));
    let forced = runner.pat("extend ci --by 10d --force");
    assert!(forced.code == 0 && forced.err.contains("which will undo this change"), "{forced:?}");
    assert_eq!(expiry(&runner, "ci").await, json!({"after": "40d"}));
    // A field that is not in the manifest belongs to the user.
    runner.pat("revoke ci --yes").success();
    let page = runner.pat("show ci").success();
    assert!(page.contains("Managed by:    Flux, Kustomization flux-system/apps"), "{page}");
    // The next apply by the tool keeps it.
    apply_as(&runner, "kustomize-controller", "ci", json!({"expiry": {"after": "30d"}})).await;
    assert_eq!(runner.place.pats().get("ci").await.unwrap().spec.revoked, Some(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn field_set_by_a_manifest_is_changed_with_a_note() {
    let runner = PluginRunner::new("pat-manifest").await;
    runner.place.apply("ci", json!({"expiry": {"after": "30d"}})).await;
    let ran = runner.pat("extend ci --after 60d");
    assert!(ran.code == 0 && ran.err.contains("note: spec.expiry was set by person."), "{ran:?}");
    assert!(ran.err.contains("expiry: {after: \"60d\"}"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn api_server_errors_are_one_line() {
    let runner = PluginRunner::new("pat-refused").await;
    runner.pat("create ci --secret one --preset basic-auth --apply").success();
    let ran = runner.pat("create ci --secret one --apply").failed(1);
    assert!(
        ran.starts_with("error: ") && ran.lines().count() == 1 && ran.contains("the type of a Secret is immutable"),
        "{ran}"
    );
    let ran = runner.pat("create bad --scope a\"b --apply").failed(1);
    assert!(ran.contains("must be 1 to 128 visible ASCII characters"), "{ran}");
    let ran = runner.pat("rotate ghost").failed(1);
    assert!(ran.contains("PersonalAccessToken ghost not found"), "{ran}");
}
