//! The results as a table and as JSON: each with its target and whether it is met.
//!
//! The targets are the project's own. A benchmark informs, and asserts nothing.

use std::{fmt, time::Duration};

use serde::Serialize;

use crate::{
    cluster::Cluster,
    decision::Decisions,
    duel::{Duel, Turn},
    load::CONNECTIONS,
    memory::Memory,
    proc::cores,
    table::{Row, median},
};

/// The targets.
mod target {
    /// The most memory per token in the index, in bytes.
    pub const BYTES: f64 = 400.0;
    /// The most time for a decision that accepts a token, in nanoseconds.
    pub const DECISION_NS: f64 = 1_000.0;
    /// The least rate, relative to the bare handler.
    pub const RATE: f64 = 0.85;
    /// The highest 99th percentile, relative to the bare handler.
    pub const P99: f64 = 1.3;
    /// The most time from a revocation to its denial by all verifiers, in milliseconds.
    pub const OBEYED_MS: f64 = 1_000.0;
}

/// All results.
#[derive(Serialize)]
pub struct Report {
    cores: usize,
    connections: u32,
    seconds: f64,
    rows: Vec<Row>,
    memory: Memory,
    decisions: Decisions,
    duels: Vec<Duel>,
    cluster: Option<Cluster>,
}

impl Report {
    /// Computes the results.
    pub fn new(
        (memory, decisions): (Memory, Decisions),
        duels: Vec<Duel>,
        cluster: Option<Cluster>,
        took: Duration,
    ) -> Self {
        let mut rows = alone(&memory, &decisions);
        rows.extend(duels.iter().flat_map(protocol));
        rows.extend(cluster.iter().flat_map(in_cluster));
        rows.push(plain("most CPU taken by other processes (share)", 2, others(&duels, cluster.as_ref())));
        let (cores, seconds) = (cores(), took.as_secs_f64());
        Self { cores, connections: CONNECTIONS, seconds, rows, memory, decisions, duels, cluster }
    }
}

fn alone(memory: &Memory, decisions: &Decisions) -> Vec<Row> {
    let mut rows = vec![
        Row::most("memory per token, bytes", 0, vec![Some(memory.bytes_each())], target::BYTES),
        plain("seconds to fill the index", 2, memory.fill_seconds),
        Row::most("decision, ns: known token", 0, vec![Some(decisions.hit.mean)], target::DECISION_NS),
        Row::most("decision, ns: known token, 20,000 in turn", 0, vec![Some(decisions.cold.mean)], target::DECISION_NS),
        plain("decision, ns: known token, p50 of batches", 0, decisions.hit.p50),
        plain("decision, ns: known token, p99 of batches", 0, decisions.hit.p99),
        plain("decision, ns: unknown token", 0, decisions.unknown.mean),
        plain("decision, ns: wrong checksum", 0, decisions.junk.mean),
    ];
    rows.push(plain("decision, ns: only parsing and SHA-256", 0, decisions.hash.mean));
    rows
}

fn protocol(duel: &Duel) -> Vec<Row> {
    let what = |text: &str| format!("{}: {text}", duel.protocol.name());
    let middle = |turns: &[Turn], figure: fn(&Turn) -> f64| median(turns.iter().map(figure));
    // Compare each round of the verifier with the rounds of the floor before and after it.
    let ratio = |figure: fn(&Turn) -> f64| {
        let around = duel.floors.windows(2).map(|pair| (figure(&pair[0]) + figure(&pair[1])) / 2.0);
        vec![Some(median(duel.subjects.iter().zip(around).map(|(turn, around)| figure(turn) / around)))]
    };
    let rate = |turn: &Turn| turn.heard.rate;
    let p50 = |turn: &Turn| turn.heard.micros.p50;
    let p99 = |turn: &Turn| turn.heard.micros.p99;
    let cost = |turn: &Turn| turn.server_micros;
    vec![
        plain(what("answers/s"), 0, middle(&duel.subjects, rate)),
        plain(what("bare handler, answers/s"), 0, middle(&duel.floors, rate)),
        Row::least(what("rate / bare handler"), 2, ratio(rate), target::RATE),
        plain(what("p50, µs"), 0, middle(&duel.subjects, p50)),
        plain(what("p99, µs"), 0, middle(&duel.subjects, p99)),
        plain(what("bare handler, p50, µs"), 0, middle(&duel.floors, p50)),
        plain(what("bare handler, p99, µs"), 0, middle(&duel.floors, p99)),
        Row::most(what("p99 / bare handler"), 2, ratio(p99), target::P99),
        plain(what("server CPU, µs per answer"), 1, middle(&duel.subjects, cost)),
        plain(what("bare handler CPU, µs per answer"), 1, middle(&duel.floors, cost)),
    ]
}

fn in_cluster(cluster: &Cluster) -> Vec<Row> {
    let obeyed = &cluster.obeyed_ms;
    vec![
        plain(format!("start to ready, s, {} tokens", cluster.tokens), 2, cluster.ready_seconds.p50),
        plain("start to ready, s, slowest start", 2, cluster.ready_seconds.max),
        plain("verifier's peak memory, MiB", 0, cluster.peak_mib),
        plain(format!("{} revocations: denial by both, ms, p50", obeyed.count), 1, obeyed.p50),
        plain("revocations: denial by both, ms, p99", 1, obeyed.p99),
        Row::most("revocations: denial by both, ms, slowest", 1, vec![Some(obeyed.max)], target::OBEYED_MS),
        plain("revocations: API server's answer, ms, p50", 1, cluster.written_ms.p50),
    ]
}

fn others(duels: &[Duel], cluster: Option<&Cluster>) -> f64 {
    let turns = duels.iter().flat_map(|duel| duel.floors.iter().chain(&duel.subjects));
    turns.map(|turn| turn.others).chain(cluster.map(|cluster| cluster.others)).fold(0.0, f64::max)
}

fn plain(what: impl Into<String>, digits: usize, figure: f64) -> Row {
    Row::plain(what, digits, vec![Some(figure)])
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out)?;
        let kubernetes = self.cluster.as_ref().map(|cluster| format!("kube-apiserver {}, ", cluster.kubernetes));
        writeln!(
            out,
            "{}{} cores, {} connections, {:.0} s in total",
            kubernetes.unwrap_or_default(),
            self.cores,
            self.connections,
            self.seconds
        )?;
        writeln!(out, "{} tokens in the index, unless stated otherwise", self.memory.tokens)?;
        writeln!(out)?;
        writeln!(out, "{:60}  {:>8}  met", "", "target")?;
        for row in &self.rows {
            writeln!(out, "{row}")?;
        }
        Ok(())
    }
}
