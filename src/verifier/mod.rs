//! The verifier: is this token good, whose is it, what may it do. One decision, and one thin file for each protocol over it.
//!
//! It answers from memory and must not know the controller.

pub mod decision;
pub mod metrics;

use std::sync::Arc;

use self::{
    decision::{Decision, Demand, Freshness, decide},
    metrics::Metrics,
};
use crate::{index::Index, runtime::Clock};

/// The protocols, as metrics and the audit log name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// RFC 7662.
    Introspection,
    /// The API server's webhook.
    TokenReview,
    /// nginx, Traefik, Caddy.
    ForwardAuth,
    /// Envoy's ext_authz over HTTP.
    EnvoyHttp,
    /// Envoy's ext_authz over gRPC.
    EnvoyGrpc,
}

/// What every protocol asks. Cheap to share; nothing in it waits for anything.
pub struct Verifier {
    index: Arc<Index>,
    freshness: Box<dyn Fn() -> Freshness + Send + Sync>,
    clock: Clock,
    metrics: Arc<Metrics>,
}

impl Verifier {
    /// A verifier over this index; `freshness` tells how far to trust it.
    pub fn new(
        index: Arc<Index>,
        freshness: impl Fn() -> Freshness + Send + Sync + 'static,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { index, freshness: Box::new(freshness), clock, metrics }
    }

    /// Decides on what somebody presented, counts it, logs it and notes the use of what is let in.
    pub fn check(&self, protocol: Protocol, token: &[u8], demand: &Demand<'_>) -> Decision {
        let now = self.clock.now().into();
        let decision = decide(&self.index, (self.freshness)(), token, demand, now);
        if let Decision::Allow(record) = &decision {
            record.credential().mark_used(now);
        }
        self.metrics.decided(protocol, &decision);
        decision
    }

    /// The index that it decides by.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The clock that it decides by.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// How far the index can be trusted at this moment.
    pub fn freshness(&self) -> Freshness {
        (self.freshness)()
    }
}
