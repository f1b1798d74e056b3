//! The tools' own code, asked about objects: see `gitops-health` of the test control plane.
//!
//! It must not know any state of a token.

use std::{
    collections::BTreeMap,
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
pub struct Verdict {
    /// In one word of its own.
    pub status: String,
    /// And to people.
    pub message: String,
}

/// What all of them say of one object.
#[derive(Clone, Debug, Deserialize)]
pub struct Verdicts {
    /// Argo CD, by its health check; empty without one.
    pub argo: Verdict,
    /// Flux, by its expressions; none for a kind that has none.
    pub flux: Option<Verdict>,
    /// Whoever reads conditions as kstatus does.
    pub kstatus: Verdict,
}

/// What key of argocd-cm a health check has, before the kind.
const ARGO_KEY: &str = "resource.customizations.health.";

/// The manifests of a file in examples/gitops.
pub fn manifests(file: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/gitops").join(file);
    let text = fs::read_to_string(path).expect("it is there");
    text.split("\n---\n").map(|document| serde_yaml::from_str(document).expect("YAML")).collect()
}

/// The health checks of Argo CD, by `<group>_<kind>`.
fn lua() -> BTreeMap<String, Value> {
    let [config] = &manifests("argocd-cm.yaml")[..] else { panic!("one ConfigMap") };
    let data = config["data"].as_object().expect("data").iter();
    data.map(|(key, script)| (key.strip_prefix(ARGO_KEY).expect("a health check").to_owned(), script.clone())).collect()
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
    let said = ask(json!({"lua": lua(), "expressions": expressions(), "objects": objects})).await;
    let verdicts: Vec<_> = serde_json::from_slice(&said).expect("JSON");
    assert_eq!(verdicts.len(), objects.len());
    verdicts
}

/// Has Flux's own type read HelmReleases, without a rest.
pub async fn reads_releases(releases: &[Value]) {
    ask(json!({"expressions": expressions(), "releases": releases})).await;
}

async fn ask(question: Value) -> Vec<u8> {
    let asking = tokio::task::spawn_blocking(move || {
        let assets = Assets::ensure(&[Binary::GitopsHealth]).expect("the program is built");
        let mut command = Command::new(assets.path(Binary::GitopsHealth));
        command.env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = control_plane::spawn(command).expect("it starts");
        child.stdin.take().expect("an input").write_all(question.to_string().as_bytes()).expect("it reads");
        child.wait_with_output().expect("it ends")
    });
    let output = asking.await.expect("no panic");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
