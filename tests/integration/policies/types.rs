//! Type checking of the policy expressions by the API server.

use control_plane::{Binary, Component, ControlPlane, Options};
use kube::{
    Api,
    api::DynamicObject,
    core::{ApiResource, GroupVersionKind},
};

use super::guard::ALL;
use crate::support::{is_left_out, process::place::eventually};

/// Needs the controller that checks types, which the shared control plane does not run.
#[tokio::test(flavor = "multi_thread")]
async fn policy_expressions_pass_type_checking() {
    // Its controller checks the types.
    if is_left_out(Binary::KubeControllerManager) {
        return;
    }
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let options = Options::default()
        .argument(Component::ControllerManager, "--controllers=validatingadmissionpolicy-status-controller")
        .apply(root.join("crds"))
        .apply(root.join("charts/pat-operator/policies"));
    let plane = ControlPlane::start(options).await.expect("a control plane");
    let kind = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", "ValidatingAdmissionPolicy");
    let kind = ApiResource::from_gvk_with_plural(&kind, "validatingadmissionpolicies");
    let api: Api<DynamicObject> = Api::all_with(plane.client().expect("a client"), &kind);
    for policy in ALL {
        let name = format!("pat-operator-{policy}");
        eventually("the types are checked", async || {
            let now = api.get(&name).await.expect("the policy exists");
            let status = &now.data["status"];
            assert!(status["typeChecking"]["expressionWarnings"].is_null(), "{name}: {status:#}");
            status["observedGeneration"].is_number()
        })
        .await;
    }
}
