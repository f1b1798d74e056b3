//! A real API server asks the verifier whose a token is: PATs as credentials for the cluster itself.
//!
//! The API server is started with a webhook for tokens that points at `pat-operator verifier`, by TLS; the tokens are minted by
//! `pat-operator controller`, and kubectl uses them.

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

/// The audience that the API server asks for by default: its issuer.
const API_SERVER: &str = "https://kubernetes.default.svc";

/// How long the API server keeps an answer; the default is two minutes.
const CACHE: Duration = Duration::from_secs(1);

/// Which version of TokenReview the API server asks in.
const VERSION_FLAG: &str = "--authentication-token-webhook-version=";

/// Whether the API server is told so.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    /// It is: v1.
    AsDocumented,
    /// It is not, and takes its own: v1beta1.
    Default,
}

struct World {
    place: Place,
    _verifier: VerifierProcess,
    _controller: OperatorProcess,
    // Last: they serve what is above.
    plane: ControlPlane,
    folder: tempfile::TempDir,
}

impl World {
    /// With the flags that the documentation shows.
    async fn new() -> Self {
        Self::asking_in(Version::AsDocumented).await
    }

    async fn asking_in(version: Version) -> Self {
        let folder = tempfile::Builder::new().prefix("pat-webhook-").tempdir().expect("a folder");
        let webhook = folder.path().join("webhook.kubeconfig");
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let (cert, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
        let pair = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
        fs::write(&cert, pair.cert.pem()).expect("it is written");
        fs::write(&key, pair.signing_key.serialize_pem()).expect("it is written");

        // Each needs the other. So the API server starts with nobody at the other end, and once more when there is somebody.
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
        let world = Self { place, _verifier: verifier, _controller: controller, plane, folder };
        // The verifier has lost its watch to the restart, and knows of new tokens when it has one again.
        world.place.apply("probe", json!({"audiences": [API_SERVER]})).await;
        let probe = world.holder(&world.place.ready("probe").await);
        eventually("the verifier watches again", async || probe.whoami().await.is_ok()).await;
        world
    }

    /// A way in for whoever holds this token.
    fn holder(&self, token: &str) -> Holder {
        let file = tempfile::NamedTempFile::new_in(self.folder.path()).expect("a file").into_temp_path();
        let path = file.keep().expect("it stays");
        let holder = Holder { access: self.plane.access(), kubeconfig: path };
        holder.takes(token);
        holder
    }
}

/// Who has nothing but a token, in a kubeconfig: arguments are for everybody to see.
struct Holder {
    access: Access,
    kubeconfig: PathBuf,
}

impl Holder {
    /// From now on it is this token.
    fn takes(&self, token: &str) {
        let text = self.access.kubeconfig_text(&Identity::admin()).expect("a kubeconfig");
        let mut config: Value = serde_yaml::from_str(&text).expect("YAML");
        config["users"][0]["user"] = json!({"token": token});
        fs::write(&self.kubeconfig, config.to_string()).expect("it is written");
    }

    /// `kubectl auth whoami`.
    async fn kubectl(&self) -> Output {
        let mut kubectl = self.access.command(Binary::Kubectl).expect("kubectl");
        kubectl.env("KUBECONFIG", &self.kubeconfig).args(["auth", "whoami", "--output=json"]);
        tokio::task::spawn_blocking(move || kubectl.output()).await.expect("no panic").expect("kubectl runs")
    }

