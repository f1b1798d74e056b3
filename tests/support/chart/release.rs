//! A release of the chart on its own control plane. The operator runs as processes with the chart's ServiceAccounts, rights, flags and
//! environment.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use control_plane::{Access, Binary, ControlPlane, Identity, Options};
use k8s_openapi::{
    api::core::v1::{Namespace, Secret},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client,
    api::{DynamicObject, ListParams, Patch, PatchParams},
    core::{ApiResource, GroupVersionKind},
};
use pat_operator::api::{PersonalAccessToken, crd};
use serde_json::{Value, json};

use super::{
    deployed::Deployed,
    helm::{NAMESPACE, Program, chart, manifests, of_kind},
};
use crate::support::process::{OperatorProcess, SOON, api::ApiProcess, place::is_ready, verifier::VerifierProcess};

/// A release of the chart.
pub struct Release {
    pub plane: ControlPlane,
    helm: Program,
    /// A folder for files, deleted on drop.
    pub folder: tempfile::TempDir,
    /// An administrator's client.
    pub client: Client,
}

impl Release {
    /// Starts a cluster without the operator.
    pub async fn new() -> Self {
        Self::on(Options::default()).await
    }

    /// The same, with these options.
    pub async fn on(options: Options) -> Self {
        let plane = ControlPlane::start(options).await.expect("a control plane");
        let helm = Program::new(Binary::Helm, Some(plane.admin_kubeconfig()));
        let client = plane.client().expect("a client");
        Self { plane, helm, folder: tempfile::tempdir().expect("a folder"), client }
    }

    /// The access to the cluster.
    pub fn access(&self) -> Access {
        self.plane.access()
    }

    /// Runs `helm <arguments>` in the release's namespace.
    pub fn helm(&self, arguments: &[&str]) -> String {
        self.helm.prints(&[arguments, &["--namespace", NAMESPACE]].concat())
    }

    /// Installs or upgrades the release with these values.
    pub fn put(&self, how: &[&str], values: &Value) -> String {
        self.put_chart(&chart(), how, values)
    }

    /// The same, with another chart.
    pub fn put_chart(&self, chart: &Path, how: &[&str], values: &Value) -> String {
        let file = self.folder.path().join("values.yaml");
        std::fs::write(&file, serde_yaml::to_string(values).expect("YAML")).expect("a file");
        let file = file.to_str().expect("text").to_owned();
        self.helm(&[how, &["pat-operator", chart.to_str().expect("text"), "--values", &file]].concat())
    }

    /// The manifests that Helm rendered and stored.
    pub fn manifests(&self) -> Vec<Value> {
        manifests(&self.helm(&["get", "manifest", "pat-operator"]))
    }

    /// Starts the processes of the controller's Deployment, and waits until each is ready.
    pub async fn controllers(&self) -> Vec<OperatorProcess> {
        let deployed = Deployed::find(&self.manifests(), "controller");
        let mut running = Vec::new();
        for number in 0..deployed.replicas {
            let pod = format!("{}-{number}", deployed.account);
            let launch = deployed.launch(&self.access(), &pod, self.folder.path()).await;
            let mut process = launch.start();
            process.is_ready().await;
            running.push(process);
        }
        running
    }

    /// Starts the process of the verifier's Deployment.
    pub async fn verifier(&self) -> VerifierProcess {
        let deployed = Deployed::find(&self.manifests(), "verifier");
        VerifierProcess::of(deployed.launch(&self.access(), "verifier-0", self.folder.path()).await).await
    }

    /// Starts the process of the REST API's Deployment.
    pub async fn api(&self) -> ApiProcess {
        let deployed = Deployed::find(&self.manifests(), "api");
        ApiProcess::of(deployed.launch(&self.access(), "api-0", self.folder.path()).await).await
    }

