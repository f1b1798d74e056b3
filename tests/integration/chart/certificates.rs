//! A self-signed certificate, from `helm install` to clients that trust only the published authority, with the chart's permissions only.
//! The API server is one of these clients, set up with the commands in docs/verifier.md.

use std::{fs, path::Path, process::Command, time::Duration};

use control_plane::{Access, Assets, Binary, Component, Identity, Options};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};

use super::{
    deployed::Deployed,
    helm::NAMESPACE,
    release::{Release, person},
};
use crate::support::is_left_out;
use crate::support::{
    fences,
    process::{
        SOON,
        place::eventually,
        trust::{Trust, certificates},
    },
};

const HOST: &str = "pat-operator-verifier.pat-operator.svc";
const SECRET: &str = "pat-operator-verifier-serving";
/// The API server's default audience: its issuer.
const API_SERVER: &str = "https://kubernetes.default.svc";

/// The block of shell commands in docs/verifier.md that contains `part`.
fn documented_commands(part: &str) -> String {
    let blocks = fences::of("docs/verifier.md").into_iter().filter(|fence| fence.language == "sh");
    let mut found = blocks.filter(|block| block.text.contains(part));
    let (Some(block), None) = (found.next(), found.next()) else { panic!("not exactly one block with {part}") };
    block.text
}

/// Runs shell commands in this folder, as the administrator.
async fn run(access: &Access, folder: &Path, commands: String) {
    let kubectl = Assets::ensure(&[Binary::Kubectl]).expect("kubectl").path(Binary::Kubectl).to_owned();
    let mut shell = Command::new("sh");
    shell.args(["-eu", "-c", &commands]).current_dir(folder).envs(access.variables());
    let path = [kubectl.parent().expect("a folder"), Path::new("/usr/bin"), Path::new("/bin")];
    shell.env("PATH", std::env::join_paths(path).expect("a path"));
    let output = tokio::task::spawn_blocking(move || shell.output()).await.expect("no panic").expect("sh runs");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}{stderr}");
}

/// The user that the API server sees for this token.
async fn whoami(access: &Access, folder: &Path, token: &str) -> Result<Value, String> {
    let text = access.kubeconfig_text(&Identity::admin()).expect("a kubeconfig");
    let mut config: Value = serde_yaml::from_str(&text).expect("YAML");
    config["users"][0]["user"] = json!({"token": token});
    let path = folder.join("token.kubeconfig");
    fs::write(&path, config.to_string()).expect("the file is written");
    let mut kubectl = access.command(Binary::Kubectl).expect("kubectl");
    kubectl.env("KUBECONFIG", path).args(["auth", "whoami", "--output=json"]);
    let output = tokio::task::spawn_blocking(move || kubectl.output()).await.expect("no panic").expect("kubectl runs");
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let review: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    Ok(review["status"]["userInfo"].clone())
}

