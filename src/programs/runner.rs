//! The parts that the verifier and the REST API share: ports, health, TLS, watches and last uses, stopped in order.

use std::sync::Arc;

use anyhow::{Context, anyhow};
use k8s_openapi::jiff::SignedDuration;
use kube::Api;
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    api::StoredPat,
    cli::TlsArgs,
    index::{
        Freshness, Index, IndexFreshness, OWNER_KIND, PAT_KIND,
        freshness::probe,
        last_used::{LastUsedCounters, LastUsedWriter},
    },
    service::{
        Clock, Cluster, HealthServer, HttpServer, ListenAddr, Readiness, ReadinessGate, Shutdown, TlsReloader, client,
        http::{ConnectionSlots, Limits, refuse_plain_text},
        scoped,
        tls::{self, TlsFiles, TlsMetrics},
        watch::{self, WatchHandler, WatchMetrics},
    },
};

/// The scope of a watch of cluster-scoped objects, for logs.
const CLUSTER_SCOPE: &str = "the cluster";

/// The parts that a server needs before it binds a port: signal handlers, a clock and its certificate.
pub(super) struct Bootstrap {
    shutdown: Shutdown,
    pub(super) clock: Clock,
    tls: Option<TlsReloader>,
    insecure_listen: bool,
    /// Shared by all servers but the health endpoint.
    slots: Arc<ConnectionSlots>,
}

impl Bootstrap {
    pub(super) fn new(args: &TlsArgs) -> anyhow::Result<Self> {
        let shutdown = Shutdown::listen().context("cannot listen for signals")?;
        let clock = Clock::system();
        let files = TlsFiles::from_flags(args.tls_cert.clone(), args.tls_key.clone())?;
        let tls = files.map(|files| TlsReloader::load(files, clock.clone())).transpose()?;
        let slots = Arc::new(ConnectionSlots::of_process());
        Ok(Self { shutdown, clock, tls, insecure_listen: args.insecure_listen, slots })
    }

    /// Binds a port for requests that hold tokens: with TLS, or on loopback. `purpose` and `flag` appear in errors.
    pub(super) async fn listen(
        &self,
        addr: ListenAddr,
        (purpose, flag): (&'static str, &'static str),
        limits: Limits,
    ) -> anyhow::Result<HttpServer> {
        refuse_plain_text(addr, self.tls.is_some(), self.insecure_listen, purpose, flag)?;
        let server = HttpServer::bind(addr, purpose, flag).await?;
        Ok(server.with_limits(limits).with_slots(self.slots.clone()).with_tls(self.tls.clone()))
    }

    pub(super) fn log_serving(&self, server: &HttpServer, protocols: &str) {
        info!(addr = %server.local_addr(), tls = self.tls.is_some(), "serving {protocols}");
    }
}

/// Connects to the cluster of this process.
pub(super) async fn connect() -> anyhow::Result<Cluster> {
    let cluster = client::connect().await?;
    info!(api_server = cluster.url, version = env!("CARGO_PKG_VERSION"), "starting");
    Ok(cluster)
}

/// An index, its freshness, and the metrics of the watches that feed it and of the last uses that leave it.
pub(super) struct IndexParts {
    pub(super) index: Arc<Index>,
    pub(super) freshness: Arc<IndexFreshness>,
    pub(super) watches: WatchMetrics,
    pub(super) last_used: LastUsedCounters,
}

/// A running program: its health endpoint, its servers, and the tasks behind them.
///
/// Not `axum_server::Handle` or `tokio_graceful`: both end all tasks at once, and here the order matters.
pub(super) struct ServiceRunner {
    bootstrap: Bootstrap,
    parts: IndexParts,
    health: JoinHandle<()>,
    health_end: CancellationToken,
    servers: JoinSet<()>,
    servers_end: CancellationToken,
    /// TLS reload, watches and the probe, which never end by themselves.
    background: JoinSet<()>,
    last_used: Option<JoinHandle<()>>,
    last_used_end: CancellationToken,
}

impl ServiceRunner {
    /// Starts the health endpoint and the TLS reload. `metrics` renders all metrics but those of TLS, with the end mark.
    pub(super) fn start(
        bootstrap: Bootstrap,
        health: HealthServer,
        gates: impl IntoIterator<Item = ReadinessGate>,
        parts: IndexParts,
        metrics: impl Fn() -> String + Send + Sync + 'static,
    ) -> Self {
        let mut readiness =
            Readiness::new(gates).with_check("freshness", freshness_check(Arc::clone(&parts.freshness)));
        let health_end = CancellationToken::new();
        let mut background = JoinSet::new();
        if let Some(tls) = bootstrap.tls.clone() {
            background.spawn(tls.clone().keep_fresh(tls::READ_EVERY, health_end.clone()));
            readiness = readiness.with_note("tls", move || tls.describe());
        }
        let tls_metrics = TlsMetrics::new(bootstrap.tls.clone(), bootstrap.clock.clone());
        let render = Arc::new(move || format!("{}{}", tls_metrics.text(), metrics()));
        Self {
            bootstrap,
            parts,
            health: tokio::spawn(health.serve(readiness, render, health_end.clone())),
            health_end,
            servers: JoinSet::new(),
            servers_end: CancellationToken::new(),
            background,
            last_used: None,
            last_used_end: CancellationToken::new(),
        }
    }

