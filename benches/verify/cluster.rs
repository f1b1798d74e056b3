//! The measurements with an API server: the time until a verifier is ready, and until two verifiers deny a revoked token.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde::Serialize;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    args::Args,
    percentile::Percentiles,
    plane::Plane,
    proc::{self, memory_kib},
    progress::Progress,
    protocol::Protocol,
    replica::Replica,
};

/// The number of starts of a verifier.
const STARTS: usize = 5;

/// The interval between two requests with a token that is being revoked.
const LOOK: Duration = Duration::from_millis(1);

/// The limit for a revocation to take effect.
const GIVE_UP: Duration = Duration::from_secs(30);

/// The results with an API server.
#[derive(Debug, Serialize)]
pub struct Cluster {
    /// The API server's version.
    pub kubernetes: String,
    /// The number of tokens on it.
    pub tokens: usize,
    /// Seconds from the start of the process to ready.
    pub ready_seconds: Percentiles,
    /// The peak resident memory of a verifier, in MiB.
    pub peak_mib: f64,
    /// Milliseconds from the request that revokes a token to the first denial by the slower of two verifiers.
    pub obeyed_ms: Percentiles,
    /// The part of that until the API server answered the request.
    pub written_ms: Percentiles,
    /// The share of the machine that other processes took.
    pub others: f64,
}

/// Measures with an API server.
pub async fn measure(args: &Args) -> anyhow::Result<Cluster> {
    let plane = Plane::start().await?;
    let count = args.stored();
    plane.fill(count).await?;
    let (began, machine, mut ours) = (Instant::now(), proc::machine()?, Duration::ZERO);
    let known = known(&plane)?;

    let progress = Progress::begin(format!("starting a verifier with {count} tokens"), STARTS);
    let (mut ready, mut peak_mib) = (Vec::new(), 0_f64);
    for start in 1..=STARTS {
        let replica = Replica::start(&args.operator, &plane).await?;
        ready.push(replica.ready_after.as_secs_f64());
        peak_mib = peak_mib.max(memory_kib(replica.pid(), "VmHWM")? / 1024.0);
        ours += proc::cpu(replica.pid())?;
        progress.at(start);
    }

    let replicas = [Replica::start(&args.operator, &plane).await?, Replica::start(&args.operator, &plane).await?];
    let progress = Progress::begin("revocations, with two replicas", args.revocations());
    let (mut obeyed, mut written) = (Vec::new(), Vec::new());
    for number in 1..=args.revocations() {
        let (all, write) = revoke(&plane, &replicas, u32::try_from(number)?).await?;
        obeyed.push(all.as_secs_f64() * 1e3);
        written.push(write.as_secs_f64() * 1e3);
        progress.step();
    }
    for replica in &replicas {
        ours += proc::cpu(replica.pid())?;
    }
    ours += self::known(&plane)?.saturating_sub(known);
    let busy = proc::machine()?.saturating_sub(machine).saturating_sub(ours);
    Ok(Cluster {
        kubernetes: plane.version.clone(),
        tokens: count,
        ready_seconds: Percentiles::of(ready),
        peak_mib,
        obeyed_ms: Percentiles::of(obeyed),
        written_ms: Percentiles::of(written),
        others: busy.as_secs_f64() / (began.elapsed().as_secs_f64() * proc::cores() as f64),
    })
}

/// The CPU time so far of this process and the control plane.
fn known(plane: &Plane) -> anyhow::Result<Duration> {
    plane.pids()?.into_iter().chain([std::process::id()]).map(proc::cpu).sum()
}

async fn revoke(plane: &Plane, replicas: &[Replica; 2], number: u32) -> anyhow::Result<(Duration, Duration)> {
    let [mut one, mut other] =
        [AuthConnection::open(&replicas[0], number).await?, AuthConnection::open(&replicas[1], number).await?];
    ensure!(one.allows().await? && other.allows().await?, "a valid token is refused");
    let began = Instant::now();
    let write = async {
        plane.change(number, json!({"revoked": true})).await?;
        anyhow::Ok(began.elapsed())
    };
    let (write, one, other) = tokio::try_join!(write, one.until_denied(began), other.until_denied(began))?;
    Ok((one.max(other), write))
}

/// A connection to forward authentication, for one token.
struct AuthConnection {
    stream: TcpStream,
    request: Vec<u8>,
}

impl AuthConnection {
    async fn open(replica: &Replica, number: u32) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(replica.http).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, request: Protocol::ForwardAuth.request(number)? })
    }

    async fn allows(&mut self) -> anyhow::Result<bool> {
        self.stream.write_all(&self.request).await?;
        let mut answer = vec![0; 4096];
        // An answer is small and arrives in one piece.
        let length = self.stream.read(&mut answer).await?;
        let status = answer[..length].split(|byte| *byte == b' ').nth(1).context("not an HTTP response")?;
        match status {
            b"200" => Ok(true),
            b"401" => Ok(false),
            other => bail!("a verifier answers {}", String::from_utf8_lossy(other)),
        }
    }

    async fn until_denied(&mut self, began: Instant) -> anyhow::Result<Duration> {
        while self.allows().await? {
            ensure!(began.elapsed() < GIVE_UP, "the revoked token is still accepted");
            tokio::time::sleep(LOOK).await;
        }
        Ok(began.elapsed())
    }
}
