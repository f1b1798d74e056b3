//! What is counted of certificates that are looked after here. It must not change anything.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode_registry},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

use super::Error;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Category {
    category: &'static str,
}

/// All figures of one keeper.
pub struct Metrics {
    registry: Registry,
    renewals: Counter,
    errors: Family<Category, Counter>,
    nearest: Gauge<f64, AtomicU64>,
}

impl Metrics {
    /// Every figure at zero.
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("pat_operator"),
            renewals: Counter::default(),
            errors: Family::default(),
            nearest: Gauge::default(),
        };
        let registry = &mut metrics.registry;
        registry.register(
            "serving_certificate_renewals",
            "Serving certificates made by this instance",
            metrics.renewals.clone(),
        );
        registry.register(
            "serving_certificate_errors",
            "Failures to look after a serving certificate, by category",
            metrics.errors.clone(),
        );
        registry.register_with_unit(
            "nearest_serving_certificate_expiry",
            "Time to the nearest end of a serving certificate that this instance looks after; +Inf if there is none",
            Unit::Seconds,
            metrics.nearest.clone(),
        );
        for category in Error::CATEGORIES {
            let _ = metrics.errors.get_or_create(&Category { category });
        }
        metrics
    }

    /// A certificate was made.
    pub fn renewed(&self) {
        self.renewals.inc();
    }

    /// Something failed.
    pub fn failed(&self, error: &Error) {
        self.errors.get_or_create(&Category { category: error.category() }).inc();
    }

    /// The families for `/metrics`, without the mark of the end: others follow.
    pub fn text(&self, nearest: f64) -> String {
        self.nearest.set(nearest);
        let mut text = String::new();
        if encode_registry(&mut text, &self.registry).is_err() {
            tracing::warn!("metrics could not be written");
        }
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
