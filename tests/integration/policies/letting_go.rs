//! What nobody's policy may hinder: garbage collection, finalizers, and the end of a namespace; and the operator's own work.

use control_plane::Identity;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PropagationPolicy},
};
use serde_json::{Value, json};

use super::{
    guard::{ALL, Guard},
    people,
    write::{Change, Create, pat, pats, secrets},
};
use crate::support::process::{
    Launch,
    place::{Place, eventually, in_seconds},
};

/// A token that nobody here could issue: for somebody else, with a scope that is granted no more.
fn somebody_s() -> Value {
    json!({"owner": {"kind": "User", "name": "bob"}, "scopes": ["withdrawn"]})
}

#[tokio::test(flavor = "multi_thread")]
async fn with_every_policy_in_force_the_operator_does_its_work_and_everything_can_end() {
    let place = Place::new("policies").await;
    let home = place.name();
    place.apply("collected", somebody_s()).await;
    place.apply("finalized", somebody_s()).await;
    place.apply("app", json!({"rotation": {"interval": "30d"}, "secret": {"previousKey": "previous"}})).await;
    let maps: Api<ConfigMap> = Api::namespaced(place.client.clone(), home);
    for name in ["pat-operator-scope-grants", "parent"] {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"_default": "granted"}});
        maps.patch(name, &PatchParams::apply("tests"), &Patch::Apply(map)).await.expect("a ConfigMap");
    }
    let mut guards = Vec::new();
    for policy in ALL {
        guards.push(Guard::apply(policy, &place, &[&place]).await);
    }
    let jane_s = people::administrator_of(&place, "jane").await.1;
    let jane = pats(&jane_s, home);
    eventually("every policy is in force", async || {
        let owner = json!({"owner": {"kind": "User", "name": "bob"}});
        let planted = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x", "annotations": {"pat-operator.io/a": "b"}},
        });
        let status = PatchParams { dry_run: true, ..PatchParams::default() };
        let status = jane.patch_status("app", &status, &Patch::Merge(json!({"status": {"revision": 1}}))).await;
        Create::Post.try_out(&jane, &pat("x", owner)).await.is_err()
            && Create::Post.try_out(&jane, &pat("x", json!({"scopes": ["granted"]}))).await.is_ok()
            && Create::Post.try_out(&jane, &pat("x", json!({"scopes": ["withdrawn"]}))).await.is_err()
            && Create::Post.try_out(&secrets(&jane_s, home), &planted).await.is_err()
            && status.is_err()
    })
    .await;

    // The operator: issues, rotates, repairs, moves and empties.
    let controller = Identity::service_account(home, "pat-operator-controller");
    people::make_administrator(&place, &controller).await;
    let kubeconfig = place.access.kubeconfig_for(&controller).expect("a kubeconfig");
    let operator = Launch::controller_in(&kubeconfig, home).start();
    for name in ["app", "collected", "finalized"] {
        place.ready(name).await;
    }
    let change = async |patch: Value| assert_eq!(Change::MergePatch.really(&jane, "app", &patch).await, Ok(()));
    change(json!({"spec": {"rotateIfIssuedBefore": in_seconds(0)}})).await;
    place.until("app", "rotated", |status| status.revision == Some(2) && status.credentials.len() == 2).await;
    place.ready("app").await;
    let token = place.token("app").await;
    change(json!({"spec": {"secret": {"name": "elsewhere"}}})).await;
    eventually("it has moved", async || place.value("elsewhere", "token").await.as_ref() == Some(&token)).await;
    // What was taken away is put back.
    let bare = json!({"metadata": {"annotations": null}});
    assert_eq!(Change::MergePatch.really(&secrets(&jane_s, home), "elsewhere", &bare).await, Ok(()));
    eventually("the annotations are back", async || {
        let secret = place.secrets().get("elsewhere").await.expect("it is there");
        secret.metadata.annotations.unwrap_or_default().contains_key("pat-operator.io/pat-uid")
    })
    .await;
    // Whoever may not issue it may revoke it.
    assert_eq!(Change::MergePatch.really(&jane, "finalized", &json!({"spec": {"revoked": true}})).await, Ok(()));
    place.has("finalized", "Ready", "False", "Revoked").await;

    // A finalizer is set and taken off again.
    let finalizer = |finalizers: Value| json!({"metadata": {"finalizers": finalizers}});
    assert_eq!(Change::MergePatch.really(&jane, "finalized", &finalizer(json!(["example.com/wait"]))).await, Ok(()));
    jane.delete("finalized", &DeleteParams::default()).await.expect("it is marked");
    assert!(jane.get("finalized").await.expect("it waits").metadata.deletion_timestamp.is_some());
    assert_eq!(Change::MergePatch.really(&jane, "finalized", &finalizer(Value::Null)).await, Ok(()));
    eventually("it is gone", async || jane.get_opt("finalized").await.unwrap().is_none()).await;

    // The garbage collector takes a token with what owns it, in the foreground, and with it its Secret.
    let parent = maps.get("parent").await.expect("it is there").metadata.uid;
    let owner =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "parent", "uid": parent, "blockOwnerDeletion": true});
    let owned = json!({"metadata": {"ownerReferences": [owner], "finalizers": ["foregroundDeletion"]}});
    assert_eq!(Change::MergePatch.really(&jane, "collected", &owned).await, Ok(()));
    let foreground =
        DeleteParams { propagation_policy: Some(PropagationPolicy::Foreground), ..DeleteParams::default() };
    maps.delete("parent", &foreground).await.expect("it is marked");
    eventually("it is collected, and its Secret and its owner with it", async || {
        jane.get_opt("collected").await.unwrap().is_none()
            && place.secrets().get_opt("collected").await.unwrap().is_none()
            && maps.get_opt("parent").await.unwrap().is_none()
    })
    .await;
    // An orphan is let go of by the garbage collector.
    let orphan = DeleteParams { propagation_policy: Some(PropagationPolicy::Orphan), ..DeleteParams::default() };
    operator.terminate().await;
    jane.delete("app", &orphan).await.expect("it is marked");
    eventually("its Secret stays behind", async || {
        let secret = place.secrets().get_opt("elsewhere").await.unwrap().expect("it stays");
        jane.get_opt("app").await.unwrap().is_none() && secret.metadata.owner_references.unwrap_or_default().is_empty()
    })
    .await;

    // And the namespace, with tokens and Secrets in it.
    let namespaces: Api<Namespace> = Api::all(place.client.clone());
    namespaces.delete(home, &DeleteParams::default()).await.expect("it is marked");
    eventually("the namespace is gone", async || namespaces.get_opt(home).await.unwrap().is_none()).await;
    for guard in guards {
        guard.end().await;
    }
}
