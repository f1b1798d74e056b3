//! How it stands with the certificate that is served with, for `/metrics`.
//!
//! It is read when somebody asks, so nothing goes stale. It must not change anything.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::{
    encoding::text::encode_registry,
    metrics::{counter::Counter, gauge::Gauge},
    registry::{Registry, Unit},
};

use super::Tls;
use crate::service::Clock;

type Seconds = Gauge<f64, AtomicU64>;

/// The figures of one server, with a certificate or without.
pub struct Figures {
    registry: Registry,
    tls: Option<Tls>,
    clock: Clock,
    expiry: Seconds,
    lifetime: Seconds,
    reloads: Counter,
    unusable: Gauge,
}

impl Figures {
    /// The figures of this certificate, if there is one.
    pub fn new(tls: Option<Tls>, clock: Clock) -> Self {
        let mut figures = Self {
            registry: Registry::with_prefix("pat_operator"),
            tls,
            clock,
            expiry: Seconds::default(),
            lifetime: Seconds::default(),
            reloads: Counter::default(),
            unusable: Gauge::default(),
        };
        let registry = &mut figures.registry;
        registry.register_with_unit(
            "tls_certificate_expiry",
            "Time to the end of the certificate that is served with; +Inf without TLS",
            Unit::Seconds,
            figures.expiry.clone(),
        );
        registry.register_with_unit(
            "tls_certificate_lifetime",
            "How long that certificate is good for from its beginning to its end; +Inf without TLS",
            Unit::Seconds,
            figures.lifetime.clone(),
        );
        registry.register(
            "tls_reloads",
            "How often that certificate was replaced by a newer one",
            figures.reloads.clone(),
        );
        registry.register(
            "tls_files_unusable",
            "1 while the files hold something else than what is served with, and that is of no use",
            figures.unusable.clone(),
        );
        figures
    }

    /// The families for `/metrics`, without the mark of the end: others follow.
    pub fn text(&self) -> String {
        let status = self.tls.as_ref().map(Tls::status);
        let (mut expiry, mut lifetime) = (f64::INFINITY, f64::INFINITY);
        if let Some(status) = &status {
            expiry = status.validity.until.duration_since(self.clock.now()).as_secs_f64();
            lifetime = status.validity.until.duration_since(status.validity.from).as_secs_f64();
            self.reloads.inner().store(status.reloads, Ordering::Relaxed);
        }
        self.expiry.set(expiry);
        self.lifetime.set(lifetime);
        self.unusable.set(i64::from(status.is_some_and(|status| status.failure.is_some())));
        let mut text = String::new();
        if encode_registry(&mut text, &self.registry).is_err() {
            tracing::warn!("metrics could not be written");
        }
        text
    }
}
