//! The sealed-secrets controller as a process, with the rights of its chart in one namespace.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use control_plane::{Assets, Binary, Identity};
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::{Secret, ServiceAccount},
};
use kube::{
    Api,
    api::{ListParams, PostParams},
};
use serde_json::{Value, json};

use super::manifests::SEALED_SECRETS;
use crate::support::{
    crd,
    module::module,
    policies::people,
    process::place::{Place, eventually},
};

const ACCOUNT: &str = "sealed-secrets-controller";

/// The folder with the token of the ServiceAccount. It exists only in a Pod, and no flag changes it.
const OF_A_POD: &str = "/var/run/secrets/kubernetes.io/serviceaccount/";

/// A running sealed-secrets controller. It is killed on drop.
pub struct Unsealer {
    identity: Identity,
    addr: SocketAddr,
    child: Child,
    // Dropped after the process, which writes into it.
    folder: tempfile::TempDir,
}

impl Unsealer {
    /// Starts the controller for the namespace of this place.
    pub async fn start(place: &Place) -> Self {
        let (definition, file) = SEALED_SECRETS;
        let definition = fs::read_to_string(module(definition).join(file)).expect("the CRD exists");
        let definition: Value = serde_yaml::from_str(&definition).expect("YAML");
        crd::establish(&place.client, "sealedsecrets.bitnami.com", &definition).await;

        let identity = Identity::service_account(place.name(), ACCOUNT);
        let folder = tempfile::Builder::new().prefix("pat-unsealer-").tempdir().expect("a folder");
        fs::write(folder.path().join("token"), account(place, &identity).await).expect("a token");
        fs::copy(place.access.folder().join("pki/ca.crt"), folder.path().join("ca.crt")).expect("a CA certificate");
        let program = program(folder.path()).await;
        let server = place.access.api_server_url().trim_start_matches("https://");
        let (host, port) = server.rsplit_once(':').expect("an address");
        let addr = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
        let log = File::create(folder.path().join("log")).expect("a log");
        let mut command = Command::new(program);
        command.env_clear().env("KUBERNETES_SERVICE_HOST", host).env("KUBERNETES_SERVICE_PORT", port);
        command.env("POD_NAMESPACE", place.name()).current_dir(folder.path()).stdin(Stdio::null());
        // A short key, because generating a long one takes time.
        command.args(["--all-namespaces=false", "--key-size=2048", "--listen-metrics-addr=127.0.0.1:0"]);
        command.arg(format!("--listen-addr={addr}"));
        command.stdout(log.try_clone().expect("a log")).stderr(log);
        let child = control_plane::spawn(command).expect("the controller starts");
        let mut this = Self { identity, addr, child, folder };
        eventually("the sealed-secrets controller serves its certificate", async || {
            assert!(this.child.try_wait().expect("the status is available").is_none(), "the controller has exited");
            tokio::net::TcpStream::connect(addr).await.is_ok()
        })
        .await;
        this
    }

    /// The identity of its ServiceAccount.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The URL of its certificate. Normally kubeseal gets it through the API server, which can reach only Pods.
    pub fn certificate(&self) -> String {
        format!("http://{}/v1/cert.pem", self.addr)
    }
}

impl Drop for Unsealer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = fs::read(self.folder.path().join("log")).unwrap_or_default();
            eprintln!("--- the log of the sealed-secrets controller:\n{}", String::from_utf8_lossy(&log));
        }
    }
}

/// Creates its ServiceAccount with the rights that the chart gives it. Returns a token.
async fn account(place: &Place, identity: &Identity) -> String {
    let rules = json!([
        {"apiGroups": ["bitnami.com"], "resources": ["sealedsecrets"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["bitnami.com"], "resources": ["sealedsecrets/status"], "verbs": ["update"]},
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "create", "update", "delete", "watch"]},
        {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]},
    ]);
    people::grant_in_namespace(place, identity, ACCOUNT, &rules).await;
    let secrets: Api<Secret> = Api::namespaced(place.access.client_for(identity).expect("a client"), place.name());
    eventually("the rights are in force", async || secrets.list(&ListParams::default()).await.is_ok()).await;

    let accounts: Api<ServiceAccount> = Api::namespaced(place.client.clone(), place.name());
    let mut account = ServiceAccount::default();
    account.metadata.name = Some(ACCOUNT.to_owned());
    accounts.create(&PostParams::default(), &account).await.expect("the ServiceAccount is created");
    let request = TokenRequest { spec: Some(TokenRequestSpec::default()), ..TokenRequest::default() };
    let made = accounts.create_token_request(ACCOUNT, &PostParams::default(), &request).await.expect("a token");
    made.status.and_then(|status| status.token).expect("a token in the status")
}

/// A copy of the program that reads the ServiceAccount's token in its working directory.
async fn program(folder: &Path) -> PathBuf {
    let copy = folder.join(Binary::SealedSecrets.name());
    let into = copy.clone();
    let write = move || {
        let assets = Assets::ensure(&[Binary::SealedSecrets]).expect("the controller is built");
        // A path of the same length, so that nothing moves in the binary.
        let here = "./".repeat(OF_A_POD.len() / 2);
        // A separate process writes the copy. A file that is open for writing cannot be executed, and child processes inherit open files.
        let mut bash = Command::new("bash");
        bash.args(["-euc", r#"sed "s|$1|$2|g" <"$3" >"$4"; chmod +x "$4""#, "bash", OF_A_POD, &here])
            .env("LC_ALL", "C");
        let made = bash.arg(assets.path(Binary::SealedSecrets)).arg(into).status().expect("bash runs");
        assert!(made.success(), "the copy is written");
    };
    tokio::task::spawn_blocking(write).await.expect("no panic");
    copy
}
