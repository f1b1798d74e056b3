//! Wires `pat-operator verifier`: index, watches, protocols, and their end in order.

use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use kube::{Api, Client};
use pat_operator::{
    api::{StoredOwner, StoredPat},
    cli::VerifierArgs,
    index::{
        Index, Pulse,
        feed::{OwnerFeed, PatFeed},
        freshness::Beat,
        probe,
        usage::Usage,
    },
    service::{
        self, Clock, Gate, Health, HttpServer, Readiness, Shutdown,
        http::Limits,
        tls,
        watch::{
            self, Sink,
            counters::{OWNER, PAT},
        },
    },
    verifier::{Verifier, envoy_grpc, http, metrics::Metrics, preflight, tokenreview::TokenReviewConfig},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{
    listen::{listen, tls_of, with_tls},
    news::{CLUSTER, freshness, tell},
};

const HTTP: (&str, &str) = ("the verifier's HTTP protocols", "--http-addr");
const GRPC: (&str, &str) = ("the verifier's gRPC protocol", "--grpc-addr");

/// Runs until it is told to stop, or cannot go on.
pub async fn verifier(args: VerifierArgs) -> anyhow::Result<()> {
    if args.enable_tokenreview && !args.namespaces.is_all() {
        bail!("--enable-tokenreview needs all namespaces: leave out --namespaces, or TokenReview");
    }
    let shutdown = Shutdown::listen().context("signals cannot be listened to")?;
    let clock = Clock::system();
    let tls = tls_of(&args.tls, &clock)?;
    let http = listen(args.http_addr, HTTP, args.tls.insecure_listen, tls.as_ref(), Limits::busy()).await?;
    let grpc = listen(args.grpc_addr, GRPC, args.tls.insecure_listen, tls.as_ref(), Limits::busy()).await?;
    let health = Health::bind(args.health_addr).await?;
    info!(addr = %http.local_addr(), tls = tls.is_some(), "serving introspection, forward auth and other HTTP protocols");
    info!(addr = %grpc.local_addr(), tls = tls.is_some(), "serving Envoy's checks over gRPC");
    let cluster = service::client::connect().await?;
    info!(api_server = cluster.url, version = env!("CARGO_PKG_VERSION"), "starting");

    let namespaces = args.namespaces.names().to_vec();
    let crd_there = Gate::closed("crd", "not looked for yet");
    let index_full = Gate::closed("index", "the first list is not in yet");
    let index = Arc::new(Index::default());
    // Owners belong to no namespace: one watch for them, or none.
    let watches = if namespaces.is_empty() { 2 } else { namespaces.len() };
    if !namespaces.is_empty() {
        info!("with --namespaces no TokenOwner is looked at: nobody is disabled, and nobody has an address or groups");
    }
    let pulse = Pulse::new(watches, args.max_staleness.unsigned_abs());
    let metrics = Arc::new(Metrics::new());
    let told = pulse.clone();
    let verifier = Arc::new(Verifier::new(index.clone(), move || told.freshness(), clock.clone(), metrics.clone()));

    let gates = [crd_there.clone(), index_full.clone()];
    let mut readiness = Readiness::new(gates).with_check("freshness", freshness(pulse.clone()));
    if let Some(tls) = tls.clone() {
        readiness = readiness.with_note("tls", move || tls.describe());
    }
    let end = CancellationToken::new();
    let render = Arc::new(with_tls(tls.as_ref(), &clock, metrics.render(index.clone(), pulse.clone())));
    let serving_health = tokio::spawn(health.serve(readiness, render, end.clone()));

    // Asked before the first list is in, they answer that nobody can tell.
    let servers_end = CancellationToken::new();
    let mut servers = JoinSet::new();
    let settings = http::HttpConfig {
        issuer: args.issuer.clone(),
        tokenreview: args
            .enable_tokenreview
            .then(|| TokenReviewConfig { username_prefix: args.tokenreview_username_prefix.clone() }),
    };
    // No Role can allow the questions that a ServiceAccount as a caller takes: only a ClusterRole.
    let asking = namespaces.is_empty().then(|| cluster.client.clone());
    let protocols = http::VerifierService::new(verifier.clone(), settings, asking);
    servers.spawn(http_server(http, protocols, servers_end.clone()));
    servers.spawn(envoy_grpc::serve(grpc, verifier.clone(), servers_end.clone()));

    let mut background = JoinSet::new();
    if let Some(tls) = tls {
        background.spawn(tls.keep_fresh(tls::LOOK_EVERY, end.clone()));
    }
    let feeding = Feeding {
        client: cluster.client.clone(),
        index: index.clone(),
        pulse,
        metrics: metrics.clone(),
        index_full: index_full.clone(),
    };
    let usage = Usage::new(index, cluster.client.clone(), clock, metrics.uses(), args.last_used_interval);
    let usage_ends = CancellationToken::new();
    let mut writing = None;
    let work = async {
        preflight::check(&cluster.client, &namespaces, &crd_there).await?;
        feeding.start(&namespaces, &mut background);
        writing = Some(tokio::spawn(usage.run(usage_ends.clone())));
        let ended = tokio::select! {
            Some(ended) = background.join_next() => ended,
            Some(ended) = servers.join_next() => ended,
        };
        Err(match ended {
            Ok(()) => anyhow!("a part of the verifier ended by itself"),
            Err(panic) => anyhow::Error::from(panic).context("a part of the verifier ended unexpectedly"),
        })
    };
    let result = tokio::select! {
        () = async { shutdown.token().cancelled().await } => Ok(()),
        result = work => result,
    };

    // Nobody new is sent here once it is known everywhere that this is not ready. Until then whoever comes is answered, by what
    // the watches bring. Who is being answered still is, and what is known of uses is written last.
    index_full.fail("stopping");
    verifier.drain();
    let delay = args.shutdown_delay.unsigned_abs();
    if result.is_ok() && !delay.is_zero() {
        info!(seconds = delay.as_secs(), "not ready any more; still answering until everybody knows");
        tokio::time::sleep(delay).await;
    }
    servers_end.cancel();
    while servers.join_next().await.is_some() {}
    usage_ends.cancel();
    if let Some(writing) = writing {
        let _ = writing.await;
    }
    background.shutdown().await;
    end.cancel();
    let _ = serving_health.await;
    result
}

async fn http_server(server: HttpServer, protocols: http::VerifierService, end: CancellationToken) {
    server.serve(protocols, end).await;
}

/// What keeps the index fed.
struct Feeding {
    client: Client,
    index: Arc<Index>,
    pulse: Arc<Pulse>,
    metrics: Arc<Metrics>,
    index_full: Gate,
}

impl Feeding {
    /// Starts a watch for each namespace, or one for all and one for owners, and the probe.
    fn start(self, namespaces: &[String], tasks: &mut JoinSet<()>) {
        let scopes: Vec<Option<String>> =
            if namespaces.is_empty() { vec![None] } else { namespaces.iter().cloned().map(Some).collect() };
        let watches = scopes.len() + usize::from(namespaces.is_empty());
        // Whichever namespace it is: there is one etcd behind all of them.
        let any = match namespaces.first() {
            Some(namespace) => Api::<StoredPat>::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        for (number, namespace) in scopes.into_iter().enumerate() {
            let api = match &namespace {
                Some(namespace) => Api::namespaced(self.client.clone(), namespace),
                None => Api::all(self.client.clone()),
            };
            let place = namespace.clone().unwrap_or_else(|| "all namespaces".into());
            let feed = PatFeed::new(self.index.clone(), namespace);
            tasks.spawn(self.follow(PAT, place, api, feed, self.pulse.beat(number), watches));
        }
        if namespaces.is_empty() {
            let api: Api<StoredOwner> = Api::all(self.client.clone());
            let (feed, beat) = (OwnerFeed::new(self.index.clone()), self.pulse.beat(watches - 1));
            tasks.spawn(self.follow(OWNER, CLUSTER.into(), api, feed, beat, watches));
        }
        tasks.spawn(async move { probe::probe(any, &self.pulse).await });
    }

    /// One watch, and what is told of it.
    fn follow<S: Sink + 'static>(
        &self,
        kind: &'static str,
        place: String,
        api: Api<S::Object>,
        sink: S,
        beat: Beat,
        watches: usize,
    ) -> impl Future<Output = ()> + Send + use<S> {
        let (pulse, metrics, full) = (self.pulse.clone(), self.metrics.clone(), self.index_full.clone());
        let listed = move || {
            if pulse.listed() == watches {
                full.pass("");
            }
        };
        watch::follow(api, sink, beat, tell(metrics.watches(), kind, place, listed))
    }
}