async fn apply(client: &Client, namespace: &str, name: &str, spec: Value) -> kube::Result<DynamicObject> {
    let kind = GroupVersionKind::gvk("pat-operator.io", "v1alpha1", "PersonalAccessToken");
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &ApiResource::from_gvk(&kind));
    let pat = json!({
        "apiVersion": "pat-operator.io/v1alpha1", "kind": "PersonalAccessToken", "metadata": {"name": name}, "spec": spec,
    });
    api.patch(name, &PatchParams::apply("person"), &Patch::Apply(pat)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn self_signed_certificate_is_published_and_trusted() {
    if is_left_out(Binary::Helm) {
        return;
    }
    // The file names the token webhook of the API server. At first, no server listens at its address.
    let setup = tempfile::tempdir().expect("a folder");
    let webhook = setup.path().join("pat-operator.yaml");
    let other_authority = rcgen::generate_simple_self_signed(vec![HOST.to_owned()]).expect("a certificate");
    fs::write(setup.path().join("none.crt"), other_authority.cert.pem()).expect("a file");
    let unused = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "webhook",
        "contexts": [{"name": "webhook", "context": {"cluster": "none", "user": "none"}}],
        "clusters": [{"name": "none", "cluster": {
            "server": "https://127.0.0.1:1/k8s/tokenreview", "certificate-authority": setup.path().join("none.crt"),
        }}],
        "users": [{"name": "none", "user": {}}],
    });
    fs::write(&webhook, unused.to_string()).expect("a file");
    let flags = [
        format!("--authentication-token-webhook-config-file={}", webhook.display()),
        "--authentication-token-webhook-version=v1".into(),
        "--authentication-token-webhook-cache-ttl=1s".into(),
    ];
    let options = flags.into_iter().fold(Options::default(), |all, flag| all.argument(Component::ApiServer, flag));
    let mut release = Release::on(options).await;

    // A controller without these permissions names them.
    release.put(&["install", "--create-namespace"], &json!({}));
    let deployed = Deployed::find(&release.manifests(), "controller");
    let launch = deployed.launch(&release.access(), "unprivileged", release.folder.path()).await;
    let line = launch.arg("--serving-certificate=tls:a.svc").arg("--serving-certificate-namespace=pat-operator");
    let line = line.run().await.refusal();
    for part in ["update secrets", "create configmaps", "get configmaps", "update configmaps"] {
        assert!(line.contains(&format!("{part} in namespace pat-operator")), "{part}: {line}");
    }

    let notes = release.put(
        &["upgrade"],
        &json!({"verifier": {
            "enabled": true, "tokenReview": {"enabled": true},
            "tls": {"selfSigned": {"enabled": true, "dnsNames": ["tokens.example.com"]}},
        }}),
    );
    assert!(notes.contains(&format!("get configmap {SECRET}-ca")), "{notes}");
    let mut controllers = release.controllers().await;
    let maps: Api<ConfigMap> = Api::namespaced(release.client.clone(), NAMESPACE);
    let published = async || maps.get_opt(&format!("{SECRET}-ca")).await.expect("an answer");
    eventually("the authority is published", async || published().await.is_some()).await;
    let trusted = published().await.and_then(|map| map.data).expect("data")["ca.crt"].clone();
    let secrets: Api<Secret> = Api::namespaced(release.client.clone(), NAMESPACE);
    let secret = secrets.get(SECRET).await.expect("its Secret");
    assert_eq!(secret.data.expect("data")["ca.crt"].0, trusted.as_bytes());

    // One controller issued the certificate, and none was refused anything.
    let (mut issued, mut nearest) = (0.0, f64::INFINITY);
    for controller in &mut controllers {
        let metrics = controller.metrics().await;
        issued += metrics.value("pat_operator_serving_certificate_renewals_total");
        nearest = metrics.value("pat_operator_nearest_serving_certificate_expiry_seconds").min(nearest);
        for category in ["CertificateNotOurs", "Conflict", "ApiError", "Timeout", "CertificateNotMade"] {
            let series = format!("pat_operator_serving_certificate_errors_total{{category=\"{category}\"}}");
            assert_eq!(metrics.value(&series), 0.0, "{controller}");
        }
        for word in ["forbidden", "(403", "not permitted"] {
            assert!(!controller.has_logged(&[word]), "{word}\n{controller}");
        }
    }
    assert!(issued == 1.0 && (89.9..=90.0).contains(&(nearest / 86_400.0)), "{issued}, {nearest}");

    // The verifier uses the certificate. Its Pod has the pair, but not the key of the authority.
    let mut verifier = release.verifier().await;
    let files = fs::read_dir(release.folder.path().join(format!("verifier-0-{SECRET}"))).expect("the mounted files");
    let mut files: Vec<_> =
        files.map(|file| file.expect("readable").file_name().into_string().expect("text")).collect();
    files.sort();
    assert_eq!(files, ["tls.crt", "tls.key"]);
    let trusted = certificates(&trusted);
    let (team, _) = person(&release, "shop").await;
    eventually("the policies are in force", async || {
        apply(&team, "shop", "app", json!({})).await.is_ok()
            && apply(&team, "shop", "ci", json!({"audiences": [API_SERVER]})).await.is_ok()
    })
    .await;
    let (app, ci) = (release.ready("shop", "app").await, release.ready("shop", "ci").await);
    for host in [HOST, "pat-operator-verifier.pat-operator", "pat-operator-verifier", "tokens.example.com"] {
        let client = Trust::new(&trusted, host);
        eventually("the token is valid", async || {
            client.get(verifier.http, "/auth/forward", &app).await.expect("the certificate is trusted").code == 200
        })
        .await;
    }
    let distrusting = Trust::new(&[other_authority.cert.der().clone()], HOST);
    assert!(distrusting.get(verifier.http, "/auth/forward", &app).await.is_err(), "no other authority signed it");

    // Set up the API server as documented, with a local port instead of the Service.
    assert!(whoami(&release.access(), setup.path(), &ci).await.is_err(), "no webhook is set up yet");
    fs::remove_file(&webhook).expect("the file is removed");
    let webhook_commands = documented_commands("set-cluster");
    let address = "https://$ip:8443";
    assert!(webhook_commands.contains(address) && webhook_commands.contains(&format!("--tls-server-name={HOST}")));
    let here = webhook_commands.replace(address, &format!("https://{}", verifier.http));
    run(&release.access(), setup.path(), here).await;
    release.plane.restart(Component::ApiServer).await.expect("the API server is back");
    eventually("the API server accepts the token", async || match whoami(&release.access(), setup.path(), &ci).await {
        Ok(user) => user["username"] == "pat:va:shop/ci",
        Err(_) => false,
    })
    .await;

    // Copy the authority to another namespace as documented.
    run(&release.access(), setup.path(), documented_commands("create configmap pat-operator-ca")).await;
    let copies: Api<ConfigMap> = Api::namespaced(release.client.clone(), "shop");
    let copy = copies.get("pat-operator-ca").await.expect("a copy").data.expect("data")["ca.crt"].clone();
    assert_eq!(certificates(&copy), trusted);

    // The next leader issues no second certificate, and the certificate stays after the release is uninstalled.
    for controller in controllers {
        controller.terminate().await;
    }
    let mut controllers = release.controllers().await;
    let mut leading = 0;
    for controller in &mut controllers {
        controller.is_ready().await;
    }
    let began = std::time::Instant::now();
    while leading == 0 {
        assert!(began.elapsed() < SOON, "no controller leads in time");
        for controller in &mut controllers {
            let metrics = controller.metrics().await;
            assert_eq!(metrics.value("pat_operator_serving_certificate_renewals_total"), 0.0, "{controller}");
            leading +=
                usize::from(metrics.value("pat_operator_nearest_serving_certificate_expiry_seconds").is_finite());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for controller in controllers {
        controller.terminate().await;
    }
    verifier.process.is_ready().await;
    verifier.process.terminate().await;
    release.helm(&["uninstall", "pat-operator"]);
    assert_eq!(certificates(&published().await.and_then(|map| map.data).expect("data")["ca.crt"]), trusted);
}
