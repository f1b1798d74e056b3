//! `plan`: the controller's own planner, without a cluster and against one.

use std::process::Command;

use serde_json::json;

use super::hand::{Hand, PLUGIN, run};

fn offline(words: &[&str], manifest: &str) -> super::hand::Ran {
    let mut plugin = Command::new(PLUGIN);
    plugin.env_clear().env("HOME", "/nonexistent").args(words);
    run(plugin, Some(manifest))
}

#[test]
fn a_manifest_is_planned_without_any_cluster() {
    let manifest = offline(&["create", "ci", "--rotate-every", "7d", "--secret", "ci-token"], "").good();
    let text = offline(&["plan", "-f", "-"], &manifest).good();
    for part in [
        "default/ci",
        "1. mint a token kpat_… in memory",
        "2. write the status: publish the hash of a new token (revision 1)",
        "3. create Secret ci-token (Opaque): the new token under the key token",
        "4. write the status: the token of revision 1 is active",
        "a new token takes the place of the present one",
    ] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
}

#[test]
fn what_is_no_manifest_is_refused_with_what_to_do() {
    for (text, part) in [
        ("kind: Pod", "there is no PersonalAccessToken"),
        ("{", "is not YAML"),
        ("apiVersion: pat-operator.io/v1alpha1\nkind: PersonalAccessToken\nspec: {}", "metadata.name is missing"),
    ] {
        let err = offline(&["plan", "-f", "-"], text).failed(2);
        assert!(err.contains(part), "{err}");
    }
    let text =
        "apiVersion: pat-operator.io/v1alpha1\nkind: PersonalAccessToken\nmetadata: {name: a}\nspec: {scopes: 7}";
    assert!(offline(&["plan", "-f", "-"], text).good().contains("InvalidSpec"));
    let err = offline(&["plan", "-f", "/nonexistent/file"], "").failed(1);
    assert!(err.contains("/nonexistent/file"), "{err}");
}

#[test]
fn every_example_has_a_plan_that_issues_a_token_unless_it_is_suspended() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
    let mut planned = 0;
    for file in std::fs::read_dir(folder).expect("examples are there") {
        let path = file.expect("readable").path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let text = offline(&["plan", "-f", path.to_str().expect("a path")], "").good();
            let waits = text.contains("spec.suspend is true, so no token is issued");
            assert!(waits || text.contains("create Secret"), "{}:\n{text}", path.display());
            planned += 1;
        }
    }
    assert!(planned > 3, "{planned}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_is_planned_as_the_operator_sees_it() {
    let (hand, mut operator) = Hand::with_operator("pat-plan").await;
    let spec = json!({"secret": {"template": {"data": {"env": "TOKEN={{ token }}"}}}});
    hand.place.apply("ci", spec).await;
    hand.place.ready("ci").await;
    operator.kill();
    let text = hand.pat("plan ci").good();
    assert!(text.contains("nothing to do") && text.contains("the whole token ends"), "{text}");
    // The end has passed by then.
    let text = hand.pat("plan ci --at 2099-01-01T00:00:00Z").good();
    assert!(
        text.contains("remove the token from Secret ci") && text.contains("has ended and leaves the status"),
        "{text}"
    );

    let changed = "apiVersion: pat-operator.io/v1alpha1\nkind: PersonalAccessToken\nmetadata: {name: ci}\nspec: {secret: {name: other}}";
    let text = hand.piped("plan -f - --live", changed).good();
    assert!(text.contains("create Secret other (Opaque): the active token"), "{text}");
    assert!(text.contains("delete Secret ci") && !text.contains("mint"), "{text}");

    // Whoever was first has the better claim to the Secret's name.
    let rival = changed.replace("name: ci", "name: late").replace("name: other", "name: ci");
    let text = hand.piped("plan -f - --live", &rival).good();
    assert!(text.contains("SecretConflict") && !text.contains("create Secret"), "{text}");
}
