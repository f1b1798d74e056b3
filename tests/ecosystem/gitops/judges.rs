//! Runs the health checks of the tools themselves: `flux-verdict` and `argocd-verdict`, which the crate `control-plane` builds.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use control_plane::{Assets, Binary};
use serde::Deserialize;
use serde_json::{Value, json};

/// The verdict of a tool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Verdict {
    /// The status in the tool's own terms.
    pub status: String,
    /// The message for people.
    pub message: String,
}

/// The verdicts of all tools about one object.
#[derive(Clone, Debug)]
pub struct Verdicts {
    /// Argo CD's health check. Empty for a kind without one.
    pub argo: Verdict,
    /// Flux's expressions. `None` for a kind without any.
    pub flux: Option<Verdict>,
    /// Tools that read conditions as kstatus does.
    pub kstatus: Verdict,
}

/// Flux's verdict about one object.
#[derive(Deserialize)]
struct ByFlux {
    flux: Option<Verdict>,
    kstatus: Verdict,
}

/// Argo CD's verdicts about objects, and about pairs of a manifest and an object.
#[derive(Deserialize)]
struct ByArgo {
    healths: Vec<Verdict>,
    differences: Vec<Option<Value>>,
}

/// The manifests of a file in examples/gitops.
pub fn manifests(file: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/gitops").join(file);
    let text = fs::read_to_string(path).expect("the file exists");
    text.split("\n---\n").map(|document| serde_yaml::from_str(document).expect("YAML")).collect()
}

/// Argo CD's configuration: the data of its ConfigMap.
fn settings() -> Value {
    let [config] = &manifests("argocd-cm.yaml")[..] else { panic!("one ConfigMap") };
    config["data"].clone()
}

/// Flux's health check expressions.
fn expressions() -> Value {
    let all = manifests("flux-kustomizations.yaml");
    let mut with = all.iter().map(|one| &one["spec"]["healthCheckExprs"]).filter(|expressions| expressions.is_array());
    let (Some(expressions), None) = (with.next(), with.next()) else { panic!("one Kustomization has them") };
    expressions.clone()
}

/// Returns the verdicts about objects as they are in the API server.
pub async fn judge(objects: &[Value]) -> Vec<Verdicts> {
    let by_flux = ask(Binary::FluxVerdict, json!({"expressions": expressions(), "objects": objects})).await;
    let by_flux: Vec<ByFlux> = serde_json::from_slice(&by_flux).expect("JSON");
    let by_argo = ask_argo(json!({"settings": settings(), "objects": objects})).await.healths;
    assert_eq!([by_flux.len(), by_argo.len()], [objects.len(); 2]);
    let both = by_flux.into_iter().zip(by_argo);
    both.map(|(ByFlux { flux, kstatus }, argo)| Verdicts { argo, flux, kstatus }).collect()
}

/// Returns the objects that Argo CD would report as out of sync with their manifests, as Argo CD would change them. Nothing is configured
/// to be ignored.
pub async fn out_of_sync(pairs: &[(Value, Value)]) -> Vec<Value> {
    let pair = |(git, live): &(Value, Value)| {
        let mut git = git.clone();
        // Argo CD does this before it compares.
        git["metadata"]["namespace"] = live["metadata"]["namespace"].clone();
        json!({"git": git, "live": live})
    };
    let asked: Vec<_> = pairs.iter().map(pair).collect();
    let differences = ask_argo(json!({"settings": settings(), "pairs": asked})).await.differences;
    assert_eq!(differences.len(), pairs.len());
    differences.into_iter().flatten().collect()
}

/// Asserts that Flux's own type can parse HelmReleases completely.
pub async fn parse_releases(releases: &[Value]) {
    ask(Binary::FluxVerdict, json!({"expressions": expressions(), "releases": releases})).await;
}

async fn ask_argo(question: Value) -> ByArgo {
    serde_json::from_slice(&ask(Binary::ArgocdVerdict, question).await).expect("JSON")
}

async fn ask(tool: Binary, question: Value) -> Vec<u8> {
    let asking = tokio::task::spawn_blocking(move || {
        let assets = Assets::ensure(&[tool]).expect("the program is built");
        let mut command = Command::new(assets.path(tool));
        command.env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = control_plane::spawn(command).expect("the program starts");
        let mut input = child.stdin.take().expect("stdin is piped");
        input.write_all(question.to_string().as_bytes()).expect("the program reads its stdin");
        drop(input);
        child.wait_with_output().expect("the program ends")
    });
    let output = asking.await.expect("no panic");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
