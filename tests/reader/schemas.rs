//! Manifests of others, checked against what they publish, where what they run cannot be run here.
//!
//! What is needed for it is fetched once by its own package manager. Where that cannot be had, it says so on stderr and is left out; with `CI=true`
//! that is a failure.

use serde_json::{Value, json};

use crate::{helm, support::clients};

use super::fences;

/// Checks these documents against the schema that these people publish.
pub async fn check(place: &str, who: &str, documents: &[Value]) {
    match who {
        "external-secrets" => {
            let kinds: Vec<_> = documents.iter().map(|document| document["kind"].clone()).collect();
            let told = clients::run("external-secrets/check.mjs", &json!({"documents": documents})).await;
            assert!(told.is_none_or(|told| told == json!(kinds)), "{place}");
        }
        _ => panic!("{place}: no test knows a schema of {who}"),
    }
}

/// That Istio asks it there is what `tests/proxies` tests.
#[test]
fn istio_is_told_of_the_service_and_the_port_that_the_chart_gives_the_verifier() {
    let mesh: Value = serde_yaml::from_str(&fences::read("examples/verifier/istio/mesh.yaml")).expect("YAML");
    let provider = &mesh["extensionProviders"][0]["envoyExtAuthzHttp"];
    let services =
        helm::Program::helm().renders(&["--set", "verifier.enabled=true", "--set", "verifier.tls.insecure=true"]);
    let service = helm::of_kind(&services, "Service").into_iter().find(|service| {
        let name = service["metadata"]["name"].as_str().expect("a name");
        provider["service"] == format!("{name}.{}.svc.cluster.local", helm::NAMESPACE)
    });
    let ports = &service.expect("the Service is the chart's")["spec"]["ports"];
    assert!(ports.as_array().expect("ports").iter().any(|port| port["port"] == provider["port"]), "{ports}");
}
