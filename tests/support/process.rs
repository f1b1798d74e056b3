//! Runs the operator's binary as a process: arguments, log, endpoints, signals and exit code.
//!
//! A process is killed on drop, and when the test process ends in any way.

pub mod api;
pub mod history;
pub mod metrics;
pub mod place;
pub mod serving;
pub mod trust;
pub mod verifier;
pub mod wire;

use std::{
    fmt,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde_json::Value;

use self::metrics::Metrics;
use super::recorder::canary;

/// The limit for anything that should happen soon, on a machine under load.
pub const SOON: Duration = Duration::from_secs(30);

/// The interval between two checks of a condition.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A process that is not started yet.
pub struct Launch(Command);

impl Launch {
    /// `pat-operator` with these arguments, and an environment without a cluster.
    pub fn new(arguments: &[&str]) -> Self {
        Self::program(Path::new(env!("CARGO_BIN_EXE_pat-operator")), arguments)
    }

    /// The same with another build of the program.
    pub fn program(program: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.env_clear().env("HOME", "/nonexistent").args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(command)
    }

    /// `pat-operator controller` on the cluster of this kubeconfig, with its endpoints on a free port of loopback.
    pub fn controller(kubeconfig: &Path) -> Self {
        Self::new(&["controller"]).env("KUBECONFIG", kubeconfig).arg("--health-addr=127.0.0.1:0")
    }

    /// The same for one namespace, which also holds the Lease.
    pub fn controller_in(kubeconfig: &Path, namespace: &str) -> Self {
        Self::controller(kubeconfig)
            .arg(format!("--namespaces={namespace}"))
            .arg(format!("--lease-namespace={namespace}"))
    }

    /// Adds an argument.
    pub fn arg(mut self, argument: impl AsRef<std::ffi::OsStr>) -> Self {
        self.0.arg(argument);
        self
    }

    /// Adds an environment variable.
    pub fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.0.env(name, value);
        self
    }

    /// Starts the process.
    pub fn start(self) -> OperatorProcess {
        let mut child = control_plane::spawn(self.0).expect("the operator's binary starts");
        let lines = Lines::default();
        let stderr = lines.collect(child.stderr.take().expect("stderr is piped"));
        let output = Lines::default();
        let stdout = output.collect(child.stdout.take().expect("stdout is piped"));
        OperatorProcess { child, lines, output, readers: vec![stderr, stdout], status: None }
    }

    /// Runs the process to its end.
    pub async fn run(self) -> Ended {
        self.start().ends_within(SOON).await
    }
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    fn collect(&self, from: impl Read + Send + 'static) -> JoinHandle<()> {
        let lines = self.clone();
        std::thread::spawn(move || {
            let mut from = BufReader::new(from);
            let mut line = Vec::new();
            while matches!(from.read_until(b'\n', &mut line), Ok(1..)) {
                let text = String::from_utf8_lossy(line.trim_ascii_end()).into_owned();
                lines.0.lock().unwrap_or_else(PoisonError::into_inner).push(text);
                line.clear();
            }
        })
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The end of a process.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The exit code, or 128 plus the number of the signal.
    pub code: i32,
    /// The lines of stderr.
    pub stderr: Vec<String>,
    /// The lines of stdout.
    pub stdout: Vec<String>,
    /// The time between the first wait and the end.
    pub took: Duration,
}

impl Ended {
    /// The error line of a process that must end with exit code 1.
    pub fn refusal(&self) -> String {
        assert_eq!(self.code, 1, "{self}");
        let errors: Vec<_> = self.stderr.iter().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "one error line: {self}");
        assert_eq!(self.stderr.last(), errors.first().copied(), "the error line is the last line: {self}");
        assert!(!self.stderr.iter().any(|line| line.contains("panicked")), "{self}");
        errors[0].clone()
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "exit code {} after {:?}", self.code, self.took)?;
        self.stdout.iter().chain(&self.stderr).try_for_each(|line| writeln!(f, "    {line}"))
    }
}

/// An HTTP response.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub code: u16,
    /// The status line and headers, as they came.
    pub head: String,
    /// The body.
    pub body: String,
}

/// A running operator. It is killed on drop. Then its output is searched for tokens.
pub struct OperatorProcess {
    child: Child,
    lines: Lines,
    output: Lines,
    readers: Vec<JoinHandle<()>>,
    status: Option<ExitStatus>,
}

impl OperatorProcess {
    /// The log so far.
    pub fn log(&self) -> Vec<String> {
        self.lines.all()
    }

    /// Whether a line of the log contains all of these texts.
    pub fn has_logged(&self, parts: &[&str]) -> bool {
        self.log().iter().any(|line| parts.iter().all(|part| line.contains(part)))
    }

