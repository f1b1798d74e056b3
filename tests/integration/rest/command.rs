//! The command: errors at start, readiness and help.

use clap::CommandFactory;
use control_plane::Identity;
use kube::{
    Api,
    api::{DeleteParams, DynamicObject, Patch, PatchParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};

use crate::support::process::{Launch, api::ApiProcess, place::Place};

#[tokio::test(flavor = "multi_thread")]
async fn startup_error_is_one_line() {
    let place = Place::new("rest-start").await;
    let open = Launch::new(&["api", "--health-addr=127.0.0.1:0"]).env("KUBECONFIG", place.kubeconfig());
    let line = open.run().await.refusal();
    assert!(line.contains("--http-addr") && line.contains("--tls-cert") && line.contains("loopback"), "{line}");
    let line = ApiProcess::launch(&place, &place.kubeconfig(), &["--tls-cert=/nonexistent"]).run().await.refusal();
    assert!(line.contains("--tls-key"), "{line}");

    let line = ApiProcess::launch(&place, &place.kubeconfig(), &["--cascade-revocation", "--read-only"]).run().await;
    assert!(line.refusal().contains("--cascade-revocation"));

    let nobody = place.access.kubeconfig_for(&Identity::service_account(place.name(), "nobody")).unwrap();
    let line = ApiProcess::launch(&place, &nobody, &[]).run().await.refusal();
    let here = format!("in namespace {}", place.name());
    for part in [
        format!("watch personalaccesstokens.pat-operator.io {here}"),
        format!("create personalaccesstokens.pat-operator.io {here}"),
        format!("delete secrets {here}"),
        "watch tokenowners.pat-operator.io in all namespaces".to_owned(),
        format!("create secrets {here}"),
    ] {
        assert!(line.contains(&part), "{part}: {line}");
    }
    assert!(!line.contains("list secrets"), "{line}");
    let line = ApiProcess::launch(&place, &nobody, &["--read-only"]).run().await.refusal();
    assert!(!line.contains("create personalaccesstokens") && !line.contains("delete secrets"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn server_is_ready_with_tokens_owners_and_key() {
    let place = Place::new("rest-ready").await;
    let mut api = ApiProcess::start(&place, &[]).await;
    let answer = api.process.get("/readyz?verbose").await;
    for gate in ["[+]crds ok", "[+]tokens ok", "[+]owners ok", "[+]key ok", "[+]freshness ok: fresh"] {
        assert!(answer.body.contains(gate), "{gate}: {}", answer.body);
    }
    api.process.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn help_lists_every_flag_with_its_variable_and_every_variable_is_read() {
    let help = Launch::new(&["api", "--help"]).run().await;
    assert_eq!((help.code, help.stderr.len()), (0, 0), "{help}");
    let help = help.stdout.join("\n");
    let command = pat_operator::cli::Cli::command();
    let api = command.find_subcommand("api").unwrap();
    for flag in api.get_arguments().filter(|flag| flag.get_id() != "help") {
        let (long, variable) = (flag.get_long().unwrap(), flag.get_env().unwrap().to_str().unwrap());
        assert!(help.contains(&format!("--{long}")), "--{long} is missing in:\n{help}");
        assert!(help.contains(&format!("[env: {variable}=]")), "{variable} is missing in:\n{help}");
        // No flag accepts this value: an error proves that the variable is read.
        let wrong = if long.starts_with("tls-") { "/nonexistent/file" } else { "?! \u{7}" };
        let launch = Launch::new(&["api"]).env(variable, wrong);
        let launch = if long == "http-addr" { launch } else { launch.arg("--http-addr=127.0.0.1:0") };
        let ended = launch.run().await;
        assert!(ended.code != 0 && ended.stderr.join("\n").contains(&format!("--{long}")), "{variable}: {ended}");
    }
}

/// The permissions that the documentation grants.
const RBAC: &str = include_str!("../../data/rbac-api.yaml");

#[test]
fn readers_are_told_to_grant_what_the_server_runs_with() {
    assert!(include_str!("../../../docs/api.md").contains(RBAC.trim()), "docs/api.md has tests/data/rbac-api.yaml");
}

#[tokio::test(flavor = "multi_thread")]
async fn manifest_grants_exactly_the_required_permissions() {
    let place = Place::new("rest-rights").await;
    let operator = place.operator().start();
    place.apply("app", json!({})).await;
    let token = place.ready("app").await;
    operator.terminate().await;
    let cluster = place.name();
    let mut made = Vec::new();
    for text in RBAC.split("\n---\n") {
        let mut manifest: Value = serde_yaml::from_str(text).unwrap();
        let kind = kind_of(text);
        // Cluster-scoped objects get unique names, because tests share a cluster.
        if kind.starts_with("Cluster") {
            manifest["metadata"]["name"] = json!(cluster);
        } else {
            manifest["metadata"]["namespace"] = json!(cluster);
        }
        if kind == "ClusterRoleBinding" {
            manifest["roleRef"]["name"] = json!(cluster);
        }
        if kind.ends_with("Binding") {
            manifest["subjects"][0]["namespace"] = json!(cluster);
        }
        made.push((kind, manifest));
    }
    let api = |manifest: &Value, kind: &str| -> Api<DynamicObject> {
        let version = manifest["apiVersion"].as_str().unwrap();
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        match manifest["metadata"]["namespace"].as_str() {
            Some(namespace) => Api::namespaced_with(place.client.clone(), namespace, &kind),
            None => Api::all_with(place.client.clone(), &kind),
        }
    };
    let name = |manifest: &Value| manifest["metadata"]["name"].as_str().unwrap().to_owned();
    for (kind, manifest) in &made {
        let params = PatchParams::apply("tests").force();
        api(manifest, kind).patch(&name(manifest), &params, &Patch::Apply(manifest)).await.expect("it is taken");
    }
    let own = Identity::service_account(cluster, "pat-operator-api");
    let kubeconfig = place.access.kubeconfig_for(&own).unwrap();
    let mut server = ApiProcess::begin(&place, &kubeconfig, &["--last-used-interval=1s"]).await;
    server.process.is_ready().await;
    let id = place.pats().get("app").await.unwrap().metadata.uid.unwrap();
    assert_eq!(server.exchange(&id, &token).await.status, 200);
    place.until("app", "used", |status| status.last_used_at.is_some()).await;
    server.process.terminate().await;
    for (kind, manifest) in made.iter().filter(|(kind, _)| kind.starts_with("Cluster")) {
        let _ = api(manifest, kind).delete(&name(manifest), &DeleteParams::default()).await;
    }
}

/// Returns the kind of a manifest.
fn kind_of(text: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix("kind: "));
    line.expect("a manifest has a kind").to_owned()
}
