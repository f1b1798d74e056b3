//! The results as a table and as JSON: each with its target and whether it is met.
//!
//! The targets are the project's own. A benchmark informs, and asserts nothing.

use std::{fmt, time::Duration};

use serde::Serialize;

use crate::{
    crowd::CONCURRENCY,
    floor::{Floor, FloorPhase},
    meter::cores,
    plane::Plane,
    requests::Requests,
    rounds::{Restart, Round, Size, Wave},
    script::{Script, words},
    table::{Row, median},
};

/// The targets.
mod target {
    /// The least rate, relative to the floor.
    pub const RATIO: f64 = 0.90;
    /// The writes of a first mint.
    pub const WRITES: f64 = 3.0;
    /// The most CPU time per token, in milliseconds.
    pub const CPU_MS: f64 = 1.0;
    /// The most growth of the CPU time per token, from the smallest to the largest size.
    pub const CPU_GROWTH: f64 = 0.15;
    /// The most memory at the largest size, in MiB.
    pub const PEAK_MIB: f64 = 75.0;
    /// The most time from a restart to idle, in seconds.
    pub const IDLE_SECONDS: f64 = 2.0;
}

/// All results.
#[derive(Serialize)]
pub struct Report {
    kubernetes: String,
    cores: usize,
    concurrency: usize,
    seconds: f64,
    mint_writes: String,
    rotation_writes: String,
    rows: Vec<Row>,
    sizes: Vec<Size>,
}

impl Report {
    /// Computes the results.
    pub fn new(plane: &Plane, script: &Script, sizes: Vec<Size>, took: Duration) -> Self {
        Self {
            kubernetes: plane.version.clone(),
            cores: cores(),
            concurrency: CONCURRENCY,
            seconds: took.as_secs_f64(),
            mint_writes: words(&script.mint),
            rotation_writes: words(&script.rotation),
            rows: rows(&sizes),
            sizes,
        }
    }
}

fn rows(sizes: &[Size]) -> Vec<Row> {
    let mut rows = waves(sizes, "mint", 0.0, |round| &round.mint, |floor| floor.mint);
    rows.extend(waves(sizes, "rotation", 1.0, |round| &round.rotation, |floor| floor.rotation));
    rows.extend(restarts(sizes));
    rows.push(Row::plain("most CPU taken by other processes (share)", 2, each(sizes, others)));
    rows
}

/// The rows for one kind of work, which writes `events` events per token.
fn waves(
    sizes: &[Size],
    name: &str,
    events: f64,
    wave: fn(&Round) -> &Wave,
    floor: fn(&Floor) -> FloorPhase,
) -> Vec<Row> {
    let middle =
        |figure: fn(&Wave) -> f64| each(sizes, |size| median(size.rounds.iter().map(|round| figure(wave(round)))));
    let a_token = |count: fn(&Requests) -> u64| {
        each(sizes, |size| {
            let count = |round| count(&wave(round).requests) as f64 / size.tokens as f64;
            median(size.rounds.iter().map(count))
        })
    };
    // Compare each round of the operator with the floor before and after it.
    let ratio = |rate: fn(&Wave) -> f64| {
        each(sizes, |size| {
            let around = size.floors.windows(2).map(|pair| (floor(&pair[0]).rate + floor(&pair[1]).rate) / 2.0);
            median(size.rounds.iter().zip(around).map(|(round, around)| rate(wave(round)) / around))
        })
    };
    let floors = each(sizes, |size| median(size.floors.iter().map(|one| floor(one).rate)));
    let floor_costs = each(sizes, |size| median(size.floors.iter().map(|one| floor(one).control_plane_cpu_ms)));
    let floor_cpu = each(sizes, |size| median(size.floors.iter().map(|one| floor(one).client_cpu_ms)));
    let what = |text: &str| format!("{name}: {text}");
    let mut rows = vec![
        Row::plain(what("operator, tokens/s at work"), 0, middle(|wave| wave.rate_at_work)),
        Row::plain(what("operator, tokens/s from process start"), 0, middle(|wave| wave.rate_from_start)),
        Row::plain(what("floor, tokens/s"), 0, floors),
        Row::least(what("operator / floor, at work"), 2, ratio(|wave| wave.rate_at_work), target::RATIO),
        Row::plain(what("operator / floor, from process start"), 2, ratio(|wave| wave.rate_from_start)),
        exactly(what("writes of PATs and Secrets per token"), 3, a_token(Requests::writes), target::WRITES),
        exactly(what("events per token"), 3, a_token(Requests::events), events),
        Row::plain(what("reads of single objects per token"), 3, a_token(Requests::single_reads)),
        Row::most(what("operator CPU, ms per token"), 2, middle(|wave| wave.cpu_ms), target::CPU_MS),
    ];
    rows.extend(growth(what("growth of operator CPU with size"), &middle(|wave| wave.cpu_ms)));
    rows.push(Row::plain(what("floor CPU, ms per token"), 2, floor_cpu));
    rows.push(Row::plain(what("API server + etcd CPU, ms per token"), 2, middle(|wave| wave.control_plane_cpu_ms)));
    rows.push(Row::plain(what("floor: API server + etcd CPU, ms per token"), 2, floor_costs));
    rows.push(Row::most(what("peak memory, MiB"), 0, middle(|wave| wave.peak_mib), target::PEAK_MIB));
    rows
}

