//! `plan`, with and without a cluster.

use std::process::Command;

use serde_json::json;

use super::runner::{PLUGIN, PluginRunner, run};

fn offline(words: &[&str], manifest: &str) -> super::runner::CommandResult {
    let mut plugin = Command::new(PLUGIN);
    plugin.env_clear().env("HOME", "/nonexistent").args(words);
    run(plugin, Some(manifest))
}

#[test]
fn manifest_is_planned_without_a_cluster() {
    let manifest = offline(&["create", "ci", "--rotate-every", "7d", "--secret", "ci-token"], "").success();
    let text = offline(&["plan", "-f", "-"], &manifest).success();
    for part in [
        "default/ci",
        "1. mint a token kpat_… in memory",
        "2. write the status: publish the hash of a new token (revision 1)",
        "3. create Secret ci-token (Opaque): the new token under the key token",
        "4. write the status: the token of revision 1 is active",
        "a new token replaces the current one",
    ] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
}

#[test]
fn invalid_manifest_is_refused() {
    for (text, part) in [
        ("kind: Pod", "no PersonalAccessToken of pat-operator.io found"),
        ("{", "invalid YAML"),
        ("apiVersion: pat-operator.io/v1alpha1\nkind: PersonalAccessToken\nspec: {}", "metadata.name: required"),
    ] {
        let err = offline(&["plan", "-f", "-"], text).failed(2);
        assert!(err.contains(part), "{err}");
    }
    let text =
        "apiVersion: pat-operator.io/v1alpha1\nkind: PersonalAccessToken\nmetadata: {name: a}\nspec: {scopes: 7}";
    assert!(offline(&["plan", "-f", "-"], text).success().contains("InvalidSpec"));
    let err = offline(&["plan", "-f", "/nonexistent/file"], "").failed(1);
    assert!(err.contains("/nonexistent/file"), "{err}");
}

#[test]
fn every_example_issues_a_token_unless_suspended() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
    let mut planned = 0;
    for file in std::fs::read_dir(folder).expect("examples are there") {
        let path = file.expect("readable").path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let text = offline(&["plan", "-f", path.to_str().expect("a path")], "").success();
            let waits = text.contains("spec.suspend is true, so no token is issued");
            assert!(waits || text.contains("create Secret"), "{}:\n{text}", path.display());
            planned += 1;
        }
    }
    assert!(planned > 3, "{planned}");
}

#[tokio::test(flavor = "multi_thread")]
async fn existing_object_is_planned() {
    let (runner, mut operator) = PluginRunner::with_operator("pat-plan").await;
    let spec = json!({"secret": {"template": {"data": {"env": "TOKEN={{ token }}"}}}});
    runner.place.apply("ci", spec).await;
    runner.place.ready("ci").await;
    operator.kill();
    let text = runner.pat("plan ci").success();
    assert!(
        text.contains("nothing to do") && text.contains("the token expires (spec.expiry or the default lifetime)"),
        "{text}"
    );
    // The token has expired by then.
    let text = runner.pat("plan ci --at 2099-01-01T00:00:00Z").success();
    assert!(
        text.contains("remove the token from Secret ci") && text.contains("has ended and is removed from the status"),
        "{text}"
    );

    let changed = "apiVersion: pat-operator.io/v1alpha1\nkind: PersonalAccessToken\nmetadata: {name: ci}\nspec: {secret: {name: other}}";
    let text = runner.piped("plan -f - --live", changed).success();
    assert!(text.contains("create Secret other (Opaque): the active token"), "{text}");
    assert!(text.contains("delete Secret ci") && !text.contains("mint"), "{text}");

    // The older object keeps the Secret.
    let conflicting = changed.replace("name: ci", "name: late").replace("name: other", "name: ci");
    let text = runner.piped("plan -f - --live", &conflicting).success();
    assert!(text.contains("SecretConflict") && !text.contains("create Secret"), "{text}");
}
