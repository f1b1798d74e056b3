//! Values that users write and that the chart does not expect: null, missing after an upgrade, the chart's own labels, flags and variables, and
//! names that need a change.

use std::{collections::BTreeSet, fs, path::Path};

use clap::Parser;
use control_plane::Binary;
use pat_operator::cli::{Cli, Command};
use serde_json::{Value, json};

use super::{
    deployed::Deployed,
    helm::{NAMESPACE, Program, chart, of_kind, place, root},
    next::copy,
};
use crate::support::is_left_out;

/// The values of ci/everything.yaml, with the values set whose defaults are maps with free keys, or lists that may be empty. Without CRDs.
fn everything() -> Value {
    let text = fs::read_to_string(chart().join("ci/everything.yaml")).expect("a file");
    let mut values: Value = serde_yaml::from_str(&text).expect("YAML");
    values["crds"] = json!({"enabled": false});
    values["api"]["issueForUsers"] = json!(["*"]);
    values["monitoring"]["dashboard"]["labels"] = json!({"grafana_dashboard": "1"});
    values
}

/// Writes values to a file, and returns its path.
fn file(folder: &Path, values: &Value) -> String {
    let path = folder.join("values-of-the-user.yaml");
    fs::write(&path, serde_yaml::to_string(values).expect("YAML")).expect("a file");
    path.to_str().expect("text").to_owned()
}

/// A copy of the chart with other values.yaml. `helm upgrade --reuse-values` renders so: with the values of the older chart.
fn chart_with_values(folder: &Path, values: &str) -> std::path::PathBuf {
    let copied = folder.join("chart");
    copy(&chart(), &copied);
    fs::write(copied.join("values.yaml"), values).expect("a file");
    copied
}

/// Sets the value at this path, and makes maps where there are none.
fn set(values: &mut Value, path: &[String], value: Value) {
    let there = path.iter().fold(values, |values, key| {
        if !values.is_object() {
            *values = json!({});
        }
        &mut values[key]
    });
    *there = value;
}

/// The paths of all maps in values.yaml.
fn maps(value: &Value, path: &[String], found: &mut Vec<Vec<String>>) {
    for (key, value) in value.as_object().into_iter().flatten() {
        let path = [path, std::slice::from_ref(key)].concat();
        if value.is_object() {
            maps(value, &path, found);
            found.push(path);
        }
    }
}

/// Asserts that selectors match the Pods of their Deployments only.
fn selectors_are_unique(about: &str, manifests: &[Value]) {
    let mut selectors = BTreeSet::new();
    for deployment in of_kind(manifests, "Deployment") {
        let selector = deployment["spec"]["selector"]["matchLabels"].as_object().expect("a map");
        let labels = &deployment["spec"]["template"]["metadata"]["labels"];
        for (key, value) in selector {
            assert_eq!(labels[key], *value, "{about}, {}", place(deployment));
        }
        assert!(selectors.insert(json!(selector).to_string()), "{about}, {}: {selector:?}", place(deployment));
    }
}

