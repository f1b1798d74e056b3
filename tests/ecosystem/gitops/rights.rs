//! Argo CD with the guard rails: for which owners it may apply tokens.

use control_plane::Identity;
use kube::{
    Api,
    api::{DeleteParams, DynamicObject, Patch, PatchParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};

use super::{
    judges::manifests,
    tools::{in_git, tokens},
};
use crate::support::{
    policies::{guard::Guard, people},
    process::place::{Place, eventually},
};

/// The RBAC objects of the example with unique names, because they are cluster-scoped and tests share the cluster.
fn rights(place: &Place) -> Vec<(Api<DynamicObject>, String, Value)> {
    let renamed = |mut manifest: Value| {
        let name = format!("{}-issues-for-jane", place.name());
        manifest["metadata"]["name"] = json!(name);
        if manifest["roleRef"].is_object() {
            manifest["roleRef"]["name"] = json!(name);
        }
        let kind = manifest["kind"].as_str().expect("a kind");
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("rbac.authorization.k8s.io", "v1", kind));
        (Api::all_with(place.client.clone(), &kind), name, manifest)
    };
    manifests("issue-for-jane.yaml").into_iter().map(renamed).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn argo_cd_needs_the_documented_right_for_a_users_token() {
    let place = Place::new("gitops-rights").await;
    let guard = Guard::apply("owners", &place, &[&place]).await;
    let argo = Identity::service_account("argocd", "argocd-application-controller");
    let client = people::make_administrator(&place, &argo).await;
    let api = tokens(&client, place.name());
    let apply = async |owner: Value| {
        let manifest = in_git("app", &json!({"owner": owner}));
        let dry = PatchParams { dry_run: true, ..PatchParams::apply("argocd-controller").force() };
        api.patch("app", &dry, &Patch::Apply(&manifest)).await.map(drop).map_err(|error| error.to_string())
    };
    let user = |name: &str| json!({"kind": "User", "name": name});
    let refused = async |name: &str| {
        let words = format!("{} may not issue tokens for the User {name}: ask a cluster administrator", argo.name());
        apply(user(name)).await.is_err_and(|error| error.contains(&words))
    };
    eventually("the policy is in force", async || refused("jane@example.com").await).await;
    let own = json!({"kind": "VirtualAccount", "name": format!("{}/ci", place.name())});
    apply(own).await.expect("a virtual account of the namespace is allowed");

    for (api, name, manifest) in rights(&place) {
        api.patch(&name, &PatchParams::apply("tests").force(), &Patch::Apply(&manifest))
            .await
            .expect("the API server accepts it");
    }
    eventually("the right is in force", async || apply(user("jane@example.com")).await.is_ok()).await;
    assert!(refused("bob@example.com").await, "other users stay refused");

    // An existing PAT can be applied without the right, as long as its owner does not change.
    let manifest = in_git("app", &json!({"owner": user("jane@example.com")}));
    let params = PatchParams::apply("argocd-controller").force();
    api.patch("app", &params, &Patch::Apply(&manifest)).await.expect("the right is enough");
    for (api, name, _) in rights(&place) {
        api.delete(&name, &DeleteParams::default()).await.expect("the object is deleted");
    }
    let another = async || {
        let manifest = in_git("another", &json!({"owner": user("jane@example.com")}));
        let dry = PatchParams { dry_run: true, ..params.clone() };
        api.patch("another", &dry, &Patch::Apply(&manifest)).await.is_err()
    };
    eventually("the right is gone", another).await;
    api.patch("app", &params, &Patch::Apply(&manifest)).await.expect("an unchanged PAT is accepted");
    guard.end().await;
}
