//! A running Gitea with a private repository.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use control_plane::{Assets, Binary};
use pat_operator::issuer::{IssuerCredential, PlainToken};
use serde_json::json;

use crate::support::{
    module::module,
    process::{
        api::{Reply, send},
        place::eventually,
    },
};

/// The user that owns the repository.
pub const USER: &str = "ada";

/// The administrator.
pub const ADMIN: &str = "root-admin";

/// The password of both.
pub const PASSWORD: &str = "correct horse battery staple";

/// The private repository.
pub const REPOSITORY: &str = "secret";

/// A running Gitea. Dropping it kills the server.
pub struct Gitea {
    /// Its base URL.
    pub url: String,
    addr: SocketAddr,
    child: Child,
    // Dropped after the process, which writes into it.
    folder: tempfile::TempDir,
}

impl Gitea {
    /// Starts Gitea with [`USER`], [`ADMIN`] and [`REPOSITORY`]. No response has more than `page` items.
    pub async fn start(page: usize) -> Self {
        let folder = tempfile::Builder::new().prefix("pat-gitea-").tempdir().expect("a folder");
        let addr = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
        let path = folder.path().to_owned();
        let child = tokio::task::spawn_blocking(move || run(&path, addr, page)).await.expect("no panic");
        let this = Self { url: format!("http://{addr}"), addr, child, folder };
        eventually("Gitea answers", async || {
            send(addr, "GET", "/api/v1/version", &[], String::new()).await.is_ok_and(|reply| reply.status == 200)
        })
        .await;
        let body = json!({"name": REPOSITORY, "private": true, "auto_init": true});
        let reply = this.call("POST", "/api/v1/user/repos", &format!("Basic {}", basic(USER)), &body.to_string()).await;
        assert_eq!(reply.status, 201, "{reply:?}");
        this
    }

    /// The user and the password of an account.
    pub fn credential(user: &str) -> IssuerCredential {
        IssuerCredential::Basic { user: user.to_owned(), password: PlainToken::new(PASSWORD.to_owned()) }
    }

    /// Sends a request.
    pub async fn call(&self, method: &str, path: &str, authorization: &str, body: &str) -> Reply {
        let headers = [("authorization", authorization), ("content-type", "application/json")];
        send(self.addr, method, path, &headers, body.to_owned()).await.expect("an answer")
    }

    /// Whether a token clones the private repository over HTTP.
    pub async fn clones(&self, token: &str) -> bool {
        let target = tempfile::tempdir_in(self.folder.path()).expect("a folder");
        let url = format!("http://{USER}:{token}@{}/{USER}/{REPOSITORY}.git", self.addr);
        let mut git = Command::new("git");
        git.args(["-c", "credential.helper=", "clone", "--quiet", &url, "clone"]).current_dir(target.path());
        git.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", target.path());
        git.env("GIT_TERMINAL_PROMPT", "0").env("GIT_CONFIG_NOSYSTEM", "1");
        let output = tokio::task::spawn_blocking(move || git.output()).await.expect("no panic").expect("git runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let cloned = target.path().join("clone/README.md").is_file();
        assert_eq!(output.status.success(), cloned, "{said}");
        assert!(cloned || said.contains("Authentication failed"), "{said}");
        cloned
    }
}

impl Drop for Gitea {
    fn drop(&mut self) {
        let _ = (self.child.kill(), self.child.wait());
        if std::thread::panicking() {
            let log = fs::read_to_string(self.folder.path().join("server.log")).unwrap_or_default();
            eprintln!("--- Gitea:\n{log}");
        }
    }
}

fn basic(user: &str) -> String {
    STANDARD.encode(format!("{user}:{PASSWORD}"))
}

/// Builds Gitea if it is not in the cache, creates its database and its users, and starts it.
fn run(folder: &Path, addr: SocketAddr, page: usize) -> Child {
    let program = Assets::ensure(&[Binary::Gitea]).expect("Gitea is built").path(Binary::Gitea).to_owned();
    let files = module(&format!("code.gitea.io/gitea@{}", Binary::Gitea.version()));
    fs::write(folder.join("app.ini"), settings(folder, &files, addr, page)).expect("a file");
    ran(&program, folder, &["migrate"]);
    for (user, is_admin) in [(USER, "--admin=false"), (ADMIN, "--admin=true")] {
        let email = format!("--email={user}@example.com");
        let (name, password) = (format!("--username={user}"), format!("--password={PASSWORD}"));
        ran(
            &program,
            folder,
            &["admin", "user", "create", &name, &password, &email, is_admin, "--must-change-password=false"],
        );
    }
    let mut server = command(&program, folder, &["web"]);
    let log = fs::File::create(folder.join("server.log")).expect("a file");
    server.stdin(Stdio::null()).stdout(log.try_clone().expect("a file")).stderr(log);
    control_plane::spawn(server).expect("Gitea starts")
}

fn ran(program: &Path, folder: &Path, arguments: &[&str]) {
    let Output { status, stdout, stderr } = command(program, folder, arguments).output().expect("Gitea runs");
    let said = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "gitea {arguments:?}: {said}");
}

fn command(program: &Path, folder: &Path, arguments: &[&str]) -> Command {
    let config: PathBuf = folder.join("app.ini");
    let mut command = Command::new(program);
    command.arg("--config").arg(config).args(arguments).current_dir(folder);
    // Tests may run as root, which Gitea refuses otherwise.
    command.env("GITEA_I_AM_BEING_UNSAFE_RUNNING_AS_ROOT", "true").env("HOME", folder).env("USER", "gitea");
    command
}

/// `app.ini` (<https://docs.gitea.com/administration/config-cheat-sheet>). Templates and options are in the module's folder.
fn settings(folder: &Path, files: &Path, addr: SocketAddr, page: usize) -> String {
    let (folder, files) = (folder.display(), files.display());
    format!(
        "WORK_PATH = {folder}\n\
         RUN_MODE = prod\n\
         [server]\nHTTP_ADDR = 127.0.0.1\nHTTP_PORT = {port}\nROOT_URL = http://{addr}/\nSTATIC_ROOT_PATH = {files}\n\
         DISABLE_SSH = true\nOFFLINE_MODE = true\nLFS_START_SERVER = false\n\
         [database]\nDB_TYPE = sqlite3\nPATH = {folder}/gitea.db\n\
         [repository]\nROOT = {folder}/repositories\n\
         [security]\nINSTALL_LOCK = true\nSECRET_KEY = test\n\
         [service]\nDISABLE_REGISTRATION = true\n\
         [indexer]\nISSUE_INDEXER_TYPE = db\n\
         [cron]\nENABLED = false\n\
         [actions]\nENABLED = false\n\
         [log]\nMODE = console\nLEVEL = Warn\n\
         [api]\nMAX_RESPONSE_ITEMS = {page}\n",
        port = addr.port()
    )
}
