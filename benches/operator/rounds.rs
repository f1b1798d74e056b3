//! Measures one size: floor, operator, floor, operator, …, floor. So a machine that becomes slower or faster shows in the results.

use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Serialize;

use crate::{
    fixture::{self, Token},
    floor::{self, Floor},
    meter,
    operator::{Goal, Operator},
    plane::Plane,
    progress::{self, Progress},
    requests::Requests,
    script::Script,
};

/// A restarted operator is idle once it takes at most this share of one core for this long.
const IDLE_FOR: Duration = Duration::from_secs(1);
const IDLE_SHARE: f64 = 0.03;
/// The limit for that.
const IDLE_WITHIN: Duration = Duration::from_secs(60);

/// The time that the API server may take to count the end of a watch.
const COUNTED_WITHIN: Duration = Duration::from_millis(500);

/// The results for one size.
#[derive(Debug, Serialize)]
pub struct Size {
    /// The number of tokens.
    pub tokens: usize,
    /// The floor's results: before the first round, between two rounds, and after the last.
    pub floors: Vec<Floor>,
    /// The operator's rounds.
    pub rounds: Vec<Round>,
}

/// One round of the operator.
#[derive(Debug, Serialize)]
pub struct Round {
    /// First mints.
    pub mint: Wave,
    /// Rotations of all tokens.
    pub rotation: Wave,
    /// A new process when all work is done.
    pub restart: Restart,
}

/// The results of much work at once, by a newly started operator.
#[derive(Debug, Serialize)]
pub struct Wave {
    /// From the start of the process until all tokens were done.
    pub seconds_from_start: f64,
    /// From the time at which it had seen all objects until all tokens were done.
    pub seconds_at_work: f64,
    /// Tokens per second, from the start of the process.
    pub rate_from_start: f64,
    /// Tokens per second, at work.
    pub rate_at_work: f64,
    /// The operator's CPU time per token, from its start until it was idle.
    pub cpu_ms: f64,
    /// The peak resident memory.
    pub peak_mib: f64,
    /// The CPU time of the API server and etcd per token.
    pub control_plane_cpu_ms: f64,
    /// The share of the machine that other processes took.
    pub others: f64,
    /// The requests that the API server served, including those at the operator's end.
    pub requests: Requests,
}

/// The results of a new process when all work is done.
#[derive(Debug, Serialize)]
pub struct Restart {
    /// From the start of the process until /readyz answered 200.
    pub seconds_to_ready: f64,
    /// From the start of the process until it was idle. Absent if it was never idle.
    pub seconds_to_idle: Option<f64>,
    /// The operator's CPU time per token.
    pub cpu_ms: f64,
    /// The peak resident memory.
    pub peak_mib: f64,
    /// The requests that the API server served, including those at the operator's end.
    pub requests: Requests,
}

/// Measures one size.
pub async fn measure(plane: &Plane, script: &Script, tokens: usize, rounds: usize) -> anyhow::Result<Size> {
    // The floor has the same number of tokens, because the API server becomes slower the more it holds.
    let mut floors = vec![floor::measure(plane, script, tokens).await?];
    let mut turns = Vec::new();
    for round in 1..=rounds {
        progress::report(&format!("{tokens} tokens, round {round} of {rounds}"));
        turns.push(turn(plane, tokens).await?);
        floors.push(floor::measure(plane, script, tokens).await?);
    }
    Ok(Size { tokens, floors, rounds: turns })
}

async fn turn(plane: &Plane, count: usize) -> anyhow::Result<Round> {
    let namespace = plane.namespace().await?;
    let tokens = fixture::create(plane, &namespace, count).await?;
    let mint = wave(plane, &namespace, &tokens, Goal::Minted).await.context("first mints")?;
    let tokens = fixture::ask_for_rotation(plane, &namespace, tokens).await?;
    let rotation = wave(plane, &namespace, &tokens, Goal::Rotated).await.context("rotations")?;
    let restart = restart(plane, &namespace, count).await.context("restart")?;
    Ok(Round { mint, rotation, restart })
}

