//! Checks manifests of third-party products against their published schemas, where the products themselves cannot run.
//!
//! The schema packages are installed by their package manager and cached. If they are not available, the check is skipped with a message on
//! stderr. With `CI=true` that is a failure.

use serde_json::{Value, json};

use crate::support::{chart::helm, clients};

use crate::support::fences;

/// Checks documents against the schema of this project.
pub async fn check(place: &str, who: &str, documents: &[Value]) {
    match who {
        "external-secrets" => {
            let kinds: Vec<_> = documents.iter().map(|document| document["kind"].clone()).collect();
            let checked = clients::run("external-secrets/check.mjs", &json!({"documents": documents})).await;
            assert!(checked.is_none_or(|checked| checked == json!(kinds)), "{place}");
        }
        _ => panic!("{place}: unknown schema {who}"),
    }
}

/// Compares the Istio examples with the chart. The tests in `proxies` check that Istio uses them.
#[test]
fn istio_examples_match_the_charts_service() {
    let mesh: Value = serde_yaml::from_str(&fences::read("examples/verifier/istio/mesh.yaml")).expect("YAML");
    let provider = &mesh["extensionProviders"][0]["envoyExtAuthzHttp"];
    let services =
        helm::Program::helm().renders(&["--set", "verifier.enabled=true", "--set", "verifier.tls.insecure=true"]);
    let service = helm::of_kind(&services, "Service").into_iter().find(|service| {
        let name = service["metadata"]["name"].as_str().expect("a name");
        provider["service"] == format!("{name}.{}.svc.cluster.local", helm::NAMESPACE)
    });
    let service = service.expect("the chart has the Service");
    let ports = &service["spec"]["ports"];
    assert!(ports.as_array().expect("ports").iter().any(|port| port["port"] == provider["port"]), "{ports}");
    // The operator's own certificate has the short name of the Service.
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