    /// Waits for such a line.
    pub async fn logs(&mut self, parts: &[&str]) {
        let deadline = Instant::now() + SOON;
        while !self.has_logged(parts) {
            assert!(Instant::now() < deadline && self.is_running(), "no log line with {parts:?}:\n{self}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The address of its endpoints, from the log in text or JSON.
    pub async fn address(&mut self) -> SocketAddr {
        self.logs(&["serving /livez"]).await;
        let line = self.log().into_iter().find(|line| line.contains("serving /livez")).expect("the line exists");
        let text = match serde_json::from_str::<Value>(&line) {
            Ok(json) => json["addr"].as_str().unwrap_or_default().to_owned(),
            Err(_) => line.rsplit_once("addr=").map(|(_, addr)| addr.to_owned()).unwrap_or_default(),
        };
        text.parse().unwrap_or_else(|_| panic!("no address in {line:?}"))
    }

    /// Requests an endpoint. Returns `None` if there is no answer in time, for example from a paused process.
    pub async fn try_get(&mut self, path: &str) -> Option<Answer> {
        let (addr, path) = (self.address().await, path.to_owned());
        tokio::task::spawn_blocking(move || get(addr, &path).ok()).await.expect("no panic")
    }

    /// Requests an endpoint.
    pub async fn get(&mut self, path: &str) -> Answer {
        self.try_get(path).await.unwrap_or_else(|| panic!("no answer to GET {path}:\n{self}"))
    }

    /// Waits until `/readyz` answers 200.
    pub async fn is_ready(&mut self) {
        let deadline = Instant::now() + SOON;
        loop {
            let answer = self.get("/readyz?verbose").await;
            if answer.code == 200 {
                return;
            }
            assert!(Instant::now() < deadline, "not ready in time: {}\n{self}", answer.body);
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// All metrics, checked to be valid OpenMetrics.
    pub async fn metrics(&mut self) -> Metrics {
        let answer = self.get("/metrics").await;
        assert_eq!(answer.code, 200, "{}", answer.body);
        let head = answer.head.to_ascii_lowercase();
        assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
        Metrics::parse(&answer.body)
    }

    /// Whether `/readyz` says that it is the leader.
    pub async fn leads(&mut self) -> bool {
        match self.try_get("/readyz?verbose").await {
            Some(answer) => answer.body.contains("[+]lease ok: leading since "),
            None => false,
        }
    }

    /// Waits until it is the leader. Returns how long that took.
    pub async fn leads_within(&mut self, limit: Duration) -> Duration {
        let began = Instant::now();
        while !self.leads().await {
            assert!(began.elapsed() < limit, "not the leader within {limit:?}:\n{self}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
        began.elapsed()
    }

    /// Sends a signal, such as `TERM`.
    pub fn signal(&self, name: &str) {
        // `kill` is a builtin of each shell, but not each machine has it as a program.
        let script = format!("kill -{name} {}", self.child.id());
        let sent = Command::new("sh").args(["-c", &script]).status().expect("the shell starts");
        assert!(sent.success() || self.status.is_some(), "signal {name} could not be sent:\n{self}");
    }

    /// Sends SIGSTOP, and waits until the process is stopped.
    pub async fn pause(&self) {
        self.signal("STOP");
        let deadline = Instant::now() + SOON;
        while !self.is_stopped() {
            assert!(Instant::now() < deadline, "the process does not stop");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Lets a paused process continue.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    /// Sends SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        self.child.kill().expect("the process is killed");
        self.status = self.child.wait().ok();
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("the status is available");
        }
        self.status.is_none()
    }

    /// Waits for its end.
    pub async fn ends_within(mut self, limit: Duration) -> Ended {
        let began = Instant::now();
        while self.is_running() {
            assert!(began.elapsed() < limit, "the process does not end within {limit:?}:\n{self}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let took = began.elapsed();
        for reader in self.readers.drain(..) {
            reader.join().expect("the reader ends");
        }
        let status = self.status.expect("the process has ended");
        let code = status.code().or_else(|| Some(128 + status.signal()?)).unwrap_or(-1);
        Ended { code, stderr: self.lines.all(), stdout: self.output.all(), took }
    }

    /// Sends SIGTERM, and waits for the end with exit code 0.
    pub async fn terminate(self) -> Ended {
        self.signal("TERM");
        let ended = self.ends_within(Duration::from_secs(12)).await;
        assert_eq!(ended.code, 0, "{ended}");
        ended
    }

    fn is_stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    }
}

impl fmt::Display for OperatorProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.log();
        let skipped = lines.len().saturating_sub(60);
        writeln!(f, "--- the operator's log (without the first {skipped} lines):")?;
        lines.iter().skip(skipped).try_for_each(|line| writeln!(f, "    {line}"))
    }
}

impl Drop for OperatorProcess {
    fn drop(&mut self) {
        if self.status.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("{self}");
            return;
        }
        for reader in self.readers.drain(..) {
            reader.join().expect("the reader ends");
        }
        let said = [self.lines.all(), self.output.all()].concat().join("\n");
        let tokens = canary::tokens_in(&said);
        assert!(tokens.is_empty(), "tokens in the output of a process: {tokens:?}");
    }
}

fn get(addr: SocketAddr, path: &str) -> std::io::Result<Answer> {
    let limit = Duration::from_secs(5);
    let mut stream = TcpStream::connect_timeout(&addr, limit)?;
    stream.set_read_timeout(Some(limit))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: operator\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let broken = || std::io::Error::other(format!("not an HTTP answer: {answer:?}"));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(broken)?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(broken)?;
    Ok(Answer { code, head: head.to_owned(), body: body.to_owned() })
}
