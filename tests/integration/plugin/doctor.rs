//! `doctor`: of an installation that works, of one that does not, and of what is not there at all.

use std::process::Command;

use control_plane::{ControlPlane, Options};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::Secret,
    rbac::v1::{Role, RoleBinding},
};
use kube::{Api, api::PostParams};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::hand::{Hand, PLUGIN, run};
use crate::support::process::place::eventually;

async fn certificate(hand: &Hand, name: &str, until: (i32, u8, u8)) {
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2001, 1, 1);
    params.not_after = rcgen::date_time_ymd(until.0, until.1, until.2);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let secret: Secret = serde_json::from_value(json!({
        "metadata": {"name": name}, "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": certificate.pem(), "tls.key": key.serialize_pem()},
    }))
    .unwrap();
    hand.place.secrets().create(&PostParams::default(), &secret).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_that_works_has_nothing_broken_and_one_that_stopped_is_named_with_its_fix() {
    let (hand, operator) = Hand::with_operator("pat-doctor").await;
    hand.place.apply("ci", json!({})).await;
    hand.place.ready("ci").await;
    certificate(&hand, "good", (2099, 1, 1)).await;
    let doctor = format!("doctor --operator-namespace {}", hand.place.name());
    let text = hand.pat(&doctor).good();
    for part in [
        "the API server at https://127.0.0.1:",
        "the API server's clock and this machine's agree",
        "personalaccesstokens.pat-operator.io v1alpha1 is installed, with every field",
        "tokenowners.pat-operator.io v1alpha1 is installed",
        "you may do all that this plugin does",
        "is held by ",
        "good is good until 2099-01-01T00:00:00Z",
        "1 of 1 tokens in namespace",
        "0 broken, 0 warnings",
    ] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }

    certificate(&hand, "ended", (2002, 1, 1)).await;
    operator.terminate().await;
    let ran = hand.pat(&doctor);
    assert_eq!(ran.code, 1, "{}", ran.out);
    for part in [
        "is held by nobody",
        "no controller works",
        "fix: kubectl -n ",
        "the certificate in Secret ",
        "/ended ended 2002-01-01T00:00:00Z",
        "fix: renew it",
        "2 broken",
    ] {
        assert!(ran.out.contains(part), "{part} is missing in:\n{}", ran.out);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_operator_has_ever_run_that_is_what_is_said() {
    let hand = Hand::new("pat-empty").await;
    let ran = hand.pat(&format!("doctor --operator-namespace {}", hand.place.name()));
    assert_eq!(ran.code, 1);
    assert!(
        ran.out.contains("there is no Lease pat-operator-controller") && ran.out.contains("helm install"),
        "{}",
        ran.out
    );
}

/// Makes an object in the hand's namespace, as an administrator does.
async fn make<K>(hand: &Hand, object: Value)
where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope> + Clone + DeserializeOwned + serde::Serialize,
    K: std::fmt::Debug,
    K::DynamicType: Default,
{
    let object: K = serde_json::from_value(object).expect("it is one");
    let api: Api<K> = Api::namespaced(hand.place.client.clone(), hand.place.name());
    api.create(&PostParams::default(), &object).await.expect("made");
}

/// A Deployment that looks like one of the chart's, and has no Pods.
fn deployment(name: &str, component: &str, version: &str, args: &[&str]) -> Value {
    json!({
        "metadata": {"name": name, "labels": {
            "app.kubernetes.io/component": component, "app.kubernetes.io/version": version,
        }},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"name": name}}, "template": {
            "metadata": {"labels": {"name": name}},
            "spec": {"serviceAccountName": "operator", "containers": [{"name": "c", "image": "c", "args": args}]},
        }},
    })
}

