//! A certificate that the operator makes itself, from `helm install` to clients that trust nothing but what is published, by the chart's rights
//! alone; the API server itself is one of them, set up by the commands in docs/verifier.md.

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
/// The audience that the API server asks for by default: its issuer.
const API_SERVER: &str = "https://kubernetes.default.svc";

/// The block of shell commands in docs/verifier.md that has this in it.
fn commands(part: &str) -> String {
    let blocks = fences::of("docs/verifier.md").into_iter().filter(|fence| fence.language == "sh");
    let mut found = blocks.filter(|block| block.text.contains(part));
    let (Some(block), None) = (found.next(), found.next()) else { panic!("one block with {part}") };
    block.text
}

/// Runs them in this folder, as the administrator.
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

/// Who the API server says somebody is who has this token.
async fn whoami(access: &Access, folder: &Path, token: &str) -> Result<Value, String> {
    let text = access.kubeconfig_text(&Identity::admin()).expect("a kubeconfig");
    let mut config: Value = serde_yaml::from_str(&text).expect("YAML");
    config["users"][0]["user"] = json!({"token": token});
    let path = folder.join("holder.kubeconfig");
    fs::write(&path, config.to_string()).expect("it is written");
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
    // The API server asks whoever this file names; at first nobody.
    let setup = tempfile::tempdir().expect("a folder");
    let webhook = setup.path().join("pat-operator.yaml");
    let stranger = rcgen::generate_simple_self_signed(vec![HOST.to_owned()]).expect("a certificate");
    fs::write(setup.path().join("none.crt"), stranger.cert.pem()).expect("a file");
    let nobody = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "webhook",
        "contexts": [{"name": "webhook", "context": {"cluster": "none", "user": "none"}}],
        "clusters": [{"name": "none", "cluster": {
            "server": "https://127.0.0.1:1/k8s/tokenreview", "certificate-authority": setup.path().join("none.crt"),
        }}],
        "users": [{"name": "none", "user": {}}],
    });
    fs::write(&webhook, nobody.to_string()).expect("a file");
    let flags = [
        format!("--authentication-token-webhook-config-file={}", webhook.display()),
        "--authentication-token-webhook-version=v1".into(),
        "--authentication-token-webhook-cache-ttl=1s".into(),
    ];
    let options = flags.into_iter().fold(Options::default(), |all, flag| all.argument(Component::ApiServer, flag));
    let mut release = Release::on(options).await;

    // What a controller without these rights says of it.
    release.put(&["install", "--create-namespace"], &json!({}));
    let deployed = Deployed::find(&release.manifests(), "controller");
    let launch = deployed.launch(&release.access(), "lacks", release.folder.path()).await;
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

    // One of the two made it, and nothing was refused to any.
    let (mut made, mut nearest) = (0.0, f64::INFINITY);
    for controller in &mut controllers {
        let metrics = controller.metrics().await;
        made += metrics.value("pat_operator_serving_certificate_renewals_total");
        nearest = metrics.value("pat_operator_nearest_serving_certificate_expiry_seconds").min(nearest);
        for category in ["CertificateNotOurs", "Conflict", "ApiError", "Timeout", "CertificateNotMade"] {
            let series = format!("pat_operator_serving_certificate_errors_total{{category=\"{category}\"}}");
            assert_eq!(metrics.value(&series), 0.0, "{controller}");
        }
        for word in ["forbidden", "(403", "not permitted"] {
            assert!(!controller.has_logged(&[word]), "{word}\n{controller}");
        }
    }
    assert!(made == 1.0 && (89.9..=90.0).contains(&(nearest / 86_400.0)), "{made}, {nearest}");

    // The verifier serves with it; its Pod has the pair, and no key of the authority.
    let mut verifier = release.verifier().await;
    let files = fs::read_dir(release.folder.path().join(format!("verifier-0-{SECRET}"))).expect("what is mounted");
    let mut files: Vec<_> =
        files.map(|file| file.expect("readable").file_name().into_string().expect("text")).collect();
    files.sort();
    assert_eq!(files, ["tls.crt", "tls.key"]);
    let trusted = certificates(&trusted);
    let (team, _) = person(&release, "shop").await;
    eventually("the policies let her", async || {
        apply(&team, "shop", "app", json!({})).await.is_ok()
            && apply(&team, "shop", "ci", json!({"audiences": [API_SERVER]})).await.is_ok()
    })
    .await;
    let (app, ci) = (release.ready("shop", "app").await, release.ready("shop", "ci").await);
    for host in [HOST, "pat-operator-verifier.pat-operator", "pat-operator-verifier", "tokens.example.com"] {
        let client = Trust::new(&trusted, host);
        eventually("the token is good", async || {
            client.get(verifier.http, "/auth/forward", &app).await.expect("it is trusted").code == 200
        })
        .await;
    }
    let strangers = Trust::new(&[stranger.cert.der().clone()], HOST);
    assert!(strangers.get(verifier.http, "/auth/forward", &app).await.is_err(), "nobody else vouches for it");

    // The API server, set up as the page says, with a port of this machine in place of the Service's.
    assert!(whoami(&release.access(), setup.path(), &ci).await.is_err(), "it asks nobody yet");
    fs::remove_file(&webhook).expect("it was there");
    let commands_for_webhook = commands("set-cluster");
    let address = "https://$ip:8443";
    assert!(
        commands_for_webhook.contains(address) && commands_for_webhook.contains(&format!("--tls-server-name={HOST}"))
    );
    let here = commands_for_webhook.replace(address, &format!("https://{}", verifier.http));
    run(&release.access(), setup.path(), here).await;
    release.plane.restart(Component::ApiServer).await.expect("the API server is back");
    eventually("the API server knows whose the token is", async || {
        match whoami(&release.access(), setup.path(), &ci).await {
            Ok(user) => user["username"] == "pat:va:shop/ci",
            Err(_) => false,
        }
    })
    .await;

    // And a copy for another namespace, as the page says.
    run(&release.access(), setup.path(), commands("create configmap pat-operator-ca")).await;
    let copies: Api<ConfigMap> = Api::namespaced(release.client.clone(), "shop");
    let copy = copies.get("pat-operator-ca").await.expect("a copy").data.expect("data")["ca.crt"].clone();
    assert_eq!(certificates(&copy), trusted);

    // Nothing is made a second time, whoever leads next; and it outlives the release.
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
        assert!(began.elapsed() < SOON, "one of them leads");
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
