//! The policy that protects disabled owners, with real users. It needs its own control plane, because the policy is cluster-wide.

use std::time::{Duration, Instant};

use control_plane::{ControlPlane, Identity, Options};
use k8s_openapi::api::{
    admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
    rbac::v1::{ClusterRole, ClusterRoleBinding},
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use pat_operator::api::TokenOwner;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const POLICY: &str = include_str!("../../charts/pat-operator/policies/token-owners.yaml");

const LIMIT: Duration = Duration::from_secs(30);

fn parse<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("an object")
}

fn owner(name: &str, disabled: Option<bool>) -> TokenOwner {
    let mut spec = json!({"subject": {"kind": "User", "name": format!("{name}@example.com")}});
    if let Some(disabled) = disabled {
        spec["disabled"] = disabled.into();
    }
    parse(json!({
        "apiVersion": "pat-operator.io/v1alpha1", "kind": "TokenOwner", "metadata": {"name": name}, "spec": spec,
    }))
}

/// Creates a user with all permissions on TokenOwners and no others.
async fn create_manager(plane: &ControlPlane, admin: &Client) -> Client {
    let identity = Identity::user("owners-manager", &[]);
    let role = json!({
        "metadata": {"name": "owners-manager"},
        "rules": [{"apiGroups": ["pat-operator.io"], "resources": ["tokenowners"], "verbs": ["*"]}],
    });
    let binding = json!({
        "metadata": {"name": "owners-manager"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "owners-manager"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": identity.name()}],
    });
    let (roles, bindings) = (Api::<ClusterRole>::all(admin.clone()), Api::<ClusterRoleBinding>::all(admin.clone()));
    roles.create(&PostParams::default(), &parse(role)).await.expect("the role is created");
    bindings.create(&PostParams::default(), &parse(binding)).await.expect("the binding is created");
    plane.access().client_for(&identity).expect("a client")
}

/// Applies the chart's policy and waits until it is in force.
async fn apply_policy(admin: &Client) {
    let (policy, binding) = POLICY.split_once("\n---\n").expect("a policy and its binding");
    let params = PatchParams::apply("tests").force();
    let policy: ValidatingAdmissionPolicy = serde_yaml::from_str(policy).expect("a policy");
    let binding: ValidatingAdmissionPolicyBinding = serde_yaml::from_str(binding).expect("a binding");
    let name = policy.metadata.name.clone().expect("a name");
    let policies = Api::<ValidatingAdmissionPolicy>::all(admin.clone());
    policies.patch(&name, &params, &Patch::Apply(&policy)).await.expect("the policy is applied");
    let bindings = Api::<ValidatingAdmissionPolicyBinding>::all(admin.clone());
    bindings.patch(&name, &params, &Patch::Apply(&binding)).await.expect("the binding is created");
    let owners = Api::<TokenOwner>::all(admin.clone());
    owners.create(&PostParams::default(), &owner("probe", Some(true))).await.expect("the owner is created");
    let deadline = Instant::now() + LIMIT;
    let dry = DeleteParams { dry_run: true, ..DeleteParams::default() };
    while owners.delete("probe", &dry).await.is_ok() {
        assert!(Instant::now() < deadline, "the policy is not in force in time");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let policy = policies.get(&name).await.expect("the policy exists");
    let warnings =
        policy.status.and_then(|status| status.type_checking).and_then(|checked| checked.expression_warnings);
    assert_eq!(warnings, None, "the API server reports a faulty expression");
}

#[tokio::test(flavor = "multi_thread")]
async fn disabled_owner_cannot_be_deleted() {
    let plane = ControlPlane::start(Options::default().without_controller_manager().apply("crds/"));
    let plane = plane.await.expect("a control plane");
    let admin = plane.access().client().expect("an administrator's client");
    let manager = create_manager(&plane, &admin).await;
    apply_policy(&admin).await;

    let stranger = plane.access().client_for(&Identity::user("stranger", &[])).expect("a client");
    for (who, client) in [("manager", manager), ("admin", admin)] {
        let owners = Api::<TokenOwner>::all(client);
        for (what, disabled) in [("unset", None), ("enabled", Some(false)), ("disabled", Some(true))] {
            let name = format!("{who}-{what}");
            owners.create(&PostParams::default(), &owner(&name, disabled)).await.expect("the owner is created");
            let deleted = owners.delete(&name, &DeleteParams::default()).await;
            if disabled != Some(true) {
                deleted.expect(&name);
                continue;
            }
            let refused = deleted.expect_err(&name).to_string();
            let says = format!(
                "TokenOwner {name} is disabled: if you delete it, the tokens of {name}@example.com are accepted again; if you want this, set spec.disabled to false first"
            );
            assert!(refused.contains(&says), "{refused}");

            // The same with deletecollection, and for a user without permission.
            let all = owners.delete_collection(&DeleteParams::default(), &ListParams::default()).await;
            assert!(all.expect_err("deletecollection is refused").to_string().contains("is disabled"));
            let unprivileged_owners = Api::<TokenOwner>::all(stranger.clone());
            let answer = unprivileged_owners
                .delete(&name, &DeleteParams::default())
                .await
                .expect_err("a user without permission is refused");
            assert!(matches!(answer, kube::Error::Api(status) if status.code == 403));

            let enable = Patch::Merge(json!({"spec": {"disabled": false}}));
            owners.patch(&name, &PatchParams::default(), &enable).await.expect("the owner is enabled");
            owners.delete(&name, &DeleteParams::default()).await.expect("an enabled owner is deleted");
        }
    }
}
