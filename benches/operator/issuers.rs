//! Measures tokens of a slow issuer alongside tokens of the operator's own.
//!
//! Each round has two runs, each on a new control plane: one with local tokens only, and one with the same number of issuer tokens
//! alongside. The difference shows the cost of issuer tokens, and whether they slow down local ones.

use std::{
    collections::HashSet,
    fmt,
    time::{Duration, Instant},
};

use anyhow::Context;
use futures::StreamExt;
use kube::api::WatchEvent;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::{
    args::Args,
    fixture, meter,
    operator::{Goal, Operator},
    plane::Plane,
    proc,
    progress::{self, Progress},
    table::{Row, median},
    vendor::{Calls, DELAY, Vendor},
    wire::{Wire, pats, secrets},
};

/// The namespace of the issuer's Secret.
const ISSUER_NAMESPACE: &str = "default";

/// The limit for the local tokens.
const LOCAL_WITHIN: Duration = Duration::from_secs(300);

/// All results.
#[derive(Serialize)]
pub struct IssuersReport {
    tokens: usize,
    cores: usize,
    rows: Vec<Row>,
    rounds: Vec<IssuerRound>,
}

/// One round.
#[derive(Serialize)]
struct IssuerRound {
    alone: Run,
    alongside: Run,
}

/// The results of one run.
#[derive(Serialize)]
struct Run {
    /// Local tokens per second, from the time at which the operator had seen all objects.
    local_rate: f64,
    /// Seconds from that time until all tokens were ready.
    seconds: f64,
    /// The operator's CPU time.
    cpu_ms: f64,
    /// The operator's resident memory when idle.
    memory_kib: f64,
    /// The writes of PATs and Secrets.
    writes: u64,
    /// The requests to the issuer.
    calls: Option<Calls>,
    /// Those until all local tokens were ready.
    early_calls: Option<Calls>,
}

/// Measures all rounds.
pub async fn measure(args: &Args) -> anyhow::Result<IssuersReport> {
    let tokens = args.issuer_tokens();
    let mut rounds = Vec::new();
    for round in 1..=args.issuer_rounds() {
        progress::report(&format!("round {round}: {tokens} local tokens alone"));
        let alone = run(args, tokens, None).await?;
        progress::report(&format!("round {round}: {tokens} local tokens alongside {tokens} of an issuer"));
        let vendor = Vendor::start().await?;
        let alongside = run(args, tokens, Some(&vendor)).await?;
        rounds.push(IssuerRound { alone, alongside });
    }
    Ok(IssuersReport { tokens, cores: meter::cores(), rows: rows(tokens, &rounds), rounds })
}

async fn run(args: &Args, count: usize, vendor: Option<&Vendor>) -> anyhow::Result<Run> {
    let plane = Plane::start(&args.operator).await?;
    let namespace = plane.namespace().await?;
    fixture::create(&plane, &namespace, count).await?;
    let mut total = count;
    if let Some(vendor) = vendor {
        create_remote(&plane, vendor, count).await?;
        total += count;
    }
    plane.settle().await?;
    let requests = plane.requests().await?;
    let local = Ready::watch(plane.wire()?, &namespace, count).await?;
    let issuer_namespace = format!("--issuer-namespace={ISSUER_NAMESPACE}");
    let arguments =
        ["--issuers=cluster", &issuer_namespace, "--issuer-insecure-hosts=127.0.0.1", "--issuer-networks=127.0.0.0/8"];
    let operator = Operator::start_with(&plane, arguments).await?;
    let local_end = local.end().await?;
    let early_calls = vendor.map(Vendor::calls);
    let progress = Progress::begin(format!("operator: {total} tokens"), total);
    let end = operator.until(Goal::Minted, total, &progress).await?;
    operator.until_quiet().await?;
    let leading = operator.leading().context("the operator's log does not say that it leads")?;
    let pid = operator.pid();
    let local_seconds = (local_end - leading).as_secs_f64();
    let result = Run {
        local_rate: count as f64 / local_seconds,
        seconds: (end - leading).as_secs_f64(),
        cpu_ms: meter::cpu(pid)?.as_secs_f64() * 1e3,
        memory_kib: proc::memory_kib(pid, "VmRSS")?,
        writes: (plane.requests().await? - requests).writes(),
        calls: vendor.map(Vendor::calls),
        early_calls,
    };
    operator.stop().await?;
    progress::report(&format!("local tokens: {:.0}/s; all: {:.1} s", result.local_rate, result.seconds));
    Ok(result)
}