async fn wave(plane: &Plane, namespace: &str, tokens: &[Token], goal: Goal) -> anyhow::Result<Wave> {
    plane.settle().await?;
    let count = tokens.len();
    let progress = Progress::begin(format!("operator: {goal:?}, {count} tokens"), count);
    let requests = plane.requests().await?;
    let idle = plane.meter(None)?.read()?;
    let operator = Operator::start(plane, namespace).await?;
    let end = operator.until(goal, count, &progress).await?;
    let span = plane.meter(Some(operator.pid()))?.read()? - idle;
    operator.until_quiet().await?;
    let cpu = meter::cpu(operator.pid())?;
    let peak_mib = meter::peak_mib(operator.pid())?;
    let (started, leading) =
        (operator.started, operator.leading().context("the operator's log does not say that it leads")?);
    operator.stop().await?;
    let from_start = (end - started).as_secs_f64();
    let at_work = (end - leading).as_secs_f64();
    let each = |time: Duration| time.as_secs_f64() * 1e3 / count as f64;
    let wave = Wave {
        seconds_from_start: from_start,
        seconds_at_work: at_work,
        rate_from_start: count as f64 / from_start,
        rate_at_work: count as f64 / at_work,
        cpu_ms: each(cpu),
        peak_mib,
        control_plane_cpu_ms: each(span.control_plane()),
        others: span.others(),
        requests: counted(plane).await? - requests,
    };
    progress::report(&format!(
        "operator: {goal:?}: {:.0}/s, {:.2} ms CPU per token, {:.0} MiB",
        wave.rate_at_work, wave.cpu_ms, wave.peak_mib
    ));
    Ok(wave)
}

async fn restart(plane: &Plane, namespace: &str, count: usize) -> anyhow::Result<Restart> {
    plane.settle().await?;
    progress::report(&format!("operator: restart with {count} tokens, all done …"));
    let requests = plane.requests().await?;
    let operator = Operator::start(plane, namespace).await?;
    let mut looks: Vec<(Instant, Duration)> = Vec::new();
    let mut ready = None;
    let mut idle = None;
    while idle.is_none() && operator.started.elapsed() < IDLE_WITHIN {
        looks.push((Instant::now(), meter::cpu(operator.pid())?));
        if ready.is_none() && operator.is_ready().await? {
            ready = Some(Instant::now());
        }
        idle = ready.and_then(|ready| idle_since(&looks, ready));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let cpu = meter::cpu(operator.pid())?;
    let peak_mib = meter::peak_mib(operator.pid())?;
    let started = operator.started;
    operator.stop().await?;
    let restart = Restart {
        seconds_to_ready: (ready.context("the operator did not become ready")? - started).as_secs_f64(),
        seconds_to_idle: idle.map(|idle| (idle - started).as_secs_f64()),
        cpu_ms: cpu.as_secs_f64() * 1e3 / count as f64,
        peak_mib,
        requests: counted(plane).await? - requests,
    };
    progress::report(&format!("operator: restart: idle after {:.2?} s", restart.seconds_to_idle));
    Ok(restart)
}

/// The first sample since `ready` after which almost no CPU time was taken.
fn idle_since(looks: &[(Instant, Duration)], ready: Instant) -> Option<Instant> {
    let (last, last_cpu) = *looks.last()?;
    let mut candidates = looks.iter().filter(|(at, _)| *at >= ready && last - *at >= IDLE_FOR);
    let quiet = |cpu: Duration, for_: Duration| (last_cpu - cpu).as_secs_f64() <= IDLE_SHARE * for_.as_secs_f64();
    candidates.find(|(at, cpu)| quiet(*cpu, last - *at)).map(|(at, _)| *at)
}

/// The API server's counters, including the ends of watches.
async fn counted(plane: &Plane) -> anyhow::Result<Requests> {
    tokio::time::sleep(COUNTED_WITHIN).await;
    plane.requests().await
}
