//! The REST server's figures. No owner, no token, no id is a label.
//!
//! Gauges are read from the store when somebody asks, so nothing goes stale.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::{server::Dialect, store::Store, write::counters::TakeBackCounters};
use crate::{
    index::{IndexFreshness, WATCHED_KINDS, last_used::LastUsedCounters},
    service::watch::WatchMetrics,
};

/// From an answer out of memory to a token that the controller has to mint.
const BUCKETS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5, 10.0, 30.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    dialect: &'static str,
    route: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct By {
    dialect: &'static str,
}

/// All figures of one server.
pub struct Metrics {
    registry: Registry,
    requests: Family<Answered, Counter>,
    took: Family<By, Histogram>,
    watches: WatchMetrics,
    uses: LastUsedCounters,
    taken_back: TakeBackCounters,
    tokens: Gauge,
    staleness: Gauge<f64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Every figure at zero.
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("pat_operator"),
            requests: Family::default(),
            took: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            watches: WatchMetrics::default(),
            uses: LastUsedCounters::default(),
            taken_back: TakeBackCounters::default(),
            tokens: Gauge::default(),
            staleness: Gauge::default(),
        };
        metrics.register();
        for dialect in Dialect::ALL {
            drop(metrics.took.get_or_create(&By { dialect: dialect.as_str() }));
        }
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("api_requests", "Requests answered, by dialect, route and status", self.requests.clone());
        let about = "How long an answer takes, by dialect";
        registry.register_with_unit("api_request_duration", about, Unit::Seconds, self.took.clone());
        self.watches.register(registry, &WATCHED_KINDS);
        self.uses.register(registry);
        self.taken_back.register(registry);
        registry.register("api_tokens", "Tokens in the store", self.tokens.clone());
        let about = "How long the store has been stale; 0 while it is fresh";
        registry.register_with_unit("index_staleness", about, Unit::Seconds, self.staleness.clone());
    }

    /// Counts an answer. `route` is the pattern of the path, never the path.
    pub fn answered(&self, dialect: Dialect, route: &str, status: u16, took: Duration) {
        let dialect = dialect.as_str();
        self.requests.get_or_create(&Answered { dialect, route: route.to_owned(), status }).inc();
        self.took.get_or_create(&By { dialect }).observe(took.as_secs_f64());
    }

    /// What is counted of watches.
    pub fn watches(&self) -> WatchMetrics {
        self.watches.clone()
    }

    /// What is counted of last uses.
    pub fn uses(&self) -> LastUsedCounters {
        self.uses.clone()
    }

    /// What is counted of tokens that reached nobody.
    pub fn taken_back(&self) -> TakeBackCounters {
        self.taken_back.clone()
    }

    /// The text that `/metrics` serves.
    pub fn text(&self, store: &Store, pulse: &IndexFreshness) -> String {
        self.tokens.set(store.len() as i64);
        self.staleness.set(pulse.stale_for().as_secs_f64());
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            tracing::warn!("metrics could not be written");
        }
        text
    }

    /// A closure for the endpoint that serves them.
    pub fn render(
        self: &Arc<Self>,
        store: Arc<Store>,
        pulse: Arc<IndexFreshness>,
    ) -> impl Fn() -> String + Send + Sync + use<> {
        let metrics = self.clone();
        move || metrics.text(&store, &pulse)
    }
}
