//! Shell completion, manual pages, and the krew manifest.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use serde_json::{Value, json};

use super::runner::{PLUGIN, PluginRunner, run};

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_completes_commands_flags_values_and_names() {
    let runner = PluginRunner::new("pat-complete").await;
    runner.place.apply("ci-token", json!({})).await;
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("kubectl_complete-pat");
    fs::write(&script, runner.pat("completion kubectl").success()).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let complete = |words: &[&str]| {
        let mut kubectl = runner.kubectl(&runner.place.kubeconfig());
        let path = kubectl.get_envs().find(|(name, _)| *name == "PATH").unwrap().1.unwrap().to_owned();
        let path =
            std::env::join_paths([folder.path().to_owned()].into_iter().chain(std::env::split_paths(&path))).unwrap();
        kubectl.env("PATH", path).args(["__complete", "pat"]).args(words);
        run(kubectl, None).success()
    };
    let namespace = runner.place.name();
    for (words, suggestion) in [
        (&["re"][..], "reveal"),
        (&["list", "--all"], "--all-namespaces"),
        (&["list", "--sort-by", "las"], "last-used"),
        (&["revoke", "--sel"], "--selector"),
        (&["wait", "x", "--for", ""], "rotation"),
        (&["show", "-n", namespace, ""], "ci-token"),
        (&["rotate", "-n", namespace, "other", "ci"], "ci-token"),
        (&["list", "-n", "pat-complete"], namespace),
    ] {
        let output = complete(words);
        assert!(output.lines().any(|line| line.split('\t').next() == Some(suggestion)), "{words:?}: {output}");
    }
    assert!(!complete(&["create", "-n", namespace, ""]).contains("ci-token"), "a new token has a new name");
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let mut plugin = Command::new(PLUGIN);
    plugin.arg("man").arg(folder.path());
    run(plugin, None).success();
    let page =
        |name: &str| fs::read_to_string(folder.path().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(page("kubectl-pat.1").contains("Exit codes"));
    for command in
        ["list", "create", "show", "reveal", "rotate", "revoke", "extend", "find", "verify", "wait", "plan", "doctor"]
    {
        assert!(page(&format!("kubectl-pat-{command}.1")).contains("Examples"), "{command}");
    }
}

#[test]
fn krew_manifest_is_complete() {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/plugin/pat.yaml")).unwrap();
    for place in ["@VERSION@", "@BASE_URL@"] {
        assert!(text.contains(place), "{place}");
    }
    let manifest: Value = serde_yaml::from_str(&text).unwrap();
    assert_eq!((manifest["kind"].as_str(), manifest["metadata"]["name"].as_str()), (Some("Plugin"), Some("pat")));
    assert!(manifest["spec"]["shortDescription"].as_str().is_some_and(|text| text.len() <= 50));
    let platforms = manifest["spec"]["platforms"].as_array().unwrap();
    for platform in platforms {
        let labels = &platform["selector"]["matchLabels"];
        let name = format!("{}-{}", labels["os"].as_str().unwrap(), labels["arch"].as_str().unwrap());
        assert_eq!(platform["sha256"], format!("@SHA256_{}@", name.replace('-', "_")));
        assert!(platform["uri"].as_str().unwrap().ends_with(&format!("kubectl-pat-{name}.tar.gz")), "{name}");
        assert_eq!(platform["bin"], "kubectl-pat");
    }
    assert_eq!(platforms.len(), 4);
}
