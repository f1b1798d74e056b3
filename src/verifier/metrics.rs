//! The verifier's figures. No owner, no token, no id is a label.
//!
//! Decisions are counted into places that were looked up at the start: no lock, no allocation. Gauges are read from the index
//! when somebody asks, so nothing goes stale.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

use super::{Protocol, histogram::Histogram, reason::Reason, striped::Counter};
use crate::{
    index::{Index, IndexFreshness, WATCHED_KINDS, last_used::LastUsedCounters},
    service::watch::WatchMetrics,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Decided {
    protocol: &'static str,
    answer: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct By {
    protocol: &'static str,
}

/// What is counted of one protocol.
struct Counted {
    decisions: [Counter; Reason::ALL.len()],
    took: Histogram,
    answered: Histogram,
}

/// All figures of one verifier.
pub struct Metrics {
    registry: Registry,
    protocols: [Counted; Protocol::ALL.len()],
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
    /// Every figure at zero.
    pub fn new() -> Self {
        let decisions = Family::<Decided, Counter>::default();
        let (took, answered) = (Family::<By, Histogram>::default(), Family::<By, Histogram>::default());
        let protocols = Protocol::ALL.map(|protocol| {
            let protocol = protocol.as_str();
            let counter = |reason: Reason| {
                let (answer, reason) = (reason.answer().as_str(), reason.as_str());
                decisions.get_or_create_owned(&Decided { protocol, answer, reason })
            };
            Counted {
                decisions: Reason::ALL.map(counter),
                took: took.get_or_create_owned(&By { protocol }),
                answered: answered.get_or_create_owned(&By { protocol }),
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
        metrics.register(decisions, took, answered);
        metrics
    }

    fn register(
        &mut self,
        decisions: Family<Decided, Counter>,
        took: Family<By, Histogram>,
        answered: Family<By, Histogram>,
    ) {
        let registry = &mut self.registry;
        registry.register("decisions", "Tokens judged, by protocol and reason", decisions);
        registry.register_with_unit("decision_duration", "How long judging a token takes", Unit::Seconds, took);
        registry.register_with_unit(
            "request_duration",
            "How long a request takes from its header to its answer, whatever becomes of it",
            Unit::Seconds,
            answered,
        );
        self.watches.register(registry, &WATCHED_KINDS);
        self.uses.register(registry);
        registry.register("index_credentials", "Live credentials in the index", self.credentials.clone());
        registry.register("index_tokens", "PersonalAccessTokens in the index", self.pats.clone());
        registry.register("index_owners", "Owners that a TokenOwner describes", self.owners.clone());
        registry.register("index_disabled_owners", "Those of them that are disabled", self.disabled.clone());
        registry.register_with_unit(
            "index_staleness",
            "How long the index has been stale; 0 while it is fresh",
            Unit::Seconds,
            self.staleness.clone(),
        );
    }

    /// Counts a decision and how long it took.
    pub fn decided(&self, protocol: Protocol, reason: Reason, took: Duration) {
        let counted = &self.protocols[protocol as usize];
        counted.decisions[reason as usize].inc();
        counted.took.observe(took);
    }

    /// Counts a request, from its header to its answer.
    pub fn answered(&self, protocol: Protocol, took: Duration) {
        self.protocols[protocol as usize].answered.observe(took);
    }

    /// What is counted of watches.
    pub fn watches(&self) -> WatchMetrics {
        self.watches.clone()
    }

    /// What is counted of last uses.
    pub fn uses(&self) -> LastUsedCounters {
        self.uses.clone()
    }

    /// The text that `/metrics` serves.
    pub fn text(&self, index: &Index, pulse: &IndexFreshness) -> String {
        self.credentials.set(index.len() as i64);
        self.pats.set(index.pats() as i64);
        self.owners.set(index.owners().len() as i64);
        self.disabled.set(index.owners().disabled() as i64);
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
        index: Arc<Index>,
        pulse: Arc<IndexFreshness>,
    ) -> impl Fn() -> String + Send + Sync + use<> {
        let metrics = self.clone();
        move || metrics.text(&index, &pulse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_are_counted_where_they_belong_and_every_figure_is_there_from_the_start() {
        let (metrics, index) = (Metrics::new(), Index::default());
        let pulse = IndexFreshness::new(1, Duration::from_secs(300));
        let before = metrics.text(&index, &pulse);
        for protocol in Protocol::ALL {
            for reason in Reason::ALL {
                metrics.decided(protocol, reason, Duration::from_micros(1));
                metrics.decided(protocol, reason, Duration::from_micros(1));
            }
        }
        let after = metrics.text(&index, &pulse);
        for protocol in Protocol::ALL {
            for reason in Reason::ALL {
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
