//! The controller of sealed-secrets itself, as a process beside the API server, with the rights of its chart in one namespace.
//!
//! It must not know what is sealed.

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

/// Where the controller finds the token of its ServiceAccount: a folder that only a pod has, and no flag names another.
const OF_A_POD: &str = "/var/run/secrets/kubernetes.io/serviceaccount/";

/// The controller at work. It dies with the value, and with the test process however that ends.
pub struct Unsealer {
    identity: Identity,
    addr: SocketAddr,
    child: Child,
    // After the process, which writes into it.
    folder: tempfile::TempDir,
}

impl Unsealer {
    /// Starts it for the namespace of this place.
    pub async fn start(place: &Place) -> Self {
        let (definition, file) = SEALED_SECRETS;
        let definition = fs::read_to_string(module(definition).join(file)).expect("the definition is there");
        let definition: Value = serde_yaml::from_str(&definition).expect("YAML");
        crd::establish(&place.client, "sealedsecrets.bitnami.com", &definition).await;

        let identity = Identity::service_account(place.name(), ACCOUNT);
        let folder = tempfile::Builder::new().prefix("pat-unsealer-").tempdir().expect("a folder");
        fs::write(folder.path().join("token"), account(place, &identity).await).expect("a token");
        fs::copy(place.access.folder().join("pki/ca.crt"), folder.path().join("ca.crt")).expect("an authority");
        let program = program(folder.path()).await;
        let server = place.access.api_server_url().trim_start_matches("https://");
        let (host, port) = server.rsplit_once(':').expect("an address");
        let addr = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
        let log = File::create(folder.path().join("log")).expect("a log");
        let mut command = Command::new(program);
        command.env_clear().env("KUBERNETES_SERVICE_HOST", host).env("KUBERNETES_SERVICE_PORT", port);
        command.env("POD_NAMESPACE", place.name()).current_dir(folder.path()).stdin(Stdio::null());
        // A shorter key than it would make by itself: nobody should wait for primes.
        command.args(["--all-namespaces=false", "--key-size=2048", "--listen-metrics-addr=127.0.0.1:0"]);
        command.arg(format!("--listen-addr={addr}"));
        command.stdout(log.try_clone().expect("a log")).stderr(log);
        let child = control_plane::spawn(command).expect("it starts");
        let mut this = Self { identity, addr, child, folder };
        eventually("the controller of sealed-secrets serves its certificate", async || {
            assert!(this.child.try_wait().expect("it can be waited for").is_none(), "it has ended by itself");
            tokio::net::TcpStream::connect(addr).await.is_ok()
        })
        .await;
        this
    }

    /// As whom it speaks to the API server.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Where its certificate is: what kubeseal asks for through the API server, which reaches pods only.
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
            eprintln!("--- the log of the controller of sealed-secrets:\n{}", String::from_utf8_lossy(&log));
        }
    }
}

/// Makes its ServiceAccount, with the rights that its chart gives it; a token of it.
async fn account(place: &Place, identity: &Identity) -> String {
    let rules = json!([
        {"apiGroups": ["bitnami.com"], "resources": ["sealedsecrets"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["bitnami.com"], "resources": ["sealedsecrets/status"], "verbs": ["update"]},
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "create", "update", "delete", "watch"]},
        {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]},
    ]);
    people::granted_here(place, identity, ACCOUNT, &rules).await;
    let secrets: Api<Secret> = Api::namespaced(place.access.client_for(identity).expect("a client"), place.name());
    eventually("it has its rights", async || secrets.list(&ListParams::default()).await.is_ok()).await;

    let accounts: Api<ServiceAccount> = Api::namespaced(place.client.clone(), place.name());
    let mut account = ServiceAccount::default();
    account.metadata.name = Some(ACCOUNT.to_owned());
    accounts.create(&PostParams::default(), &account).await.expect("it is made");
    let request = TokenRequest { spec: Some(TokenRequestSpec::default()), ..TokenRequest::default() };
    let made = accounts.create_token_request(ACCOUNT, &PostParams::default(), &request).await.expect("a token");
    made.status.and_then(|status| status.token).expect("it is told")
}

/// The program, in a copy that takes for a pod's folder the one that it runs in.
async fn program(folder: &Path) -> PathBuf {
    let copy = folder.join(Binary::SealedSecrets.name());
    let into = copy.clone();
    let write = move || {
        let assets = Assets::ensure(&[Binary::SealedSecrets]).expect("the controller is built");
        // As long as the other: all else stays where it is.
        let here = "./".repeat(OF_A_POD.len() / 2);
        // By a process of its own: what is open to be written cannot be run, and what we have open every process has that we start.
        let mut bash = Command::new("bash");
        bash.args(["-euc", r#"sed "s|$1|$2|g" <"$3" >"$4"; chmod +x "$4""#, "bash", OF_A_POD, &here])
            .env("LC_ALL", "C");
        let made = bash.arg(assets.path(Binary::SealedSecrets)).arg(into).status().expect("there is bash");
        assert!(made.success(), "it is copied");
    };
    tokio::task::spawn_blocking(write).await.expect("no panic");
    copy
}
