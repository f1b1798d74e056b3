//! Generated files, and facts that several files repeat.

use control_plane::Binary;
use std::fs;

use serde_json::{Value, json};

use super::helm::{Program, chart, manifests, of_kind, root};
use crate::support::checked_in;
use crate::support::is_left_out;

#[test]
fn chart_crds_match_the_repository() {
    if is_left_out(Binary::Helm) {
        return;
    }
    let here = root().join("crds");
    let mut names: Vec<_> =
        fs::read_dir(&here).expect("crds/").map(|file| file.expect("readable").file_name()).collect();
    names.sort();
    let copies = chart().join("files/crds");
    if checked_in::is_update() {
        for name in &names {
            fs::copy(here.join(name), copies.join(name)).expect("a copy");
        }
        let list = names.iter().map(|name| format!("  - {}\n", name.display())).collect::<String>();
        let text = fs::read_to_string(copies.join("kustomization.yml")).expect("the file exists");
        let (head, _) = text.split_once("resources:\n").expect("a list");
        fs::write(copies.join("kustomization.yml"), format!("{head}resources:\n{list}")).expect("written");
    }
    let mut kept: Vec<_> =
        fs::read_dir(&copies).expect("copies").map(|file| file.expect("readable").file_name()).collect();
    kept.sort();
    kept.retain(|name| name != "kustomization.yml");
    assert_eq!(kept, names, "make generate");
    let kustomization: Value =
        serde_yaml::from_str(&fs::read_to_string(copies.join("kustomization.yml")).expect("the file exists")).unwrap();
    assert_eq!(kustomization["resources"], json!(names.iter().map(|name| name.to_str()).collect::<Vec<_>>()));

    let rendered = Program::helm().renders(&[]);
    let rendered = of_kind(&rendered, "CustomResourceDefinition");
    assert_eq!(rendered.len(), names.len());
    for (name, rendered) in names.iter().zip(rendered) {
        let own = fs::read_to_string(here.join(name)).expect("readable");
        assert_eq!(fs::read_to_string(copies.join(name)).expect("readable"), own, "make generate");
        let own: Value = serde_yaml::from_str(&own).expect("YAML");
        let mut rendered = rendered.clone();
        let metadata = rendered["metadata"].as_object_mut().expect("a map");
        assert_eq!(metadata.remove("annotations"), Some(json!({"helm.sh/resource-policy": "keep"})));
        assert!(metadata.remove("labels").is_some_and(|labels| labels["app.kubernetes.io/managed-by"] == "Helm"));
        assert!(equal_values(&rendered, &own), "{name:?} is rendered differently");
    }
    let kept = |set: &str| {
        let rendered = Program::helm().renders(&["--set", set]);
        of_kind(&rendered, "CustomResourceDefinition")
            .iter()
            .map(|crd| crd["metadata"]["annotations"].is_object())
            .collect::<Vec<_>>()
    };
    assert_eq!(kept("crds.keep=false"), vec![false; names.len()]);
    assert_eq!(kept("crds.enabled=false"), Vec::<bool>::new());
}

/// Compares two values, with 0 equal to 0.0.
fn equal_values(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| equal_values(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(key, one)| other.get(key).is_some_and(|other| equal_values(one, other)))
        }
        (one, other) => one == other,
    }
}

#[test]
fn chart_and_operator_versions_match() {
    let text = fs::read_to_string(chart().join("Chart.yaml")).expect("Chart.yaml");
    let metadata: Value = serde_yaml::from_str(&text).expect("YAML");
    assert_eq!(metadata["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(metadata["appVersion"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn packaged_chart_renders_the_same_manifests() {
    if is_left_out(Binary::Helm) {
        return;
    }
    let (helm, folder) = (Program::helm(), tempfile::tempdir().expect("a folder"));
    let into = folder.path().to_str().expect("text");
    helm.prints(&["package", chart().to_str().expect("text"), "--destination", into]);
    let package = folder.path().join(format!("pat-operator-{}.tgz", env!("CARGO_PKG_VERSION")));
    let values = chart().join("ci/everything.yaml");
    let arguments = ["--namespace", "pat-operator", "--values", values.to_str().expect("text")];
    let of_package = [&["template", "pat-operator", package.to_str().expect("text")][..], &arguments].concat();
    assert_eq!(manifests(&helm.prints(&of_package)), helm.renders(&arguments));
}

#[test]
fn helm_lint_passes_for_all_values_files() {
    if is_left_out(Binary::Helm) {
        return;
    }
    let (helm, chart) = (Program::helm(), chart());
    for (name, path) in super::helm::values_files() {
        let path = path.to_str().expect("text");
        let output = helm.prints(&["lint", "--strict", chart.to_str().expect("text"), "--values", path]);
        assert!(output.contains("0 chart(s) failed") && !output.contains("[WARNING]"), "{name}: {output}");
    }
}

/// `charts/kustomize/install.yaml` is what the chart renders with default values, for installations without Helm.
#[test]
fn kustomize_base_matches_the_rendered_chart() {
    if is_left_out(Binary::Helm) {
        return;
    }
    let chart = chart();
    let all = ["template", "pat-operator", chart.to_str().expect("text"), "--namespace", "pat-operator"];
    let text = Program::helm().prints(&[&all[..], &["--set", "crds.enabled=false"]].concat());
    // Helm's own labels and comments are removed.
    let marks = ["helm.sh/chart:", "app.kubernetes.io/managed-by: Helm", "# Source:"];
    let lines = text.lines().filter(|line| !marks.iter().any(|mark| line.trim_start().starts_with(mark)));
    let head = "# Generated from charts/pat-operator by `make generate`: do not edit.\n";
    let made = format!("{head}{}\n", lines.collect::<Vec<_>>().join("\n"));
    checked_in::compare("charts/kustomize/install.yaml", &made);

    let kubectl = Program::new(control_plane::Binary::Kubectl, None);
    let built = manifests(&kubectl.prints(&["kustomize", "charts/kustomize"]));
    let crds = of_kind(&built, "CustomResourceDefinition").len();
    assert_eq!(built.len(), manifests(&made).len() + crds + 1, "the base also has a namespace");
    let policies = fs::read_dir(chart.join("policies")).expect("policies").count();
    // `issuers` is off by default.
    assert_eq!(of_kind(&built, "ValidatingAdmissionPolicy").len(), policies - 1);
    assert!(crds > 0 && of_kind(&built, "Namespace").len() == 1);
}
