//! Kubeconfigs, connection flags, proxies and credential plugins: `kubectl pat` reaches the same API server as kubectl, as the same user
//! and in the same namespace, or fails where kubectl fails.
//!
//! Each case is a folder with a kubeconfig. Both programs list tokens as a user without rights, so that the refusal names the user and the
//! namespace; with `-v 6` both print the URL.

mod cases;
mod servers;

use std::{
    collections::BTreeSet,
    fmt, fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use control_plane::{Binary, Identity};
use futures::{StreamExt, stream};
use k8s_openapi::api::{authentication::v1::TokenRequest, core::v1::ServiceAccount};
use kube::{
    Api,
    api::{ObjectMeta, PostParams},
};
use serde_json::{Value, json};
use tokio::process::Command;

use self::{
    cases::Case,
    servers::{Kind, SelfSigned, Server},
};
use super::runner::PLUGIN;
use crate::support::process::place::Place;

/// How many cases run at once.
const AT_ONCE: usize = 4;

/// A certificate, its key and the name in it, in PEM.
struct Pair {
    certificate: String,
    key: String,
}

/// The API server, the servers in front of it, and credentials for it.
struct Fixture {
    _place: Place,
    folder: tempfile::TempDir,
    kubectl: PathBuf,
    /// The API server, such as `127.0.0.1:6443`.
    api: String,
    authority: String,
    carol: Pair,
    admin: Pair,
    /// The token of a ServiceAccount.
    token: String,
    /// A certificate whose own authority it is, for an HTTPS proxy and for [`Fixture::self_signed`].
    own_authority: SelfSigned,
    /// The same without `CA:TRUE`.
    own_leaf: SelfSigned,
    forward: Server,
    http: Server,
    http_auth: Server,
    https: Server,
    socks: Server,
    socks_auth: Server,
    self_signed: Server,
    self_signed_leaf: Server,
}

impl Fixture {
    async fn new() -> Self {
        pat_operator::service::client::install_crypto();
        let place = Place::new("pat-kubeconfigs").await;
        let pair = |identity: &Identity| {
            let text = place.access.kubeconfig_text(identity).expect("a kubeconfig");
            let config: Value = serde_yaml::from_str(&text).expect("YAML");
            let decode = |value: &Value| {
                let bytes = STANDARD.decode(value.as_str().expect("text")).expect("base64");
                String::from_utf8(bytes).expect("PEM")
            };
            let user = &config["users"][0]["user"];
            let authority = decode(&config["clusters"][0]["cluster"]["certificate-authority-data"]);
            (
                Pair { certificate: decode(&user["client-certificate-data"]), key: decode(&user["client-key-data"]) },
                authority,
            )
        };
        let (carol, authority) = pair(&Identity::user("carol", &[]));
        let (admin, _) = pair(&Identity::admin());
        let api = place.access.api_server_url().trim_start_matches("https://").to_owned();
        let (own_authority, own_leaf) = (SelfSigned::new(true), SelfSigned::new(false));
        let kubectl = place.access.command(Binary::Kubectl).expect("kubectl").get_program().into();
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            kubectl,
            token: service_account_token(&place).await,
            forward: Server::start(Kind::Forward, &api).await,
            http: Server::start(Kind::Http { auth: false }, &api).await,
            http_auth: Server::start(Kind::Http { auth: true }, &api).await,
            https: Server::start(Kind::https(&own_authority), &api).await,
            socks: Server::start(Kind::Socks5 { auth: false }, &api).await,
            socks_auth: Server::start(Kind::Socks5 { auth: true }, &api).await,
            self_signed: Server::start(Kind::tls(&own_authority, &authority), &api).await,
            self_signed_leaf: Server::start(Kind::tls(&own_leaf, &authority), &api).await,
            _place: place,
            api,
            authority,
            carol,
            admin,
            own_authority,
            own_leaf,
        }
    }

    /// A kubeconfig with two contexts, of a certificate and a token, that reach the API server by different addresses.
    fn config(&self) -> Value {
        let certified = |pair: &Pair| {
            json!({
                "client-certificate-data": STANDARD.encode(&pair.certificate), "client-key-data": STANDARD.encode(&pair.key),
            })
        };
        let cluster = |server: &str| json!({"server": format!("https://{server}"), "certificate-authority-data": STANDARD.encode(&self.authority)});
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "main",
            "contexts": [
                {"name": "main", "context": {"cluster": "real", "user": "carol", "namespace": "alpha"}},
                {"name": "other", "context": {"cluster": "second", "user": "robot", "namespace": "beta"}},
            ],
            "clusters": [
                {"name": "real", "cluster": cluster(&self.api)},
                {"name": "second", "cluster": cluster(&self.forward.addr.to_string())},
            ],
            "users": [
                {"name": "carol", "user": certified(&self.carol)},
                {"name": "robot", "user": {"token": self.token}},
                {"name": "admin", "user": certified(&self.admin)},
            ],
        })
    }

    /// Writes the files of a case. Returns its folder.
    fn write(&self, number: usize, case: &Case) -> PathBuf {
        let folder = self.folder.path().join(format!("case-{number:03}"));
        fs::create_dir_all(&folder).expect("a folder");
        for (name, content) in &case.files {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            let content = match str::from_utf8(content) {
                Ok(text) => text.replace("{dir}", &folder.display().to_string()).into_bytes(),
                Err(_) => content.clone(),
            };
            fs::write(&path, content).expect("the file is written");
            if content_is_script(&path) {
                use std::os::unix::fs::PermissionsExt;
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it can be run");
            }
        }
        folder
    }

    /// Runs a program in the environment of a case.
    async fn run(&self, program: &Path, words: &[&str], case: &Case, folder: &Path) -> Ran {
        let at = |text: &str| text.replace("{dir}", &folder.display().to_string());
        let mut command = Command::new(program);
        command.args(words).args(case.flags.iter().map(|flag| at(flag))).env_clear().current_dir(folder);
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        // kubectl caches what the API server serves, by its address.
        command.env("KUBECACHEDIR", self.folder.path().join("cache"));
        command.env("HOME", folder.join("home")).env("KUBECONFIG", folder.join("config"));
        for (name, value) in &case.env {
            match value {
                Some(value) => command.env(name, at(value)),
                None => command.env_remove(name),
            };
        }
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.expect("it runs");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Texts that no message may contain.
    fn secrets(&self) -> Vec<String> {
        let lines = |pem: &str| pem.lines().filter(|line| line.len() > 40).map(str::to_owned).collect::<Vec<_>>();
        let keys = [&self.carol.key, &self.admin.key].into_iter().flat_map(|key| lines(key));
        let encoded = [&self.carol.key, &self.admin.key].map(|key| STANDARD.encode(key)[60..120].to_owned());
        let fixed = [self.token[..40].to_owned(), "s3cret".to_owned(), "czNjcmV0".to_owned()];
        keys.chain(encoded).chain(fixed).collect()
    }
}

