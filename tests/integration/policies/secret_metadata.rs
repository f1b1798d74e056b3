//! The policy `secret-metadata`: which types, labels and annotations tokens can request for their Secrets.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    guard::{Guard, put_parameters},
    people,
    write::{Change, Create, Outcome, pat, pats},
};
use crate::support::{
    chart::helm::chart,
    process::place::{Place, eventually_within},
};

const DENIED: &str = "pat-operator-denied-secret-metadata";

fn secret(secret: Value) -> Value {
    json!({ "secret": secret })
}

/// The default of the chart, as it writes it to the ConfigMap.
fn default_lists() -> Value {
    let values = std::fs::read_to_string(chart().join("values.yaml")).expect("values.yaml");
    let values: Value = serde_yaml::from_str(&values).expect("YAML");
    let lists = values["deniedSecretMetadata"].as_object().expect("a map").iter();
    let lines = |list: &Value| {
        let lines = list.as_array().expect("a list").iter().map(|line| line.as_str().expect("text"));
        lines.collect::<Vec<_>>().join("\n")
    };
    lists.map(|(field, list)| (field.clone(), json!(lines(list)))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_that_gives_rights_elsewhere_is_denied() {
    let place = Place::new("secret-metadata").await;
    place.apply("before", secret(json!({"type": "helm.sh/release.v1", "labels": {"a": "b"}}))).await;
    place.apply("netrc", secret(json!({"template": {"preset": "Netrc", "host": "example.com"}}))).await;
    let mut lists = default_lists();
    let labels =
        format!("# ours\n{}\n  example.com/exact\nexample.com/any-*\n", lists["labels"].as_str().expect("text"));
    lists["labels"] = json!(labels);
    let types = lists["types"].as_str().expect("text");
    lists["types"] = json!(format!("{types}\nkubernetes.io/dockerconfigjson\n"));
    put_parameters(&place, DENIED, lists).await;
    let guard = Guard::apply("secret-metadata", &place, &[&place]).await;
    let api = pats(&people::administrator_of(&place, "ann").await.1, place.name());
    let cluster = secret(json!({"labels": {"argocd.argoproj.io/secret-type": "cluster"}}));
    eventually_within(Duration::from_secs(180), "the policy is in force", async || {
        let refused = Create::Post.dry_run(&api, &pat("x", cluster.clone())).await;
        refused.is_err_and(|sentence| sentence.starts_with("spec.secret.labels"))
    })
    .await;

    let denied = |what: &str| -> Outcome {
        Err(format!(
            "{what}: not allowed, because it gives the Secret a meaning for other programs: remove it; otherwise ask the administrator of \
             pat-operator to remove it from the ConfigMap {}/{DENIED} (with Helm: the value deniedSecretMetadata)",
            place.name()
        ))
    };
    let label = |key: &str, value: &str| secret(json!({"labels": {key: value}}));
    let annotation = |key: &str, value: &str| secret(json!({"annotations": {key: value}}));
    let docker = secret(json!({"template": {"preset": "DockerConfigJson", "host": "registry.example.com"}}));
    let cases = [
        (json!({}), Ok(())),
        (secret(json!({"name": "x"})), Ok(())),
        (secret(json!({"type": "helm.sh/release.v1"})), denied("spec.secret.type: helm.sh/release.v1")),
        (secret(json!({"type": "rke.cattle.io/machine-plan"})), denied("spec.secret.type: rke.cattle.io/machine-plan")),
        (secret(json!({"type": "helm.sh/release.v2"})), Ok(())),
        (secret(json!({"type": "example.com/token"})), Ok(())),
        (docker.clone(), denied("spec.secret.type: kubernetes.io/dockerconfigjson")),
        (
            secret(
                json!({"type": "kubernetes.io/dockerconfigjson", "template": {"data": {".dockerconfigjson": "{}"}}}),
            ),
            denied("spec.secret.type: kubernetes.io/dockerconfigjson"),
        ),
        (secret(json!({"template": {"preset": "BasicAuth"}})), Ok(())),
        (secret(json!({"template": {"preset": "Netrc", "host": "example.com"}})), Ok(())),
        (secret(json!({"template": {"data": {"a": "{{ token }}"}}})), Ok(())),
        (cluster.clone(), denied("spec.secret.labels: argocd.argoproj.io/secret-type")),
        (label("argocd.argoproj.io/secret-type", "repository"), Ok(())),
        (label("argocd.argoproj.io/secret-type", "repo-creds"), Ok(())),
        (label("owner", "helm"), denied("spec.secret.labels: owner")),
        (label("owner", "team-a"), Ok(())),
        (label("istio/multiCluster", "true"), denied("spec.secret.labels: istio/multiCluster")),
        (label("istio/multiCluster", ""), denied("spec.secret.labels: istio/multiCluster")),
        (label("example.com/exact", "1"), denied("spec.secret.labels: example.com/exact")),
        (label("example.com/exactly", "1"), Ok(())),
        (label("example.com/any-thing", "1"), denied("spec.secret.labels: example.com/any-thing")),
        (annotation("meta.helm.sh/release-name", "x"), denied("spec.secret.annotations: meta.helm.sh/release-name")),
        (annotation("owner", "helm"), Ok(())),
        (annotation("example.com/note", "meta.helm.sh/x=owner=helm"), Ok(())),
        (
            secret(json!({
                "type": "helm.sh/release.v1", "labels": {"owner": "helm", "a": "b"},
                "annotations": {"meta.helm.sh/a": "b"},
            })),
            denied(
                "spec.secret.type: helm.sh/release.v1; spec.secret.labels: owner; spec.secret.annotations: meta.helm.sh/a",
            ),
        ),
    ];
    for (spec, expected) in cases {
        for create in Create::ALL {
            assert_eq!(create.dry_run(&api, &pat("app", spec.clone())).await, expected, "{create:?}: {spec}");
        }
    }
    // A token that was there before the policy: other fields can change, and these only to what is allowed.
    let changes = [
        (json!({"scopes": ["a"], "secret": {"key": "other"}}), Ok(())),
        (json!({"revoked": true}), Ok(())),
        (label("c", "d"), denied("spec.secret.type: helm.sh/release.v1")),
        (secret(json!({"name": "new", "type": "Opaque", "labels": {"c": "d"}})), Ok(())),
        (secret(json!({"annotations": {"c": "d"}})), denied("spec.secret.type: helm.sh/release.v1")),
    ];
    for (spec, expected) in changes {
        for change in Change::ALL {
            let found = change.dry_run(&api, "before", &json!({ "spec": spec })).await;
            assert_eq!(found, expected, "{change:?}: {spec}");
        }
    }
    // The preset decides the type, also if it is all that changes.
    let preset = json!({"spec": {"secret": {"name": "new", "template": docker["secret"]["template"]}}});
    for change in Change::ALL {
        let found = change.dry_run(&api, "netrc", &preset).await;
        assert_eq!(found, denied("spec.secret.type: kubernetes.io/dockerconfigjson"), "{change:?}");
    }
    guard.end().await;
}
