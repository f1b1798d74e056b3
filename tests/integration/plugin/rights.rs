//! What somebody sees who may not do everything.

use super::hand::{Hand, run};

fn grant(hand: &Hand, user: &str, role: &[&str]) {
    let namespace = hand.place.name();
    let admin = hand.place.kubeconfig();
    let mut kubectl = hand.kubectl(&admin);
    kubectl.args(["create", "role", user, "-n", namespace]).args(role);
    run(kubectl, None).good();
    let mut kubectl = hand.kubectl(&admin);
    kubectl.args(["create", "rolebinding", user, "-n", namespace]);
    kubectl.args([format!("--role={user}"), format!("--user={user}")]);
    run(kubectl, None).good();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_only_list_tokens_can_verify_one_and_is_told_what_else_is_missing() {
    let (hand, _operator) = Hand::with_operator("pat-rights").await;
    hand.pat("create ci --apply").good();
    hand.pat("wait ci --timeout 60s").good();
    let token = hand.place.token("ci").await;
    let user = format!("ann-{}", hand.place.name());
    grant(&hand, &user, &["--verb=get,list", "--resource=personalaccesstokens.pat-operator.io"]);
    let ann = hand.kubeconfig_of(&user);

    assert!(hand.pat_as(&ann, "list").good().contains("ci"));
    let mut kubectl = hand.kubectl(&ann);
    kubectl.args(["pat", "verify", "-n", hand.place.name()]);
    assert!(run(kubectl, Some(&token)).good().starts_with("good "));
    let page = hand.pat_as(&ann, "show ci").good();
    assert!(page.contains("you may not list events.events.k8s.io"), "{page}");
    for (words, part) in [
        ("reveal ci --force", "may not get secrets"),
        ("rotate ci", "may not patch personalaccesstokens.pat-operator.io"),
        ("list -A", "may not list personalaccesstokens.pat-operator.io in the whole cluster"),
    ] {
        let err = hand.pat_as(&ann, words).failed(1);
        assert!(err.contains(part) && err.contains("kubectl auth can-i"), "{words}: {err}");
    }

    let findings = hand.pat_as(&ann, "doctor");
    for part in [
        "you may not create personalaccesstokens.pat-operator.io in namespace",
        "you may not patch personalaccesstokens.pat-operator.io in namespace",
        "you may not get secrets in namespace",
        "kubectl create role pat-get-secrets",
        "unknown  whether an operator leads",
        "where it runs is not known",
        "whether all its fields are there, you may not read",
    ] {
        assert!(findings.out.contains(part), "{part} is missing in:\n{}", findings.out);
    }

    // Without a namespace: what may not be listed everywhere is looked for where it may be.
    let mut kubectl = hand.kubectl(&ann);
    kubectl.args(["config", "set-context", "--current", "--namespace", hand.place.name()]);
    run(kubectl, None).good();
    let mut kubectl = hand.kubectl(&ann);
    kubectl.args(["pat", "verify"]);
    assert!(run(kubectl, Some(&token)).good().starts_with("good "));
}
