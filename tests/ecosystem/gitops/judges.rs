//! The tools' own code, asked about objects: see `flux-verdict` and `argocd-verdict` of the test control plane.
//!
//! It must not know any state of a token.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use control_plane::{Assets, Binary};
use serde::Deserialize;
use serde_json::{Value, json};

/// What a tool says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Verdict {
    /// In one word of its own.
    pub status: String,
    /// And to people.
    pub message: String,
}

/// What all of them say of one object.
#[derive(Clone, Debug)]
pub struct Verdicts {
    /// Argo CD, by its health check; empty without one.
    pub argo: Verdict,
    /// Flux, by its expressions; none for a kind that has none.
    pub flux: Option<Verdict>,
    /// Whoever reads conditions as kstatus does.
    pub kstatus: Verdict,
}

/// What Flux says of one object.
#[derive(Deserialize)]
struct ByFlux {
    flux: Option<Verdict>,
    kstatus: Verdict,
}

/// What Argo CD says of objects, and of pairs of a manifest and an object.
#[derive(Deserialize)]
struct ByArgo {
    healths: Vec<Verdict>,
    differences: Vec<Option<Value>>,
}

/// The manifests of a file in examples/gitops.
pub fn manifests(file: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/gitops").join(file);
    let text = fs::read_to_string(path).expect("it is there");
    text.split("\n---\n").map(|document| serde_yaml::from_str(document).expect("YAML")).collect()
}

/// What Argo CD has to be told: the data of its ConfigMap.
fn settings() -> Value {
    let [config] = &manifests("argocd-cm.yaml")[..] else { panic!("one ConfigMap") };
    config["data"].clone()
}

/// The health checks of Flux.
fn expressions() -> Value {
    let all = manifests("flux-kustomizations.yaml");
    let mut with = all.iter().map(|one| &one["spec"]["healthCheckExprs"]).filter(|expressions| expressions.is_array());
    let (Some(expressions), None) = (with.next(), with.next()) else { panic!("one Kustomization has them") };
    expressions.clone()
}

/// Asks about objects as the API server gives them.
pub async fn judge(objects: &[Value]) -> Vec<Verdicts> {
    let by_flux = ask(Binary::FluxVerdict, json!({"expressions": expressions(), "objects": objects})).await;
    let by_flux: Vec<ByFlux> = serde_json::from_slice(&by_flux).expect("JSON");
    let by_argo = ask_argo(json!({"settings": settings(), "objects": objects})).await.healths;
    assert_eq!([by_flux.len(), by_argo.len()], [objects.len(); 2]);
    let both = by_flux.into_iter().zip(by_argo);
    both.map(|(ByFlux { flux, kstatus }, argo)| Verdicts { argo, flux, kstatus }).collect()
}

/// Which of these manifests, beside the object that each has become, Argo CD would not call synced, and what it would make of the
/// object then. It is told nothing of what to ignore.
pub async fn out_of_sync(pairs: &[(Value, Value)]) -> Vec<Value> {
    let pair = |(git, live): &(Value, Value)| {
        let mut git = git.clone();
        // As Argo CD does before it compares.
        git["metadata"]["namespace"] = live["metadata"]["namespace"].clone();
        json!({"git": git, "live": live})
    };
    let asked: Vec<_> = pairs.iter().map(pair).collect();
    let differences = ask_argo(json!({"settings": settings(), "pairs": asked})).await.differences;
    assert_eq!(differences.len(), pairs.len());
    differences.into_iter().flatten().collect()
}

/// Has Flux's own type read HelmReleases, without a rest.
pub async fn reads_releases(releases: &[Value]) {
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
        let mut child = control_plane::spawn(command).expect("it starts");
        let mut input = child.stdin.take().expect("an input");
        input.write_all(question.to_string().as_bytes()).expect("it reads");
        drop(input);
        child.wait_with_output().expect("it ends")
    });
    let output = asking.await.expect("no panic");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
