//! Manifests of others, checked against what they publish, where what they run cannot be run here.
//!
//! What is needed for it is fetched once by its own package manager. Where that cannot be had, it says so on stderr and is left out; with `CI=true`
//! that is a failure.

use serde_json::{Value, json};

use crate::support::{chart::helm, clients};

use crate::support::fences;

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
fn istio_is_told_of_the_service_the_port_and_the_names_that_the_chart_gives_the_verifier() {
    let mesh: Value = serde_yaml::from_str(&fences::read("examples/verifier/istio/mesh.yaml")).expect("YAML");
    let provider = &mesh["extensionProviders"][0]["envoyExtAuthzHttp"];
    let services =
        helm::Program::helm().renders(&["--set", "verifier.enabled=true", "--set", "verifier.tls.insecure=true"]);
    let service = helm::of_kind(&services, "Service").into_iter().find(|service| {
        let name = service["metadata"]["name"].as_str().expect("a name");
        provider["service"] == format!("{name}.{}.svc.cluster.local", helm::NAMESPACE)
    });
    let service = service.expect("the Service is the chart's");
    let ports = &service["spec"]["ports"];
    assert!(ports.as_array().expect("ports").iter().any(|port| port["port"] == provider["port"]), "{ports}");
    // The operator's own certificate is for a shorter name.
    let rule: Value = serde_yaml::from_str(&fences::read("examples/verifier/istio/tls.yaml")).expect("YAML");
    let tls = &rule["spec"]["trafficPolicy"]["tls"];
    assert_eq!(rule["spec"]["host"], provider["service"]);
    assert_eq!(tls["subjectAltNames"], json!([tls["sni"]]));
    let made = helm::Program::helm().renders(&[
        "--set",
        "verifier.enabled=true",
        "--set",
        "verifier.tls.selfSigned.enabled=true",
    ]);
    let named = format!(":{},", tls["sni"].as_str().expect("a name"));
    let argument = |deployment: &&Value| {
        let arguments = &deployment["spec"]["template"]["spec"]["containers"][0]["args"];
        let mut arguments = arguments.as_array().into_iter().flatten().filter_map(Value::as_str);
        arguments.any(|one| one.starts_with("--serving-certificate=") && one.contains(&named))
    };
    assert!(helm::of_kind(&made, "Deployment").iter().any(argument), "{named}");
}
