//! Metrics of the REST server. No owner, token or id is a label, and gauges are read from the store when scraped.

use std::{sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::{dialect::Dialect, store::TokenStore};
use crate::{
    index::{IndexFreshness, WATCHED_KINDS, last_used::LastUsedCounters},
    service::watch::WatchMetrics,
};

/// From the duration of a list from memory to that of a token minted by the controller.
const BUCKETS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5, 10.0, 30.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    dialect: &'static str,
    route: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DialectLabels {
    dialect: &'static str,
}

/// All metrics of one server.
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    duration: Family<DialectLabels, Histogram>,
    watches: WatchMetrics,
    uses: LastUsedCounters,
    undelivered: UndeliveredTokenCounters,
    tokens: Gauge,
    staleness: Gauge<f64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Creates all metrics at zero.
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("pat_operator"),
            requests: Family::default(),
            duration: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            watches: WatchMetrics::default(),
            uses: LastUsedCounters::default(),
            undelivered: UndeliveredTokenCounters::default(),
            tokens: Gauge::default(),
            staleness: Gauge::default(),
        };
        metrics.register();
        for dialect in Dialect::ALL {
            drop(metrics.duration.get_or_create(&DialectLabels { dialect: dialect.as_str() }));
        }
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("api_requests", "Requests answered, by dialect, route and status", self.requests.clone());
        let about = "Duration of requests, by dialect";
        registry.register_with_unit("api_request_duration", about, Unit::Seconds, self.duration.clone());
        self.watches.register(registry, &WATCHED_KINDS);
        self.uses.register(registry);
        self.undelivered.register(registry);
        registry.register("api_tokens", "Tokens in the store", self.tokens.clone());
        let about = "How long the store has been stale; 0 while it is fresh";
        registry.register_with_unit("index_staleness", about, Unit::Seconds, self.staleness.clone());
    }

    /// Counts a request. `route` is the pattern of the path, never the path.
    pub fn answered(&self, dialect: Dialect, route: &str, status: u16, took: Duration) {
        let dialect = dialect.as_str();
        self.requests.get_or_create(&RequestLabels { dialect, route: route.to_owned(), status }).inc();
        self.duration.get_or_create(&DialectLabels { dialect }).observe(took.as_secs_f64());
    }

    /// Returns the metrics of watches.
    pub fn watches(&self) -> WatchMetrics {
        self.watches.clone()
    }

    /// Returns the metrics of last uses.
    pub fn uses(&self) -> LastUsedCounters {
        self.uses.clone()
    }

    /// Returns the metrics of undelivered tokens.
    pub fn undelivered(&self) -> UndeliveredTokenCounters {
        self.undelivered.clone()
    }

    /// Returns the text that `/metrics` serves.
    pub fn text(&self, store: &TokenStore, freshness: &IndexFreshness) -> String {
        self.tokens.set(store.len() as i64);
        self.staleness.set(freshness.stale_for().as_secs_f64());
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            tracing::warn!("cannot encode metrics");
        }
        text
    }
}

/// Counts tokens that were not delivered. Clones share the values.
#[derive(Clone, Debug, Default)]
pub struct UndeliveredTokenCounters {
    pending: Gauge,
    taken_back: Counter,
    given_up: Counter,
}

/// A token that is still to be taken back.
#[derive(Debug)]
pub(super) struct PendingTakeBack(UndeliveredTokenCounters);

impl UndeliveredTokenCounters {
    fn register(&self, registry: &mut Registry) {
        let about = "Undelivered live tokens that are still to be taken back";
        registry.register("api_tokens_to_take_back", about, self.pending.clone());
        registry.register("api_tokens_taken_back", "Undelivered tokens that were taken back", self.taken_back.clone());
        let about = "Undelivered live tokens that could not be taken back before the server stopped";
        registry.register("api_tokens_given_up", about, self.given_up.clone());
    }

    /// Counts a token to be taken back.
    pub(super) fn pending(&self) -> PendingTakeBack {
        self.pending.inc();
        PendingTakeBack(self.clone())
    }
}

impl PendingTakeBack {
    /// Counts the token as taken back.
    pub(super) fn succeeded(self) {
        self.0.taken_back.inc();
    }

    /// Counts the token as given up.
    pub(super) fn given_up(self) {
        self.0.given_up.inc();
    }
}

impl Drop for PendingTakeBack {
    fn drop(&mut self) {
        self.0.pending.dec();
    }
}