    /// Who the API server says it is; what kubectl says if it is nobody.
    async fn whoami(&self) -> Result<Value, String> {
        let output = self.kubectl().await;
        if output.status.success() {
            let review: Value = serde_json::from_slice(&output.stdout).expect("JSON");
            return Ok(review["status"]["userInfo"].clone());
        }
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    async fn is_refused(&self, why: &str) {
        let error = self.whoami().await.expect_err(why);
        assert!(error.contains("Unauthorized") || error.contains("logged in"), "{why}: {error}");
    }
}

/// A file that the documentation shows, in which only these texts are others.
fn example(name: &str, real: &[(&str, &str)]) -> String {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/verifier").join(name);
    let text = fs::read_to_string(example).expect("the example is there");
    real.iter().fold(text, |text, (written, real)| {
        assert!(text.contains(written), "{written} stands in {name}");
        text.replace(written, real)
    })
}

fn flags(real: &[(&str, &str)]) -> Vec<String> {
    example("kube-apiserver.flags", real).lines().map(str::to_owned).collect()
}

fn write_webhook(path: &Path, server: &str, authority: &str) {
    let there = path.with_extension("ca.crt");
    fs::write(&there, authority).expect("it is written");
    let there = there.display().to_string();
    let real = [("127.0.0.1:8443", server), ("/etc/kubernetes/pki/pat-operator-ca.crt", &*there)];
    fs::write(path, example("kube-apiserver.yaml", &real)).expect("it is written");
}

#[tokio::test(flavor = "multi_thread")]
async fn token_authenticates_to_the_cluster_until_revoked() {
    let world = World::new().await;
    let place = &world.place;

    // A person, and a program.
    let jane = json!({"owner": {"kind": "User", "name": "jane@example.com"}, "audiences": [API_SERVER]});
    place.apply("jane", jane.clone()).await;
    place.apply("ci", json!({"audiences": [API_SERVER, "https://git.example.com"]})).await;
    let person = world.holder(&place.ready("jane").await);
    let program = world.holder(&place.ready("ci").await);
    let user = person.whoami().await.expect("a user");
    assert_eq!(user["username"], "pat:jane@example.com", "{user}");
    let groups = user["groups"].as_array().expect("groups");
    assert!(groups.iter().all(|group| group == "system:authenticated"), "no group but the API server's own: {user}");
    let user = program.whoami().await.expect("a user");
    assert_eq!(user["username"], format!("pat:va:{}/ci", place.name()), "{user}");

    // Not for this audience, not issued by anybody, and no token at all.
    place.apply("elsewhere", json!({"audiences": ["https://git.example.com"]})).await;
    place.apply("anywhere", json!({})).await;
    for name in ["elsewhere", "anywhere"] {
        world.holder(&place.ready(name).await).is_refused(name).await;
    }
    let unknown = pat_operator::token::Token::mint(&Default::default()).expect("a token");
    for token in [unknown.expose(), "kpat_junk", "junk"] {
        world.holder(token).is_refused("nobody issued it").await;
    }

    // RBAC knows it by that name.
    assert!(forbidden(&world, &person).await, "it may nothing yet");

    // Revoked: refused as soon as the API server has forgotten its own answer.
    let mut revoked = jane;
    revoked["revoked"] = true.into();
    place.apply("jane", revoked).await;
    let began = Instant::now();
    eventually("the revoked token is refused", async || person.whoami().await.is_err()).await;
    assert!(began.elapsed() < CACHE + Duration::from_secs(10), "{:?}", began.elapsed());
    person.is_refused("revoked").await;
    program.whoami().await.expect("the other one goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn api_server_with_the_default_webhook_version_works() {
    let world = World::asking_in(Version::Default).await;
    let mut help = Command::new(world.plane.assets().path(Binary::KubeApiserver));
    let help = tokio::task::spawn_blocking(move || help.arg("--help").output()).await.expect("no panic");
    let help = String::from_utf8(help.expect("it says what its flags are").stdout).expect("text");
    let flag = VERSION_FLAG.trim_end_matches('=');
    let line = help.lines().find(|line| line.contains(flag)).expect("there is such a flag");
    assert!(line.ends_with(r#"(default "v1beta1")"#), "{line}");

    let place = &world.place;
    let jane = json!({"owner": {"kind": "User", "name": "jane@example.com"}, "audiences": [API_SERVER]});
    place.apply("jane", jane.clone()).await;
    let person = world.holder(&place.ready("jane").await);
    let user = person.whoami().await.expect("a user");
    assert_eq!(user["username"], "pat:jane@example.com", "{user}");
    place.apply("elsewhere", json!({"audiences": ["https://git.example.com"]})).await;
    world.holder(&place.ready("elsewhere").await).is_refused("elsewhere").await;

    let mut revoked = jane;
    revoked["revoked"] = true.into();
    place.apply("jane", revoked).await;
    eventually("the revoked token is refused", async || person.whoami().await.is_err()).await;
    person.is_refused("revoked").await;
}

/// Whether a user that is known may not list Secrets.
async fn forbidden(world: &World, holder: &Holder) -> bool {
    let mut kubectl = holder.access.command(Binary::Kubectl).expect("kubectl");
    kubectl.env("KUBECONFIG", &holder.kubeconfig);
    kubectl.args(["get", "secrets", "--namespace", world.place.name()]);
    let output = tokio::task::spawn_blocking(move || kubectl.output()).await.expect("no panic").expect("kubectl runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    !output.status.success() && said.contains("Forbidden") && said.contains("pat:jane@example.com")
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_under_continuous_calls_causes_no_refusal() {
    const ROTATIONS: usize = 4;
    const CALLERS: usize = 3;
    let world = World::new().await;
    let place = &world.place;
    let spec = json!({"audiences": [API_SERVER], "rotation": {"interval": "30d"}});
    place.apply("ci", spec.clone()).await;
    let first = place.ready("ci").await;

    let (enough, calls) = (AtomicBool::new(false), AtomicUsize::new(0));
    let calling = async {
        let callers = (0..CALLERS).map(async |caller| {
            let holder = world.holder(&first);
            while !enough.load(Ordering::Relaxed) {
                // One keeps what it had at first, which is in grace; the others read the Secret as a mounted one.
                if caller > 0 {
                    holder.takes(&place.token("ci").await);
                }
                let so_far = calls.load(Ordering::Relaxed);
                holder.whoami().await.unwrap_or_else(|error| panic!("refused after {so_far} calls: {error}"));
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
                assert!(Instant::now() < deadline, "calls go on");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        enough.store(true, Ordering::Relaxed);
    };
    tokio::join!(calling, rotating);
    assert!(calls.load(Ordering::Relaxed) >= 2 * CALLERS * ROTATIONS);
}
