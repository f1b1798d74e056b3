//! The release build of `pat-operator verifier` as a process.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::plane::Plane;

/// The limits for becoming ready, and for an answer.
const READY_WITHIN: Duration = Duration::from_secs(120);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The interval between two checks of readiness.
const LOOK: Duration = Duration::from_millis(2);

/// A running verifier. It is killed on drop.
pub struct Replica {
    child: Child,
    /// The address of its HTTP protocols.
    pub http: SocketAddr,
    /// The time from the start of the process until it was ready.
    pub ready_after: Duration,
}

/// The addresses, by the log message that reports them.
type Listening = Arc<Mutex<HashMap<String, SocketAddr>>>;

impl Replica {
    /// Starts a verifier, and waits until it is ready.
    pub async fn start(operator: &Path, plane: &Plane) -> anyhow::Result<Self> {
        let mut command = Command::new(operator);
        command
            .args(["verifier", "--log-format=json", "--health-addr=127.0.0.1:0"])
            .args(["--http-addr=127.0.0.1:0", "--grpc-addr=127.0.0.1:0"])
            .env("KUBECONFIG", plane.kubeconfig())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let started = Instant::now();
        let mut child = control_plane::spawn(command).context("starting a verifier")?;
        let listening = Listening::default();
        let log = child.stderr.take().context("no stderr")?;
        let found = listening.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(log).lines().map_while(Result::ok) {
                let fields: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
                if let (Some(words), Some(addr)) = (fields["message"].as_str(), fields["addr"].as_str())
                    && let Ok(addr) = addr.parse()
                {
                    found.lock().unwrap_or_else(PoisonError::into_inner).insert(words.to_owned(), addr);
                }
            }
        });
        // From here on, the process is killed on drop.
        let mut this = Self { child, http: SocketAddr::from(([127, 0, 0, 1], 0)), ready_after: Duration::ZERO };
        while !this.is_ready(&listening).await? {
            if let Some(status) = this.child.try_wait()? {
                bail!("the verifier exited: {status}");
            }
            ensure!(started.elapsed() < READY_WITHIN, "the verifier is not ready in time");
            tokio::time::sleep(LOOK).await;
        }
        this.ready_after = started.elapsed();
        Ok(this)
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    async fn is_ready(&mut self, listening: &Listening) -> anyhow::Result<bool> {
        let addr = |begin: &str| {
            let listening = listening.lock().unwrap_or_else(PoisonError::into_inner);
            listening.iter().find(|(words, _)| words.starts_with(begin)).map(|(_, addr)| *addr)
        };
        let (Some(http), Some(health)) = (addr("serving introspection"), addr("serving /livez")) else {
            return Ok(false);
        };
        self.http = http;
        let asking = async {
            let mut stream = TcpStream::connect(health).await?;
            stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            anyhow::Ok(answer.starts_with("HTTP/1.1 200"))
        };
        // Without an answer, it is not ready.
        Ok(tokio::time::timeout(ANSWER_WITHIN, asking).await?.unwrap_or(false))
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
