//! `doctor` with a working, a broken, and a missing installation.

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

use super::runner::{PLUGIN, PluginRunner, run};
use crate::support::process::place::eventually;

async fn certificate(runner: &PluginRunner, name: &str, until: (i32, u8, u8)) {
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
    runner.place.secrets().create(&PostParams::default(), &secret).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_operator_and_expired_certificate_are_broken() {
    let (runner, operator) = PluginRunner::with_operator("pat-doctor").await;
    runner.place.apply("ci", json!({})).await;
    runner.place.ready("ci").await;
    certificate(&runner, "good", (2099, 1, 1)).await;
    let doctor = format!("doctor --operator-namespace {}", runner.place.name());
    let text = runner.pat(&doctor).success();
    for part in [
        "API server https://127.0.0.1:",
        "the clocks of the API server and this machine agree",
        "personalaccesstokens.pat-operator.io v1alpha1 is installed, with every field",
        "tokenowners.pat-operator.io v1alpha1 is installed",
        "you have all permissions that the plugin uses",
        "is held by ",
        "good is valid until 2099-01-01T00:00:00Z",
        "1 of 1 tokens in namespace",
        "0 broken, 0 warnings",
    ] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }

    certificate(&runner, "ended", (2002, 1, 1)).await;
    operator.terminate().await;
    let ran = runner.pat(&doctor);
    assert_eq!(ran.code, 1, "{}", ran.out);
    for part in [
        "has no holder",
        "no controller is running",
        "fix: run `kubectl -n ",
        "the certificate in Secret ",
        "/ended expired 2002-01-01T00:00:00Z",
        "fix: renew it",
        "2 broken",
    ] {
        assert!(ran.out.contains(part), "{part} is missing in:\n{}", ran.out);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_lease_is_broken() {
    let runner = PluginRunner::new("pat-empty").await;
    let ran = runner.pat(&format!("doctor --operator-namespace {}", runner.place.name()));
    assert_eq!(ran.code, 1);
    assert!(
        ran.out.contains("Lease pat-operator-controller not found") && ran.out.contains("helm install"),
        "{}",
        ran.out
    );
}

/// Creates an object in the namespace, as an administrator.
async fn create<K>(runner: &PluginRunner, object: Value)
where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope> + Clone + DeserializeOwned + serde::Serialize,
    K: std::fmt::Debug,
    K::DynamicType: Default,
{
    let object: K = serde_json::from_value(object).expect("a valid object");
    let api: Api<K> = Api::namespaced(runner.place.client.clone(), runner.place.name());
    api.create(&PostParams::default(), &object).await.expect("created");
}

/// A Deployment like those of the chart, without Pods.
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

/// Grants a rule to a subject.
async fn grant(runner: &PluginRunner, name: &str, rule: Value, subject: Value) {
    create::<Role>(runner, json!({"metadata": {"name": name}, "rules": [rule]})).await;
    let binding = json!({
        "metadata": {"name": name}, "subjects": [subject],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
    });
    create::<RoleBinding>(runner, binding).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn version_and_permissions_of_the_controller_are_checked() {
    let runner = PluginRunner::new("pat-deployed").await;
    let here = runner.place.name().to_owned();
    let ours = env!("CARGO_PKG_VERSION");
    let watched = format!("--namespaces={here}");
    let args = ["controller", &watched, "--lease-name=mine", "--serving-certificate=tls:check.svc"];
    let controller = deployment("lead", "controller", "0.0.0", &args);
    create::<Deployment>(&runner, controller).await;
    create::<Deployment>(&runner, deployment("check", "verifier", ours, &["verifier"])).await;
    create::<Deployment>(&runner, deployment("other", "controller", "9.9.9", &["--v=2"])).await;
    let doctor = format!("doctor --operator-namespace {here}");

    let ran = runner.pat(&doctor);
    assert_eq!(ran.code, 1, "{}", ran.out);
    for part in [
        format!("warning  Deployment {here}/lead has version 0.0.0, but this plugin has version {ours}"),
        "fix: install kubectl-pat 0.0.0".to_owned(),
        format!("ok       Deployment {here}/check has version {ours}"),
        format!(
            "broken   the controller (ServiceAccount {here}/operator) may not create configmaps in namespace {here}, "
        ),
        format!("create events.events.k8s.io in namespace {here}"),
        format!("patch personalaccesstokens.pat-operator.io/status in namespace {here}"),
        format!("update leases.coordination.k8s.io in namespace {here}"),
        format!("update configmaps in namespace {here}"),
        format!("update secrets in namespace {here}"),
        format!("; for --serving-certificate, create a Role in namespace {here};"),
        format!("--as system:serviceaccount:{here}:operator"),
    ] {
        assert!(ran.out.contains(&part), "{part} is missing in:\n{}", ran.out);
    }
    assert!(!ran.out.contains("9.9.9"), "a Deployment of another program:\n{}", ran.out);

    // Without Pods, it does not count. It has another Lease than the first one.
    let mut second = deployment("second", "controller", ours, &["controller"]);
    create::<Deployment>(&runner, second.clone()).await;
    assert!(!runner.pat(&doctor).out.contains("without a common Lease"));
    for name in ["third", "fourth"] {
        (second["metadata"]["name"], second["spec"]["replicas"]) = (name.into(), 1.into());
        second["spec"]["template"]["spec"]["containers"][0]["args"] =
            json!(["controller", format!("--lease-name={name}")]);
        create::<Deployment>(&runner, second.clone()).await;
    }
    let part = format!(
        "broken   Deployments {here}/fourth (Lease {here}/fourth) and {here}/third (Lease {here}/third) manage the same objects without a \
         common Lease"
    );
    let ran = runner.pat(&doctor);
    assert!(ran.code == 1 && ran.out.contains(&part), "{part} is missing in:\n{}", ran.out);

    let rule = json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]});
    let account = json!({"kind": "ServiceAccount", "name": "operator", "namespace": here});
    grant(&runner, "operator", rule, account).await;
    let ok = format!("ok       the controller (ServiceAccount {here}/operator) has all required permissions");
    eventually("the permissions are granted", async || runner.pat(&doctor).out.contains(&ok)).await;

    let user = format!("ann-{here}");
    let ann = runner.kubeconfig_of(&user);
    let ran = runner.pat_as(&ann, &doctor);
    for part in ["you may not list deployments.apps in namespace", "do not request this permission for yourself"] {
        assert!(ran.out.contains(part), "{part} is missing in:\n{}", ran.out);
    }
    let rule = json!({"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["list"]});
    grant(&runner, "ann", rule, json!({"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"})).await;
    let unknown =
        format!("unknown  permissions of the controller (ServiceAccount {here}/operator): you may not create subject");
    eventually("the user may list Deployments", async || runner.pat_as(&ann, &doctor).out.contains(&unknown)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_cluster_lists_what_to_install() {
    let plane = ControlPlane::start(Options::default().without_controller_manager()).await.expect("a control plane");
    let mut plugin = Command::new(PLUGIN);
    plugin.env_clear().env("HOME", "/nonexistent").env("KUBECONFIG", plane.admin_kubeconfig()).arg("doctor");
    let ran = run(plugin, None);
    assert_eq!(ran.code, 1, "{ran:#?}");
    for part in [
        "broken   personalaccesstokens.pat-operator.io v1alpha1 is not served",
        "warning  tokenowners.pat-operator.io v1alpha1 is not served",
        "fix: personalaccesstokens.pat-operator.io is not installed: kubectl apply -f crds/",
        "broken   Lease pat-operator-controller not found",
        "unknown  version, permissions and certificates of the operator: its namespace is not known",
        "fix: pass the namespace of the operator with --operator-namespace",
        "2 broken, 3 warnings",
    ] {
        assert!(ran.out.contains(part), "{part} is missing in:\n{}", ran.out);
    }
    let lines: Vec<_> = ran.out.lines().take_while(|line| !line.is_empty()).collect();
    for (line, next) in lines.iter().zip(lines.iter().skip(1).chain([&""])) {
        let is_ok = line.starts_with("ok ") || line.starts_with("  ");
        assert!(is_ok || next.starts_with("         fix: "), "no fix: {line}");
    }
}
