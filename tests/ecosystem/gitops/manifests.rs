//! Compares `docs/gitops.md` with `examples/gitops`, and checks the examples with the CRDs of the tools.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use control_plane::{Binary, ControlPlane, Options};
use serde_json::Value;

use super::{
    judges::{manifests, parse_releases},
    terminal::shown,
};
use crate::support::module::module;

/// Go modules that contain third-party CRDs, and the files of the CRDs.
const DEFINITIONS: [(&str, &str); 4] = [
    ("github.com/argoproj/argo-cd/v3@v3.5.7", "manifests/crds/application-crd.yaml"),
    (
        "github.com/fluxcd/kustomize-controller@v1.9.6",
        "config/crd/bases/kustomize.toolkit.fluxcd.io_kustomizations.yaml",
    ),
    ("github.com/fluxcd/source-controller@v1.9.6", "config/crd/bases/source.toolkit.fluxcd.io_gitrepositories.yaml"),
    SEALED_SECRETS,
];

/// The CRD of sealed-secrets.
pub const SEALED_SECRETS: (&str, &str) =
    ("github.com/bitnami-labs/sealed-secrets@v0.40.0", "helm/sealed-secrets/crds/bitnami.com_sealedsecrets.yaml");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files() -> Vec<String> {
    let folder = fs::read_dir(root().join("examples/gitops")).expect("the folder exists");
    let mut files: Vec<_> =
        folder.map(|file| file.expect("readable").file_name().into_string().expect("a plain name")).collect();
    files.sort();
    files
}

#[test]
fn gitops_page_shows_exactly_the_examples() {
    let examples: Vec<_> = files()
        .iter()
        .map(|file| fs::read_to_string(root().join("examples/gitops").join(file)).expect("readable"))
        .collect();
    let shown = shown("yaml");
    for (file, example) in files().iter().zip(&examples) {
        assert!(shown.contains(example), "docs/gitops.md must show {file} unchanged");
    }
    for block in shown {
        assert!(examples.contains(&block), "a block that is not an example, and so is not tested:\n{block}");
    }
}

/// The manifests of all examples, each with its file.
fn all() -> Vec<(String, Value)> {
    let of = |file: String| manifests(&file).into_iter().map(move |manifest| (file.clone(), manifest));
    files().into_iter().flat_map(of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn api_server_with_the_tools_crds_accepts_all_examples() {
    let mut options = Options::default().apply(root().join("crds"));
    for (name, file) in DEFINITIONS {
        options = options.apply(module(name).join(file));
    }
    let plane = ControlPlane::start(options.without_controller_manager()).await.expect("a control plane");
    let access = plane.access();
    let kubectl = |arguments: &[&str]| {
        let mut kubectl = access.command(Binary::Kubectl).expect("kubectl");
        let output = kubectl.args(arguments).output().expect("kubectl runs");
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), said)
    };
    let mut kinds = BTreeSet::new();
    let folder = tempfile::tempdir().expect("a folder");
    for (file, manifest) in all() {
        let kind = manifest["kind"].as_str().expect("a kind").to_owned();
        if let Some(namespace) = manifest["metadata"]["namespace"].as_str() {
            kubectl(&["create", "namespace", namespace]);
        }
        // Flux has no Go module with the CRD of HelmRelease. Its Go type must parse it instead.
        if kind == "HelmRelease" {
            parse_releases(&[manifest]).await;
        } else {
            let path = folder.path().join("manifest.yaml");
            fs::write(&path, serde_yaml::to_string(&manifest).expect("YAML")).expect("a file");
            let path = path.to_str().expect("text");
            let (taken, said) =
                kubectl(&["apply", "--server-side", "--dry-run=server", "--validate=strict", "--filename", path]);
            assert!(taken && !said.contains("Warning"), "{file}, {kind}: {said}");
        }
        kinds.insert(kind);
    }
    let expected = [
        "Application",
        "ClusterRole",
        "ClusterRoleBinding",
        "ConfigMap",
        "GitRepository",
        "HelmRelease",
        "Kustomization",
        "PersonalAccessToken",
        "SealedSecret",
    ];
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), expected);

    // The patch of argocd-cm keeps existing settings.
    let own = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"argocd-cm","namespace":"argocd"},"data":{"url":"https://argocd.example.com"}}"#;
    let path = folder.path().join("argocd-cm.json");
    fs::write(&path, own).expect("a file");
    assert!(kubectl(&["apply", "--filename", path.to_str().expect("text")]).0);
    let patch = root().join("examples/gitops/argocd-cm.yaml");
    let patch =
        ["--namespace", "argocd", "patch", "configmap", "argocd-cm", "--patch-file", patch.to_str().expect("text")];
    let (patched, said) = kubectl(&patch);
    assert!(patched, "{said}");
    let (_, config) = kubectl(&["--namespace", "argocd", "get", "configmap", "argocd-cm", "--output", "json"]);
    let config: Value = serde_json::from_str(&config).expect("JSON");
    assert_eq!(config["data"].as_object().expect("data").len(), 3, "{config:#}");
    assert_eq!(config["data"]["url"], "https://argocd.example.com");
}

