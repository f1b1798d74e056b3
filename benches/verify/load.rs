//! The load: 64 kept-alive connections with one request at a time each. It runs as a separate process, the same for both servers.

mod grpc;
mod http1;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::{percentile::Percentiles, proc, protocol::Protocol};

/// The number of connections.
pub const CONNECTIONS: u32 = 64;

/// The time before the measurement, in which connections are opened and caches are filled.
const WARM_UP: Duration = Duration::from_millis(500);

/// The number of different tokens per connection.
const DIFFERENT: u32 = 64;

/// The limit for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The results of the load.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct LoadResult {
    /// Answers per second.
    pub rate: f64,
    /// The time per answer, in microseconds.
    pub micros: Percentiles,
    /// The bytes per answer: head and body of HTTP/1.1, or the gRPC message.
    pub answer_bytes: usize,
    /// All answers, including those outside the measured time.
    pub answers: usize,
    /// The CPU time of this process, in seconds.
    pub cpu_seconds: f64,
}

/// One answer.
pub struct Answer {
    /// The headers, without those that each server adds.
    pub headers: Vec<(String, String)>,
    /// The body, or the gRPC message.
    pub body: Vec<u8>,
}

/// A connection.
enum Connection {
    Http1(http1::Connection),
    Grpc(grpc::Connection),
}

impl Connection {
    async fn open(protocol: Protocol, addr: SocketAddr) -> anyhow::Result<Self> {
        Ok(match protocol {
            Protocol::Introspection | Protocol::ForwardAuth => Self::Http1(http1::Connection::open(addr).await?),
            Protocol::Grpc => Self::Grpc(grpc::Connection::open(addr).await?),
        })
    }

    /// Sends a request, whose answer must accept the token. Returns the size of the answer.
    async fn ask(&mut self, request: &Request) -> anyhow::Result<usize> {
        match self {
            Self::Http1(connection) => connection.ask(request).await,
            Self::Grpc(connection) => connection.ask(request).await,
        }
    }
}

/// A request. Cheap to clone.
type Request = axum::body::Bytes;

/// Sends one request, and parses the answer.
pub async fn probe(protocol: Protocol, addr: SocketAddr) -> anyhow::Result<Answer> {
    let request = protocol.request(1)?.into();
    let answer = match Connection::open(protocol, addr).await? {
        Connection::Http1(mut connection) => connection.probe(&request).await?,
        Connection::Grpc(mut connection) => connection.probe(&request).await?,
    };
    let proof = protocol.proof();
    let holds = |bytes: &[u8]| bytes.windows(proof.len()).any(|part| part == proof);
    let accepted = answer.headers.iter().any(|(name, _)| name.as_bytes() == proof) || holds(&answer.body);
    ensure!(accepted, "{} does not accept the token: {}", protocol.name(), String::from_utf8_lossy(&answer.body));
    Ok(answer)
}

/// Sends requests for this long.
pub async fn run(protocol: Protocol, addr: SocketAddr, tokens: u32, seconds: u32) -> anyhow::Result<LoadResult> {
    let began = Instant::now();
    let from = began + WARM_UP;
    let until = from + Duration::from_secs(seconds.into());
    let mut connections = JoinSet::new();
    for number in 0..CONNECTIONS {
        connections.spawn(ask(protocol, addr, tokens, number, (from, until)));
    }
    let (mut micros, mut answers, mut sizes) = (Vec::new(), 0, Vec::new());
    while let Some(done) = connections.join_next().await {
        let (times, count, size) = done??;
        micros.extend(times);
        answers += count;
        sizes.push(size);
    }
    sizes.dedup();
    ensure!(sizes.len() == 1, "the answers differ in size: {sizes:?}");
    Ok(LoadResult {
        rate: micros.len() as f64 / f64::from(seconds),
        micros: Percentiles::of(micros),
        answer_bytes: sizes[0],
        answers,
        cpu_seconds: proc::cpu(std::process::id())?.as_secs_f64(),
    })
}

/// The times of all answers between two moments, the number of all answers, and their size.
async fn ask(
    protocol: Protocol,
    addr: SocketAddr,
    tokens: u32,
    number: u32,
    (from, until): (Instant, Instant),
) -> anyhow::Result<(Vec<f64>, usize, usize)> {
    let about = |one: u32| 1 + (number * DIFFERENT + one).wrapping_mul(7_919) % (tokens - 1);
    let requests: Arc<[Request]> =
        (0..DIFFERENT).map(|one| Ok(protocol.request(about(one))?.into())).collect::<anyhow::Result<_>>()?;
    let mut connection = Connection::open(protocol, addr).await?;
    let (mut micros, mut answers, mut size) = (Vec::new(), 0, None);
    for request in requests.iter().cycle() {
        let asked = Instant::now();
        if asked >= until {
            break;
        }
        let asking = tokio::time::timeout_at((until + ANSWER_WITHIN).into(), connection.ask(request));
        let bytes = asking.await.context("an answer does not arrive")??;
        let answered = Instant::now();
        ensure!(*size.get_or_insert(bytes) == bytes, "an answer has {bytes} bytes, expected {size:?}");
        answers += 1;
        if asked >= from && answered < until {
            micros.push((answered - asked).as_nanos() as f64 / 1e3);
        }
    }
    Ok((micros, answers, size.context("no answers")?))
}
