//! The real identities of the verifier and the REST API: ServiceAccounts with their permissions, restricted by the admission policy of
//! the chart.

use std::path::PathBuf;

use control_plane::Identity;
use kube::{
    Api, Client,
    api::{DeleteParams, DynamicObject, Patch, PatchParams},
    core::{ApiResource, GroupVersionKind},
};
use pat_operator::index::last_used::FIELD_MANAGER;
use serde_json::{Value, json};

use crate::support::process::place::{Place, eventually};

const POLICY: &str = include_str!("../../../charts/pat-operator/policies/verifier-status.yaml");

/// A ServiceAccount and its permissions.
pub struct Account {
    /// The name of the ServiceAccount.
    name: &'static str,
    /// The manifests of its permissions.
    rights: &'static str,
}

/// The ServiceAccount of the verifier.
pub const VERIFIER: Account =
    Account { name: "pat-operator-verifier", rights: include_str!("../../data/rbac-verifier.yaml") };

/// The ServiceAccount of the REST API.
pub const API: Account = Account { name: "pat-operator-api", rights: include_str!("../../data/rbac-api.yaml") };

/// The identity in the namespace of a test. Its cluster-scoped objects have unique names, because tests share a cluster.
pub struct Grant {
    identity: Identity,
    client: Client,
    manifests: Vec<Value>,
}

impl Grant {
    /// Applies Roles and policy, and waits until both are in force. `probe` is an existing PAT.
    pub async fn new(place: &Place, account: &Account, probe: &str) -> Self {
        let home = place.name();
        let identity = Identity::service_account(home, account.name);
        // The policy names the namespace of the accounts. Here the REST API serves its own namespace.
        let policy = POLICY.replace(":pat-operator:pat-operator-", &format!(":{home}:pat-operator-"));
        let text = format!("{}\n---\n{policy}", account.rights);
        let mut manifests: Vec<Value> = text.split("\n---\n").map(|one| serde_yaml::from_str(one).unwrap()).collect();
        let cluster_wide = |name: &Value| json!(name.as_str().unwrap().replace("pat-operator", home));
        for manifest in &mut manifests {
            if manifest["metadata"]["namespace"].is_string() {
                manifest["metadata"]["namespace"] = json!(home);
            } else {
                manifest["metadata"]["name"] = cluster_wide(&manifest["metadata"]["name"]);
            }
            if manifest["roleRef"].is_object() {
                manifest["subjects"][0]["namespace"] = json!(home);
            }
            if manifest["roleRef"]["kind"] == "ClusterRole" {
                manifest["roleRef"]["name"] = cluster_wide(&manifest["roleRef"]["name"]);
            }
            if manifest["spec"]["policyName"].is_string() {
                manifest["spec"]["policyName"] = cluster_wide(&manifest["spec"]["policyName"]);
            }
        }
        let this = Self { identity, client: place.client.clone(), manifests };
        for manifest in &this.manifests {
            let params = PatchParams::apply("tests").force();
            this.api(manifest).patch(name(manifest), &params, &Patch::Apply(manifest)).await.expect("it is taken");
        }
        let own = place.access.client_for(&this.identity).expect("a client");
        let pats: Api<DynamicObject> = Api::namespaced_with(own, home, &pat_kind());
        eventually("role and policy are in force", async || {
            let good = json!({"status": {"lastUsedAt": "2026-01-01T00:00:00Z"}});
            let bad = json!({"status": {"revision": 77}});
            let dry = PatchParams { dry_run: true, ..writer() };
            let good = pats.patch_status(probe, &dry, &Patch::Merge(good)).await;
            let bad = pats.patch_status(probe, &dry, &Patch::Merge(bad)).await;
            good.is_ok() && bad.is_err()
        })
        .await;
        this
    }

    /// Returns the identity.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Returns the kubeconfig of the identity.
    pub fn kubeconfig(&self, place: &Place) -> PathBuf {
        place.access.kubeconfig_for(&self.identity).expect("a kubeconfig")
    }

    /// Deletes the cluster-scoped objects.
    pub async fn end(self) {
        for manifest in self.manifests.iter().filter(|manifest| !manifest["metadata"]["namespace"].is_string()) {
            let _ = self.api(manifest).delete(name(manifest), &DeleteParams::default()).await;
        }
    }

    fn api(&self, manifest: &Value) -> Api<DynamicObject> {
        let version = manifest["apiVersion"].as_str().unwrap();
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let kind = GroupVersionKind::gvk(group, version, manifest["kind"].as_str().unwrap());
        let mut kind = ApiResource::from_gvk(&kind);
        kind.plural = kind.plural.replace("policys", "policies");
        match manifest["metadata"]["namespace"].as_str() {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &kind),
            None => Api::all_with(self.client.clone(), &kind),
        }
    }
}

/// Returns how the verifier and the REST API write.
pub fn writer() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() }
}

/// Returns the resource of PATs, for access as plain data.
pub fn pat_kind() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("pat-operator.io", "v1alpha1", "PersonalAccessToken"))
}

fn name(manifest: &Value) -> &str {
    manifest["metadata"]["name"].as_str().unwrap()
}
