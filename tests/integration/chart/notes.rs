//! The notes that `helm install` prints.

use super::helm::{NAMESPACE, Program, chart};
use crate::support::is_left_out;
use control_plane::Binary;

const VERIFIER: &str = "The verifier receives tokens in plain text. Make sure that something else encrypts the traffic to pat-operator-verifier.";
const API: &str = "The REST API receives tokens in plain text. Make sure that something else encrypts the traffic to pat-operator-api.";

/// The notes with these values, without a cluster.
fn notes(set: &str) -> String {
    let chart = chart();
    let all = ["install", "pat-operator", chart.to_str().expect("text"), "--namespace", NAMESPACE, "--dry-run=client"];
    let output = Program::helm().prints(&[&all[..], &["--set", set]].concat());
    output.split_once("\nNOTES:\n").expect("notes").1.to_owned()
}

#[test]
fn notes_name_grants_without_effect() {
    if is_left_out(Binary::Helm) {
        return;
    }
    let line = |set: &str| notes(set).lines().find(|line| line.contains("has no effect")).map(str::to_owned);
    let found = line("scopeGrants._default={read,introspect,sp:*,idn:x,introspector}").expect("a line");
    assert!(found.starts_with("scopeGrants._default: introspect, sp:*, idn:x has no effect."), "{found}");
    assert_eq!(line("scopeGrants._default={read,*},scopeGrants.shop={introspect}"), None);
}

#[test]
fn notes_of_a_release_without_policies_name_its_accounts() {
    if is_left_out(Binary::Helm) {
        return;
    }
    let set = "policies.enabled=false,api.enabled=true,api.namespace=a,api.tls.secretName=a,controller.enabled=false";
    let found = notes(set);
    let lines =
        "\n  policies:\n    otherAccounts:\n      verifiers: [system:serviceaccount:pat-operator:pat-operator-api]\n";
    assert!(found.contains(lines), "{found}");
    let found = notes("policies.enabled=false,controller.serviceAccount.name=x");
    assert!(found.contains("      controllers: [system:serviceaccount:pat-operator:x]\nIf no release"), "{found}");
    assert!(!notes("").contains("otherAccounts"));
}

#[test]
fn notes_warn_only_about_plain_text_servers() {
    if is_left_out(Binary::Helm) {
        return;
    }
    let cases: [(&str, &[&str]); 6] = [
        ("", &[]),
        ("verifier.enabled=true,verifier.tls.insecure=true", &[VERIFIER]),
        ("api.enabled=true,api.namespace=a,api.tls.insecure=true", &[API]),
        (
            "verifier.enabled=true,verifier.tls.insecure=true,api.enabled=true,api.namespace=a,api.tls.insecure=true",
            &[VERIFIER, API],
        ),
        (
            "verifier.enabled=true,verifier.tls.secretName=a,api.enabled=true,api.namespace=a,api.tls.selfSigned.enabled=true",
            &[],
        ),
        // Components that are not installed.
        ("verifier.tls.insecure=true,api.tls.insecure=true", &[]),
    ];
    for (set, warnings) in cases {
        let notes = notes(set);
        let found: Vec<_> = notes.lines().filter(|line| line.contains("plain text")).collect();
        assert_eq!(found, warnings, "{set}");
    }
}
