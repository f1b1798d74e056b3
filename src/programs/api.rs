//! `pat-operator api`: starts index, store, watches and server, and stops them in order.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use tracing::{info, warn};

use super::runner::{Bootstrap, IndexParts, ServiceRunner, connect};
use crate::{
    cli::ApiArgs,
    index::{
        Index, IndexFreshness,
        events::{OwnerEventHandler, PatEventHandler},
    },
    rest::{
        access_token::{AccessTokenSigner, load_or_create_key},
        metrics::Metrics,
        preflight::RestPreflight,
        rate_limit::RateLimit,
        server,
        service::{RestConfig, TokenService},
        store::{OwnerStoreHandler, TokenStore, TokenStoreHandler},
        write::Writer,
    },
    service::{
        Clock, Cluster, HealthServer, ReadinessGate,
        http::{Limits, body::MAX_BODY},
    },
};

const HTTP: (&str, &str) = ("the REST API", "--http-addr");

/// The connection's timeout for a response: longer than the request timeout, after which the server itself responds.
const REQUEST_LIMIT: Duration = server::REQUEST_TIMEOUT.saturating_add(Duration::from_secs(1));

/// The time limit to drain an unread request body after an error response.
const BODY_DRAIN_LIMIT: Duration = Duration::from_secs(1);

/// The timeout for changes in progress at shutdown: enough to issue a token and to revoke it. The whole shutdown fits into the grace
/// period of a Pod.
const LAST_CHANGES: Duration = Duration::from_secs(18);

/// Runs until a signal or a fatal error.
pub(super) async fn api(args: ApiArgs) -> anyhow::Result<()> {
    anyhow::ensure!(
        !(args.cascade_revocation && args.read_only),
        "--cascade-revocation revokes tokens, and --read-only forbids it: remove one of the two"
    );
    let bootstrap = Bootstrap::new(&args.tls)?;
    let limits = Limits { body: MAX_BODY, request: REQUEST_LIMIT, drain: BODY_DRAIN_LIMIT, ..Limits::busy() };
    let http = bootstrap.listen(args.http_addr, HTTP, limits).await?;
    let health = HealthServer::bind(args.health_addr).await?;
    bootstrap.log_serving(&http, "the REST API");
    let cluster = connect().await?;
    let api = ApiProgram::new(args, cluster, bootstrap.clock.clone());
    info!(namespace = api.namespace, "serving the tokens of one namespace");

    let (metrics, store, freshness) = (api.metrics.clone(), api.store.clone(), api.freshness.clone());
    let render = move || metrics.text(&store, &freshness);
    let mut runner = ServiceRunner::start(bootstrap, health, api.gates.all(), api.parts(), render);
    let mut serving = None;
    let result = runner
        .run(async |runner| {
            let service = api.start_service().await?;
            serving = Some(service.clone());
            if api.args.cascade_revocation {
                let service = service.clone();
                runner.background(async move { service.cascade_revocations().await });
            }
            let router = server::router(service, api.metrics.clone());
            runner.serve(|end| async move { http.serve(router, end).await });
            api.start_watches(runner);
            runner.write_last_used(&api.cluster.client, api.args.last_used_interval);
            Ok(())
        })
        .await;

    api.gates.tokens.fail("stopping");
    // Changes in progress are completed before the watches stop, because they need them.
    let finish = async {
        if let Some(service) = serving
            && !service.finish(LAST_CHANGES).await
        {
            warn!("cannot complete all changes before shutdown");
        }
    };
    runner.stop(finish).await;
    result
}

/// The conditions of readiness.
struct ApiGates {
    crds: ReadinessGate,
    tokens: ReadinessGate,
    owners: ReadinessGate,
    key: ReadinessGate,
}

