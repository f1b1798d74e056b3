//! Every values file in ci/: the API server accepts the manifests, the operator accepts the flags, Pods are restricted, and permissions match
//! the code.

use std::collections::BTreeSet;

use clap::Parser;
use control_plane::{Binary, Options};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::PostParams};
use pat_operator::{certificates, cli::Cli, controller::preflight, service::preflight::RequiredAccess, verifier};
use serde_json::{Value, json};

use super::{
    deployed::Deployed,
    dry_run::DryRun,
    helm::{NAMESPACE, Program, chart, manifests, of_kind, place, root, values_files},
};
use crate::support::is_left_out;
use crate::support::module::module;

/// CRDs of other projects, whose kinds the chart renders only on request.
const MONITORING: &str = "github.com/prometheus-operator/prometheus-operator@v0.85.0";
const CERT_MANAGER: &str = "github.com/cert-manager/cert-manager@v1.21.2";
const FOREIGN_CRDS: [(&str, &str); 4] = [
    (MONITORING, "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml"),
    (MONITORING, "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml"),
    (MONITORING, "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml"),
    (CERT_MANAGER, "deploy/crds/cert-manager.io_certificates.yaml"),
];

#[test]
fn chart_has_at_least_20_values_files() {
    assert!(values_files().len() >= 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn api_server_accepts_rendered_manifests_and_pods() {
    if is_left_out(Binary::Helm) {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let add = |options: Options, (name, file)| options.apply(module(name).join(file));
    let options = FOREIGN_CRDS.into_iter().fold(Options::default(), add);
    let api_server = DryRun::on(options, &[NAMESPACE, "team-a", "team-b", "456", "null"]).await;
    let client = api_server.plane.client().expect("a client");
    let helm = Program::helm();
    let pods: Api<Pod> = Api::namespaced(client, NAMESPACE);
    for (name, path) in values_files() {
        let manifests = helm.renders(&["--values", path.to_str().expect("text")]);
        let text: Vec<_> = manifests.iter().map(|one| serde_yaml::to_string(one).expect("YAML")).collect();
        let file = folder.path().join("rendered");
        std::fs::write(&file, text.join("\n---\n")).expect("a file");
        let accepted = api_server.accepts(&name, ["--filename", file.to_str().expect("text")]);
        assert_eq!(accepted.len(), manifests.len(), "{name}: {accepted:?}");

        for deployment in of_kind(&manifests, "Deployment") {
            let mut pod = deployment["spec"]["template"].clone();
            pod["metadata"]["name"] = json!("pod");
            let pod: Pod = serde_json::from_value(pod).expect("a Pod");
            let dry = PostParams { dry_run: true, ..PostParams::default() };
            pods.create(&dry, &pod).await.unwrap_or_else(|error| panic!("{name}, {}: {error}", place(deployment)));
        }
    }
    // Names that YAML could read as numbers, booleans or null. kubectl reads the text of Helm.
    let odd = json!({
        "scopeGrants": {"123": ["a"], "on": ["b"], "null": ["c"]}, "tokens": [{"name": "123", "namespace": "456"}],
        "api": {"keySecret": "1e3", "tls": {"secretName": "0x1"}}, "commonLabels": {"a": "on", "b": "1"},
        "controller": {"serviceAccount": {"name": "123"}}, "monitoring": {"monitor": {"kind": "ServiceMonitor"}},
    });
    let values = folder.path().join("odd.json");
    std::fs::write(&values, odd.to_string()).expect("a file");
    let everything = root().join("charts/pat-operator/ci/everything.yaml");
    for (release, namespace) in [("123", "456"), ("on", "null"), ("a.b", "456")] {
        let chart = chart();
        let text = helm.prints(
            &[
                &["template", release, chart.to_str().expect("text"), "--namespace", namespace],
                &["--values", everything.to_str().expect("text"), "--values", values.to_str().expect("text")][..],
            ]
            .concat(),
        );
        let file = folder.path().join("rendered");
        std::fs::write(&file, &text).expect("a file");
        let accepted = api_server.accepts(release, ["--filename", file.to_str().expect("text")]);
        assert_eq!(accepted.len(), manifests(&text).len(), "{release}: {accepted:?}");
    }
    // The same for the kustomize base.
    let accepted = api_server.accepts("kustomize", ["--kustomize", "charts/kustomize"]);
    assert!(accepted.iter().any(|one| one.starts_with("deployment.apps/pat-operator-controller ")), "{accepted:?}");
}

#[test]
fn operator_accepts_rendered_flags_and_grace_periods() {
    if is_left_out(Binary::Helm) {
        return;
    }
    let helm = Program::helm();
    for (name, path) in values_files() {
        let manifests = helm.renders(&["--values", path.to_str().expect("text")]);
        for deployment in of_kind(&manifests, "Deployment") {
            let deployed = Deployed::read(deployment);
            let line = ["pat-operator".to_owned()].into_iter().chain(deployed.arguments().iter().cloned());
            if let Err(error) = Cli::try_parse_from(line) {
                panic!("{name}, {}: {error}", place(deployment));
            }
            let pod = &deployment["spec"]["template"]["spec"];
            let grace = pod["terminationGracePeriodSeconds"].as_u64().expect("a number");
            let pause = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap_or(0);
            assert!(grace >= pause + 15, "{name}: 10 seconds to finish, plus a margin");
        }
    }
}

#[test]
fn selectors_match_pods_and_objects_are_unique() {
    if is_left_out(Binary::Helm) {
        return;
    }
    let helm = Program::helm();
    for (name, path) in values_files() {
        let manifests = helm.renders(&["--values", path.to_str().expect("text")]);
        let places: BTreeSet<_> = manifests.iter().map(place).collect();
        assert_eq!(places.len(), manifests.len(), "{name}: no object is rendered twice");
        let mut selectors = BTreeSet::new();
        for deployment in of_kind(&manifests, "Deployment") {
            let selector = &deployment["spec"]["selector"]["matchLabels"];
            let labels = &deployment["spec"]["template"]["metadata"]["labels"];
            for (key, value) in selector.as_object().expect("a map") {
                assert_eq!(labels[key], *value, "{name}, {}", place(deployment));
            }
            assert!(selectors.insert(selector.to_string()), "{name}: selectors of Deployments are unique");
        }
        for manifest in &manifests {
            let selector = match manifest["kind"].as_str().expect("a kind") {
                "Service" => &manifest["spec"]["selector"],
                "PodDisruptionBudget" | "PodMonitor" => &manifest["spec"]["selector"]["matchLabels"],
                "NetworkPolicy" => &manifest["spec"]["podSelector"]["matchLabels"],
                _ => continue,
            };
            assert!(
                selectors.contains(&selector.to_string()),
                "{name}, {} selects no Deployment's Pods",
                place(manifest)
            );
        }
    }
}

/// The permissions of a list of requirements, as `verb resource group`.
fn allowed(needs: &[RequiredAccess]) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for (group, resource, subresource, verbs) in needs {
        let resource = if subresource.is_empty() { (*resource).into() } else { format!("{resource}/{subresource}") };
        all.extend(verbs.iter().map(|verb| format!("{verb} {resource} {group}")));
    }
    all
}

/// The permissions of the Roles or ClusterRoles of this name, after the namespace of the release, with their namespaces.
fn granted(manifests: &[Value], kind: &str, name: &str) -> Vec<(String, BTreeSet<String>)> {
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().map(|text| text.as_str().expect("text").to_owned()).collect()
    };
    let name = format!("{NAMESPACE}:{name}");
    let roles = of_kind(manifests, kind).into_iter().filter(|role| role["metadata"]["name"] == *name);
    roles
        .map(|role| {
            let mut all = BTreeSet::new();
            for rule in role["rules"].as_array().expect("rules") {
                let names = texts(&rule["resourceNames"]).iter().map(|name| format!(" {name}")).collect::<String>();
                for group in texts(&rule["apiGroups"]) {
                    for resource in texts(&rule["resources"]) {
                        let verbs = texts(&rule["verbs"]);
                        all.extend(verbs.iter().map(|verb| format!("{verb} {resource} {group}{names}")));
                    }
                }
            }
            (role["metadata"]["namespace"].as_str().unwrap_or_default().to_owned(), all)
        })
        .collect()
}

#[test]
fn rights_match_the_code_and_verifier_reads_no_secrets() {
    if is_left_out(Binary::Helm) {
        return;
    }
    let helm = Program::helm();
    let of = |file: &str| {
        let path = root().join(format!("charts/pat-operator/ci/{file}.yaml"));
        helm.renders(&["--values", path.to_str().expect("text")])
    };
    let everything = of("everything");
    let everywhere = |name: &str| granted(&everything, "ClusterRole", name);
    let controllers = allowed(preflight::NEEDS).union(&allowed(preflight::OWNER_NEEDS)).cloned().collect();
    assert_eq!(everywhere("pat-operator-controller"), [(String::new(), controllers)]);
    let asks = allowed(&[
        ("pat-operator.io", "tokenowners", "", &["get", "list", "watch"]),
        ("authentication.k8s.io", "tokenreviews", "", &["create"]),
        ("authorization.k8s.io", "subjectaccessreviews", "", &["create"]),
    ]);
    let verifiers: BTreeSet<_> = allowed(verifier::preflight::NEEDS).union(&asks).cloned().collect();
    assert_eq!(everywhere("pat-operator-verifier"), [(String::new(), verifiers)]);
    let lease = [
        "create leases coordination.k8s.io",
        "get leases coordination.k8s.io pat-operator-controller",
        "update leases coordination.k8s.io pat-operator-controller",
    ];
    let lease = lease.map(str::to_owned).into_iter().collect();
    assert_eq!(granted(&everything, "Role", "pat-operator-controller-lease"), [(NAMESPACE.to_owned(), lease)]);
    for manifest in of_kind(&everything, "Role").into_iter().chain(of_kind(&everything, "ClusterRole")) {
        if manifest["metadata"]["labels"]["app.kubernetes.io/component"] == "verifier" {
            assert!(!manifest.to_string().contains("secrets"), "{manifest}");
        }
    }
    let of_api = |manifests: &[Value], namespace: &str| {
        let [(place, rights)] = &granted(manifests, "Role", "pat-operator-api")[..] else {
            panic!("not exactly one Role")
        };
        assert_eq!(place, namespace);
        rights.clone()
    };
    let reads = allowed(&[
        ("pat-operator.io", "personalaccesstokens", "", &["get", "list", "watch"]),
        ("pat-operator.io", "personalaccesstokens", "status", &["patch"]),
    ]);
    let writes = allowed(&[
        ("pat-operator.io", "personalaccesstokens", "", &["create", "patch", "delete"]),
        ("", "secrets", "", &["get", "delete"]),
    ]);
    assert_eq!(of_api(&everything, "team-a"), reads.union(&writes).cloned().collect());
    let read_only = of("api-read-only");
    assert_eq!(of_api(&read_only, "team-b"), reads);
    let owners = allowed(&[("pat-operator.io", "tokenowners", "", &["get", "list", "watch"])]);
    assert_eq!(granted(&read_only, "ClusterRole", "pat-operator-api"), [(String::new(), owners.clone())]);
    let mut issues = owners.clone();
    issues.insert("issue-for users pat-operator.io".to_owned());
    assert_eq!(everywhere("pat-operator-api"), [(String::new(), issues)]);
    let mut named = owners;
    named.insert("issue-for users pat-operator.io jane@example.com bob@example.com".to_owned());
    assert_eq!(granted(&of("api-cert-manager"), "ClusterRole", "pat-operator-api"), [(String::new(), named)]);
    let key = ["create secrets ", "get secrets  signing-key"].map(str::to_owned).into_iter().collect();
    assert_eq!(granted(&of("api-cert-manager"), "Role", "pat-operator-api-key"), [(NAMESPACE.to_owned(), key)]);

    // Certificates: access to the release's own Secrets and ConfigMaps by name, except for create, which RBAC cannot limit by name.
    let certificates = |components: &[&str]| {
        let named = |suffix: &str| {
            let names = components.iter().map(|component| format!(" pat-operator-{component}-serving{suffix}"));
            names.collect::<String>()
        };
        let mut all = allowed(&[
            ("", "secrets", "", &["create"]),
            ("", "configmaps", "", &["create"]),
            ("events.k8s.io", "events", "", &["create", "patch"]),
        ]);
        for verb in certificates::preflight::BY_NAME {
            all.insert(format!("{verb} secrets {}", named("")));
            all.insert(format!("{verb} configmaps {}", named("-ca")));
        }
        [(NAMESPACE.to_owned(), all)]
    };
    let role = "pat-operator-controller-certificates";
    assert_eq!(granted(&of("self-signed"), "Role", role), certificates(&["verifier", "api"]));
    assert_eq!(granted(&of("self-signed-namespaced"), "Role", role), certificates(&["verifier"]));
    assert_eq!(granted(&everything, "Role", role), [], "only where the controller issues certificates");

    // Limited to namespaces: the same permissions there, and none elsewhere.
    let namespaced = of("namespaced");
    let in_both = |rights: BTreeSet<String>| ["team-a", "team-b"].map(|name| (name.to_owned(), rights.clone()));
    assert_eq!(granted(&namespaced, "Role", "pat-operator-controller"), in_both(allowed(preflight::NEEDS)));
    assert_eq!(granted(&namespaced, "Role", "pat-operator-verifier"), in_both(allowed(verifier::preflight::NEEDS)));
    for manifest in &namespaced {
        assert!(manifest["metadata"]["namespace"].is_string(), "{} is cluster-scoped", place(manifest));
    }
}

#[test]
fn certificate_covers_the_names_of_its_service() {
    if is_left_out(Binary::Helm) {
        return;
    }
    let helm = Program::helm();
    let render = |set: &[&str]| {
        let set = set.iter().flat_map(|set| ["--set", set]);
        helm.renders(&["--set", "verifier.enabled=true"].into_iter().chain(set).collect::<Vec<_>>())
    };
    let names = [
        "pat-operator-verifier.pat-operator.svc",
        "pat-operator-verifier.pat-operator",
        "pat-operator-verifier",
        "a.b",
    ];
    let own = render(&["verifier.tls.selfSigned.enabled=true", "verifier.tls.selfSigned.dnsNames={a.b}"]);
    let controller = Deployed::find(&own, "controller");
    let asked = format!("--serving-certificate=pat-operator-verifier-serving:{}", names.join(","));
    assert!(controller.arguments().contains(&asked), "{:?}", controller.arguments());
    assert!(controller.arguments().contains(&format!("--serving-certificate-namespace={NAMESPACE}")));
    assert_eq!(of_kind(&own, "Certificate").len(), 0);

    let manager = [
        "verifier.tls.certManager.enabled=true",
        "verifier.tls.certManager.issuerRef.name=x",
        "verifier.tls.certManager.dnsNames={a.b}",
    ];
    let managed = render(&manager);
    let [certificate] = &of_kind(&managed, "Certificate")[..] else { panic!("not exactly one Certificate") };
    assert_eq!(certificate["spec"]["dnsNames"], json!(names));
    let arguments = Deployed::find(&managed, "controller");
    assert!(!arguments.arguments().iter().any(|one| one.starts_with("--serving-certificate")));
}
