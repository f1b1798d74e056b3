//! `rotate` and `revoke` of the tokens that a selector finds.

use std::process::Command;

use serde_json::{Value, json};

use super::{
    runner::{PluginRunner, run},
    tty::Terminal,
};

/// Tokens with labels, and one without.
async fn with_tokens(prefix: &str) -> PluginRunner {
    let runner = PluginRunner::new(prefix).await;
    for (name, labels) in [("web", json!({"team": "shop"})), ("api", json!({"team": "shop"})), ("other", json!({}))] {
        runner.place.apply_labelled(name, labels, json!({})).await;
    }
    runner
}

async fn fields(runner: &PluginRunner, field: &str) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for name in ["api", "other", "web"] {
        let spec = serde_json::to_value(runner.place.pats().get(name).await.unwrap().spec).unwrap();
        found.push((name.to_owned(), spec[field].clone()));
    }
    found
}

fn is_set(fields: &[(String, Value)]) -> Vec<&str> {
    fields.iter().filter(|(_, value)| !value.is_null()).map(|(name, _)| name.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn selected_tokens_are_listed_and_confirmed_first() {
    let runner = with_tokens("pat-select").await;
    for line in ["rotate -l team=shop", "revoke -l team=shop"] {
        let ran = runner.pat(line);
        assert!(ran.code == 2 && ran.err.contains("use --yes to confirm"), "{ran:?}");
        let listed: Vec<_> = ran.err.lines().filter(|line| line.starts_with(runner.place.name())).collect();
        assert!(listed.len() == 2 && listed[0].contains(" api ") && listed[1].contains(" web "), "{ran:?}");
    }
    let mut kubectl = runner.kubectl(&runner.place.kubeconfig());
    kubectl.env("TERM", "dumb").args(["pat", "rotate", "-l", "team=shop", "-n", runner.place.name()]);
    let mut terminal = Terminal::run(&kubectl);
    terminal.shows("Rotate these 2 tokens? [y/N] ");
    // Only what was listed is changed: not a new token, and not another object of the same name.
    runner.place.apply_labelled("late", json!({"team": "shop"}), json!({})).await;
    runner.place.pats().delete("web", &Default::default()).await.unwrap();
    runner.place.apply_labelled("web", json!({"team": "shop"}), json!({})).await;
    terminal.types("y");
    let (code, shown) = terminal.ends();
    assert!(code == 1 && shown.contains("1 of 2 tokens were not rotated"), "{shown}");
    let row = |name: &str| {
        let row = shown.lines().rfind(|line| line.contains(&format!(" {name} "))).unwrap_or_default();
        row.split_whitespace().skip(2).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(row("api"), "ok rotation requested", "{shown}");
    assert!(row("web").starts_with("failed web: another object has this name since"), "{shown}");
    assert_eq!(is_set(&fields(&runner, "rotateIfIssuedBefore").await), ["api"]);
    assert!(runner.place.pats().get("late").await.unwrap().spec.rotate_if_issued_before.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn selection_is_revoked_and_that_is_undone() {
    let runner = with_tokens("pat-bulk").await;
    assert!(runner.pat("revoke -l team=none --yes").failed(1).contains("no tokens to revoke found"));
    let dry = runner.pat("revoke -l team=shop --dry-run").success();
    assert_eq!(dry.lines().count(), 2, "{dry}");
    assert!(is_set(&fields(&runner, "revoked").await).is_empty(), "a dry run saves nothing");
    let done = runner.pat("revoke -l team=shop --yes").success();
    assert_eq!(done, "api revoked; no new token is issued\nweb revoked; no new token is issued\n");
    assert_eq!(is_set(&fields(&runner, "revoked").await), ["api", "web"]);
    // What is revoked already has nothing to rotate.
    assert!(runner.pat("rotate -l team=shop --yes").failed(1).contains("no tokens to rotate found"));
    let undone = runner.pat("revoke -l team=shop --undo --yes").success();
    assert_eq!(
        undone,
        "api is no longer revoked; a new token is issued\nweb is no longer revoked; a new token is issued\n"
    );
    assert!(is_set(&fields(&runner, "revoked").await).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_all_namespaces_are_selected() {
    let (one, two) = (with_tokens("pat-all").await, with_tokens("pat-all").await);
    let label = json!({"batch": one.place.name()});
    for (runner, name) in [(&one, "web"), (&two, "api")] {
        runner.place.apply_labelled(name, label.clone(), json!({})).await;
    }
    let done = one.pat(&format!("rotate -A -l batch={} --yes", one.place.name())).success();
    let lines = |runner: &PluginRunner, name: &str| format!("{}/{name} rotation requested\n", runner.place.name());
    let mut expected = [lines(&one, "web"), lines(&two, "api")];
    expected.sort();
    assert_eq!(done, expected.concat());
    assert_eq!(is_set(&fields(&one, "rotateIfIssuedBefore").await), ["web"]);
    assert_eq!(is_set(&fields(&two, "rotateIfIssuedBefore").await), ["api"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn failure_of_one_named_token_does_not_stop_the_others() {
    let runner = with_tokens("pat-partial").await;
    let ran = runner.pat("rotate ghost api");
    assert!(
        ran.code == 1 && ran.err.ends_with("error: 1 of 2 tokens were not rotated; the table says why\n"),
        "{ran:?}"
    );
    assert!(
        ran.out.contains("PersonalAccessToken ghost not found") && ran.out.contains("ok       rotation requested"),
        "{ran:?}"
    );
    assert_eq!(is_set(&fields(&runner, "rotateIfIssuedBefore").await), ["api"]);
    let mut plugin = Command::new(super::runner::PLUGIN);
    plugin.env("KUBECONFIG", runner.place.kubeconfig()).args(["rotate", "ghost", "-n", runner.place.name()]);
    let ran = run(plugin, None);
    assert!(ran.code == 1 && ran.out.is_empty() && ran.err.starts_with("error: PersonalAccessToken ghost"), "{ran:?}");
}
