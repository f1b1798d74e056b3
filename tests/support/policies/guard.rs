//! An admission policy of the chart, bound to the namespaces of one test, because policies are cluster-scoped and tests share a cluster.

use std::{fs, path::Path};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, DynamicObject, Patch, PatchParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::support::process::place::Place;

/// The names of all policies.
pub const ALL: [&str; 10] = [
    "issuers",
    "lifetimes",
    "owners",
    "parameters",
    "scopes",
    "secret-annotations",
    "secret-metadata",
    "status",
    "token-owners",
    "verifier-status",
];

/// The names of the ConfigMaps that policies have as parameters.
pub const PARAMETERS: [&str; 3] =
    ["pat-operator-denied-secret-metadata", "pat-operator-lifetime-limits", "pat-operator-scope-grants"];

/// Writes the parameters of a policy.
pub async fn put_parameters(home: &Place, name: &str, data: Value) {
    let api: Api<ConfigMap> = Api::namespaced(home.client.clone(), home.name());
    let _ = api.delete(name, &DeleteParams::default()).await;
    let manifest = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data});
    api.patch(name, &PatchParams::apply("tests").force(), &Patch::Apply(manifest)).await.expect("a ConfigMap");
}

/// The label with a namespace's name.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// Installs a policy and a binding that match no request, and keeps them. Tests delete their own bindings, and after the last one that refers to a
/// ConfigMap, an API server stops reading ConfigMaps for policies (<https://github.com/kubernetes/kubernetes/issues/130887>).
pub async fn keep_parameters_read(client: &Client) {
    static KEPT: OnceCell<()> = OnceCell::const_new();
    KEPT.get_or_init(async || {
        for document in include_str!("../../../examples/policies/keep-parameters-read.yaml").split("\n---\n") {
            let manifest = serde_yaml::from_str(document).expect("a manifest");
            apply(client, &manifest).await;
        }
    })
    .await;
}

/// A policy in force.
pub struct Guard {
    client: Client,
    manifests: Vec<DynamicObject>,
}

impl Guard {
    /// Applies a policy of the chart, with the operator in `home`, for the namespaces of `places`. It is in force some moments later.
    pub async fn apply(policy: &str, home: &Place, places: &[&Place]) -> Self {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("charts/pat-operator/policies/{policy}.yaml"));
        let text = fs::read_to_string(file).expect("a policy");
        let text = text.replace(":pat-operator:pat-operator-", &format!(":{}:pat-operator-", home.name()));
        let text =
            text.replace("request.namespace == 'pat-operator'", &format!("request.namespace == '{}'", home.name()));
        let names: Vec<_> = places.iter().map(|place| place.name()).collect();
        let own_name = format!("{}-{policy}", home.name());
        let mut manifests = Vec::new();
        for document in text.split("\n---\n") {
            let mut manifest: Value = serde_yaml::from_str(document).expect("a manifest");
            manifest["metadata"]["name"] = json!(own_name);
            if manifest["kind"] == "ValidatingAdmissionPolicyBinding" {
                let spec = &mut manifest["spec"];
                spec["policyName"] = json!(own_name);
                let only = json!({"key": NAMESPACE_NAME, "operator": "In", "values": names});
                spec["matchResources"] = json!({"namespaceSelector": {"matchExpressions": [only]}});
                if spec["paramRef"].is_object() {
                    spec["paramRef"]["namespace"] = json!(home.name());
                }
            }
            manifests.push(serde_json::from_value(manifest).expect("an object"));
        }
        let this = Self { client: home.client.clone(), manifests };
        for manifest in &this.manifests {
            apply(&this.client, manifest).await;
        }
        this
    }

    /// Deletes the policy and its binding.
    pub async fn end(self) {
        for manifest in &self.manifests {
            let _ = api(&self.client, manifest).delete(&manifest.name_any(), &DeleteParams::default()).await;
        }
    }
}

async fn apply(client: &Client, manifest: &DynamicObject) {
    let params = PatchParams::apply("tests").force();
    let applied = api(client, manifest).patch(&manifest.name_any(), &params, &Patch::Apply(manifest)).await;
    applied.expect("the API server accepts it");
}

fn api(client: &Client, manifest: &DynamicObject) -> Api<DynamicObject> {
    let kind = &manifest.types.as_ref().expect("a kind").kind;
    let kind = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind);
    let mut kind = ApiResource::from_gvk(&kind);
    kind.plural = kind.plural.replace("policys", "policies");
    Api::all_with(client.clone(), &kind)
}
