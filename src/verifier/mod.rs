//! The verifier: is this token good, whose is it, what may it do. One decision, and one thin file for each protocol over it.
//!
//! It answers from memory and must not know the controller.

pub mod audit;
pub mod caller;
pub mod challenge;
pub mod credential;
pub mod decision;
pub mod demand;
pub mod envoy_grpc;
pub mod envoy_http;
pub mod forward_auth;
pub mod histogram;
pub mod http;
pub mod identity;
pub mod introspection;
pub mod metadata;
pub mod metrics;
pub mod outcome;
pub mod preflight;
pub mod reason;
pub mod reply;
pub mod service_account;
pub mod tokenreview;
pub mod usage;

use std::{sync::Arc, time::Instant};

use self::{
    audit::Audit,
    decision::{Decision, Demand, Freshness, decide},
    metrics::Metrics,
    reason::Reason,
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

impl Protocol {
    /// All of them, each at the place of its number.
    pub const ALL: [Self; 5] =
        [Self::Introspection, Self::TokenReview, Self::ForwardAuth, Self::EnvoyHttp, Self::EnvoyGrpc];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Introspection => "introspection",
            Self::TokenReview => "tokenreview",
            Self::ForwardAuth => "forward-auth",
            Self::EnvoyHttp => "envoy-http",
            Self::EnvoyGrpc => "envoy-grpc",
        }
    }
}

/// What every protocol asks. Cheap to share; nothing in it waits for anything.
pub struct Verifier {
    index: Arc<Index>,
    freshness: Box<dyn Fn() -> Freshness + Send + Sync>,
    clock: Clock,
    metrics: Arc<Metrics>,
    audit: Audit,
}

impl Verifier {
    /// A verifier over this index; `freshness` tells how far to trust it.
    pub fn new(
        index: Arc<Index>,
        freshness: impl Fn() -> Freshness + Send + Sync + 'static,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { index, freshness: Box::new(freshness), clock, metrics, audit: Audit::default() }
    }

    /// Decides on what somebody presented, counts it, logs it and notes the use of what is let in.
    pub fn check(&self, protocol: Protocol, token: &[u8], demand: &Demand<'_>) -> Decision {
        let began = Instant::now();
        let now = self.clock.now().into();
        let decision = decide(&self.index, (self.freshness)(), token, demand, now);
        if let Decision::Allow(record) = &decision {
            self.index.mark_used(record, now);
        }
        let reason = Reason::of(&decision);
        self.metrics.decided(protocol, reason, began.elapsed());
        self.audit.decided(protocol, &decision, reason, now);
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
