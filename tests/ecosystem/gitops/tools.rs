//! Applies manifests like Flux, with server-side apply, and like Argo CD, with `kubectl apply`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use control_plane::{Access, Binary};
use kube::{
    Api, Client, ResourceExt,
    api::{DynamicObject, Patch, PatchParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};

/// Flux's field manager.
pub const FLUX: &str = "kustomize-controller";

/// Argo CD's field manager.
pub const ARGO: &str = "argocd-controller";

/// The manifest of a PAT as in Git.
pub fn in_git(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "pat-operator.io/v1alpha1", "kind": "PersonalAccessToken", "metadata": {"name": name}, "spec": spec,
    })
}

/// The manifest with the labels that Flux adds.
pub fn marked_by_flux(mut manifest: Value) -> Value {
    manifest["metadata"]["labels"] = json!({
        "kustomize.toolkit.fluxcd.io/name": "tokens", "kustomize.toolkit.fluxcd.io/namespace": "flux-system",
    });
    manifest
}

/// The manifest with the label and the annotation by which Argo CD tracks it.
pub fn marked_by_argo(mut manifest: Value) -> Value {
    let id = format!("tokens:pat-operator.io/PersonalAccessToken:shop/{}", manifest["metadata"]["name"]);
    manifest["metadata"]["labels"] = json!({"app.kubernetes.io/instance": "tokens"});
    manifest["metadata"]["annotations"] = json!({"argocd.argoproj.io/tracking-id": id.replace('"', "")});
    manifest
}

/// The API of PATs.
pub fn tokens(client: &Client, namespace: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("pat-operator.io", "v1alpha1", "PersonalAccessToken");
    Api::namespaced_with(client.clone(), namespace, &ApiResource::from_gvk(&kind))
}

/// Applies a manifest like Flux. Returns the object.
pub async fn server_side(api: &Api<DynamicObject>, manifest: &Value) -> DynamicObject {
    let object: DynamicObject = serde_json::from_value(manifest.clone()).expect("an object");
    let params = PatchParams::apply(FLUX).force();
    api.patch(&object.name_any(), &params, &Patch::Apply(manifest)).await.expect("the API server accepts the manifest")
}

/// Manifests in files, for kubectl.
pub struct Folder {
    access: Access,
    namespace: String,
    folder: tempfile::TempDir,
}

impl Folder {
    /// Writes each manifest to a file.
    pub fn of(access: &Access, namespace: &str, manifests: &[Value]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for (number, manifest) in manifests.iter().enumerate() {
            let text = serde_yaml::to_string(manifest).expect("YAML");
            fs::write(folder.path().join(format!("{number}.yaml")), text).expect("a file");
        }
        Self { access: access.clone(), namespace: namespace.to_owned(), folder }
    }

    /// Applies all manifests like Argo CD. Returns the output of kubectl for each.
    pub async fn client_side(&self) -> Vec<String> {
        let (code, lines) = self.kubectl(&["apply", "--field-manager", ARGO]).await;
        assert_eq!(code, Some(0), "{lines:?}");
        lines
    }

    /// The differences that Argo CD would find, both with a client-side and with a server-side diff, as Flux does.
    pub async fn differences(&self, field_manager: &str) -> Vec<String> {
        let mut all = Vec::new();
        for how in [&["diff"][..], &["diff", "--server-side", "--force-conflicts", "--field-manager", field_manager]] {
            let (code, lines) = self.kubectl(how).await;
            assert!(matches!(code, Some(0 | 1)), "{lines:?}");
            assert_eq!(code == Some(1), !lines.is_empty());
            all.extend(lines);
        }
        all
    }

    async fn kubectl(&self, arguments: &[&str]) -> (Option<i32>, Vec<String>) {
        let (access, namespace, folder) = (self.access.clone(), self.namespace.clone(), self.path().to_owned());
        let arguments: Vec<_> = arguments.iter().map(|one| (*one).to_owned()).collect();
        let run = move || {
            let mut kubectl = access.command(Binary::Kubectl).expect("kubectl");
            kubectl.args(arguments).args(["--namespace", &namespace, "--filename"]).arg(folder);
            kubectl.output().expect("kubectl runs")
        };
        let output = tokio::task::spawn_blocking(run).await.expect("no panic");
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code(), said.lines().map(str::to_owned).collect())
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// The manifests of `examples/`.
pub fn examples() -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let files = fs::read_dir(folder).expect("the folder examples/ exists").map(|file| file.expect("readable").path());
    let mut files: Vec<PathBuf> = files.filter(|path| path.is_file()).collect();
    files.sort();
    files.iter().map(|file| serde_yaml::from_str(&fs::read_to_string(file).expect("readable")).expect("YAML")).collect()
}