fn content_is_script(path: &Path) -> bool {
    fs::read(path).is_ok_and(|content| content.starts_with(b"#!"))
}

async fn service_account_token(place: &Place) -> String {
    let api: Api<ServiceAccount> = Api::namespaced(place.client.clone(), place.name());
    let metadata = ObjectMeta { name: Some("robot".into()), ..ObjectMeta::default() };
    api.create(&PostParams::default(), &ServiceAccount { metadata, ..ServiceAccount::default() })
        .await
        .expect("an account");
    let request = api.create_token_request("robot", &PostParams::default(), &TokenRequest::default()).await;
    request.expect("a token").status.and_then(|status| status.token).expect("a token")
}

/// The end of a program.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

/// Where a program got to.
#[derive(Clone, PartialEq, Eq)]
enum Reached {
    /// The API server knows the user.
    Server { address: String, namespace: String, user: String },
    /// The program failed before.
    Nothing,
}

impl fmt::Debug for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server { address, namespace, user } => write!(f, "{user} in {namespace} of {address}"),
            Self::Nothing => f.write_str("nothing"),
        }
    }
}

impl Ran {
    /// Reads the URL that both programs print, and the refusal in the words of `before_user` and `before_namespace`.
    fn reached(&self, before_user: &str, after_user: &str, before_namespace: &str) -> Reached {
        let text = format!("{}{}", self.out, self.err);
        let between = |text: &str, before: &str, after: &[char]| {
            let rest = &text[text.find(before)? + before.len()..];
            Some(rest[..rest.find(after)?].to_owned())
        };
        let found = || {
            let refusal = &text[text.find(after_user)?..];
            let user = &text[..text.len() - refusal.len()];
            let user = &user[user.rfind(before_user)? + before_user.len()..];
            let namespace = between(refusal, before_namespace, &['"', ';'])?;
            let urls = text.match_indices("https://").map(|(at, _)| &text[at + "https://".len()..]);
            let url = urls
                .filter_map(|url| url.split(['"', ' ']).next())
                .find(|url| url.contains("/personalaccesstokens"))?;
            let address = url[..url.find("/apis/")?].to_owned();
            Some(Reached::Server { address, namespace, user: user.to_owned() })
        };
        found().unwrap_or(Reached::Nothing)
    }

