//! Runs Helm and kubectl, and renders the chart.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use control_plane::{Assets, Binary};
use serde_json::Value;

/// The namespace of each release. Tests that install a release have their own control plane.
pub const NAMESPACE: &str = "pat-operator";

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The chart's folder.
pub fn chart() -> PathBuf {
    root().join("charts/pat-operator")
}

/// The values files in the chart's `ci/` folder, by name.
pub fn values_files() -> Vec<(String, PathBuf)> {
    let files =
        fs::read_dir(chart().join("ci")).expect("the folder ci/ exists").map(|file| file.expect("readable").path());
    let mut files: Vec<_> =
        files.map(|path| (path.file_stem().expect("a name").to_string_lossy().into_owned(), path)).collect();
    files.sort();
    files
}

/// A program that runs with an empty home folder.
pub struct Program {
    path: PathBuf,
    home: tempfile::TempDir,
    kubeconfig: Option<PathBuf>,
}

impl Program {
    /// Helm without a cluster.
    pub fn helm() -> Self {
        Self::new(Binary::Helm, None)
    }

    /// A program, with the cluster of this kubeconfig if there is one.
    pub fn new(binary: Binary, kubeconfig: Option<PathBuf>) -> Self {
        let assets = Assets::ensure(&[binary]).expect("the program");
        Self { path: assets.path(binary).to_owned(), home: tempfile::tempdir().expect("a folder"), kubeconfig }
    }

    /// Runs the program.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(&self.path);
        command.current_dir(root()).env_clear().env("HOME", self.home.path()).args(arguments);
        command.env("KUBECACHEDIR", self.home.path().join("cache"));
        // Without a kubeconfig, the program must find no cluster.
        let none = self.home.path().join("none");
        command.env("KUBECONFIG", self.kubeconfig.as_ref().unwrap_or(&none));
        command.output().expect("the program runs")
    }

    /// Runs the program, which must succeed. Returns its stdout.
    pub fn prints(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {stderr}\n{}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8(output.stdout).expect("text")
    }

    /// Runs the program, which must fail. Returns its stderr.
    pub fn refuses(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Renders the chart as the release `pat-operator`, with these arguments.
    pub fn renders(&self, arguments: &[&str]) -> Vec<Value> {
        self.renders_chart(&chart(), ["pat-operator", NAMESPACE], arguments)
    }

    /// Renders a chart as the release of this name and namespace.
    pub fn renders_chart(&self, chart: &Path, [name, namespace]: [&str; 2], arguments: &[&str]) -> Vec<Value> {
        let all = ["template", name, chart.to_str().expect("text"), "--namespace", namespace];
        manifests(&self.prints(&[&all, arguments].concat()))
    }
}

/// Parses the manifests in a text, without empty ones. The parser refuses a key that is given twice.
pub fn manifests(text: &str) -> Vec<Value> {
    let documents = text.split("\n---").map(|document| serde_yaml::from_str(document).expect("YAML"));
    documents.filter(|manifest: &Value| !manifest.is_null()).collect()
}

/// The kind, namespace and name of a manifest.
pub fn place(manifest: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &manifest["metadata"];
    format!("{} {}/{}", text(&manifest["kind"]), text(&metadata["namespace"]), text(&metadata["name"]))
}

/// The manifests of a kind.
pub fn of_kind<'a>(manifests: &'a [Value], kind: &str) -> Vec<&'a Value> {
    manifests.iter().filter(|manifest| manifest["kind"] == kind).collect()
}
