//! A disabled owner: the controller shows it in the conditions of its tokens, and every command of `kubectl pat` says it.

use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use pat_operator::api::TokenOwner;
use serde_json::{Value, json};

use crate::support::{
    plugin::runner::PluginRunner,
    process::{Launch, OperatorProcess, SOON, place::eventually},
};

/// A controller for the PATs of one namespace, but not in namespaced mode.
async fn start(runner: &PluginRunner) -> OperatorProcess {
    let namespace = runner.place.name();
    let mut operator = Launch::controller(&runner.place.kubeconfig())
        .arg(format!("--lease-namespace={namespace}"))
        .arg(format!("--label-selector=test={namespace}"))
        .start();
    operator.leads_within(SOON).await;
    operator
}

/// Creates or changes the TokenOwner with the name of the namespace.
async fn set_disabled(runner: &PluginRunner, owner: &Value, disabled: bool) {
    let name = runner.place.name();
    let manifest = json!({
        "apiVersion": "pat-operator.io/v1alpha1", "kind": "TokenOwner", "metadata": {"name": name},
        "spec": {"subject": owner, "disabled": disabled},
    });
    let owners: Api<TokenOwner> = Api::all(runner.place.client.clone());
    owners.patch(name, &PatchParams::apply("tests"), &Patch::Apply(&manifest)).await.expect("the owner is set");
}

/// The versions of a PAT and its Secret, which change with each write.
async fn versions(runner: &PluginRunner, name: &str) -> (Option<String>, Option<String>) {
    let pat = runner.place.pats().get(name).await.expect("the PAT exists");
    let secret = runner.place.secrets().get(name).await.expect("the Secret exists");
    (pat.resource_version(), secret.resource_version())
}

fn plugin_says_so(runner: &PluginRunner, token: &str) {
    let because = format!("TokenOwner {:?} disables every token of", runner.place.name());
    let listed = runner.pat("list").success();
    let line = listed.lines().find(|line| line.starts_with("janes ")).expect("it is listed");
    assert!(line.contains("OwnerDisabled"), "{listed}");
    let shown = runner.pat("show janes").success();
    assert!(shown.contains("OwnerDisabled") && shown.contains(&because), "{shown}");
    let waited = runner.pat("wait janes --timeout 30s").failed(1);
    assert!(waited.contains("OwnerDisabled") && waited.contains(&because), "{waited}");
    let revealed = runner.pat("reveal janes --force");
    assert!(revealed.code == 3 && revealed.out.is_empty() && revealed.err.contains(&because), "{revealed:?}");
    let verified = runner.piped("verify", token);
    assert!(verified.code == 3 && verified.out.contains("its owner is disabled by a TokenOwner"), "{verified:?}");
    let namespace = runner.place.name();
    let found = runner.pat(&format!("doctor --operator-namespace {namespace}"));
    assert!(found.out.contains(&format!("token {namespace}/janes is in state OwnerDisabled")), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn disabled_owner_is_shown_by_the_conditions_of_its_tokens() {
    let runner = PluginRunner::new("disabled-owner").await;
    let place = &runner.place;
    let jane = json!({"kind": "User", "name": format!("{}@example.com", place.name())});
    let labels = json!({"test": place.name()});
    set_disabled(&runner, &jane, false).await;
    place.apply_labelled("janes", labels.clone(), json!({"owner": jane})).await;
    place.apply_labelled("other", labels, json!({})).await;
    let operator = start(&runner).await;
    let token = place.ready("janes").await;
    place.ready("other").await;
    let (before, others) = (versions(&runner, "janes").await, versions(&runner, "other").await);

    set_disabled(&runner, &jane, true).await;
    place.has("janes", "Ready", "False", "OwnerDisabled").await;
    place.has("janes", "Stalled", "True", "OwnerDisabled").await;
    eventually("the event is published", async || !place.events("janes").await.is_empty()).await;
    let disabled = versions(&runner, "janes").await;
    assert_eq!(disabled.1, before.1, "the Secret keeps its token");
    assert_eq!(versions(&runner, "other").await, others);
    plugin_says_so(&runner, &token);

    // A restart writes nothing.
    operator.terminate().await;
    let mut operator = start(&runner).await;
    eventually("both PATs are reconciled", async || {
        operator.metrics().await.value("pat_operator_reconcile_duration_seconds_count") >= 2.0
    })
    .await;
    assert_eq!(versions(&runner, "janes").await, disabled);
    assert_eq!(place.events("janes").await.iter().filter(|(reason, _)| reason == "OwnerDisabled").count(), 1);

    set_disabled(&runner, &jane, false).await;
    assert_eq!(place.ready("janes").await, token);
    runner.pat("reveal janes --force").success();

    // The object that disables the owner is deleted.
    set_disabled(&runner, &jane, true).await;
    place.has("janes", "Ready", "False", "OwnerDisabled").await;
    let owners: Api<TokenOwner> = Api::all(place.client.clone());
    owners.delete(place.name(), &DeleteParams::default()).await.expect("the owner is deleted");
    assert_eq!(place.ready("janes").await, token);
    assert_eq!(versions(&runner, "other").await, others);
    operator.terminate().await;
}
