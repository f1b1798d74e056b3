//! PATs as credentials for the cluster: a real API server sends token reviews to the verifier.
//!
//! The API server has a token webhook that calls `pat-operator verifier` over TLS. `pat-operator controller` issues the tokens,
//! and kubectl uses them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use crate::support::process::{
    OperatorProcess, SOON,
    place::{Place, eventually},
    trust,
    verifier::VerifierProcess,
};
use control_plane::{Access, Binary, Component, ControlPlane, Identity, Options};
use serde_json::{Value, json};

/// The API server's default audience: its issuer.
const API_SERVER: &str = "https://kubernetes.default.svc";

/// How long the API server caches a response. The default is two minutes.
const CACHE: Duration = Duration::from_secs(1);

/// The flag for the TokenReview version that the API server sends.
const VERSION_FLAG: &str = "--authentication-token-webhook-version=";

/// The TokenReview version that the API server uses.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    /// v1, set by the flag.
    AsDocumented,
    /// The API server's default: v1beta1.
    Default,
}

struct WebhookStage {
    place: Place,
    _verifier: VerifierProcess,
    _controller: OperatorProcess,
    // Dropped last, because the processes above use them.
    plane: ControlPlane,
    folder: tempfile::TempDir,
}

impl WebhookStage {
    /// Starts everything with the documented flags.
    async fn new() -> Self {
        Self::with_version(Version::AsDocumented).await
    }

    async fn with_version(version: Version) -> Self {
        let folder = tempfile::Builder::new().prefix("pat-webhook-").tempdir().expect("a folder");
        let webhook = folder.path().join("webhook.kubeconfig");
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let (cert, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
        let pair = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
        fs::write(&cert, pair.cert.pem()).expect("the file is written");
        fs::write(&key, pair.signing_key.serialize_pem()).expect("the file is written");

        // API server and verifier need each other. So the API server starts with an unused address, and restarts once the verifier runs.
        write_webhook(&webhook, "127.0.0.1:1", &pair.cert.pem());
        let flags = flags(&[
            ("/etc/kubernetes/pat-operator.yaml", &webhook.display().to_string()),
            ("cache-ttl=10s", &format!("cache-ttl={}s", CACHE.as_secs())),
            ("https://kubernetes.default.svc.cluster.local", API_SERVER),
        ]);
        let options = Options::default().apply(root.join("crds"));
        let flags =
            flags.into_iter().filter(|flag| version == Version::AsDocumented || !flag.starts_with(VERSION_FLAG));
        let options = flags.fold(options, |all, flag| all.argument(Component::ApiServer, flag));
        let mut plane = ControlPlane::start(options).await.expect("a control plane");
        let kubeconfig = plane.admin_kubeconfig();
        let files = trust::flags(folder.path());
        let verifier = VerifierProcess::start(&kubeconfig, &["--enable-tokenreview", &files[0], &files[1]]).await;
        write_webhook(&webhook, &verifier.http.to_string(), &pair.cert.pem());
        plane.restart(Component::ApiServer).await.expect("the API server is back");

        let place = Place::on(&plane.access(), "webhook").await;
        let mut controller = place.operator().start();
        controller.is_ready().await;
        let stage = Self { place, _verifier: verifier, _controller: controller, plane, folder };
        // The restart interrupted the verifier's watch. It learns of new tokens once it watches again.
        stage.place.apply("probe", json!({"audiences": [API_SERVER]})).await;
        let probe = stage.user_with(&stage.place.ready("probe").await);
        eventually("the verifier watches again", async || probe.whoami().await.is_ok()).await;
        stage
    }

    /// A kubectl user with this token.
    fn user_with(&self, token: &str) -> TokenUser {
        let file = tempfile::NamedTempFile::new_in(self.folder.path()).expect("a file").into_temp_path();
        let path = file.keep().expect("the file is kept");
        let user = TokenUser { access: self.plane.access(), kubeconfig: path };
        user.use_token(token);
        user
    }
}

/// A kubectl user with a token in a kubeconfig, because command-line arguments are visible to other processes.
struct TokenUser {
    access: Access,
    kubeconfig: PathBuf,
}

impl TokenUser {
    /// Writes this token to the kubeconfig.
    fn use_token(&self, token: &str) {
        let text = self.access.kubeconfig_text(&Identity::admin()).expect("a kubeconfig");
        let mut config: Value = serde_yaml::from_str(&text).expect("YAML");
        config["users"][0]["user"] = json!({"token": token});
        fs::write(&self.kubeconfig, config.to_string()).expect("the file is written");
    }

