//! `list`: order, columns and output formats.

use std::{
    io::{BufRead, BufReader},
    process::{Child, ChildStdout, Stdio},
};

use kube::api::DeleteParams;
use serde_json::{Value, json};

use super::runner::{PLUGIN, PluginRunner, run};
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
    let line = format!("set -o pipefail; {PLUGIN} list -A -o json | head -c 1");
    shell.args(["-c", &line]).env("KUBECONFIG", runner.place.kubeconfig());
    let ran = run(shell, None);
    assert_eq!((ran.code, &*ran.out, &*ran.err), (0, "{", ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn list_is_sorted_by_a_key_or_a_path() {
    let runner = PluginRunner::new("pat-sort").await;
    for (name, team, spec) in [
        ("b", "2", json!({"expiry": {"at": in_seconds(86_400)}, "owner": {"kind": "User", "name": "zoe"}})),
        ("c", "1", json!({"expiry": {"at": in_seconds(3_600)}})),
        ("a", "3", json!({"expiry": {"never": true}})),
    ] {
        runner.place.apply_labelled(name, json!({"team": team}), spec).await;
    }
    for (key, order) in [
        ("name", ["a", "b", "c"]),
        ("expires", ["c", "b", "a"]),
        ("owner", ["a", "c", "b"]),
        (".metadata.labels.team", ["c", "b", "a"]),
        ("{.metadata.name}", ["a", "b", "c"]),
        (".spec.expiry.at", ["c", "b", "a"]),
        (".spec.owner.name", ["b", "a", "c"]),
    ] {
        assert_eq!(names(&runner.pat(&format!("list --sort-by {key}")).success()), order, "{key}");
        let json: Value =
            serde_json::from_str(&runner.pat(&format!("list -o json --sort-by {key}")).success()).unwrap();
        assert_eq!(json["items"][0]["metadata"]["name"], order[0], "{key}");
    }
    let err = runner.pat("list --sort-by .spec.nonsense").failed(2);
    assert!(err.contains("no token has a value at .spec.nonsense"), "{err}");
}

/// A list that prints changes. Dropping it ends the program.
struct Watch {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Watch {
    fn start(runner: &PluginRunner, words: &[&str]) -> Self {
        let mut plugin = std::process::Command::new(PLUGIN);
        plugin.env("KUBECONFIG", runner.place.kubeconfig()).args(["list", "-w", "-n", runner.place.name()]).args(words);
        let mut child = plugin.stdout(Stdio::piped()).spawn().expect("the plugin starts");
        let lines = BufReader::new(child.stdout.take().expect("stdout is a pipe")).lines();
        Self { child, lines }
    }

    /// The words of the next line that fulfils a predicate.
    fn next(&mut self, holds: impl Fn(&[&str]) -> bool) -> Vec<String> {
        for line in &mut self.lines {
            let line = line.expect("text");
            let words: Vec<_> = line.split_whitespace().collect();
            if holds(&words) {
                return words.into_iter().map(str::to_owned).collect();
            }
        }
        panic!("the watch ended");
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_prints_the_list_and_then_each_change() {
    let (runner, _operator) = PluginRunner::with_operator("pat-watch").await;
    runner.place.apply("a", json!({})).await;
    runner.place.ready("a").await;
    let mut watch = Watch::start(&runner, &[]);
    assert_eq!(watch.next(|_| true)[0], "NAME");
    assert_eq!(watch.next(|_| true)[..2], ["a", "Ready"]);
    runner.place.apply("b", json!({})).await;
    watch.next(|words| words[..2] == ["b", "Ready"]);
    runner.place.apply("b", json!({"revoked": true})).await;
    watch.next(|words| words[..2] == ["b", "Revoked"]);
    runner.place.pats().delete("a", &DeleteParams::default()).await.unwrap();
    watch.next(|words| words[..2] == ["a", "Deleted"]);

    let mut names = Watch::start(&runner, &["-o", "name"]);
    assert_eq!(names.next(|_| true), ["personalaccesstoken.pat-operator.io/b"]);
    runner.place.apply("c", json!({"suspend": true})).await;
    names.next(|words| words == ["personalaccesstoken.pat-operator.io/c"]);

    // The end of the reader ends the command.
    let mut shell = std::process::Command::new("bash");
    let line = format!("set -o pipefail; {PLUGIN} list -w -n {} -o json | head -c 1", runner.place.name());
    shell.args(["-c", &line]).env("KUBECONFIG", runner.place.kubeconfig());
    let ran = tokio::task::spawn_blocking(|| run(shell, None));
    while !ran.is_finished() {
        // Each change is written to the pipe.
        runner.place.apply("c", json!({"suspend": true, "description": in_seconds(0)})).await;
    }
    let ran = ran.await.unwrap();
    assert_eq!((ran.code, &*ran.out, &*ran.err), (0, "{", ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_without_the_permission_ends_with_an_error() {
    let runner = PluginRunner::new("pat-nowatch").await;
    let user = runner.kubeconfig_of(&format!("eve-{}", runner.place.name()));
    let err = runner.pat_as(&user, "list -w").failed(1);
    assert!(err.contains("may not list personalaccesstokens"), "{err}");
}
