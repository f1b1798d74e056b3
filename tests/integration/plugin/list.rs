//! What `list` shows, in which order, and in which forms.

use serde_json::{Value, json};

use super::hand::{Hand, run};
use crate::support::process::place::in_seconds;

fn names(table: &str) -> Vec<&str> {
    table.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_next_comes_first_and_every_form_has_all_of_them() {
    let (hand, _operator) = Hand::with_operator("pat-list").await;
    let place = &hand.place;
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

    let table = hand.pat("list").good();
    assert_eq!(names(&table), ["c-soon", "d-rotates", "b-late", "e-ended", "a-never"], "{table}");
    let line = |name: &str| table.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert!(line("e-ended").contains("Expired"), "{table}");
    assert!(line("c-soon").contains("expires in ") && line("d-rotates").contains("rotates in "), "{table}");
    assert!(!table.contains('\x1b'), "a pipe has no colours");
    assert!(hand.pat("list --color always").good().contains('\x1b'));

    let wide = hand.pat("list -o wide").good();
    assert!(wide.lines().next().unwrap().ends_with("SECRET      SCOPES   CREDENTIALS    MESSAGE"), "{wide}");
    assert!(wide.contains("x:y"), "{wide}");
    let some = hand.pat("list -l kind-of=good -o name").good();
    assert_eq!(some.lines().count(), 4, "{some}");
    let all: Value = serde_json::from_str(&hand.pat("list -o json").good()).unwrap();
    assert_eq!((all["kind"].as_str(), all["items"].as_array().unwrap().len()), (Some("List"), 5));
    assert!(all["items"][0]["metadata"]["managedFields"].is_null());
    let yaml: Value = serde_yaml::from_str(&hand.pat("list -o yaml").good()).unwrap();
    assert_eq!(yaml, all);

    let everywhere = hand.pat("list -A").good();
    let here = format!("{} ", place.name());
    assert!(
        everywhere.starts_with("NAMESPACE") && everywhere.lines().filter(|line| line.starts_with(&here)).count() == 5
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_found_is_no_failure_and_says_where_to_look() {
    let hand = Hand::new("pat-none").await;
    let ran = hand.pat("list");
    assert_eq!((ran.code, &*ran.out), (0, ""));
    assert!(ran.err.contains("no PersonalAccessTokens found in namespace") && ran.err.contains("-A"), "{}", ran.err);
    let missing = hand.pat("show ghost").failed(1);
    assert!(
        missing.contains("there is no PersonalAccessToken ghost") && missing.contains("kubectl pat list -A"),
        "{missing}"
    );
    let selector = hand.pat("list -l a==b==c").failed(1);
    assert!(selector.starts_with("error: ") && selector.lines().count() == 1, "{selector}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_nobody_has_looked_at_is_new_and_a_wrong_context_is_named() {
    let hand = Hand::new("pat-new").await;
    hand.place.apply("ci", json!({})).await;
    assert!(hand.pat("list").good().contains("New"));
    assert!(hand.pat("show ci").good().contains("kubectl pat doctor"));
    let ran = hand.pat("list --context nowhere").failed(1);
    assert!(ran.contains("nowhere"), "{ran}");
    let ran = hand.pat("list --kubeconfig /nonexistent/config").failed(1);
    assert!(ran.contains("/nonexistent/config"), "{ran}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_reads_the_pipe_may_stop_early() {
    let hand = Hand::new("pat-pipe").await;
    for n in 0..3 {
        hand.place.apply(&format!("t{n}"), json!({})).await;
    }
    let mut shell = std::process::Command::new("bash");
    let line = format!("set -o pipefail; {} list -A -o json | head -c 1", super::hand::PLUGIN);
    shell.args(["-c", &line]).env("KUBECONFIG", hand.place.kubeconfig());
    let ran = run(shell, None);
    assert_eq!((ran.code, &*ran.out, &*ran.err), (0, "{", ""));
}