    /// `kubectl auth whoami`.
    async fn kubectl(&self) -> Output {
        let mut kubectl = self.access.command(Binary::Kubectl).expect("kubectl");
        kubectl.env("KUBECONFIG", &self.kubeconfig).args(["auth", "whoami", "--output=json"]);
        tokio::task::spawn_blocking(move || kubectl.output()).await.expect("no panic").expect("kubectl runs")
    }

    /// The user that the API server sees, or the error output of kubectl.
    async fn whoami(&self) -> Result<Value, String> {
        let output = self.kubectl().await;
        if output.status.success() {
            let review: Value = serde_json::from_slice(&output.stdout).expect("JSON");
            return Ok(review["status"]["userInfo"].clone());
        }
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    async fn assert_refused(&self, why: &str) {
        let error = self.whoami().await.expect_err(why);
        assert!(error.contains("Unauthorized") || error.contains("logged in"), "{why}: {error}");
    }
}

/// A documented example file with these texts replaced.
fn example(name: &str, real: &[(&str, &str)]) -> String {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/verifier").join(name);
    let text = fs::read_to_string(example).expect("the example is there");
    real.iter().fold(text, |text, (written, real)| {
        assert!(text.contains(written), "{written} is in {name}");
        text.replace(written, real)
    })
}

fn flags(real: &[(&str, &str)]) -> Vec<String> {
    example("kube-apiserver.flags", real).lines().map(str::to_owned).collect()
}

fn write_webhook(path: &Path, server: &str, authority: &str) {
    let ca_file = path.with_extension("ca.crt");
    fs::write(&ca_file, authority).expect("the file is written");
    let ca_file = ca_file.display().to_string();
    let real = [("127.0.0.1:8443", server), ("/etc/kubernetes/pki/pat-operator-ca.crt", &*ca_file)];
    fs::write(path, example("kube-apiserver.yaml", &real)).expect("the file is written");
}

#[tokio::test(flavor = "multi_thread")]
async fn token_authenticates_to_the_cluster_until_revoked() {
    let stage = WebhookStage::new().await;
    let place = &stage.place;

    // A user and a program.
    let jane = json!({"owner": {"kind": "User", "name": "jane@example.com"}, "audiences": [API_SERVER]});
    place.apply("jane", jane.clone()).await;
    place.apply("ci", json!({"audiences": [API_SERVER, "https://git.example.com"]})).await;
    let person = stage.user_with(&place.ready("jane").await);
    let program = stage.user_with(&place.ready("ci").await);
    let user = person.whoami().await.expect("a user");
    assert_eq!(user["username"], "pat:jane@example.com", "{user}");
    let groups = user["groups"].as_array().expect("groups");
    assert!(groups.iter().all(|group| group == "system:authenticated"), "no group but the API server's own: {user}");
    let user = program.whoami().await.expect("a user");
    assert_eq!(user["username"], format!("pat:va:{}/ci", place.name()), "{user}");

    // Tokens for another audience, unknown tokens, and invalid ones.
    place.apply("elsewhere", json!({"audiences": ["https://git.example.com"]})).await;
    place.apply("anywhere", json!({})).await;
    for name in ["elsewhere", "anywhere"] {
        stage.user_with(&place.ready(name).await).assert_refused(name).await;
    }
    let unknown = pat_operator::token::Token::mint(&Default::default()).expect("a token");
    for token in [unknown.expose(), "kpat_junk", "junk"] {
        stage.user_with(token).assert_refused("unknown or invalid token").await;
    }

    // RBAC uses that name.
    assert!(is_forbidden(&stage, &person).await, "the user has no permission");

    // A revoked token is refused as soon as the API server's cache entry expires.
    let mut revoked = jane;
    revoked["revoked"] = true.into();
    place.apply("jane", revoked).await;
    let began = Instant::now();
    eventually("the revoked token is refused", async || person.whoami().await.is_err()).await;
    assert!(began.elapsed() < CACHE + Duration::from_secs(10), "{:?}", began.elapsed());
    person.assert_refused("revoked").await;
    program.whoami().await.expect("the other token is still valid");
}

#[tokio::test(flavor = "multi_thread")]
async fn api_server_with_the_default_webhook_version_works() {
    let stage = WebhookStage::with_version(Version::Default).await;
    let mut help = Command::new(stage.plane.assets().path(Binary::KubeApiserver));
    let help = tokio::task::spawn_blocking(move || help.arg("--help").output()).await.expect("no panic");
    let help = String::from_utf8(help.expect("kube-apiserver prints its flags").stdout).expect("text");
    let flag = VERSION_FLAG.trim_end_matches('=');
    let line = help.lines().find(|line| line.contains(flag)).expect("the flag exists");
    assert!(line.ends_with(r#"(default "v1beta1")"#), "{line}");

    let place = &stage.place;
    let jane = json!({"owner": {"kind": "User", "name": "jane@example.com"}, "audiences": [API_SERVER]});
    place.apply("jane", jane.clone()).await;
    let person = stage.user_with(&place.ready("jane").await);
    let user = person.whoami().await.expect("a user");
    assert_eq!(user["username"], "pat:jane@example.com", "{user}");
    place.apply("elsewhere", json!({"audiences": ["https://git.example.com"]})).await;
    stage.user_with(&place.ready("elsewhere").await).assert_refused("elsewhere").await;

    let mut revoked = jane;
    revoked["revoked"] = true.into();
    place.apply("jane", revoked).await;
    eventually("the revoked token is refused", async || person.whoami().await.is_err()).await;
    person.assert_refused("revoked").await;
}

/// Returns whether an authenticated user is not allowed to list Secrets.
async fn is_forbidden(stage: &WebhookStage, user: &TokenUser) -> bool {
    let mut kubectl = user.access.command(Binary::Kubectl).expect("kubectl");
    kubectl.env("KUBECONFIG", &user.kubeconfig);
    kubectl.args(["get", "secrets", "--namespace", stage.place.name()]);
    let output = tokio::task::spawn_blocking(move || kubectl.output()).await.expect("no panic").expect("kubectl runs");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    !output.status.success() && stderr.contains("Forbidden") && stderr.contains("pat:jane@example.com")
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_under_continuous_calls_causes_no_refusal() {
    const ROTATIONS: usize = 4;
    const CALLERS: usize = 3;
    let stage = WebhookStage::new().await;
    let place = &stage.place;
    let spec = json!({"audiences": [API_SERVER], "rotation": {"interval": "30d"}});
    place.apply("ci", spec.clone()).await;
    let first = place.ready("ci").await;

    let (done, calls) = (AtomicBool::new(false), AtomicUsize::new(0));
    let calling = async {
        let callers = (0..CALLERS).map(async |caller| {
            let user = stage.user_with(&first);
            while !done.load(Ordering::Relaxed) {
                // One caller keeps the first token, which is in grace. The others read the Secret again, as if it were mounted.
                if caller > 0 {
                    user.use_token(&place.token("ci").await);
                }
                let so_far = calls.load(Ordering::Relaxed);
                user.whoami().await.unwrap_or_else(|error| panic!("refused after {so_far} calls: {error}"));
                calls.fetch_add(1, Ordering::Relaxed);
            }
        });
        futures::future::join_all(callers).await;
    };
    let rotating = async {
        for _ in 0..ROTATIONS {
            place.rotated("ci", spec.clone()).await;
            let seen = calls.load(Ordering::Relaxed);
            let deadline = Instant::now() + SOON;
            while calls.load(Ordering::Relaxed) < seen + 2 * CALLERS {
                assert!(Instant::now() < deadline, "the calls continue");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        done.store(true, Ordering::Relaxed);
    };
    tokio::join!(calling, rotating);
    assert!(calls.load(Ordering::Relaxed) >= 2 * CALLERS * ROTATIONS);
}
