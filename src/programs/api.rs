//! Wires `pat-operator api`: index, store, watches, key, server, and their end in order.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use anyhow::{Context, anyhow};
use kube::Api;
use pat_operator::{
    api::StoredPat,
    cli::ApiArgs,
    index::{
        Index, Pulse,
        feed::{OwnerFeed, PatFeed},
        probe,
        usage::Usage,
    },
    rest::{
        access_token::{AccessTokenSigner, load_or_create_key},
        metrics::Metrics,
        preflight::RestPreflight,
        rate_limit::RateLimit,
        server,
        service::{RestConfig, TokenService},
        store::{OwnerEventHandler, TokenEventHandler, TokenStore},
        write::Writer,
    },
    service::{
        self, Clock, Gate, Health, Readiness, Shutdown,
        http::{Limits, body::MAX_BODY},
        tls,
        watch::{
            self,
            counters::{OWNER, PAT},
        },
    },
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    listen::{listen, tls_of, with_tls},
    news::{CLUSTER, freshness, tell},
};

/// How long a connection waits for an answer: longer than the server takes to tell that a request took too long.
const LONGEST: Duration = server::REQUEST_TIMEOUT.saturating_add(Duration::from_secs(1));

/// How long a refusal waits for the body that it has not read.
const DRAIN: Duration = Duration::from_secs(1);

/// How long changes that have begun may take to their end: as long as a new token may take, and to take it back. With all that comes before,
/// it is less than Kubernetes gives a Pod.
const LAST_CHANGES: Duration = Duration::from_secs(18);

/// Runs until it is told to stop, or cannot go on.
pub async fn api(args: ApiArgs) -> anyhow::Result<()> {
    let shutdown = Shutdown::listen().context("signals cannot be listened to")?;
    let clock = Clock::system();
    let tls = tls_of(&args.tls, &clock)?;
    let limits = Limits { body: MAX_BODY, request: LONGEST, drain: DRAIN, ..Limits::busy() };
    let http =
        listen(args.http_addr, ("the REST API", "--http-addr"), args.tls.insecure_listen, tls.as_ref(), limits).await?;
    let health = Health::bind(args.health_addr).await?;
    info!(addr = %http.local_addr(), tls = tls.is_some(), "serving the REST API");
    let cluster = service::client::connect().await?;
    let namespace = args.namespace.clone().unwrap_or_else(|| cluster.namespace.clone());
    let key_namespace = args.key_namespace.clone().unwrap_or_else(|| cluster.namespace.clone());
    info!(api_server = cluster.url, namespace, version = env!("CARGO_PKG_VERSION"), "starting");

    let crds_there = Gate::closed("crds", "not looked for yet");
    let tokens_full = Gate::closed("tokens", "the first list is not in yet");
    let owners_full = Gate::closed("owners", "the first list is not in yet");
    let key_there = Gate::closed("key", "not read yet");
    let (index, store) = (Arc::new(Index::default()), Arc::new(TokenStore::default()));
    let pulse = Pulse::new(2, args.max_staleness.unsigned_abs());
    let metrics = Arc::new(Metrics::new());

    let gates = [crds_there.clone(), tokens_full.clone(), owners_full.clone(), key_there.clone()];
    let mut readiness = Readiness::new(gates).with_check("freshness", freshness(pulse.clone()));
    if let Some(tls) = tls.clone() {
        readiness = readiness.with_note("tls", move || tls.describe());
    }
    let end = CancellationToken::new();
    let render = Arc::new(with_tls(tls.as_ref(), &clock, metrics.render(store.clone(), pulse.clone())));
    let serving_health = tokio::spawn(health.serve(readiness, render, end.clone()));

    let mut background = JoinSet::new();
    if let Some(tls) = tls {
        background.spawn(tls.keep_fresh(tls::LOOK_EVERY, end.clone()));
    }
    let servers_end = CancellationToken::new();
    let mut servers = JoinSet::new();
    let usage_ends = CancellationToken::new();
    let (mut writing, mut serving) = (None, None);
    let work = async {
        let preflight = RestPreflight {
            namespace: std::slice::from_ref(&namespace),
            read_only: args.read_only,
            key: (&key_namespace, &args.key_secret),
        };
        preflight.check(&cluster.client, &crds_there).await?;
        let key = load_or_create_key(&cluster.client, &key_namespace, &args.key_secret).await?;
        let signer = AccessTokenSigner::new(&key, format!("pat-operator-api:{namespace}"));
        drop(key);
        key_there.pass("");

        let config = RestConfig {
            tenant: args.tenant_name.clone().unwrap_or_else(|| namespace.clone()),
            audience: args.audience.clone(),
            read_only: args.read_only,
            rate: rate(&args),
        };
        let fresh = pulse.clone();
        let writer = Writer::new(cluster.client.clone(), namespace.clone(), index.clone(), store.clone());
        let writer = writer.with_counters(metrics.undelivered());
        let service = TokenService::new(index.clone(), store.clone(), move || fresh.freshness(), clock.clone(), config);
        let service = Arc::new(service.with_signer(signer).with_writer(writer));
        serving = Some(service.clone());
        let router = server::router(service, metrics.clone());
        let stop = servers_end.clone();
        servers.spawn(async move { http.serve(router, stop).await });

        let tokens = TokenEventHandler::new(PatFeed::new(index.clone(), Some(namespace.clone())), store.clone());
        let owners = OwnerEventHandler::new(OwnerFeed::new(index.clone()), store.clone());
        let client = cluster.client.clone();
        let api = Api::namespaced(client.clone(), &namespace);
        let any: Api<StoredPat> = Api::namespaced(client.clone(), &namespace);
        let (counters, place, full) = (metrics.watches(), namespace.clone(), tokens_full.clone());
        background.spawn(watch::follow(api, tokens, pulse.beat(0), tell(counters, PAT, place, move || full.pass(""))));
        let api = Api::all(client);
        let (counters, place) = (metrics.watches(), CLUSTER.to_owned());
        let full = move || owners_full.pass("");
        background.spawn(watch::follow(api, owners, pulse.beat(1), tell(counters, OWNER, place, full)));
        let probed = pulse.clone();
        background.spawn(async move { probe::probe(any, &probed).await });
        let usage = Usage::new(index, cluster.client.clone(), clock, metrics.uses(), args.last_used_interval);
        writing = Some(tokio::spawn(usage.run(usage_ends.clone())));
        let ended = tokio::select! {
            Some(ended) = background.join_next() => ended,
            Some(ended) = servers.join_next() => ended,
        };
        Err(match ended {
            Ok(()) => anyhow!("a part of the REST server ended by itself"),
            Err(panic) => anyhow::Error::from(panic).context("a part of the REST server ended unexpectedly"),
        })
    };
    let result = tokio::select! {
        () = async { shutdown.token().cancelled().await } => Ok(()),
        result = work => result,
    };

    // Nobody new is sent here from now on; who is being answered still is. What has begun to change is brought to a good end, for
    // which the watches must run.
    tokens_full.fail("stopping");
    servers_end.cancel();
    while servers.join_next().await.is_some() {}
    if let Some(service) = serving
        && !service.finish(LAST_CHANGES).await
    {
        warn!("not every change could be brought to its end");
    }
    usage_ends.cancel();
    if let Some(writing) = writing {
        let _ = writing.await;
    }
    background.shutdown().await;
    end.cancel();
    let _ = serving_health.await;
    result
}

fn rate(args: &ApiArgs) -> RateLimit {
    let at_least_one = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
    RateLimit { per_second: at_least_one(args.rate_limit), burst: at_least_one(args.rate_burst) }
}
