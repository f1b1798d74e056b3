//! Missing permissions.

use super::runner::{PluginRunner, run};

fn grant(runner: &PluginRunner, user: &str, role: &[&str]) {
    let namespace = runner.place.name();
    let admin = runner.place.kubeconfig();
    let mut kubectl = runner.kubectl(&admin);
    kubectl.args(["create", "role", user, "-n", namespace]).args(role);
    run(kubectl, None).success();
    let mut kubectl = runner.kubectl(&admin);
    kubectl.args(["create", "rolebinding", user, "-n", namespace]);
    kubectl.args([format!("--role={user}"), format!("--user={user}")]);
    run(kubectl, None).success();
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_permissions_are_named() {
    let (runner, _operator) = PluginRunner::with_operator("pat-rights").await;
    runner.pat("create ci --apply").success();
    runner.pat("wait ci --timeout 60s").success();
    let token = runner.place.token("ci").await;
    let user = format!("ann-{}", runner.place.name());
    grant(&runner, &user, &["--verb=get,list", "--resource=personalaccesstokens.pat-operator.io"]);
    let ann = runner.kubeconfig_of(&user);

    assert!(runner.pat_as(&ann, "list").success().contains("ci"));
    let mut kubectl = runner.kubectl(&ann);
    kubectl.args(["pat", "verify", "-n", runner.place.name()]);
    assert!(run(kubectl, Some(&token)).success().starts_with("valid "));
    let page = runner.pat_as(&ann, "show ci").success();
    assert!(page.contains("you may not list events.events.k8s.io"), "{page}");
    for (words, part) in [
        ("reveal ci --force", "may not get secrets"),
        ("rotate ci", "may not patch personalaccesstokens.pat-operator.io"),
        ("list -A", "may not list personalaccesstokens.pat-operator.io in the whole cluster"),
    ] {
        let err = runner.pat_as(&ann, words).failed(1);
        assert!(err.contains(part) && err.contains("kubectl auth can-i"), "{words}: {err}");
    }

    let report = runner.pat_as(&ann, "doctor");
    for part in [
        "you may not create personalaccesstokens.pat-operator.io in namespace",
        "you may not patch personalaccesstokens.pat-operator.io in namespace",
        "you may not get secrets in namespace",
        "kubectl create role pat-get-secrets",
        "unknown  leader of the operator: you may not list leases",
        "its namespace is not known",
        "fields not checked: you may not get customresourcedefinitions",
    ] {
        assert!(report.out.contains(part), "{part} is missing in:\n{}", report.out);
    }

    // Without permission to list all namespaces, verify searches the namespace of the context.
    let mut kubectl = runner.kubectl(&ann);
    kubectl.args(["config", "set-context", "--current", "--namespace", runner.place.name()]);
    run(kubectl, None).success();
    let mut kubectl = runner.kubectl(&ann);
    kubectl.args(["pat", "verify"]);
    assert!(run(kubectl, Some(&token)).success().starts_with("valid "));
}
