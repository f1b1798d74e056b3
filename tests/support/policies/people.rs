//! Users, and their rights by RBAC.

use control_plane::Identity;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::support::process::place::Place;

const RBAC: &str = "rbac.authorization.k8s.io";

/// The label of cluster-scoped objects, by which a test deletes them.
const OF_TEST: &str = "pat-operator.io/test";

/// Creates a user who has all rights in the place's namespace and none elsewhere, so that RBAC refuses nothing.
pub async fn administrator_of(place: &Place, name: &str) -> (Identity, Client) {
    let identity = Identity::user(name, &["people"]);
    let client = make_administrator(place, &identity).await;
    (identity, client)
}

/// Gives an identity all rights in the place's namespace.
pub async fn make_administrator(place: &Place, identity: &Identity) -> Client {
    let rules = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]);
    grant_in_namespace(place, identity, "everything", &rules).await;
    place.access.client_for(identity).expect("a client")
}

/// Gives an identity rights in the place's namespace only.
pub async fn grant_in_namespace(place: &Place, identity: &Identity, name: &str, rules: &Value) {
    let role = json!({"apiVersion": format!("{RBAC}/v1"), "kind": "Role", "metadata": {"name": name}, "rules": rules});
    apply(&Api::<Role>::namespaced(place.client.clone(), place.name()), name, role).await;
    let bound = format!("{name}-{}", object_name(identity));
    let binding = json!({
        "apiVersion": format!("{RBAC}/v1"), "kind": "RoleBinding", "metadata": {"name": bound},
        "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": name},
        "subjects": [{"apiGroup": RBAC, "kind": "User", "name": identity.name()}],
    });
    apply(&Api::<RoleBinding>::namespaced(place.client.clone(), place.name()), &bound, binding).await;
}

/// Gives an identity rights in the whole cluster. [`revoke_grants`] removes them.
pub async fn grant_in_cluster(place: &Place, identity: &Identity, rules: &Value) {
    let name = format!("{}-{}", place.name(), object_name(identity));
    let metadata = json!({"name": name, "labels": {OF_TEST: place.name()}});
    let role = json!({"apiVersion": format!("{RBAC}/v1"), "kind": "ClusterRole", "metadata": metadata, "rules": rules});
    apply(&Api::<ClusterRole>::all(place.client.clone()), &name, role).await;
    let binding = json!({
        "apiVersion": format!("{RBAC}/v1"), "kind": "ClusterRoleBinding", "metadata": metadata,
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": name},
        "subjects": [{"apiGroup": RBAC, "kind": "User", "name": identity.name()}],
    });
    apply(&Api::<ClusterRoleBinding>::all(place.client.clone()), &name, binding).await;
}

/// Removes all rights in the whole cluster that the test gave.
pub async fn revoke_grants(place: &Place) {
    let these = ListParams::default().labels(&format!("{OF_TEST}={}", place.name()));
    let roles: Api<ClusterRole> = Api::all(place.client.clone());
    let _ = roles.delete_collection(&DeleteParams::default(), &these).await;
    let bindings: Api<ClusterRoleBinding> = Api::all(place.client.clone());
    let _ = bindings.delete_collection(&DeleteParams::default(), &these).await;
}

async fn apply<K>(api: &Api<K>, name: &str, manifest: Value)
where
    K: Resource + Clone + std::fmt::Debug + DeserializeOwned + Serialize,
{
    api.patch(name, &PatchParams::apply("tests").force(), &Patch::Apply(manifest))
        .await
        .expect("the API server accepts it");
}

/// The identity's name as part of an object's name.
fn object_name(identity: &Identity) -> String {
    identity.name().to_ascii_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "-")
}