/// All verbs on these resources, for one who is bound to it.
async fn grant(hand: &Hand, name: &str, rule: Value, subject: Value) {
    make::<Role>(hand, json!({"metadata": {"name": name}, "rules": [rule]})).await;
    let binding = json!({
        "metadata": {"name": name}, "subjects": [subject],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
    });
    make::<RoleBinding>(hand, binding).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_version_and_a_controller_that_lacks_rights_are_named_and_what_may_not_be_asked_is_unknown() {
    let hand = Hand::new("pat-deployed").await;
    let here = hand.place.name().to_owned();
    let ours = env!("CARGO_PKG_VERSION");
    let watched = format!("--namespaces={here}");
    let args = ["controller", &watched, "--lease-name=mine", "--serving-certificate=tls:check.svc"];
    let controller = deployment("lead", "controller", "0.0.0", &args);
    make::<Deployment>(&hand, controller).await;
    make::<Deployment>(&hand, deployment("check", "verifier", ours, &["verifier"])).await;
    make::<Deployment>(&hand, deployment("other", "controller", "9.9.9", &["--v=2"])).await;
    let doctor = format!("doctor --operator-namespace {here}");

    let ran = hand.pat(&doctor);
    assert_eq!(ran.code, 1, "{}", ran.out);
    for part in [
        format!("warning  Deployment {here}/lead is version 0.0.0, and this plugin is {ours}"),
        "fix: install the kubectl-pat of 0.0.0".to_owned(),
        format!("ok       Deployment {here}/check is version {ours}"),
        format!(
            "broken   the controller (ServiceAccount {here}/operator) may not create configmaps in namespace {here}, "
        ),
        format!("create events.events.k8s.io in namespace {here}"),
        format!("patch personalaccesstokens.pat-operator.io/status in namespace {here}"),
        format!("update leases.coordination.k8s.io in namespace {here}"),
        format!("update configmaps in namespace {here}"),
        format!("update secrets in namespace {here}"),
        format!("(for --serving-certificate grant what is missing by a Role in namespace {here})"),
        format!("--as system:serviceaccount:{here}:operator"),
    ] {
        assert!(ran.out.contains(&part), "{part} is missing in:\n{}", ran.out);
    }
    assert!(!ran.out.contains("9.9.9"), "somebody else's:\n{}", ran.out);

    let rule = json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]});
    let account = json!({"kind": "ServiceAccount", "name": "operator", "namespace": here});
    grant(&hand, "operator", rule, account).await;
    let well = format!("ok       the controller (ServiceAccount {here}/operator) may do all that it needs");
    eventually("its rights are there", async || hand.pat(&doctor).out.contains(&well)).await;

    let user = format!("ann-{here}");
    let ann = hand.kubeconfig_of(&user);
    let ran = hand.pat_as(&ann, &doctor);
    for part in ["you may not list deployments.apps in namespace", "it is no reason to be granted that"] {
        assert!(ran.out.contains(part), "{part} is missing in:\n{}", ran.out);
    }
    let rule = json!({"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["list"]});
    grant(&hand, "ann", rule, json!({"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"})).await;
    let unknown =
        format!("unknown  what the controller (ServiceAccount {here}/operator) may do: you may not create subject");
    eventually("she sees Deployments", async || hand.pat_as(&ann, &doctor).out.contains(&unknown)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_cluster_that_has_nothing_of_it_all_that_is_missing_is_told_with_how_to_get_it() {
    let plane = ControlPlane::start(Options::default().without_controller_manager()).await.expect("a control plane");
    let mut plugin = Command::new(PLUGIN);
    plugin.env_clear().env("HOME", "/nonexistent").env("KUBECONFIG", plane.admin_kubeconfig()).arg("doctor");
    let ran = run(plugin, None);
    assert_eq!(ran.code, 1, "{ran:#?}");
    for part in [
        "broken   personalaccesstokens.pat-operator.io v1alpha1 is not served",
        "warning  tokenowners.pat-operator.io v1alpha1 is not served",
        "fix: personalaccesstokens.pat-operator.io is not installed: kubectl apply -f crds/",
        "broken   there is no Lease pat-operator-controller",
        "unknown  which version the operator is, what it may do, and how long certificates are good",
        "fix: --operator-namespace names where it runs",
        "2 broken, 1 warnings",
    ] {
        assert!(ran.out.contains(part), "{part} is missing in:\n{}", ran.out);
    }
    let lines: Vec<_> = ran.out.lines().take_while(|line| !line.is_empty()).collect();
    for (line, next) in lines.iter().zip(lines.iter().skip(1).chain([&""])) {
        let is_well = line.starts_with("ok ") || line.starts_with("  ");
        assert!(is_well || next.starts_with("         fix: "), "no fix: {line}");
    }
}
