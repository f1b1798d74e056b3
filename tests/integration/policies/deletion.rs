//! What policies must not block: the operator's own work, garbage collection, finalizers, and namespace deletion.

use control_plane::{Binary, Identity};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PropagationPolicy},
};
use serde_json::{Value, json};

use super::{
    guard::{ALL, Guard, PARAMETERS},
    people,
    write::{Change, Create, pat, pats, secrets},
};
use crate::support::is_left_out;
use crate::support::process::{
    Launch,
    place::{Place, eventually, in_seconds},
};

/// A token that no user in the test can issue: it has another owner and a scope that is no longer granted.
fn unissuable_spec() -> Value {
    json!({"owner": {"kind": "User", "name": "bob"}, "scopes": ["withdrawn"]})
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_do_not_block_the_operator_or_deletion() {
    if is_left_out(Binary::KubeControllerManager) {
        return;
    }
    let place = Place::new("policies").await;
    let home = place.name();
    place.apply("collected", unissuable_spec()).await;
    place.apply("finalized", unissuable_spec()).await;
    place.apply("app", json!({"rotation": {"interval": "30d"}, "secret": {"previousKey": "previous"}})).await;
    let maps: Api<ConfigMap> = Api::namespaced(place.client.clone(), home);
    for name in PARAMETERS.into_iter().chain(["parent"]) {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"_default": "granted"}});
        maps.patch(name, &PatchParams::apply("tests"), &Patch::Apply(map)).await.expect("a ConfigMap");
    }
    let mut guards = Vec::new();
    for policy in ALL {
        guards.push(Guard::apply(policy, &place, &[&place]).await);
    }
    let jane_client = people::administrator_of(&place, "jane").await.1;
    let jane = pats(&jane_client, home);
    eventually("every policy is in force", async || {
        let owner = json!({"owner": {"kind": "User", "name": "bob"}});
        let planted = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x", "annotations": {"pat-operator.io/a": "b"}},
        });
        let status = PatchParams { dry_run: true, ..PatchParams::default() };
        let status = jane.patch_status("app", &status, &Patch::Merge(json!({"status": {"revision": 1}}))).await;
        Create::Post.dry_run(&jane, &pat("x", owner)).await.is_err()
            && Create::Post.dry_run(&jane, &pat("x", json!({"scopes": ["granted"]}))).await.is_ok()
            && Create::Post.dry_run(&jane, &pat("x", json!({"scopes": ["withdrawn"]}))).await.is_err()
            && Create::Post.dry_run(&secrets(&jane_client, home), &planted).await.is_err()
            && status.is_err()
    })
    .await;

    // The operator issues, rotates, repairs, renames and clears.
    let controller = Identity::service_account(home, "pat-operator-controller");
    people::make_administrator(&place, &controller).await;
    let kubeconfig = place.access.kubeconfig_for(&controller).expect("a kubeconfig");
    let operator = Launch::controller_in(&kubeconfig, home).start();
    for name in ["app", "collected", "finalized"] {
        place.ready(name).await;
    }
    let change = async |patch: Value| assert_eq!(Change::MergePatch.send(&jane, "app", &patch).await, Ok(()));
    change(json!({"spec": {"rotateIfIssuedBefore": in_seconds(0)}})).await;
    place.until("app", "rotated", |status| status.revision == Some(2) && status.credentials.len() == 2).await;
    place.ready("app").await;
    let token = place.token("app").await;
    change(json!({"spec": {"secret": {"name": "elsewhere"}}})).await;
    eventually("the Secret is renamed", async || place.value("elsewhere", "token").await.as_ref() == Some(&token))
        .await;
    // Removed annotations are restored.
    let without_annotations = json!({"metadata": {"annotations": null}});
    assert_eq!(Change::MergePatch.send(&secrets(&jane_client, home), "elsewhere", &without_annotations).await, Ok(()));
    eventually("the annotations are back", async || {
        let secret = place.secrets().get("elsewhere").await.expect("the Secret exists");
        secret.metadata.annotations.unwrap_or_default().contains_key("pat-operator.io/pat-uid")
    })
    .await;
    // A user who cannot issue the token can revoke it.
    assert_eq!(Change::MergePatch.send(&jane, "finalized", &json!({"spec": {"revoked": true}})).await, Ok(()));
    place.has("finalized", "Ready", "False", "Revoked").await;

    // A finalizer is added and removed.
    let finalizer = |finalizers: Value| json!({"metadata": {"finalizers": finalizers}});
    assert_eq!(Change::MergePatch.send(&jane, "finalized", &finalizer(json!(["example.com/wait"]))).await, Ok(()));
    jane.delete("finalized", &DeleteParams::default()).await.expect("the deletion is accepted");
    assert!(jane.get("finalized").await.expect("the PAT still exists").metadata.deletion_timestamp.is_some());
    assert_eq!(Change::MergePatch.send(&jane, "finalized", &finalizer(Value::Null)).await, Ok(()));
    eventually("the PAT is gone", async || jane.get_opt("finalized").await.unwrap().is_none()).await;

    // Foreground deletion of an owner removes the PAT and its Secret.
    let parent = maps.get("parent").await.expect("the ConfigMap exists").metadata.uid;
    let owner =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "parent", "uid": parent, "blockOwnerDeletion": true});
    let owned = json!({"metadata": {"ownerReferences": [owner], "finalizers": ["foregroundDeletion"]}});
    assert_eq!(Change::MergePatch.send(&jane, "collected", &owned).await, Ok(()));
    let foreground =
        DeleteParams { propagation_policy: Some(PropagationPolicy::Foreground), ..DeleteParams::default() };
    maps.delete("parent", &foreground).await.expect("the deletion is accepted");
    eventually("the PAT, its Secret and its owner are gone", async || {
        jane.get_opt("collected").await.unwrap().is_none()
            && place.secrets().get_opt("collected").await.unwrap().is_none()
            && maps.get_opt("parent").await.unwrap().is_none()
    })
    .await;
    // Orphan deletion leaves the Secret.
    let orphan = DeleteParams { propagation_policy: Some(PropagationPolicy::Orphan), ..DeleteParams::default() };
    operator.terminate().await;
    jane.delete("app", &orphan).await.expect("the deletion is accepted");
    eventually("the Secret stays without an owner", async || {
        let secret = place.secrets().get_opt("elsewhere").await.unwrap().expect("the Secret exists");
        jane.get_opt("app").await.unwrap().is_none() && secret.metadata.owner_references.unwrap_or_default().is_empty()
    })
    .await;

    // A namespace with tokens and Secrets is deleted.
    let namespaces: Api<Namespace> = Api::all(place.client.clone());
    namespaces.delete(home, &DeleteParams::default()).await.expect("the deletion is accepted");
    eventually("the namespace is gone", async || namespaces.get_opt(home).await.unwrap().is_none()).await;
    for guard in guards {
        guard.end().await;
    }
}
