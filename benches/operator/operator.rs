//! The release build of the operator as a process of its own, so that its CPU time and memory are its own.
//!
//! Must not know what it is measured for.

use std::{
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

/// How long it may take to begin, and to answer.
const BEGIN_WITHIN: Duration = Duration::from_secs(60);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// It may take this long for one token, in a batch, before the bench gives up; a tenth of it is usual on two cores.
const LIMIT_FOR_ONE: Duration = Duration::from_millis(100);

/// How often it is asked how far it is, at most and at least, for each token: each time costs it a look at all of them.
const ASK_FASTEST: Duration = Duration::from_millis(25);
const ASK_SLOWEST: Duration = Duration::from_micros(500);

/// How many of its last lines are shown when something is wrong.
const LAST_LINES: usize = 20;

/// A running operator; killed on drop.
pub struct Operator {
    child: Child,
    log: Arc<Mutex<Log>>,
    /// When the process was started.
    pub started: Instant,
}

#[derive(Default)]
struct Log {
    health: Option<SocketAddr>,
    leading: Option<Instant>,
    last: std::collections::VecDeque<String>,
}

/// What to wait for, of all tokens.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    /// Ready, with a first credential.
    Minted,
    /// Rotated once: the former credential is in its grace period, the new one active.
    Rotated,
}

impl Operator {
    /// Starts it on one namespace, with the settings that everybody gets.
    pub async fn start(plane: &Plane, namespace: &str) -> anyhow::Result<Self> {
        let mut command = Command::new(&plane.operator);
        command
            .args(["controller", "--leader-elect=false", "--health-addr=127.0.0.1:0", "--log-format=json"])
            .arg(format!("--namespaces={namespace}"))
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
                bail!("the operator serves no /metrics; it said:\n{}", operator.said());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(operator)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// When it began to work on tokens.
    pub fn leading(&self) -> Option<Instant> {
        self.log().leading
    }

    /// Whether it says that it is ready.
    pub async fn is_ready(&self) -> anyhow::Result<bool> {
        Ok(self.get("/readyz").await?.starts_with("HTTP/1.1 200"))
    }

    /// Waits until all of `total` tokens are where `goal` says; tells when that was seen.
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
                bail!("{done} of {total} tokens after {limit:?}; the operator said:\n{}", self.said());
            }
            // Seldom while there is much to do, often towards the end.
            let rate = (done - before.1.min(done)) as f64 / (now - before.0).as_secs_f64().max(1e-3);
            before = (now, done);
            let left = (total - done) as f64 / rate.max(1.0) / 4.0;
            tokio::time::sleep(Duration::from_secs_f64(left.min(60.0)).clamp(ASK_FASTEST, slowest)).await;
        }
    }

    /// Waits until it has nothing more to do, such as taking in what its watches still bring.
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

    /// Ends it as Kubernetes does, and waits until it has ended.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let kill = format!("kill {}", self.pid());
        let ended = Command::new("/bin/sh").args(["-c", &kill]).status().context("sending SIGTERM")?;
        anyhow::ensure!(ended.success(), "the operator had ended already; it said:\n{}", self.said());
        let began = Instant::now();
        while self.child.try_wait()?.is_none() {
            anyhow::ensure!(began.elapsed() < Duration::from_secs(15), "the operator does not stop:\n{}", self.said());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("the operator ended ({status}); it said:\n{}", self.said()),
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
        let address = self.health().context("the operator serves nothing")?;
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
            .with_context(|| format!("the operator does not answer GET {path}; it said:\n{}", self.said()))
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
    /// How many tokens have reached it, by the operator's own metrics.
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
