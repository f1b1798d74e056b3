//! The release build of the operator in its own process, so that its CPU time and memory can be measured.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{meter, plane::Plane, progress::Progress, prometheus::samples};

/// The limits for its start, and for its answers.
const BEGIN_WITHIN: Duration = Duration::from_secs(60);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The limit per token before the benchmark gives up. A tenth of it is usual on two cores.
const LIMIT_FOR_ONE: Duration = Duration::from_millis(100);

/// The shortest interval between two requests for progress, and the longest per token. Each request makes the operator count all tokens.
const ASK_FASTEST: Duration = Duration::from_millis(25);
const ASK_SLOWEST: Duration = Duration::from_micros(500);

/// The number of log lines that an error shows.
const LAST_LINES: usize = 20;

/// A running operator. It is killed on drop.
pub struct Operator {
    child: Child,
    log: Arc<Mutex<Log>>,
    /// The start of the process.
    pub started: Instant,
}

#[derive(Default)]
struct Log {
    health: Option<SocketAddr>,
    leading: Option<Instant>,
    last: std::collections::VecDeque<String>,
}

/// The state to wait for.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    /// Ready, with a first credential.
    Minted,
    /// Rotated once: the old credential is in its grace period, and the new one is active.
    Rotated,
}

impl Operator {
    /// Starts the operator for one namespace, with the default settings.
    pub async fn start(plane: &Plane, namespace: &str) -> anyhow::Result<Self> {
        Self::start_with(plane, [format!("--namespaces={namespace}")]).await
    }

    /// Starts the operator with these arguments.
    pub async fn start_with(
        plane: &Plane,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(&plane.operator);
        command
            .args(["controller", "--leader-elect=false", "--health-addr=127.0.0.1:0", "--log-format=json"])
            .args(arguments)
            .env("KUBECONFIG", plane.kubeconfig())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let started = Instant::now();
        let mut child = control_plane::spawn(command).context("starting the operator")?;
        let log = Arc::new(Mutex::new(Log::default()));
        if let Some(stderr) = child.stderr.take() {
            let log = log.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    log.lock().unwrap_or_else(PoisonError::into_inner).take(line);
                }
            });
        }
        let mut operator = Self { child, log, started };
        while operator.health().is_none() {
            operator.check()?;
            if started.elapsed() > BEGIN_WITHIN {
                bail!("the operator does not serve /metrics; its log ends with:\n{}", operator.said());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(operator)
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The time at which it began to work on tokens.
    pub fn leading(&self) -> Option<Instant> {
        self.log().leading
    }

    /// Whether `/readyz` answers 200.
    pub async fn is_ready(&self) -> anyhow::Result<bool> {
        Ok(self.get("/readyz").await?.starts_with("HTTP/1.1 200"))
    }

    /// Waits until `total` tokens have reached the goal. Returns the time at which they had.
    pub async fn until(&self, goal: Goal, total: usize, progress: &Progress) -> anyhow::Result<Instant> {
        let tokens = u32::try_from(total)?;
        let limit = BEGIN_WITHIN + LIMIT_FOR_ONE * tokens;
        let slowest = ASK_FASTEST.max(ASK_SLOWEST * tokens);
        let mut before = (self.started, 0);
        loop {
            let metrics = self.get("/metrics").await?;
            let now = Instant::now();
            let done = goal.reached(&metrics);
            progress.at(done);
            if done >= total {
                return Ok(now);
            }
            if self.started.elapsed() > limit {
                bail!("only {done} of {total} tokens after {limit:?}; the operator's log ends with:\n{}", self.said());
            }
            // Ask seldom while many tokens are left, and often towards the end.
            let rate = (done - before.1.min(done)) as f64 / (now - before.0).as_secs_f64().max(1e-3);
            before = (now, done);
            let left = (total - done) as f64 / rate.max(1.0) / 4.0;
            tokio::time::sleep(Duration::from_secs_f64(left.min(60.0)).clamp(ASK_FASTEST, slowest)).await;
        }
    }

    /// Waits until it has nothing left to do, such as handling watch events.
    pub async fn until_quiet(&self) -> anyhow::Result<()> {
        const LOOK: Duration = Duration::from_millis(250);
        let mut last = meter::cpu(self.pid())?;
        for _ in 0..40 {
            tokio::time::sleep(LOOK).await;
            let now = meter::cpu(self.pid())?;
            if now - last <= LOOK / 25 {
                break;
            }
            last = now;
        }
        Ok(())
    }

    /// Stops it with SIGTERM, and waits for its end.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let kill = format!("kill {}", self.pid());
        let ended = Command::new("/bin/sh").args(["-c", &kill]).status().context("sending SIGTERM")?;
        anyhow::ensure!(ended.success(), "the operator had already exited; its log ends with:\n{}", self.said());
        let began = Instant::now();
        while self.child.try_wait()?.is_none() {
            anyhow::ensure!(
                began.elapsed() < Duration::from_secs(15),
                "the operator does not stop; its log ends with:\n{}",
                self.said()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("the operator exited ({status}); its log ends with:\n{}", self.said()),
            None => Ok(()),
        }
    }

    fn health(&self) -> Option<SocketAddr> {
        self.log().health
    }

    fn said(&self) -> String {
        self.log().last.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }

    fn log(&self) -> std::sync::MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn get(&self, path: &str) -> anyhow::Result<String> {
        let address = self.health().context("the operator's address is unknown")?;
        let asking = async {
            let mut stream = TcpStream::connect(address).await?;
            let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            std::io::Result::Ok(answer)
        };
        let answer = tokio::time::timeout(ANSWER_WITHIN, asking).await;
        answer
            .map_err(std::io::Error::from)
            .flatten()
            .with_context(|| format!("the operator does not answer GET {path}; its log ends with:\n{}", self.said()))
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Log {
    fn take(&mut self, line: String) {
        let fields: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        if fields["message"].as_str().is_some_and(|text| text.starts_with("leading")) {
            self.leading = Some(Instant::now());
        }
        if let Some(address) = fields["addr"].as_str() {
            self.health = address.parse().ok();
        }
        if self.last.len() == LAST_LINES {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }
}

impl Goal {
    /// The number of tokens that have reached the goal, from the operator's metrics.
    fn reached(self, metrics: &str) -> usize {
        let sum = |name: &str, label: &str, value: &str| {
            let matching = samples(metrics).filter(|sample| sample.name == name && sample.label(label) == value);
            matching.map(|sample| sample.value as usize).sum::<usize>()
        };
        match self {
            Self::Minted => sum("pat_operator_tokens", "reason", "Issued"),
            Self::Rotated => sum("pat_operator_credentials", "state", "Grace"),
        }
    }
}
