//! `verify`: from a pipe; what it knows, and what it tells when it does not.

use pat_operator::token::Token;
use serde_json::{Value, json};

use super::hand::{Hand, PLUGIN, run};

fn stranger() -> String {
    Token::mint(&"kpat".parse().unwrap()).unwrap().expose().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_token_is_told_with_its_owner_scopes_and_end() {
    let (hand, _operator) = Hand::with_operator("pat-verify").await;
    hand.pat("create ci --scope a:b --scope c --audience https://x --owner bob@example.com --after 30d --apply").good();
    hand.pat("wait ci --timeout 60s").good();
    let token = hand.place.token("ci").await;
    let text = hand.piped("verify", &format!("{token}\n")).good();
    let name = format!("Token:      {}/ci", hand.place.name());
    for part in
        ["good ", &name, "Owner:      bob@example.com", "Scopes:     a:b, c", "Audiences:  https://x", "Until:      20"]
    {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
    let told: Value = serde_json::from_str(&hand.piped("verify -o json", &token).good()).unwrap();
    assert_eq!(
        (&told["valid"], &told["scopes"], &told["state"]),
        (&json!(true), &json!(["a:b", "c"]), &json!("Active"))
    );
    // By an object of the same name, in the other namespaces that may be listed.
    let mut kubectl = hand.kubectl(&hand.place.kubeconfig());
    kubectl.args(["pat", "verify"]);
    assert!(run(kubectl, Some(&token)).good().contains(&name));

    let unknown = hand.piped("verify", &stranger()).failed(3);
    assert!(unknown.contains("no live token in namespace") && unknown.contains("--context"), "{unknown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn junk_is_refused_offline_with_the_rule_that_it_breaks_and_without_a_word_of_it() {
    let verify = |stdin: &str, more: &[&str]| {
        let mut plugin = std::process::Command::new(PLUGIN);
        plugin.env_clear().env("HOME", "/nonexistent").arg("verify").args(more);
        run(plugin, Some(stdin))
    };
    let good = stranger();
    let wrong = format!("{}{}", &good[..good.len() - 1], if good.ends_with('0') { '1' } else { '0' });
    for (text, part) in [
        (&*wrong, "checksum does not match"),
        ("hunter2", "64 to 77 characters"),
        (&*good.replace('_', "-"), "one \"_\""),
    ] {
        let err = verify(text, &[]).failed(3);
        assert!(err.contains(part) && !err.contains(text), "{err}");
    }
    assert!(verify("", &[]).failed(2).contains("no token on stdin"));
    assert!(verify(&good, &["--offline"]).good().contains("is well-formed"));
    // Without a cluster there is nobody to ask.
    assert!(verify(&good, &[]).failed(1).contains("KUBECONFIG"));
}

#[test]
fn a_token_on_the_command_line_is_refused_and_not_repeated() {
    let token = stranger();
    for words in [vec!["verify", &*token], vec!["reveal", &*token], vec!["verify", "--token", &*token]] {
        let mut plugin = std::process::Command::new(PLUGIN);
        plugin.args(&words);
        let ran = run(plugin, None);
        assert!(ran.err.contains("a token stands in the command line") && ran.err.contains("revoke it"), "{}", ran.err);
        assert!(!ran.err.contains(&token) && !ran.out.contains(&token) && ran.code == 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_a_disabled_owner_is_not_good() {
    let (hand, _operator) = Hand::with_operator("pat-owner").await;
    let owner = format!("{}@example.com", hand.place.name());
    hand.pat(&format!("create ci --owner {owner} --apply")).good();
    hand.pat("wait ci --timeout 60s").good();
    let token = hand.place.token("ci").await;
    let manifest = json!({
        "apiVersion": "pat-operator.io/v1alpha1", "kind": "TokenOwner", "metadata": {"name": hand.place.name()},
        "spec": {"subject": {"kind": "User", "name": owner}, "disabled": true},
    });
    let mut kubectl = hand.kubectl(&hand.place.kubeconfig());
    kubectl.args(["apply", "-f", "-"]);
    run(kubectl, Some(&manifest.to_string())).good();
    let ran = hand.piped("verify", &token);
    let mut kubectl = hand.kubectl(&hand.place.kubeconfig());
    kubectl.args(["delete", "tokenowner", hand.place.name()]);
    run(kubectl, None).good();
    assert!(ran.code == 3 && ran.out.contains("its owner is disabled"), "{ran:?}");
}
