//! One size: floor, operator, floor, operator, …, floor; so a machine that becomes slower or faster shows.
//!
//! Must not know what would be good: `report` does.

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

/// A restarted operator is idle once it takes no more than this share of one core for this long.
const IDLE_FOR: Duration = Duration::from_secs(1);
const IDLE_SHARE: f64 = 0.03;
/// How long to wait for that.
const IDLE_WITHIN: Duration = Duration::from_secs(60);

/// How long the API server may take to count the end of a watch.
const COUNTED_WITHIN: Duration = Duration::from_millis(500);

/// Everything measured with one number of tokens.
#[derive(Debug, Serialize)]
pub struct Size {
    /// The number of tokens.
    pub tokens: usize,
    /// One more than there are rounds: before the first, between each two, after the last.
    pub floors: Vec<Floor>,
    /// The operator's turns.
    pub rounds: Vec<Round>,
}

/// One turn of the operator.
#[derive(Debug, Serialize)]
pub struct Round {
    /// First mints.
    pub mint: Wave,
    /// Rotations of all tokens.
    pub rotation: Wave,
    /// A new process on the finished state.
    pub restart: Restart,
}

/// Much work at once, for a freshly started operator.
#[derive(Debug, Serialize)]
pub struct Wave {
    /// From the start of the process until all tokens were there.
    pub seconds_from_start: f64,
    /// From the moment when it had seen everything and began to work.
    pub seconds_at_work: f64,
    /// Tokens a second, from the start of the process.
    pub rate_from_start: f64,
    /// Tokens a second, while at work.
    pub rate_at_work: f64,
    /// The operator's CPU time for a token; everything it took from its start until it was quiet.
    pub cpu_ms: f64,
    /// The most memory that it had resident.
    pub peak_mib: f64,
    /// The API server's and etcd's CPU time for a token.
    pub control_plane_cpu_ms: f64,
    /// The share of the machine that went to processes outside of the bench.
    pub others: f64,
    /// What the API server served meanwhile, the end of the operator included.
    pub requests: Requests,
}

/// A new process on the finished state.
#[derive(Debug, Serialize)]
pub struct Restart {
    /// From the start of the process to /readyz.
    pub seconds_to_ready: f64,
    /// From the start of the process until it had nothing more to do; absent if that was not reached.
    pub seconds_to_idle: Option<f64>,
    /// The operator's CPU time for a token.
    pub cpu_ms: f64,
    /// The most memory that it had resident.
    pub peak_mib: f64,
    /// What the API server served meanwhile, the end of the operator included.
    pub requests: Requests,
}

/// Measures one size.
pub async fn measure(plane: &Plane, script: &Script, tokens: usize, rounds: usize) -> anyhow::Result<Size> {
    // With as many tokens: an API server that holds more of them takes longer for each.
    let mut floors = vec![floor::measure(plane, script, tokens).await?];
    let mut turns = Vec::new();
    for round in 1..=rounds {
        progress::tell(&format!("{tokens} tokens, round {round} of {rounds}"));
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
    let (started, leading) = (operator.started, operator.leading().context("it never said that it leads")?);
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
    progress::tell(&format!(
        "operator: {goal:?}: {:.0}/s, {:.2} ms CPU each, {:.0} MiB",
        wave.rate_at_work, wave.cpu_ms, wave.peak_mib
    ));
    Ok(wave)
}

async fn restart(plane: &Plane, namespace: &str, count: usize) -> anyhow::Result<Restart> {
    plane.settle().await?;
    progress::tell(&format!("operator: restart on {count} finished tokens …"));
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
        seconds_to_ready: (ready.context("the operator never became ready")? - started).as_secs_f64(),
        seconds_to_idle: idle.map(|idle| (idle - started).as_secs_f64()),
        cpu_ms: cpu.as_secs_f64() * 1e3 / count as f64,
        peak_mib,
        requests: counted(plane).await? - requests,
    };
    progress::tell(&format!("operator: restart: idle after {:.2?} s", restart.seconds_to_idle));
    Ok(restart)
}

/// The first look from `ready` on after which next to no CPU time was taken.
fn idle_since(looks: &[(Instant, Duration)], ready: Instant) -> Option<Instant> {
    let (last, last_cpu) = *looks.last()?;
    let mut candidates = looks.iter().filter(|(at, _)| *at >= ready && last - *at >= IDLE_FOR);
    let quiet = |cpu: Duration, for_: Duration| (last_cpu - cpu).as_secs_f64() <= IDLE_SHARE * for_.as_secs_f64();
    candidates.find(|(at, cpu)| quiet(*cpu, last - *at)).map(|(at, _)| *at)
}

/// The API server's counters, the ends of watches included.
async fn counted(plane: &Plane) -> anyhow::Result<Requests> {
    tokio::time::sleep(COUNTED_WITHIN).await;
    plane.requests().await
}