    /// Starts a server, which must stop when the token is cancelled.
    pub(super) fn serve<S>(&mut self, server: impl FnOnce(CancellationToken) -> S)
    where
        S: Future<Output = ()> + Send + 'static,
    {
        self.servers.spawn(server(self.servers_end.clone()));
    }

    /// Starts a watch of PATs in this namespace; `None` for all. `listed` is called after each full list.
    pub(super) fn watch_pats<H: WatchHandler<Object = StoredPat> + 'static>(
        &mut self,
        client: &kube::Client,
        namespace: Option<&str>,
        number: usize,
        handler: H,
        listed: impl Fn() + Send + 'static,
    ) {
        let scope = namespace.unwrap_or("all namespaces").to_owned();
        self.watch(PAT_KIND, scope, scoped(client, namespace), number, handler, listed);
    }

    /// Starts the watch of owners. `listed` is called after each full list.
    pub(super) fn watch_owners<H: WatchHandler + 'static>(
        &mut self,
        client: &kube::Client,
        number: usize,
        handler: H,
        listed: impl Fn() + Send + 'static,
    ) {
        self.watch(OWNER_KIND, CLUSTER_SCOPE.to_owned(), Api::all(client.clone()), number, handler, listed);
    }

    fn watch<H: WatchHandler + 'static>(
        &mut self,
        kind: &'static str,
        scope: String,
        api: Api<H::Object>,
        number: usize,
        handler: H,
        listed: impl Fn() + Send + 'static,
    ) {
        let metrics = self.parts.watches.clone();
        let report = move |status| {
            metrics.record(kind, &scope, &status);
            if matches!(status, watch::WatchStatus::Listed) {
                listed();
            }
        };
        self.background.spawn(watch::follow(api, handler, self.parts.freshness.heartbeat(number), report));
    }

    /// Probes the API server by listing PATs in this namespace. Any namespace will do, because all are in one etcd.
    pub(super) fn probe(&mut self, client: &kube::Client, namespace: Option<&str>) {
        let (api, freshness) = (scoped::<StoredPat>(client, namespace), Arc::clone(&self.parts.freshness));
        self.background.spawn(async move { probe(api, &freshness).await });
    }

    /// Starts a task that never ends by itself.
    pub(super) fn background(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.background.spawn(task);
    }

    /// Starts writing last uses.
    pub(super) fn write_last_used(&mut self, client: &kube::Client, every: SignedDuration) {
        let (index, clock) = (Arc::clone(&self.parts.index), self.bootstrap.clock.clone());
        let writer = LastUsedWriter::new(index, client.clone(), clock, self.parts.last_used.clone(), every);
        self.last_used = Some(tokio::spawn(writer.run(self.last_used_end.clone())));
    }

    /// Runs `start`, then waits for a signal, or for a task that ends unexpectedly.
    pub(super) async fn run(&mut self, start: impl AsyncFnOnce(&mut Self) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let stopping = self.bootstrap.shutdown.token();
        let running = async {
            start(self).await?;
            let ended = tokio::select! {
                Some(ended) = self.background.join_next() => ended,
                Some(ended) = self.servers.join_next() => ended,
            };
            Err(unexpected_end(ended))
        };
        tokio::select! {
            () = stopping.cancelled() => Ok(()),
            result = running => result,
        }
    }

    /// Stops everything in order: servers finish their requests, `finish` completes the changes in progress, last uses are written, then the
    /// watches stop, and the health endpoint last.
    pub(super) async fn stop(mut self, finish: impl Future<Output = ()>) {
        self.servers_end.cancel();
        while self.servers.join_next().await.is_some() {}
        finish.await;
        self.last_used_end.cancel();
        if let Some(writing) = self.last_used {
            let _ = writing.await;
        }
        self.background.shutdown().await;
        self.health_end.cancel();
        let _ = self.health.await;
    }
}

/// Not ready once the index is lost, because every answer would be "unavailable".
fn freshness_check(freshness: Arc<IndexFreshness>) -> impl Fn() -> Result<String, String> + Send + Sync + 'static {
    move || match freshness.freshness() {
        Freshness::Lost => Err("lost".to_owned()),
        freshness => Ok(format!("{freshness:?}").to_lowercase()),
    }
}

fn unexpected_end(ended: Result<(), JoinError>) -> anyhow::Error {
    match ended {
        Ok(()) => anyhow!("a task ended unexpectedly"),
        Err(panic) => anyhow::Error::from(panic).context("a task panicked"),
    }
}
