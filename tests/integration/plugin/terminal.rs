//! Prompts, colors, and tokens on a terminal.

use std::process::Command;

use serde_json::json;

use super::{runner::PluginRunner, tty::Terminal};

fn on_terminal(runner: &PluginRunner, words: &[&str]) -> Command {
    let mut kubectl = runner.kubectl(&runner.place.kubeconfig());
    kubectl.env("TERM", "xterm").arg("pat").args(words).args(["-n", runner.place.name()]);
    kubectl
}

#[tokio::test(flavor = "multi_thread")]
async fn typed_token_is_hidden() {
    let (runner, _operator) = PluginRunner::with_operator("pat-prompt").await;
    runner.place.apply("ci", json!({})).await;
    let token = runner.place.ready("ci").await;
    let mut terminal = Terminal::run(&on_terminal(&runner, &["verify"]));
    terminal.shows("Token (input is hidden): ");
    terminal.hides();
    terminal.types(&token);
    let (code, shown) = terminal.ends();
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("valid") && !shown.contains(&token), "the token is on the terminal");
}

#[tokio::test(flavor = "multi_thread")]
async fn reveal_writes_to_a_pipe_only_with_force() {
    let (runner, _operator) = PluginRunner::with_operator("pat-reveal").await;
    runner.place.apply("ci", json!({})).await;
    let token = runner.place.ready("ci").await;
    let refused = runner.pat("reveal ci");
    assert!(refused.code == 1 && refused.out.is_empty() && refused.err.contains("use --force"), "{refused:?}");
    let (code, shown) = Terminal::run(&on_terminal(&runner, &["reveal", "ci"])).ends();
    assert_eq!((code, shown), (0, format!("{token}\r\n")));
    assert_eq!(runner.pat("reveal ci --force").success(), token);
}

#[tokio::test(flavor = "multi_thread")]
async fn revoke_asks_for_confirmation() {
    let runner = PluginRunner::new("pat-ask").await;
    runner.place.apply("ci", json!({})).await;
    for (answer, code, revoked) in [("", 1, None), ("no", 1, None), ("y", 0, Some(true))] {
        let mut terminal = Terminal::run(&on_terminal(&runner, &["revoke", "ci"]));
        terminal.shows("Revoke? [y/N] ");
        terminal.types(answer);
        let ended = terminal.ends();
        assert_eq!(ended.0, code, "{}", ended.1);
        assert_eq!(runner.place.pats().get("ci").await.unwrap().spec.revoked, revoked, "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn terminal_gets_colors_unless_disabled() {
    let runner = PluginRunner::new("pat-color").await;
    runner.place.apply("ci", json!({})).await;
    let shown = |change: &dyn Fn(&mut Command)| {
        let mut command = on_terminal(&runner, &["list"]);
        change(&mut command);
        let (code, shown) = Terminal::run(&command).ends();
        assert!(code == 0 && shown.contains("New"), "{shown}");
        shown.contains('\x1b')
    };
    assert!(shown(&|_| ()));
    assert!(!shown(&|command| {
        command.env("NO_COLOR", "1");
    }));
    assert!(!shown(&|command| {
        command.env("TERM", "dumb");
    }));
    assert!(!shown(&|command| {
        command.arg("--color=never");
    }));
}
