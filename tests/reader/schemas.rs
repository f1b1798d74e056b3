//! Manifests of others, checked against what they publish, where what they run cannot be run here.
//!
//! What is needed for it is fetched once by its own package manager. Where that cannot be had, it says so on stderr and is left out; with `CI=true`
//! that is a failure.

use std::{
    env,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

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

/// What Istio makes of this: nothing if it is well, else what is wrong; `None` where its API cannot be had.
fn istio(given: &Value) -> Option<Result<(), String>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/istio");
    let left_out = |why: &str| {
        assert!(env::var("CI").as_deref() != Ok("true"), "Istio's API cannot be had: {why}");
        let _ = writeln!(std::io::stderr(), "LEFT OUT: the check of what Istio is told: {why}");
        None
    };
    let binary = tempfile::Builder::new().prefix("pat-istio-").tempdir().expect("a folder");
    let program = binary.path().join("check");
    let build = Command::new("go").current_dir(&folder).args(["build", "-o"]).arg(&program).arg(".").output();
    match build {
        Err(error) => return left_out(&error.to_string()),
        Ok(output) if !output.status.success() => return left_out(&String::from_utf8_lossy(&output.stderr)),
        Ok(_) => {}
    }
    let mut check = Command::new(program);
    check.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = control_plane::spawn(check).expect("it starts");
    child.stdin.take().expect("an input").write_all(given.to_string().as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Some(if output.status.success() { Ok(()) } else { Err(said) })
}

/// Istio itself does not run here: that its proxies ask is Envoy's part, which `tests/proxies` tests.
#[test]
fn istio_knows_every_field_of_its_examples() {
    let of = |name: &str| {
        serde_yaml::from_str::<Value>(&fences::read(&format!("examples/verifier/istio/{name}"))).expect("YAML")
    };
    let (mesh, policy) = (of("mesh.yaml"), of("policy.yaml"));
    let names = |list: &Value| list.as_array().into_iter().flatten().map(|one| one["name"].clone()).collect::<Vec<_>>();
    assert!(
        names(&mesh["extensionProviders"]).contains(&policy["spec"]["provider"]["name"]),
        "the policy names a provider"
    );
    let given = json!({"MeshConfig": mesh, "AuthorizationPolicy": policy["spec"]});
    let Some(checked) = istio(&given) else { return };
    assert_eq!(checked, Ok(()));
    let mut wrong = given;
    wrong["MeshConfig"]["extensionProviders"][0]["envoyExtAuthzHttp"]["failOpened"] = json!(true);
    let error = istio(&wrong).expect("it was there").expect_err("a field that Istio does not know");
    assert!(error.contains("failOpened"), "{error}");
    // The Service and its port are the chart's.
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
