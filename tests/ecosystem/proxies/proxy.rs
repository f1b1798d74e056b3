//! Runs a third-party proxy with a file of `examples/verifier`, in which only the addresses are replaced.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::{
    ask::{Answer, ask},
    programs::{CADDY, ENVOY, NGINX, Program, TRAEFIK},
    scenario::IDENTITY,
};
use crate::support::process::SOON;

/// A proxy and its protocol to the verifier, one for each file of `examples/verifier`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Nginx,
    Traefik,
    Caddy,
    EnvoyHttp,
    EnvoyGrpc,
}

/// The addresses in the examples: the proxy, the verifier's two listeners, and the upstream.
const IN_EXAMPLES: [&str; 4] = ["127.0.0.1:8000", "127.0.0.1:8081", "127.0.0.1:8082", "127.0.0.1:3000"];

impl Kind {
    fn program(self) -> Program {
        match self {
            Self::Nginx => NGINX,
            Self::Traefik => TRAEFIK,
            Self::Caddy => CADDY,
            Self::EnvoyHttp | Self::EnvoyGrpc => ENVOY,
        }
    }

    fn example(self) -> &'static str {
        match self {
            Self::Nginx => "nginx.conf",
            Self::Traefik => "traefik-dynamic.yaml",
            Self::Caddy => "Caddyfile",
            Self::EnvoyHttp => "envoy-http.yaml",
            Self::EnvoyGrpc => "envoy-grpc.yaml",
        }
    }
}

/// A running proxy. It is killed on drop.
pub struct Proxy {
    pub kind: Kind,
    pub addr: SocketAddr,
    child: Child,
    // Dropped after the process, which writes into it.
    folder: tempfile::TempDir,
}

impl Proxy {
    /// Starts a proxy. `None` with a message on stderr if its program is not available.
    pub async fn start(kind: Kind, http: SocketAddr, grpc: SocketAddr, upstream: SocketAddr) -> Option<Self> {
        Self::start_with(kind, [http, grpc, upstream], |text| text).await
    }

    /// The same with a change to the configuration. The addresses are those of the verifier's two listeners and of the upstream.
    pub async fn start_with(
        kind: Kind,
        [http, grpc, upstream]: [SocketAddr; 3],
        change: impl FnOnce(String) -> String,
    ) -> Option<Self> {
        // A proxy does not report its port, so a free one is chosen here.
        let addr = free_port();
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/verifier").join(kind.example());
        let mut text = fs::read_to_string(&example).expect("the example exists");
        for (written, real) in IN_EXAMPLES.into_iter().zip([addr, http, grpc, upstream]) {
            text = text.replace(written, &real.to_string());
            // Envoy has the port in a separate field, and Caddy the address in another line.
            for before in ["port_value: ", "http://:"] {
                let port = |text: &str| format!("{before}{}", text.rsplit(':').next().expect("a port"));
                text = text.replace(&port(written), &port(&real.to_string()));
            }
        }
        Self::configured(kind, addr, &change(text)).await
    }

    /// Starts a proxy with another configuration, which listens on `addr`.
    pub async fn configured(kind: Kind, addr: SocketAddr, text: &str) -> Option<Self> {
        let program = tokio::task::spawn_blocking(move || kind.program().or_left_out()).await.expect("a program")?;
        let folder = tempfile::Builder::new().prefix("pat-proxy-").tempdir().expect("a folder");
        let config = folder.path().join(kind.example());
        fs::write(&config, text).expect("the configuration is written");
        let mut command = command(kind, &program, &config, folder.path(), addr);
        let log = File::create(folder.path().join("log")).expect("a log");
        command.env_clear().env("HOME", folder.path()).current_dir(folder.path());
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        let child = control_plane::spawn(command).expect("the proxy starts");
        Some(Self { kind, addr, child, folder })
    }

