//! `verify` with valid, unknown, malformed and revoked tokens.

use pat_operator::token::Token;
use serde_json::{Value, json};

use super::runner::{PLUGIN, PluginRunner, run};

fn unknown_token() -> String {
    Token::mint(&"kpat".parse().unwrap()).unwrap().expose().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn valid_token_is_described() {
    let (runner, _operator) = PluginRunner::with_operator("pat-verify").await;
    runner
        .pat("create ci --scope a:b --scope c --audience https://x --owner bob@example.com --after 30d --apply")
        .success();
    runner.pat("wait ci --timeout 60s").success();
    let token = runner.place.token("ci").await;
    let text = runner.piped("verify", &format!("{token}\n")).success();
    let name = format!("Token:      {}/ci", runner.place.name());
    for part in [
        "valid ",
        &name,
        "Owner:      bob@example.com",
        "Scopes:     a:b, c",
        "Audiences:  https://x",
        "Expires:    20",
    ] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
    let result: Value = serde_json::from_str(&runner.piped("verify -o json", &token).success()).unwrap();
    assert_eq!(
        (&result["valid"], &result["scopes"], &result["state"]),
        (&json!(true), &json!(["a:b", "c"]), &json!("Active"))
    );
    // Without a namespace, verify searches all namespaces.
    let mut kubectl = runner.kubectl(&runner.place.kubeconfig());
    kubectl.args(["pat", "verify"]);
    assert!(run(kubectl, Some(&token)).success().contains(&name));

    let unknown = runner.piped("verify", &unknown_token()).failed(3);
    assert!(unknown.contains("is not valid in namespace") && unknown.contains("--context"), "{unknown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_token_is_refused_and_not_repeated() {
    let verify = |stdin: &str, more: &[&str]| {
        let mut plugin = std::process::Command::new(PLUGIN);
        plugin.env_clear().env("HOME", "/nonexistent").arg("verify").args(more);
        run(plugin, Some(stdin))
    };
    let good = unknown_token();
    let wrong = format!("{}{}", &good[..good.len() - 1], if good.ends_with('0') { '1' } else { '0' });
    for (text, part) in [
        (&*wrong, "checksum does not match"),
        ("hunter2", "64 to 77 characters"),
        (&*good.replace('_', "-"), "one \"_\""),
    ] {
        let err = verify(text, &[]).failed(3);
        assert!(err.contains(part) && !err.contains(text), "{err}");
    }
    assert!(verify("", &[]).failed(2).contains("stdin is empty"));
    assert!(verify(&good, &["--offline"]).success().contains("is well-formed"));
    // Without a cluster, verify fails.
    assert!(verify(&good, &[]).failed(1).contains("KUBECONFIG"));
}

#[test]
fn token_on_the_command_line_is_refused() {
    let token = unknown_token();
    for words in [vec!["verify", &*token], vec!["reveal", &*token], vec!["verify", "--token", &*token]] {
        let mut plugin = std::process::Command::new(PLUGIN);
        plugin.args(&words);
        let ran = run(plugin, None);
        assert!(
            ran.err.contains("the command line contains a token") && ran.err.contains("Revoke the token"),
            "{}",
            ran.err
        );
        assert!(!ran.err.contains(&token) && !ran.out.contains(&token) && ran.code == 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn token_of_a_disabled_owner_is_not_valid() {
    let (runner, _operator) = PluginRunner::with_operator("pat-owner").await;
    let owner = format!("{}@example.com", runner.place.name());
    runner.pat(&format!("create ci --owner {owner} --apply")).success();
    runner.pat("wait ci --timeout 60s").success();
    let token = runner.place.token("ci").await;
    let manifest = json!({
        "apiVersion": "pat-operator.io/v1alpha1", "kind": "TokenOwner", "metadata": {"name": runner.place.name()},
        "spec": {"subject": {"kind": "User", "name": owner}, "disabled": true},
    });
    let mut kubectl = runner.kubectl(&runner.place.kubeconfig());
    kubectl.args(["apply", "-f", "-"]);
    run(kubectl, Some(&manifest.to_string())).success();
    let ran = runner.piped("verify", &token);
    let mut kubectl = runner.kubectl(&runner.place.kubeconfig());
    kubectl.args(["delete", "tokenowner", runner.place.name()]);
    run(kubectl, None).success();
    assert!(ran.code == 3 && ran.out.contains("its owner is disabled"), "{ran:?}");
}
