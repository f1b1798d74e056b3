//! `show` and `list` where the object, its Secret and its tokens disagree.

use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use super::{runner::PluginRunner, tty::Terminal};
use crate::support::process::place::in_seconds;

/// The value of a field at the top of the page.
fn field<'a>(page: &'a str, name: &str) -> Option<&'a str> {
    let lines = page.lines().take_while(|line| !line.is_empty());
    lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim).next()
}

#[tokio::test(flavor = "multi_thread")]
async fn token_that_is_not_issued_yet_has_no_secret_but_an_end() {
    let runner = PluginRunner::new("pat-unissued").await;
    for (name, spec, expires) in [
        ("after", json!({"expiry": {"after": "90d"}}), "90d after the first token is issued"),
        ("default", json!({}), "after the default lifetime of the installation, which begins with the first token"),
        ("never", json!({"expiry": {"never": true}}), "never"),
    ] {
        runner.place.apply(name, spec).await;
        let page = runner.pat(&format!("show {name}")).success();
        assert_eq!(field(&page, "Expires"), Some(expires), "{page}");
        assert_eq!(field(&page, "Secret"), Some(&*format!("{name} (key token; does not exist)")), "{page}");
    }
    let wide = runner.pat("list -o wide").success();
    assert!(wide.lines().skip(1).all(|line| line.split("   ").map(str::trim).any(|cell| cell == "-")), "{wide}");
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_secret_is_told() {
    let (runner, mut operator) = PluginRunner::with_operator("pat-gone").await;
    runner.place.apply("ci", json!({})).await;
    runner.place.ready("ci").await;
    let page = runner.pat("show ci").success();
    assert_eq!(field(&page, "Secret"), Some("ci (key token)"), "{page}");
    operator.kill();
    runner.place.secrets().delete("ci", &DeleteParams::default()).await.unwrap();
    let page = runner.pat("show ci").success();
    assert_eq!(field(&page, "Secret"), Some("ci (key token; does not exist)"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn page_fits_the_terminal_and_repeats_no_message() {
    let (runner, _operator) = PluginRunner::with_operator("pat-width").await;
    runner.place.apply("first", json!({"secret": {"name": "shared"}})).await;
    runner.place.until("first", "ready", |status| status.secret_name.is_some()).await;
    let spec = json!({
        "description": "a description that is much longer than a line of the terminal, so that it takes more than one",
        "scopes": (0..12).map(|n| format!("packages-{n}:write")).collect::<Vec<_>>(),
        "rotation": {"interval": "10d"}, "secret": {"name": "shared"},
    });
    runner.place.apply("late", spec).await;
    let message = runner.place.has("late", "Stalled", "True", "SecretConflict").await.message;
    runner.place.apply("dead", json!({"expiry": {"at": in_seconds(-60)}})).await;
    runner.place.has("dead", "Stalled", "True", "Expired").await;

    let page = runner.pat("show late").success();
    assert_eq!(
        page.matches(&message).count(),
        1 + page.matches(&format!("SecretConflict: {message}")).count(),
        "{page}"
    );
    assert!(page.contains("(as above)"), "{page}");
    for name in ["first", "late", "dead"] {
        let mut kubectl = runner.kubectl(&runner.place.kubeconfig());
        kubectl.env("TERM", "dumb").args(["pat", "show", name, "-n", runner.place.name()]);
        let (code, shown) = Terminal::run_in(&kubectl, 80).ends();
        let longest = shown.lines().map(|line| line.trim_end().chars().count()).max();
        assert!(code == 0 && longest.is_some_and(|longest| longest <= 80), "{longest:?}:\n{shown}");
        let words = |text: &str| text.split_whitespace().filter(|word| *word != "MESSAGE").count();
        assert_eq!(words(&shown), words(&runner.pat(&format!("show {name}")).success()), "no word is lost:\n{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn revoked_token_is_shown_as_revoked_while_no_controller_runs() {
    let (runner, mut operator) = PluginRunner::with_operator("pat-refused-now").await;
    for name in ["by-time", "by-id", "whole"] {
        runner.place.apply(name, json!({"rotation": {"interval": "10d"}})).await;
        runner.place.ready(name).await;
    }
    operator.kill();
    let token = runner.place.token("by-time").await;
    let id = runner.place.status("by-id").await.credentials[0].id.clone();
    runner.pat("revoke by-time --reissue --yes").success();
    runner.pat(&format!("revoke by-id --yes --id {id}")).success();
    runner.pat("revoke whole --yes").success();
    runner.piped("verify", &token).failed(3);
    let listed = runner.pat("list").success();
    assert_eq!(listed.matches(" Revoked ").count(), 3, "{listed}");
    for name in ["by-time", "by-id", "whole"] {
        let page = runner.pat(&format!("show {name}")).success();
        let (_, credentials) = page.split_once("Credentials\n").expect("a part with credentials");
        let row: Vec<_> = credentials.lines().nth(1).expect("a credential").split_whitespace().collect();
        assert!(row[2].starts_with("Revoked") && row[row.len() - 2] == "-", "a revoked token has no end ahead: {page}");
    }
    let page = runner.pat("show whole").success();
    assert!(field(&page, "Expires").is_none() && page.contains("now (no upcoming events)"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn change_without_effect_is_not_reported_as_a_success() {
    let runner = PluginRunner::new("pat-deleting").await;
    runner.place.apply("ci", json!({"expiry": {"after": "30d"}})).await;
    let finalizers = |names: serde_json::Value| Patch::Merge(json!({"metadata": {"finalizers": names}}));
    let (pats, params) = (runner.place.pats(), PatchParams::default());
    pats.patch("ci", &params, &finalizers(json!(["example.com/hold"]))).await.unwrap();
    pats.delete("ci", &DeleteParams::default()).await.unwrap();
    for line in ["revoke ci --reissue --yes", "revoke ci --undo", "rotate ci", "extend ci --by 1d", "create ci --apply"]
    {
        let err = runner.pat(line).failed(1);
        assert!(
            err.contains("ci: the object is being deleted") && err.contains("kubectl wait --for=delete pat/ci"),
            "{err}"
        );
    }
    assert_eq!(runner.pat("revoke ci --yes").success(), "ci revoked; no new token is issued\n");
    let page = runner.pat("show ci").success();
    assert!(field(&page, "State").unwrap().starts_with("Deleting") && field(&page, "Expires").is_none(), "{page}");
    assert!(page.contains("now (no upcoming events)"), "{page}");
    pats.patch("ci", &params, &finalizers(json!(null))).await.unwrap();

    runner.place.apply("off", json!({"suspend": true})).await;
    let no_token = "no new token is issued while spec.suspend is true";
    assert_eq!(runner.pat("revoke off --reissue --yes").success(), format!("off revoked; {no_token}\n"));
    assert_eq!(runner.pat("revoke off --undo").success(), "off was not revoked; nothing was changed\n");
    runner.pat("revoke off --yes").success();
    assert_eq!(runner.pat("revoke off --undo").success(), format!("off is no longer revoked; {no_token}\n"));
    runner.pat("revoke off --yes").success();
    let no_token = "no new token is issued while spec.revoked is true";
    assert_eq!(runner.pat("revoke off --reissue --yes").success(), format!("off revoked; {no_token}\n"));
    runner.place.apply("ended", json!({"expiry": {"at": in_seconds(-60)}})).await;
    assert!(runner.pat("revoke ended --reissue --yes").success().contains("because the token expired"));
}
