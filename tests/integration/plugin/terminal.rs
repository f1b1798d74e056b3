//! What is different where a person sits: prompts, colours, and where a token may be shown.

use std::process::Command;

use serde_json::json;

use super::{hand::Hand, tty::Terminal};

fn on_terminal(hand: &Hand, words: &[&str]) -> Command {
    let mut kubectl = hand.kubectl(&hand.place.kubeconfig());
    kubectl.env("TERM", "xterm").arg("pat").args(words).args(["-n", hand.place.name()]);
    kubectl
}

#[tokio::test(flavor = "multi_thread")]
async fn a_typed_token_is_not_shown() {
    let (hand, _operator) = Hand::with_operator("pat-prompt").await;
    hand.place.apply("ci", json!({})).await;
    let token = hand.place.ready("ci").await;
    let mut terminal = Terminal::run(&on_terminal(&hand, &["verify"]));
    terminal.shows("Token (it is not shown): ");
    terminal.hides();
    terminal.types(&token);
    let (code, shown) = terminal.ends();
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("good") && !shown.contains(&token), "the token stands on the terminal");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_goes_to_a_terminal_and_into_a_pipe_only_by_force() {
    let (hand, _operator) = Hand::with_operator("pat-reveal").await;
    hand.place.apply("ci", json!({})).await;
    let token = hand.place.ready("ci").await;
    let refused = hand.pat("reveal ci");
    assert!(refused.code == 1 && refused.out.is_empty() && refused.err.contains("add --force"), "{refused:?}");
    let (code, shown) = Terminal::run(&on_terminal(&hand, &["reveal", "ci"])).ends();
    assert_eq!((code, shown), (0, format!("{token}\r\n")));
    assert_eq!(hand.pat("reveal ci --force").good(), token);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_asks_first_and_only_a_yes_is_one() {
    let hand = Hand::new("pat-ask").await;
    hand.place.apply("ci", json!({})).await;
    for (answer, code, revoked) in [("", 1, None), ("no", 1, None), ("y", 0, Some(true))] {
        let mut terminal = Terminal::run(&on_terminal(&hand, &["revoke", "ci"]));
        terminal.shows("Revoke? [y/N] ");
        terminal.types(answer);
        let ended = terminal.ends();
        assert_eq!(ended.0, code, "{}", ended.1);
        assert_eq!(hand.place.pats().get("ci").await.unwrap().spec.revoked, revoked, "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_has_colours_unless_somebody_does_not_want_them() {
    let hand = Hand::new("pat-colour").await;
    hand.place.apply("ci", json!({})).await;
    let shown = |change: &dyn Fn(&mut Command)| {
        let mut command = on_terminal(&hand, &["list"]);
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