    /// Waits until the response to a request with these headers fulfils a predicate.
    pub async fn answers(&mut self, headers: &[(&str, &str)], so: impl Fn(&Answer) -> bool) -> Answer {
        let deadline = Instant::now() + SOON;
        loop {
            if let Some(answer) = ask(self.addr, "/", headers, "").await.filter(&so) {
                return answer;
            }
            assert!(self.is_running(), "{:?} has exited", self.kind);
            assert!(Instant::now() < deadline, "timeout: {:?} does not give the expected answer", self.kind);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Whether the process still runs.
    fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("the status is available").is_none()
    }

    /// The last lines of the log.
    pub fn log(&self) -> String {
        let text = fs::read(self.folder.path().join("log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the log of {:?}:\n{}", self.kind, self.log());
        }
    }
}

fn command(kind: Kind, program: &Path, config: &Path, folder: &Path, addr: SocketAddr) -> Command {
    let mut command = Command::new(program);
    match kind {
        Kind::Nginx => {
            // A single process, so that it ends when it is killed. All its files are in the folder.
            let main = folder.join("main.conf");
            let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
            let paths: String = paths.iter().map(|name| format!("{name}_temp_path {name};\n")).collect();
            let text = format!(
                "daemon off; master_process off; pid nginx.pid; error_log stderr;\nevents {{}}\n\
                 http {{\naccess_log off;\n{paths}include {};\n}}\n",
                config.display()
            );
            fs::write(&main, text).expect("the configuration is written");
            command.arg("-p").arg(folder).arg("-e").arg("stderr").arg("-c").arg(main);
        }
        Kind::Traefik => {
            command
                .arg(format!("--entrypoints.web.address={addr}"))
                .arg(format!("--providers.file.filename={}", config.display()))
                .args(["--global.checknewversion=false", "--global.sendanonymoususage=false"]);
        }
        Kind::Caddy => {
            command.args(["run", "--adapter", "caddyfile", "--config"]).arg(config);
        }
        Kind::EnvoyHttp | Kind::EnvoyGrpc => {
            command.args(["--use-dynamic-base-id", "--disable-hot-restart", "--concurrency", "1"]);
            command.args(["--log-level", "warning", "--config-path"]).arg(config);
        }
    }
    command
}

/// An address on loopback with a free port.
pub fn free_port() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address")
}

/// Each file of `examples/verifier` belongs to a proxy or to the API server (`tests/integration/webhook.rs`). Those of Istio are in their
/// own folder.
#[test]
fn each_verifier_example_has_a_test() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/verifier");
    let kinds = [Kind::Nginx, Kind::Traefik, Kind::Caddy, Kind::EnvoyHttp, Kind::EnvoyGrpc];
    for file in fs::read_dir(folder).expect("the folder exists").flatten().filter(|file| file.path().is_file()) {
        let name: PathBuf = file.file_name().into();
        let of_api_server = name.to_string_lossy().starts_with("kube-apiserver.");
        assert!(of_api_server || kinds.iter().any(|kind| name == Path::new(kind.example())), "{}", name.display());
    }
}

/// Users copy what the page shows, which is only a part of each example. That part must contain all security settings.
#[test]
fn verifier_page_shows_all_security_settings() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &Path| fs::read_to_string(root.join(path)).expect("the file exists");
    let document = read(Path::new("docs/verifier.md"));
    for (kind, heading) in [(Kind::Nginx, "### nginx"), (Kind::Traefik, "### Traefik"), (Kind::Caddy, "### Caddy")] {
        let (_, shown) = document.split_once(heading).expect("a heading");
        let shown = shown.split("```").nth(1).expect("a block").to_ascii_lowercase();
        for name in IDENTITY {
            assert!(shown.contains(name), "{name} for {kind:?}");
        }
    }
    // The client's path must not leave the path that states the requirements.
    for kind in [Kind::EnvoyHttp, Kind::EnvoyGrpc] {
        let example = read(&Path::new("examples/verifier").join(kind.example()));
        for kept in
            ["failure_mode_allow: false", "normalize_path: true", "path_with_escaped_slashes_action: REJECT_REQUEST"]
        {
            assert!(document.contains(&format!("`{kept}`")), "docs/verifier.md must explain {kept}");
            assert!(example.lines().any(|line| line.trim() == kept), "{kept} for {kind:?}");
        }
    }
}