    /// The API of PATs in a namespace.
    pub fn pats(&self, namespace: &str) -> Api<PersonalAccessToken> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Waits until a PAT is Ready. Returns its token.
    pub async fn ready(&self, namespace: &str, name: &str) -> String {
        let pats = self.pats(namespace);
        let began = Instant::now();
        loop {
            let pat = pats.get_opt(name).await.expect("the API server answers");
            let status = pat.and_then(|pat| pat.status).unwrap_or_default();
            if is_ready(&status) {
                break;
            }
            assert!(began.elapsed() < SOON, "{namespace}/{name} is not Ready in time: {status:#?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let secret = secrets.get(name).await.expect("its Secret");
        String::from_utf8(secret.data.expect("data")["token"].0.clone()).expect("text")
    }

    /// Waits until this many PATs are Ready.
    pub async fn all_ready(&self, namespace: &str, count: usize) {
        let deadline = Instant::now() + 4 * SOON;
        loop {
            let pats = self.pats(namespace).list(&ListParams::default()).await.expect("a list").items;
            let ready = pats.iter().filter(|pat| pat.status.as_ref().is_some_and(is_ready)).count();
            if ready == count {
                return;
            }
            assert!(Instant::now() < deadline, "only {ready} of {count} PATs are Ready in time");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// All Secrets of the operator in a namespace.
    pub async fn secrets(&self, namespace: &str) -> BTreeMap<String, Value> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let ours = ListParams::default().labels("app.kubernetes.io/managed-by=pat-operator");
        let all = secrets.list(&ours).await.expect("Secrets").items.into_iter();
        all.map(|one| (one.metadata.name.clone().expect("a name"), serde_json::to_value(one).expect("JSON"))).collect()
    }

    /// Whether the installed CRD has this field in its spec.
    pub async fn knows(&self, field: &str) -> bool {
        let crds: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        let crd = serde_json::to_value(crds.get(crd::NAME).await.expect("the CRD exists")).expect("JSON");
        let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        spec["properties"].get(field).is_some()
    }

    /// The names of all cluster-scoped objects of the release.
    pub async fn cluster_wide(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (group, kind, plural) in [
            ("rbac.authorization.k8s.io", "ClusterRole", "clusterroles"),
            ("rbac.authorization.k8s.io", "ClusterRoleBinding", "clusterrolebindings"),
            ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy", "validatingadmissionpolicies"),
            ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings"),
            ("apiextensions.k8s.io", "CustomResourceDefinition", "customresourcedefinitions"),
        ] {
            let kind = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, "v1", kind), plural);
            let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &kind);
            let ours = ListParams::default().labels("app.kubernetes.io/instance=pat-operator");
            let these = api.list(&ours).await.expect("a list").items.into_iter();
            found.extend(these.filter_map(|one| one.metadata.name).map(|name| format!("{plural} {name}")));
        }
        found.sort();
        found
    }

    /// The names that remain when only the CRDs are left.
    pub fn only_crds() -> Vec<String> {
        let rendered = Program::helm().renders(&[]);
        let names = of_kind(&rendered, "CustomResourceDefinition").into_iter();
        let mut names: Vec<_> = names.map(|crd| crd["metadata"]["name"].as_str().expect("a name").to_owned()).collect();
        names.sort();
        names.iter().map(|name| format!("customresourcedefinitions {name}")).collect()
    }
}

/// Creates a namespace, and a user who administers it and nothing else.
pub async fn person(release: &Release, namespace: &str) -> (Client, PathBuf) {
    let identity = Identity::user("jane@example.com", &[]);
    let namespaces: Api<Namespace> = Api::all(release.client.clone());
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
    namespaces.patch(namespace, &PatchParams::apply("tests"), &Patch::Apply(object)).await.expect("a namespace");
    let rules = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]);
    let group = "rbac.authorization.k8s.io";
    let of = |kind: &str, more: Value| {
        let mut object = json!({"apiVersion": format!("{group}/v1"), "kind": kind, "metadata": {"name": "all"}});
        object.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind));
        (Api::<DynamicObject>::namespaced_with(release.client.clone(), namespace, &kind), object)
    };
    for (api, object) in [
        of("Role", json!({"rules": rules})),
        of(
            "RoleBinding",
            json!({
                "roleRef": {"apiGroup": group, "kind": "Role", "name": "all"},
                "subjects": [{"apiGroup": group, "kind": "User", "name": identity.name()}],
            }),
        ),
    ] {
        api.patch("all", &PatchParams::apply("tests"), &Patch::Apply(object)).await.expect("a right");
    }
    let access = release.access();
    (access.client_for(&identity).expect("a client"), access.kubeconfig_for(&identity).expect("a kubeconfig"))
}

/// Writes the manifest of a PAT to a file.
pub fn manifest(folder: &Path, name: &str, spec: &Value) -> PathBuf {
    let path = folder.join(format!("{name}.yaml"));
    let manifest = json!({
        "apiVersion": "pat-operator.io/v1alpha1", "kind": "PersonalAccessToken", "metadata": {"name": name}, "spec": spec,
    });
    std::fs::write(&path, serde_yaml::to_string(&manifest).expect("YAML")).expect("a file");
    path
}