    fn of_kubectl(&self) -> Reached {
        self.reached("User \"", "\" cannot list resource \"personalaccesstokens\"", "in the namespace \"")
    }

    fn of_plugin(&self) -> Reached {
        self.reached("no permission: ", " may not list personalaccesstokens.pat-operator.io", "in namespace ")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kubeconfig_works_as_in_kubectl() {
    let fixture = Arc::new(Fixture::new().await);
    let cases = cases::all(&fixture);
    let names: BTreeSet<_> = cases.iter().map(|case| case.name).collect();
    assert!(names.len() == cases.len() && cases.len() >= 100, "{} cases, {} names", cases.len(), names.len());
    let plugin = Path::new(PLUGIN);
    let all = stream::iter(cases.iter().enumerate()).map(|(number, case)| {
        let fixture = fixture.clone();
        async move {
            let folder = fixture.write(number, case);
            let kubectl = fixture.run(&fixture.kubectl, &["get", "pat", "-v=6"], case, &folder).await;
            let _ = fs::remove_file(folder.join("calls"));
            let ours = fixture.run(plugin, &["list", "-v=6"], case, &folder).await;
            let calls = fs::read_to_string(folder.join("calls")).ok();
            (case, kubectl, ours, calls)
        }
    });
    let secrets = fixture.secrets();
    let mut wrong = Vec::new();
    let mut all = all.buffer_unordered(AT_ONCE);
    while let Some((case, kubectl, ours, calls)) = all.next().await {
        let (expected, found) = (kubectl.of_kubectl(), ours.of_plugin());
        let mut complain = |what: &str| {
            let name = case.name;
            let (kubectl, ours) = (last_lines(&kubectl.err), last_lines(&ours.err));
            wrong.push(format!(
                "{name}: {what}\n  kubectl: {expected:?}\n    {kubectl}\n  plugin:  {found:?}\n    {ours}"
            ));
        };
        match case.differs {
            None if expected != found => complain("another result"),
            Some(reason) if expected == found => complain(&format!("the same result, although {reason}")),
            _ => {}
        }
        let errors = ours.err.lines().filter(|line| line.starts_with("error: ")).count();
        let is_last = ours.err.lines().last().is_some_and(|line| line.starts_with("error: "));
        // clap adds where to find help.
        if errors != 1 || !(ours.code == Some(1) && is_last || ours.code == Some(2)) {
            complain("not an error in one line");
        }
        if secrets.iter().any(|secret| ours.err.contains(secret) || ours.out.contains(secret)) {
            complain("a secret is printed");
        }
        if calls.is_some_and(|calls| calls.len() != 1) {
            complain("the plugin is not called once");
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    for (proxy, host) in [(&fixture.http, "api.proxied.invalid:6443"), (&fixture.socks, "api.proxied.invalid:6443")] {
        assert!(proxy.asked().iter().any(|asked| asked == host), "{:?}", proxy.asked());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_is_called_once_and_does_not_read_the_manifest() {
    let fixture = Fixture::new().await;
    let case = cases::greedy_plugin(&fixture);
    let folder = fixture.write(0, &case);
    let manifest = "apiVersion: pat-operator.io/v1alpha1\nkind: PersonalAccessToken\nmetadata: {name: ci}\nspec: {}\n";
    for (words, input) in [("plan -f - --live", manifest), ("doctor", "")] {
        let calls = folder.join("calls");
        let _ = fs::remove_file(&calls);
        let mut command = std::process::Command::new(PLUGIN);
        command.args(words.split(' ')).args(["--kubeconfig", &folder.join("config").display().to_string()]);
        let ended = super::runner::run(command, Some(input));
        assert_eq!(fs::read_to_string(calls).ok().as_deref(), Some("x"), "{words}: {ended:?}");
        assert!(!ended.err.contains("no PersonalAccessToken"), "{ended:?}");
        assert!(!ended.err.contains(&fixture.token) && !ended.out.contains(&fixture.token), "{ended:?}");
    }
}

fn last_lines(text: &str) -> String {
    let lines: Vec<_> = text.lines().rev().take(3).map(|line| line.chars().take(300).collect::<String>()).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n    ")
}
