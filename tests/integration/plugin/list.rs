//! `list`: order, columns and output formats.

use serde_json::{Value, json};

use super::runner::{PluginRunner, run};
use crate::support::process::place::in_seconds;

fn names(table: &str) -> Vec<&str> {
    table.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn next_event_comes_first_in_every_format() {
    let (runner, _operator) = PluginRunner::with_operator("pat-list").await;
    let place = &runner.place;
    for (name, spec) in [
        ("a-never", json!({"expiry": {"never": true}})),
        ("b-late", json!({"expiry": {"after": "30d"}})),
        ("c-soon", json!({"expiry": {"at": in_seconds(3 * 86_400)}})),
        ("d-rotates", json!({"rotation": {"interval": "10d"}, "scopes": ["x:y"]})),
    ] {
        place.apply_labelled(name, json!({"kind-of": "good"}), spec).await;
    }
    place.apply("e-ended", json!({"expiry": {"at": in_seconds(-60)}})).await;
    place.all_ready_of(&["a-never", "b-late", "c-soon", "d-rotates"]).await;
    place.has("e-ended", "Stalled", "True", "Expired").await;

    let table = runner.pat("list").success();
    assert_eq!(names(&table), ["c-soon", "d-rotates", "b-late", "e-ended", "a-never"], "{table}");
    let line = |name: &str| table.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert!(line("e-ended").contains("Expired"), "{table}");
    assert!(line("c-soon").contains("expires in ") && line("d-rotates").contains("rotates in "), "{table}");
    assert!(!table.contains('\x1b'), "a pipe gets no colors");
    assert!(runner.pat("list --color always").success().contains('\x1b'));

    let wide = runner.pat("list -o wide").success();
    assert!(wide.lines().next().unwrap().ends_with("SECRET      SCOPES   CREDENTIALS    MESSAGE"), "{wide}");
    assert!(wide.contains("x:y"), "{wide}");
    let some = runner.pat("list -l kind-of=good -o name").success();
    assert_eq!(some.lines().count(), 4, "{some}");
    let all: Value = serde_json::from_str(&runner.pat("list -o json").success()).unwrap();
    assert_eq!((all["kind"].as_str(), all["items"].as_array().unwrap().len()), (Some("List"), 5));
    assert!(all["items"][0]["metadata"]["managedFields"].is_null());
    let yaml: Value = serde_yaml::from_str(&runner.pat("list -o yaml").success()).unwrap();
    assert_eq!(yaml, all);

    let everywhere = runner.pat("list -A").success();
    let here = format!("{} ", place.name());
    assert!(
        everywhere.starts_with("NAMESPACE") && everywhere.lines().filter(|line| line.starts_with(&here)).count() == 5
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_list_succeeds_with_a_hint() {
    let runner = PluginRunner::new("pat-none").await;
    let ran = runner.pat("list");
    assert_eq!((ran.code, &*ran.out), (0, ""));
    assert!(ran.err.contains("no PersonalAccessTokens found in namespace") && ran.err.contains("-A"), "{}", ran.err);
    let missing = runner.pat("show ghost").failed(1);
    assert!(
        missing.contains("PersonalAccessToken ghost not found") && missing.contains("kubectl pat list -A"),
        "{missing}"
    );
    let selector = runner.pat("list -l a==b==c").failed(1);
    assert!(selector.starts_with("error: ") && selector.lines().count() == 1, "{selector}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unprocessed_token_is_new() {
    let runner = PluginRunner::new("pat-new").await;
    runner.place.apply("ci", json!({})).await;
    assert!(runner.pat("list").success().contains("New"));
    assert!(runner.pat("show ci").success().contains("kubectl pat doctor"));
    let ran = runner.pat("list --context nowhere").failed(1);
    assert!(ran.contains("nowhere"), "{ran}");
    let ran = runner.pat("list --kubeconfig /nonexistent/config").failed(1);
    assert!(ran.contains("/nonexistent/config"), "{ran}");
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_pipe_is_not_an_error() {
    let runner = PluginRunner::new("pat-pipe").await;
    for n in 0..3 {
        runner.place.apply(&format!("t{n}"), json!({})).await;
    }
    let mut shell = std::process::Command::new("bash");
    let line = format!("set -o pipefail; {} list -A -o json | head -c 1", super::runner::PLUGIN);
    shell.args(["-c", &line]).env("KUBECONFIG", runner.place.kubeconfig());
    let ran = run(shell, None);
    assert_eq!((ran.code, &*ran.out, &*ran.err), (0, "{", ""));
}
