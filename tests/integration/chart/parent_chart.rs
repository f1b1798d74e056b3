//! A parent chart that depends on this chart and ships its own tokens.

use control_plane::Binary;
use std::{fs, path::Path};

use serde_json::{Value, json};

use super::{
    dry_run::DryRun,
    helm::{Program, chart, manifests, of_kind},
    next::copy,
};
use crate::support::is_left_out;

/// The namespace of the parent chart.
const SHOP: &str = "shop";

/// Writes the chart `shop`, with this chart in its `charts/` and these values for it.
fn write_parent_chart(folder: &Path, values_of_child: &Value) {
    let metadata = json!({
        "apiVersion": "v2", "name": "shop", "version": "1.0.0",
        "dependencies": [
            {"name": "pat-operator", "version": env!("CARGO_PKG_VERSION"), "condition": "pat-operator.enabled"},
        ],
    });
    fs::write(folder.join("Chart.yaml"), serde_yaml::to_string(&metadata).expect("YAML")).expect("a file");
    let values = json!({"global": {"region": "a"}, "pat-operator": values_of_child});
    fs::write(folder.join("values.yaml"), serde_yaml::to_string(&values).expect("YAML")).expect("a file");
    copy(&chart(), &folder.join("charts/pat-operator"));
}

/// The arguments of `helm template` for the release `shop`.
fn arguments(folder: &Path) -> [&str; 5] {
    ["template", SHOP, folder.to_str().expect("text"), "--namespace", SHOP]
}

#[tokio::test(flavor = "multi_thread")]
async fn parent_chart_can_ship_tokens() {
    if is_left_out(Binary::Helm) {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let parent = folder.path().join("shop");
    fs::create_dir(&parent).expect("a folder");
    let spec = json!({"scopes": ["packages:write"], "rotation": {"interval": "30d"}, "secret": {"name": "ci-token"}});
    // Tokens only, because the operator is already installed.
    write_parent_chart(
        &parent,
        &json!({
            "enabled": true, "crds": {"enabled": false}, "controller": {"enabled": false}, "policies": {"enabled": false},
            "tokens": [{"name": "ci", "labels": {"team": "shop"}, "spec": spec}, {"name": "report", "namespace": "reports"}],
        }),
    );
    let text = Program::helm().prints(&arguments(&parent));
    let rendered = manifests(&text);
    let tokens = of_kind(&rendered, "PersonalAccessToken");
    assert_eq!(tokens.len(), rendered.len(), "nothing but tokens: {text}");
    let [ci, report] = tokens[..] else { panic!("not two tokens: {text}") };
    assert_eq!((&ci["metadata"]["name"], &ci["metadata"]["namespace"]), (&json!("ci"), &json!(SHOP)));
    assert_eq!(ci["spec"], spec);
    let labels = &ci["metadata"]["labels"];
    assert_eq!((&labels["team"], &labels["app.kubernetes.io/instance"]), (&json!("shop"), &json!(SHOP)));
    assert_eq!(report["metadata"]["namespace"], "reports");

    let file = folder.path().join("rendered.yaml");
    fs::write(&file, &text).expect("a file");
    let api_server = DryRun::new(&[SHOP, "reports"]).await;
    let mut accepted = api_server.accepts("shop", ["--filename", file.to_str().expect("text")]);
    accepted.sort();
    let line = |name: &str| format!("personalaccesstoken.pat-operator.io/{name} serverside-applied (server dry run)");
    assert_eq!(accepted, [line("ci"), line("report")]);
}

#[test]
fn wrong_value_in_a_parent_chart_is_named() {
    if is_left_out(Binary::Helm) {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    write_parent_chart(folder.path(), &json!({"tokens": [{"spec": {}}]}));
    let message = Program::helm().refuses(&arguments(folder.path()));
    for part in ["pat-operator", "/tokens/0", "missing property 'name'"] {
        assert!(message.contains(part), "{part}: {message}");
    }
}
