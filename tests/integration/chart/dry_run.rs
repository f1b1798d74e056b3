//! An API server that checks manifests by dry run and stores none.

use control_plane::{Binary, ControlPlane, Options};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::helm::{Program, root};

/// An API server with the CRDs.
pub struct DryRun {
    pub plane: ControlPlane,
    kubectl: Program,
}

impl DryRun {
    /// Starts one with these namespaces, which enforce the restricted Pod security standard.
    pub async fn new(namespaces: &[&str]) -> Self {
        Self::on(Options::default(), namespaces).await
    }

    /// Starts one with these options and namespaces.
    pub async fn on(options: Options, namespaces: &[&str]) -> Self {
        let options = options.apply(root().join("crds")).without_controller_manager();
        let plane = ControlPlane::start(options).await.expect("a control plane");
        let api: Api<Namespace> = Api::all(plane.client().expect("a client"));
        for name in namespaces {
            let labels = json!({"pod-security.kubernetes.io/enforce": "restricted"});
            let namespace =
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
            api.patch(name, &PatchParams::apply("tests"), &Patch::Apply(namespace)).await.expect("a namespace");
        }
        let kubectl = Program::new(Binary::Kubectl, Some(plane.admin_kubeconfig()));
        Self { plane, kubectl }
    }

    /// Checks that the API server accepts these manifests with strict validation and without a warning, and returns a line for each. `from` is
    /// `--filename` or `--kustomize` with its value.
    pub fn accepts(&self, about: &str, from: [&str; 2]) -> Vec<String> {
        let apply = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict"];
        let output = self.kubectl.run(&[&apply[..], &from].concat());
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && !stderr.contains("Warning"), "{about}: {stderr}\n{stdout}");
        stdout.lines().map(str::to_owned).collect()
    }
}