/// Creates an issuer, and PATs that name it.
async fn create_remote(plane: &Plane, vendor: &Vendor, count: usize) -> anyhow::Result<()> {
    let wire = plane.wire()?;
    let host = vendor.url.trim_start_matches("http://");
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "gitea"}, "type": "pat-operator.io/issuer-auth",
        "stringData": {"host": host, "username": "bot", "password": "bench"},
    });
    wire.create(&secrets(ISSUER_NAMESPACE), secret.to_string().into_bytes()).await.context("creating a Secret")?;
    let issuer = json!({
        "apiVersion": "pat-operator.io/v1alpha1", "kind": "ClusterTokenIssuer", "metadata": {"name": "gitea"},
        "spec": {
            "gitea": {"url": vendor.url}, "auth": {"secretRef": {"name": "gitea"}},
            "policy": {"rules": [{"targets": ["*"]}]},
        },
    });
    let issuers = "/apis/pat-operator.io/v1alpha1/clustertokenissuers";
    wire.create(issuers, issuer.to_string().into_bytes()).await.context("creating an issuer")?;
    let spec = json!({
        "description": "Clones from the pipeline.",
        "scopes": ["read:repository"],
        "issuerRef": {"kind": "ClusterTokenIssuer", "name": "gitea"},
        "rotation": {"interval": "30d"},
    });
    fixture::create_with(plane, &plane.namespace().await?, count, spec).await.map(drop)
}

/// Waits for PATs of a namespace to become ready.
struct Ready(JoinHandle<anyhow::Result<Instant>>);

impl Ready {
    async fn watch(wire: Wire, namespace: &str, count: usize) -> anyhow::Result<Self> {
        let mut events = wire.stream::<Value>(pats(namespace), None).await?;
        let waiting = async move {
            let mut ready = HashSet::new();
            while ready.len() < count {
                let event = events.next().await.context("the watch has ended")??;
                let (WatchEvent::Added(pat) | WatchEvent::Modified(pat)) = event else { continue };
                let mut conditions = pat["status"]["conditions"].as_array().into_iter().flatten();
                if conditions.any(|one| one["type"] == "Ready" && one["status"] == "True") {
                    ready.insert(pat["metadata"]["name"].to_string());
                }
            }
            Ok(Instant::now())
        };
        Ok(Self(tokio::spawn(waiting)))
    }

    async fn end(self) -> anyhow::Result<Instant> {
        let stop = self.0.abort_handle();
        let ended = tokio::time::timeout(LOCAL_WITHIN, self.0).await;
        stop.abort();
        ended.context("the local tokens were not ready within 5 minutes")??
    }
}

fn rows(tokens: usize, rounds: &[IssuerRound]) -> Vec<Row> {
    let middle = |figure: &dyn Fn(&IssuerRound) -> f64| vec![Some(median(rounds.iter().map(figure)))];
    let calls = |figure: fn(Calls) -> usize| {
        let counts = rounds.iter().filter_map(|round| round.alongside.calls).map(|calls| figure(calls) as f64);
        vec![Some(counts.fold(0.0, f64::max))]
    };
    let each = |more: fn(&Run) -> f64| {
        middle(&|round: &IssuerRound| (more(&round.alongside) - more(&round.alone)) / tokens as f64)
    };
    vec![
        Row::plain("local tokens/s, alone", 0, middle(&|round| round.alone.local_rate)),
        Row::plain("local tokens/s, alongside issuer tokens", 0, middle(&|round| round.alongside.local_rate)),
        Row::least("alongside / alone", 2, middle(&|round| round.alongside.local_rate / round.alone.local_rate), 0.95),
        Row::plain(
            "creations at the issuer meanwhile",
            0,
            middle(&|round| round.alongside.early_calls.map_or(0.0, |calls| calls.creates as f64)),
        ),
        Row::plain("seconds until all tokens are ready", 1, middle(&|round| round.alongside.seconds)),
        Row::plain("creations at the issuer", 0, calls(|calls| calls.creates))
            .judged(format!("= {tokens}"), |count| count == tokens as f64),
        Row::plain("lists at the issuer", 0, calls(|calls| calls.lists)),
        Row::plain("most requests to the issuer at once", 0, calls(|calls| calls.most_at_once)),
        Row::plain("writes of PATs and Secrets per issuer token", 2, each(|run| run.writes as f64)),
        Row::plain("operator CPU, ms per issuer token", 2, each(|run| run.cpu_ms)),
        Row::most("memory, KiB per issuer token", 1, each(|run| run.memory_kib), 10.0),
    ]
}

impl fmt::Display for IssuersReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out)?;
        let (tokens, delay) = (self.tokens, DELAY.as_millis());
        writeln!(out, "{tokens} tokens of each kind on {} cores; the issuer answers after {delay} ms", self.cores)?;
        writeln!(out)?;
        self.rows.iter().try_for_each(|row| writeln!(out, "{row}"))
    }
}