/// The commands on the page that make a Secret for a certificate must match the chart's values.
#[tokio::test(flavor = "multi_thread")]
async fn documented_secret_is_the_one_in_the_values() {
    let access = control_plane::shared().await.expect("a control plane");
    let page = fs::read_to_string(root().join("docs/gitops.md")).expect("the page exists");
    let commands: Vec<_> = page.lines().filter(|line| line.starts_with("kubectl create secret tls ")).collect();
    assert_eq!(commands.len(), 2, "for sealed-secrets and for SOPS");
    let folder = tempfile::tempdir().expect("a folder");
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    fs::write(folder.path().join("tls.crt"), made.cert.pem()).expect("a file");
    fs::write(folder.path().join("tls.key"), made.signing_key.serialize_pem()).expect("a file");
    for command in commands {
        let command = command.split(['|', '>']).next().expect("a command");
        let mut kubectl = access.command(Binary::Kubectl).expect("kubectl");
        let output =
            kubectl.current_dir(folder.path()).args(command.split_whitespace().skip(1)).output().expect("kubectl runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let secret: Value = serde_yaml::from_str(&String::from_utf8_lossy(&output.stdout)).expect("YAML");
        let [values, _] = values();
        assert_eq!(secret["metadata"]["name"], values["verifier"]["tls"]["secretName"]);
        let [sealed] = &manifests("sealed-secret.yaml")[..] else { panic!("one SealedSecret") };
        assert_eq!(secret["type"], sealed["spec"]["template"]["type"]);
        assert_eq!(secret["metadata"]["namespace"], sealed["metadata"]["namespace"]);
        let keys = |map: &Value| map.as_object().expect("a map").keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&secret["data"]), keys(&sealed["spec"]["encryptedData"]));
    }
}

/// The chart's values in the examples of both tools.
fn values() -> [Value; 2] {
    let application =
        all().into_iter().find(|(_, one)| one["spec"]["source"]["helm"].is_object()).expect("an Application");
    let release = all().into_iter().find(|(_, one)| one["kind"] == "HelmRelease").expect("a HelmRelease");
    [application.1["spec"]["source"]["helm"]["valuesObject"].clone(), release.1["spec"]["values"].clone()]
}

#[test]
fn chart_accepts_the_same_values_from_both_tools() {
    let [of_argo, of_flux] = values();
    assert_eq!(of_argo, of_flux);
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), serde_yaml::to_string(&of_argo).expect("YAML")).expect("written");
    let assets = control_plane::Assets::ensure(&[Binary::Helm]).expect("helm");
    let chart = root().join("charts/pat-operator");
    let mut helm = Command::new(assets.path(Binary::Helm));
    helm.args(["template", "pat-operator", "--namespace", "pat-operator", "--values"]).arg(file.path()).arg(chart);
    let home = tempfile::tempdir().expect("a folder");
    let output = helm.env_clear().env("HOME", home.path()).output().expect("helm runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    // The Secret that the values name is the one that the page seals.
    let sealed: Vec<_> = manifests("sealed-secret.yaml").iter().map(|one| one["metadata"]["name"].clone()).collect();
    assert_eq!(sealed, [of_argo["verifier"]["tls"]["secretName"].clone()]);
}

#[test]
fn gitops_examples_ignore_no_differences() {
    for (file, manifest) in all() {
        let text = manifest.to_string();
        for word in
            ["ignoreDifferences", "IgnoreExtraneous", "RespectIgnoreDifferences", "kustomize.toolkit.fluxcd.io/ssa"]
        {
            assert!(!text.contains(word), "{file}: {word}");
        }
    }
}
