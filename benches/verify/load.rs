//! The load: 64 connections that are kept, one request at a time on each. A process of its own, the same for both sides.
//!
//! Must not know whom it asks.

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

/// How many connections.
pub const CONNECTIONS: u32 = 64;

/// What comes before the time that is measured: connections are opened, caches filled.
const WARM_UP: Duration = Duration::from_millis(500);

/// How many different tokens are asked about by each connection.
const DIFFERENT: u32 = 64;

/// An answer may take this long before something is wrong.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// What came of it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Heard {
    /// Answers a second.
    pub rate: f64,
    /// How long one took, in microseconds.
    pub micros: Percentiles,
    /// The bytes of an answer: the head and body of HTTP/1.1, the message of gRPC.
    pub answer_bytes: usize,
    /// All answers, those before the measured time too.
    pub answers: usize,
    /// This process's CPU time, in seconds.
    pub cpu_seconds: f64,
}

/// One answer.
pub struct Answer {
    /// Headers, but for those that every server adds.
    pub headers: Vec<(String, String)>,
    /// The body, or the message.
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

    /// Asks, and gives the size of the answer, which is one that lets the token in.
    async fn ask(&mut self, request: &Request) -> anyhow::Result<usize> {
        match self {
            Self::Http1(connection) => connection.ask(request).await,
            Self::Grpc(connection) => connection.ask(request).await,
        }
    }
}

/// A request; cheap to clone.
type Request = axum::body::Bytes;

/// One answer, looked at closely.
pub async fn probe(protocol: Protocol, addr: SocketAddr) -> anyhow::Result<Answer> {
    let request = protocol.request(1)?.into();
    let answer = match Connection::open(protocol, addr).await? {
        Connection::Http1(mut connection) => connection.probe(&request).await?,
        Connection::Grpc(mut connection) => connection.probe(&request).await?,
    };
    let proof = protocol.proof();
    let holds = |bytes: &[u8]| bytes.windows(proof.len()).any(|part| part == proof);
    let told = answer.headers.iter().any(|(name, _)| name.as_bytes() == proof) || holds(&answer.body);
    ensure!(told, "{} does not let the token in: {}", protocol.name(), String::from_utf8_lossy(&answer.body));
    Ok(answer)
}

/// Asks for so long.
pub async fn run(protocol: Protocol, addr: SocketAddr, tokens: u32, seconds: u32) -> anyhow::Result<Heard> {
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
    ensure!(sizes.len() == 1, "answers differ in size: {sizes:?}");
    Ok(Heard {
        rate: micros.len() as f64 / f64::from(seconds),
        micros: Percentiles::of(micros),
        answer_bytes: sizes[0],
        answers,
        cpu_seconds: proc::cpu(std::process::id())?.as_secs_f64(),
    })
}

/// The times of all answers that came between two moments, how many there were in all, and their size.
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
        let bytes = asking.await.context("an answer does not come")??;
        let answered = Instant::now();
        ensure!(*size.get_or_insert(bytes) == bytes, "an answer of {bytes} bytes, not of {size:?}");
        answers += 1;
        if asked >= from && answered < until {
            micros.push((answered - asked).as_nanos() as f64 / 1e3);
        }
    }
    Ok((micros, answers, size.context("no answer at all")?))
}
