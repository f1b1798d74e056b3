//! `pat-operator verifier`: starts index, watches and protocols, and stops them in order.

use std::sync::Arc;

use anyhow::bail;
use kube::Client;
use tracing::info;

use super::runner::{Bootstrap, IndexParts, ServiceRunner, connect};
use crate::{
    cli::VerifierArgs,
    index::{
        Index, IndexFreshness,
        events::{OwnerEventHandler, PatEventHandler},
    },
    service::{HealthServer, ReadinessGate, http::Limits},
    verifier::{Verifier, envoy_grpc, http, metrics::Metrics, preflight, tokenreview::TokenReviewConfig},
};

const HTTP: (&str, &str) = ("the verifier's HTTP protocols", "--http-addr");
const GRPC: (&str, &str) = ("the verifier's gRPC protocol", "--grpc-addr");

/// Runs until a signal or a fatal error.
pub(super) async fn verifier(args: VerifierArgs) -> anyhow::Result<()> {
    if args.enable_tokenreview && !args.namespaces.is_all() {
        bail!("--enable-tokenreview needs all namespaces: remove --namespaces or --enable-tokenreview");
    }
    let bootstrap = Bootstrap::new(&args.tls)?;
    let http = bootstrap.listen(args.http_addr, HTTP, Limits::busy()).await?;
    let grpc = bootstrap.listen(args.grpc_addr, GRPC, Limits::busy()).await?;
    let health = HealthServer::bind(args.health_addr).await?;
    bootstrap.log_serving(&http, "introspection, forward auth and other HTTP protocols");
    bootstrap.log_serving(&grpc, "Envoy's checks over gRPC");
    let client = connect().await?.client;

    let namespaces = args.namespaces.names().to_vec();
    let crd_established = ReadinessGate::closed("crd", "not checked yet");
    let index_full = ReadinessGate::closed("index", "the first list is not complete");
    let index = Arc::new(Index::default());
    if !namespaces.is_empty() {
        info!(
            "with --namespaces, TokenOwners are not watched: no owner is disabled, and none has a mail address or groups"
        );
    }
    let freshness = IndexFreshness::new(watches(&namespaces), args.max_staleness.unsigned_abs());
    let metrics = Arc::new(Metrics::new());
    let read = freshness.clone();
    let clock = bootstrap.clock.clone();
    let verifier = Arc::new(Verifier::new(index.clone(), move || read.freshness(), clock, metrics.clone()));

    let render = {
        let (metrics, index, freshness) = (metrics.clone(), index.clone(), freshness.clone());
        move || metrics.text(&index, &freshness)
    };
    let parts = IndexParts {
        index: index.clone(),
        freshness: freshness.clone(),
        watches: metrics.watches(),
        last_used: metrics.uses(),
    };
    let gates = [crd_established.clone(), index_full.clone()];
    let mut service = ServiceRunner::start(bootstrap, health, gates, parts, render);
    // Until the first list is complete, the protocols answer "unavailable".
    let protocols = protocols(&args, &verifier, &client);
    service.serve(|end| async move { http.serve(protocols, end).await });
    service.serve(|end| envoy_grpc::serve(grpc, verifier.clone(), end));
    let result = service
        .run(async |service| {
            preflight::check(&client, &namespaces, &crd_established).await?;
            start_watches(service, &client, &namespaces, &index, &freshness, &index_full);
            service.write_last_used(&client, args.last_used_interval);
            Ok(())
        })
        .await;

    index_full.fail("stopping");
    verifier.drain();
    // Load balancers need time to detect that this process is not ready. Until then it answers requests.
    let delay = args.shutdown_delay.unsigned_abs();
    if result.is_ok() && !delay.is_zero() {
        info!(
            seconds = delay.as_secs(),
            "not ready any more: answering requests until load balancers stop sending them"
        );
        tokio::time::sleep(delay).await;
    }
    service.stop(async {}).await;
    result
}

/// The number of watches: one for each namespace, or one for all and one for owners, which belong to no namespace.
fn watches(namespaces: &[String]) -> usize {
    if namespaces.is_empty() { 2 } else { namespaces.len() }
}

fn protocols(args: &VerifierArgs, verifier: &Arc<Verifier>, client: &Client) -> http::VerifierService {
    let prefix = args.enable_tokenreview.then(|| args.tokenreview_username_prefix.clone());
    let settings = http::HttpConfig {
        issuer: args.issuer.clone(),
        tokenreview: prefix.map(|username_prefix| TokenReviewConfig { username_prefix }),
    };
    // Reviews of ServiceAccount callers need a ClusterRole.
    let reviewer = args.namespaces.is_all().then(|| client.clone());
    http::VerifierService::new(verifier.clone(), settings, reviewer)
}

fn start_watches(
    service: &mut ServiceRunner,
    client: &Client,
    namespaces: &[String],
    index: &Arc<Index>,
    freshness: &Arc<IndexFreshness>,
    index_full: &ReadinessGate,
) {
    let count = watches(namespaces);
    let listed = || {
        let (freshness, index_full) = (freshness.clone(), index_full.clone());
        move || {
            if freshness.listed() == count {
                index_full.pass("");
            }
        }
    };
    for (number, namespace) in namespaces.iter().enumerate() {
        let handler = PatEventHandler::new(index.clone(), Some(namespace.clone()));
        service.watch_pats(client, Some(namespace), number, handler, listed());
    }
    if namespaces.is_empty() {
        service.watch_pats(client, None, 0, PatEventHandler::new(index.clone(), None), listed());
        service.watch_owners(client, 1, OwnerEventHandler::new(index.clone()), listed());
    }
    service.probe(client, namespaces.first().map(String::as_str));
}
