//! The metrics of the verifier. No label holds an owner, a token or an ID.
//!
//! All series of decisions are created at the start, so counting takes no lock and allocates nothing. Gauges are read from the
//! index at each scrape, so they are never stale.

use std::{sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

use super::{
    Protocol,
    reason::DecisionReason,
    sharded::{ShardedCounter, ShardedHistogram},
};
use crate::{
    index::{Index, IndexFreshness, WATCHED_KINDS, last_used::LastUsedCounters},
    service::watch::WatchMetrics,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DecisionLabels {
    protocol: &'static str,
    answer: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProtocolLabels {
    protocol: &'static str,
}

struct ProtocolMetrics {
    decisions: [ShardedCounter; DecisionReason::ALL.len()],
    decision_duration: ShardedHistogram,
    request_duration: ShardedHistogram,
}

/// All metrics of one verifier.
pub struct Metrics {
    registry: Registry,
    protocols: [ProtocolMetrics; Protocol::ALL.len()],
    watches: WatchMetrics,
    uses: LastUsedCounters,
    credentials: Gauge,
    pats: Gauge,
    owners: Gauge,
    disabled: Gauge,
    staleness: Gauge<f64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Creates all metrics, each at zero.
    pub fn new() -> Self {
        let decisions = Family::<DecisionLabels, ShardedCounter>::default();
        let (decision_duration, request_duration) = (
            Family::<ProtocolLabels, ShardedHistogram>::default(),
            Family::<ProtocolLabels, ShardedHistogram>::default(),
        );
        let protocols = Protocol::ALL.map(|protocol| {
            let protocol = protocol.as_str();
            let counter = |reason: DecisionReason| {
                let (answer, reason) = (reason.answer().as_str(), reason.as_str());
                decisions.get_or_create_owned(&DecisionLabels { protocol, answer, reason })
            };
            ProtocolMetrics {
                decisions: DecisionReason::ALL.map(counter),
                decision_duration: decision_duration.get_or_create_owned(&ProtocolLabels { protocol }),
                request_duration: request_duration.get_or_create_owned(&ProtocolLabels { protocol }),
            }
        });
        let mut metrics = Self {
            registry: Registry::with_prefix("pat_operator"),
            protocols,
            watches: WatchMetrics::default(),
            uses: LastUsedCounters::default(),
            credentials: Gauge::default(),
            pats: Gauge::default(),
            owners: Gauge::default(),
            disabled: Gauge::default(),
            staleness: Gauge::default(),
        };
        metrics.register(decisions, decision_duration, request_duration);
        metrics
    }

    fn register(
        &mut self,
        decisions: Family<DecisionLabels, ShardedCounter>,
        decision_duration: Family<ProtocolLabels, ShardedHistogram>,
        request_duration: Family<ProtocolLabels, ShardedHistogram>,
    ) {
        let registry = &mut self.registry;
        registry.register("decisions", "Decisions on tokens, by protocol and reason", decisions);
        registry.register_with_unit(
            "decision_duration",
            "Duration of a decision on a token",
            Unit::Seconds,
            decision_duration,
        );
        registry.register_with_unit(
            "request_duration",
            "Duration of a request, from its header to its answer",
            Unit::Seconds,
            request_duration,
        );
        self.watches.register(registry, &WATCHED_KINDS);
        self.uses.register(registry);
        registry.register("index_credentials", "Live credentials in the index", self.credentials.clone());
        registry.register("index_tokens", "PersonalAccessTokens in the index", self.pats.clone());
        registry.register("index_owners", "Owners described by a TokenOwner", self.owners.clone());
        registry.register("index_disabled_owners", "Owners disabled by a TokenOwner", self.disabled.clone());
        registry.register_with_unit(
            "index_staleness",
            "Time since the index became stale; 0 while it is fresh",
            Unit::Seconds,
            self.staleness.clone(),
        );
    }

    /// Counts a decision and its duration.
    pub fn decided(&self, protocol: Protocol, reason: DecisionReason, duration: Duration) {
        let metrics = &self.protocols[protocol as usize];
        metrics.decisions[reason as usize].inc();
        metrics.decision_duration.observe(duration);
    }

    /// Counts a request and its duration, from its header to its answer.
    pub fn request_finished(&self, protocol: Protocol, duration: Duration) {
        self.protocols[protocol as usize].request_duration.observe(duration);
    }

    /// Returns the counters of the watches.
    pub fn watches(&self) -> WatchMetrics {
        self.watches.clone()
    }

    /// Returns the counters of recorded uses.
    pub fn uses(&self) -> LastUsedCounters {
        self.uses.clone()
    }

    /// Returns the text for `/metrics`.
    pub fn text(&self, index: &Index, freshness: &IndexFreshness) -> String {
        self.credentials.set(index.len() as i64);
        self.pats.set(index.pats() as i64);
        self.owners.set(index.owners().len() as i64);
        self.disabled.set(index.owners().disabled() as i64);
        self.staleness.set(freshness.stale_for().as_secs_f64());
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            tracing::warn!("cannot encode metrics");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_exists_from_the_start_and_counts_its_decisions() {
        let (metrics, index) = (Metrics::new(), Index::default());
        let freshness = IndexFreshness::new(1, Duration::from_secs(300));
        let before = metrics.text(&index, &freshness);
        for protocol in Protocol::ALL {
            for reason in DecisionReason::ALL {
                metrics.decided(protocol, reason, Duration::from_micros(1));
                metrics.decided(protocol, reason, Duration::from_micros(1));
            }
        }
        let after = metrics.text(&index, &freshness);
        for protocol in Protocol::ALL {
            for reason in DecisionReason::ALL {
                let (protocol, answer, reason) = (protocol.as_str(), reason.answer().as_str(), reason.as_str());
                let series = format!(
                    "pat_operator_decisions_total{{protocol=\"{protocol}\",answer=\"{answer}\",reason=\"{reason}\"}}"
                );
                assert!(before.contains(&format!("{series} 0\n")), "no {series} in:\n{before}");
                assert!(after.contains(&format!("{series} 2\n")), "no {series} in:\n{after}");
            }
        }
        assert!(
            after.contains("pat_operator_decision_duration_seconds_count{protocol=\"introspection\"} 34\n"),
            "{after}"
        );
        assert!(after.contains("pat_operator_index_staleness_seconds 0.0\n"), "{after}");
    }
}