#[test]
fn values_of_released_charts_render_the_same_manifests() {
    if is_left_out(Binary::Helm) {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (helm, values) = (Program::helm(), file(folder.path(), &everything()));
    let expected = helm.renders(&["--values", &values]);
    for released in fs::read_dir(root().join("tests/data/chart-values")).expect("a folder") {
        let released = released.expect("readable").path();
        let old = chart_with_values(folder.path(), &fs::read_to_string(&released).expect("readable"));
        let found = helm.renders_chart(&old, ["pat-operator", NAMESPACE], &["--values", &values]);
        assert_eq!(found, expected, "{}", released.display());
    }
}

#[test]
fn missing_values_have_their_defaults() {
    if is_left_out(Binary::Helm) {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (helm, empty) = (Program::helm(), chart_with_values(folder.path(), "{}"));
    let values = file(folder.path(), &everything());
    let mut expected = helm.renders(&["--values", &values]);
    // Their defaults are free maps.
    for deployment in &mut expected {
        if deployment["kind"] == "Deployment" {
            deployment["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({});
        }
    }
    assert_eq!(helm.renders_chart(&empty, ["pat-operator", NAMESPACE], &["--values", &values]), expected);

    // Helm keeps null for a value that the older chart does not have.
    let all: Value = serde_yaml::from_str(&fs::read_to_string(chart().join("values.yaml")).expect("a file")).unwrap();
    let nulls: Value = all.as_object().expect("a map").keys().map(|key| (key.clone(), Value::Null)).collect();
    let nulls = file(folder.path(), &nulls);
    let expected = helm.renders_chart(&empty, ["pat-operator", NAMESPACE], &[]);
    assert_eq!(helm.renders_chart(&empty, ["pat-operator", NAMESPACE], &["--values", &nulls]), expected);
}

/// A parent chart with several dependencies: each has one map of the first level null, or all maps of another level.
#[test]
fn each_map_of_values_can_be_null() {
    if is_left_out(Binary::Helm) {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let all: Value = serde_yaml::from_str(&fs::read_to_string(chart().join("values.yaml")).expect("a file")).unwrap();
    let mut paths = Vec::new();
    maps(&all, &[], &mut paths);
    // Without a certificate, the chart refuses a server.
    paths.retain(|path| !["verifier.tls", "api.tls"].contains(&&*path.join(".")));
    assert!(paths.len() > 30, "{paths:?}");
    let (first, deeper): (Vec<_>, Vec<_>) = paths.into_iter().partition(|path| path.len() == 1);
    let mut cases: Vec<Vec<Vec<String>>> = first.into_iter().map(|path| vec![path]).collect();
    let deepest = deeper.iter().map(Vec::len).max().expect("nested maps");
    cases.extend(
        (2..=deepest).map(|depth| deeper.iter().filter(|path| path.len() == depth).cloned().collect::<Vec<_>>()),
    );
    let (mut dependencies, mut values) = (Vec::new(), json!({}));
    for (number, paths) in cases.iter().enumerate() {
        let alias = format!("n{number}");
        dependencies.push(json!({"name": "pat-operator", "version": env!("CARGO_PKG_VERSION"), "alias": alias}));
        values[&alias] = everything();
        for path in paths {
            set(&mut values[&alias], path, Value::Null);
        }
    }
    let metadata = json!({"apiVersion": "v2", "name": "parent", "version": "1.0.0", "dependencies": dependencies});
    fs::write(folder.path().join("Chart.yaml"), serde_yaml::to_string(&metadata).expect("YAML")).expect("a file");
    fs::write(folder.path().join("values.yaml"), serde_yaml::to_string(&values).expect("YAML")).expect("a file");
    copy(&chart(), &folder.path().join("charts/pat-operator"));
    let rendered = Program::helm().renders_chart(folder.path(), ["parent", NAMESPACE], &[]);
    for (number, paths) in cases.iter().enumerate() {
        let controller = format!("parent-n{number}-controller");
        let mut deployments = of_kind(&rendered, "Deployment").into_iter();
        assert!(deployments.any(|one| one["metadata"]["name"] == *controller), "{paths:?}");
    }
    // Null does not turn a guard off.
    for (kind, each) in [("NetworkPolicy", 1), ("ValidatingAdmissionPolicyBinding", 9)] {
        assert!(of_kind(&rendered, kind).len() >= each * cases.len(), "{kind}");
    }
    for binding in of_kind(&rendered, "ValidatingAdmissionPolicyBinding") {
        assert_eq!(binding["spec"]["validationActions"], json!(["Deny"]), "{}", place(binding));
    }
}

#[test]
fn given_flags_and_variables_replace_the_charts() {
    if is_left_out(Binary::Helm) {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mut values = everything();
    let own = "--serving-certificate=more:a.svc";
    values["verifier"]["tls"] = json!({"selfSigned": {"enabled": true}});
    for component in ["controller", "verifier", "api"] {
        values[component]["extraArgs"] = json!(["--log-level=debug", "--log-format=text"]);
        values[component]["extraEnv"] = json!([{"name": "POD_NAME", "value": "me"}]);
    }
    values["controller"]["extraArgs"] = json!(["--log-level=debug", "--log-format=text", "--concurrency=5", own]);
    let rendered = Program::helm().renders(&["--values", &file(folder.path(), &values)]);
    for component in ["controller", "verifier", "api"] {
        let deployed = Deployed::find(&rendered, component);
        let flags = deployed.arguments().iter().filter_map(|one| Some(one.split_once('=')?.0));
        let flags: Vec<_> = flags.filter(|flag| *flag != "--serving-certificate").collect();
        assert_eq!(flags.iter().collect::<BTreeSet<_>>().len(), flags.len(), "{component}: {flags:?}");
        let line = ["pat-operator".to_owned()].into_iter().chain(deployed.arguments().iter().cloned());
        let log = match Cli::try_parse_from(line).expect("a command line").command {
            Command::Controller(args) => {
                assert_eq!(args.concurrency, 5);
                assert_eq!(args.serving_certificate.len(), 2, "the flag that can be repeated");
                args.log
            }
            Command::Verifier(args) => args.log,
            Command::Api(args) => args.log,
            Command::Crds => panic!("`crds` has no Deployment"),
        };
        assert_eq!(log.log_level, "debug".parse().expect("a level"), "{component}");
    }
    for deployment in of_kind(&rendered, "Deployment") {
        let environment = &deployment["spec"]["template"]["spec"]["containers"][0]["env"];
        assert_eq!(*environment, json!([{"name": "POD_NAME", "value": "me"}]), "{}", place(deployment));
    }
}

#[test]
fn labels_of_users_never_repeat_a_key_or_change_a_selector() {
    if is_left_out(Binary::Helm) {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mut values = everything();
    let labels = json!({
        "app.kubernetes.io/name": "x", "app.kubernetes.io/instance": "x", "app.kubernetes.io/component": "x",
        "app.kubernetes.io/version": "x", "app.kubernetes.io/managed-by": "x", "helm.sh/chart": "x",
        "pat-operator.io/metrics": "x", "own": "on",
    });
    values["commonLabels"] = labels.clone();
    values["monitoring"]["monitor"] = json!({"enabled": true, "kind": "ServiceMonitor", "labels": labels});
    for component in ["controller", "verifier", "api"] {
        values[component]["podLabels"] = labels.clone();
        values[component]["podAnnotations"] = json!({"kubectl.kubernetes.io/default-container": "x"});
    }
    // The parser refuses a key that is given twice.
    assert!(serde_yaml::from_str::<Value>("{a: 1, a: 2}").is_err());
    let rendered = Program::helm().renders(&["--values", &file(folder.path(), &values)]);
    selectors_are_unique("labels", &rendered);
    for manifest in &rendered {
        assert_eq!(manifest["metadata"]["labels"]["own"], "on", "{}", place(manifest));
    }
    for monitor in of_kind(&rendered, "ServiceMonitor") {
        let selector = monitor["spec"]["selector"]["matchLabels"].as_object().expect("a map");
        let selects =
            |service: &&Value| selector.iter().all(|(key, value)| service["metadata"]["labels"][key] == *value);
        let selected = of_kind(&rendered, "Service").into_iter().filter(selects).count();
        assert_eq!(selected, 1, "{}", place(monitor));
    }
}

#[test]
fn selectors_do_not_depend_on_values() {
    if is_left_out(Binary::Helm) {
        return;
    }
    let helm = Program::helm();
    for set in ["nameOverride=", "nameOverride=My_Op", "nameOverride=x,fullnameOverride=y", "fullnameOverride=9.b"] {
        let rendered = helm.renders(&["--set", set]);
        let [deployment] = of_kind(&rendered, "Deployment")[..] else { panic!("not exactly one Deployment") };
        // As in 0.1.0.
        let selector = json!({
            "app.kubernetes.io/name": "pat-operator", "app.kubernetes.io/instance": "pat-operator",
            "app.kubernetes.io/component": "controller",
        });
        assert_eq!(deployment["spec"]["selector"]["matchLabels"], selector, "{set}");
    }
}

#[test]
fn names_begin_with_a_letter_and_have_no_other_characters() {
    if is_left_out(Binary::Helm) {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (helm, values) = (Program::helm(), file(folder.path(), &everything()));
    for (release, set, prefix) in [
        ("pat-operator", "", "pat-operator"),
        ("tokens", "", "tokens-pat-operator"),
        ("123", "", "pat-operator-123"),
        ("a.b", "", "a-b-pat-operator"),
        ("on", "nameOverride=My_Op", "on-my-op"),
        ("on", "nameOverride=_", "on"),
        ("x", "fullnameOverride=9.B-", "pat-operator-9-b"),
        ("x", "fullnameOverride=_", "pat-operator-"),
    ] {
        let rendered = helm.renders_chart(&chart(), [release, NAMESPACE], &["--values", &values, "--set", set]);
        let services = of_kind(&rendered, "Service");
        let names: Vec<_> = services.iter().map(|one| one["metadata"]["name"].as_str().expect("a name")).collect();
        let prefix = prefix.trim_end_matches('-');
        assert_eq!(names, [format!("{prefix}-api"), format!("{prefix}-verifier")], "{release} {set}");
    }
}

#[test]
fn dependencies_with_aliases_have_valid_names_and_own_selectors() {
    if is_left_out(Binary::Helm) {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let dependency = |alias: &str| {
        let condition = format!("{alias}.enabled");
        json!({"name": "pat-operator", "version": env!("CARGO_PKG_VERSION"), "alias": alias, "condition": condition})
    };
    let aliases = ["patOperator", "tokens", "off"].map(dependency);
    let metadata = json!({"apiVersion": "v2", "name": "shop", "version": "1.0.0", "dependencies": aliases});
    let mut values = everything();
    values["enabled"] = json!(true);
    let mut off = values.clone();
    off["enabled"] = json!(false);
    let values = json!({"patOperator": values, "tokens": values, "off": off});
    fs::write(folder.path().join("Chart.yaml"), serde_yaml::to_string(&metadata).expect("YAML")).expect("a file");
    fs::write(folder.path().join("values.yaml"), serde_yaml::to_string(&values).expect("YAML")).expect("a file");
    copy(&chart(), &folder.path().join("charts/pat-operator"));
    let rendered = Program::helm().renders_chart(folder.path(), ["shop", NAMESPACE], &[]);
    selectors_are_unique("aliases", &rendered);
    let mut names: Vec<_> = of_kind(&rendered, "Service").iter().map(|one| one["metadata"]["name"].clone()).collect();
    names.sort_by_key(ToString::to_string);
    assert_eq!(names, ["shop-patoperator-api", "shop-patoperator-verifier", "shop-tokens-api", "shop-tokens-verifier"]);
}

#[test]
fn releases_of_one_name_share_no_rights() {
    if is_left_out(Binary::Helm) {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let helm = Program::helm();
    let namespaced = json!({"namespaces": ["team-a"], "crds": {"enabled": false}});
    // Both releases serve team-a.
    for values in [everything(), namespaced] {
        let values = file(folder.path(), &values);
        let of = |namespace: &str| -> BTreeSet<String> {
            let rendered = helm.renders_chart(&chart(), ["pat-operator", namespace], &["--values", &values]);
            let rights = rendered.iter().filter(|one| one["apiVersion"] == "rbac.authorization.k8s.io/v1");
            let rights: Vec<_> = rights.cloned().collect();
            for binding in rights.iter().filter(|one| one["roleRef"].is_object()) {
                assert_eq!(binding["roleRef"]["name"], binding["metadata"]["name"]);
                assert_eq!(binding["subjects"][0]["namespace"], namespace);
            }
            rights.iter().map(place).collect()
        };
        let (one, other) = (of("one"), of("other"));
        assert!(one.len() >= 4 && one.len() == other.len(), "{one:?}");
        assert!(one.is_disjoint(&other), "{one:?} {other:?}");
    }
}