fn restarts(sizes: &[Size]) -> Vec<Row> {
    let middle = |figure: fn(&Restart) -> f64| {
        each(sizes, |size| median(size.rounds.iter().map(|round| figure(&round.restart))))
    };
    let worst = |count: fn(&Requests) -> u64| {
        each(sizes, |size| {
            let counts = size.rounds.iter().map(|round| count(&round.restart.requests) as f64);
            counts.fold(0.0, f64::max)
        })
    };
    let idle = middle(|restart| restart.seconds_to_idle.unwrap_or(f64::INFINITY));
    vec![
        exactly("restart: writes of PATs and Secrets", 0, worst(Requests::writes), 0.0),
        exactly("restart: events", 0, worst(Requests::events), 0.0),
        exactly("restart: reads of single objects", 0, worst(Requests::single_reads), 0.0),
        Row::plain("restart: seconds to ready", 2, middle(|restart| restart.seconds_to_ready)),
        Row::most("restart: seconds to idle", 2, idle, target::IDLE_SECONDS),
        Row::plain("restart: operator CPU, ms per token", 3, middle(|restart| restart.cpu_ms)),
        Row::most("restart: peak memory, MiB", 0, middle(|restart| restart.peak_mib), target::PEAK_MIB),
    ]
}

fn others(size: &Size) -> f64 {
    let waves = size.rounds.iter().flat_map(|round| [round.mint.others, round.rotation.others]);
    let floors = size.floors.iter().flat_map(|floor| [floor.mint.others, floor.rotation.others]);
    waves.chain(floors).fold(0.0, f64::max)
}

/// How much more the largest size takes than the smallest, as a share.
fn growth(what: String, figures: &[Option<f64>]) -> Option<Row> {
    let [Some(first), .., Some(last)] = *figures else { return None };
    let mut column = vec![None; figures.len() - 1];
    column.push(Some(last / first - 1.0));
    Some(Row::most(what, 2, column, target::CPU_GROWTH))
}

fn each(sizes: &[Size], figure: impl Fn(&Size) -> f64) -> Vec<Option<f64>> {
    sizes.iter().map(|size| Some(figure(size))).collect()
}

fn exactly(what: impl Into<String>, digits: usize, figures: Vec<Option<f64>>, wanted: f64) -> Row {
    Row::plain(what, digits, figures).judged(format!("= {wanted}"), |figure| figure == wanted)
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out)?;
        writeln!(
            out,
            "kube-apiserver {} on {} cores, {} requests in flight, {:.0} s in total",
            self.kubernetes, self.cores, self.concurrency, self.seconds
        )?;
        writeln!(out, "writes of the floor for a mint: {}", self.mint_writes)?;
        writeln!(out, "writes of the floor for a rotation: {}", self.rotation_writes)?;
        writeln!(out)?;
        write!(out, "{:48}", "tokens")?;
        for size in &self.sizes {
            write!(out, "{:>12}", size.tokens)?;
        }
        writeln!(out, "  {:>8}  met", "target")?;
        for row in &self.rows {
            writeln!(out, "{row}")?;
        }
        writeln!(out)?;
        for size in &self.sizes {
            for (what, requests) in size.rounds.iter().take(1).flat_map(|round| {
                [
                    ("mint", &round.mint.requests),
                    ("rotation", &round.rotation.requests),
                    ("restart", &round.restart.requests),
                ]
            }) {
                let list: Vec<_> = requests.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
                writeln!(out, "requests, {} tokens, {what}: {}", size.tokens, list.join(", "))?;
            }
        }
        Ok(())
    }
}