impl ApiGates {
    fn new() -> Self {
        let listing = "the first list is not complete";
        Self {
            crds: ReadinessGate::closed("crds", "not checked yet"),
            tokens: ReadinessGate::closed("tokens", listing),
            owners: ReadinessGate::closed("owners", listing),
            key: ReadinessGate::closed("key", "not read yet"),
        }
    }

    fn all(&self) -> [ReadinessGate; 4] {
        [&self.crds, &self.tokens, &self.owners, &self.key].map(Clone::clone)
    }
}

/// The parts of the REST API.
struct ApiProgram {
    args: ApiArgs,
    cluster: Cluster,
    clock: Clock,
    namespace: String,
    index: Arc<Index>,
    store: Arc<TokenStore>,
    freshness: Arc<IndexFreshness>,
    metrics: Arc<Metrics>,
    gates: ApiGates,
}

impl ApiProgram {
    fn new(args: ApiArgs, cluster: Cluster, clock: Clock) -> Self {
        Self {
            namespace: args.namespace.clone().unwrap_or_else(|| cluster.namespace.clone()),
            freshness: IndexFreshness::new(2, args.max_staleness.unsigned_abs()),
            args,
            cluster,
            clock,
            index: Arc::default(),
            store: Arc::default(),
            metrics: Arc::new(Metrics::new()),
            gates: ApiGates::new(),
        }
    }

    fn parts(&self) -> IndexParts {
        IndexParts {
            index: self.index.clone(),
            freshness: self.freshness.clone(),
            watches: self.metrics.watches(),
            last_used: self.metrics.uses(),
        }
    }

    /// Waits for the prerequisites, reads or creates the signing key, and creates the service.
    async fn start_service(&self) -> anyhow::Result<Arc<TokenService>> {
        let (client, namespace) = (&self.cluster.client, &self.namespace);
        let key_namespace = self.args.key_namespace.as_ref().unwrap_or(&self.cluster.namespace);
        let preflight = RestPreflight {
            namespace: std::slice::from_ref(namespace),
            read_only: self.args.read_only,
            key: (key_namespace, &self.args.key_secret),
        };
        preflight.check(client, &self.gates.crds).await?;
        let key = load_or_create_key(client, key_namespace, &self.args.key_secret).await?;
        let signer = AccessTokenSigner::new(&key, format!("pat-operator-api:{namespace}"));
        drop(key);
        self.gates.key.pass("");

        let config = RestConfig {
            tenant: self.args.tenant_name.clone().unwrap_or_else(|| namespace.clone()),
            audience: self.args.audience.clone(),
            read_only: self.args.read_only,
            rate: rate(&self.args),
        };
        let writer = Writer::new(client.clone(), namespace.clone(), self.index.clone(), self.store.clone())
            .with_counters(self.metrics.undelivered());
        let freshness = self.freshness.clone();
        let (index, store, clock) = (self.index.clone(), self.store.clone(), self.clock.clone());
        let service = TokenService::new(index, store, move || freshness.freshness(), clock, config);
        Ok(Arc::new(service.with_signer(signer).with_writer(writer)))
    }

    fn start_watches(&self, runner: &mut ServiceRunner) {
        let (client, namespace) = (&self.cluster.client, Some(&*self.namespace));
        let tokens = PatEventHandler::new(self.index.clone(), Some(self.namespace.clone()));
        let tokens = TokenStoreHandler::new(tokens, self.store.clone());
        let full = self.gates.tokens.clone();
        runner.watch_pats(client, namespace, 0, tokens, move || full.pass(""));
        let owners = OwnerStoreHandler::new(OwnerEventHandler::new(self.index.clone()), self.store.clone());
        let full = self.gates.owners.clone();
        runner.watch_owners(client, 1, owners, move || full.pass(""));
        runner.probe(client, namespace);
    }
}

fn rate(args: &ApiArgs) -> RateLimit {
    let at_least_one = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
    RateLimit { per_second: at_least_one(args.rate_limit), burst: at_least_one(args.rate_burst) }
}
