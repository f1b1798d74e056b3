//! The verifier: answers whether a token is valid, who owns it and what it permits.
//!
//! It answers from memory. [`Verifier::check`] asks [`crate::auth::decision`], counts and logs the decision, and records the use.
//! One file per protocol translates the result:
//!
//! | protocol | file |
//! | --- | --- |
//! | RFC 7662 introspection | `introspection.rs`; `caller.rs` authenticates its callers |
//! | RFC 8414 server metadata | `metadata.rs` |
//! | Kubernetes TokenReview | `tokenreview.rs` |
//! | forward auth (nginx, Traefik, Caddy) and Envoy over HTTP | `forward_auth.rs` |
//! | Envoy over gRPC | `envoy_grpc.rs` |
//!
//! To add a protocol, add a variant to [`Protocol`], a file here, and a route in `http.rs`. Protocols of proxies share `proxy.rs`
//! and `requirements.rs`.

mod audit;
mod caller;
pub mod envoy_grpc;
pub mod forward_auth;
pub mod http;
pub mod introspection;
pub mod metadata;
pub mod metrics;
pub mod preflight;
mod proxy;
pub mod reason;
pub mod requirements;
mod response;
mod service_account;
mod sharded;
#[cfg(test)]
mod tests;
pub mod tokenreview;

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use tracing::{Span, debug_span};

use self::{audit::AuditLog, metrics::Metrics, reason::DecisionReason};
use crate::{
    auth::decision::{Decision, Denial, Requirements, Unavailable, decide},
    index::{CredentialRef, Freshness, Index, OwnerProfile},
    service::{Clock, http::MemoryBudget},
    token::{ParseError, Presented},
};

/// The protocols, as metrics and the audit log name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// RFC 7662 token introspection.
    Introspection,
    /// The Kubernetes TokenReview webhook.
    TokenReview,
    /// Forward auth of nginx, Traefik and Caddy.
    ForwardAuth,
    /// Envoy's external authorization over HTTP.
    EnvoyHttp,
    /// Envoy's external authorization over gRPC.
    EnvoyGrpc,
}

impl Protocol {
    /// All protocols, in the order of their discriminants.
    pub const ALL: [Self; 5] =
        [Self::Introspection, Self::TokenReview, Self::ForwardAuth, Self::EnvoyHttp, Self::EnvoyGrpc];

    /// Returns the name in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Introspection => "introspection",
            Self::TokenReview => "tokenreview",
            Self::ForwardAuth => "forward-auth",
            Self::EnvoyHttp => "envoy-http",
            Self::EnvoyGrpc => "envoy-grpc",
        }
    }

    /// Returns a span for one request, which exists only at level debug. It holds no token, nor anything else of the request.
    fn span(self) -> Span {
        debug_span!("verify", protocol = self.as_str())
    }
}

/// Measures the duration of a request until it is dropped.
pub struct RequestTimer<'a> {
    metrics: &'a Metrics,
    protocol: Protocol,
    started: Instant,
}

impl Drop for RequestTimer<'_> {
    fn drop(&mut self) {
        self.metrics.request_finished(self.protocol, self.started.elapsed());
    }
}

/// Why a protocol rejects a valid token.
pub trait ProtocolRejection {
    /// Returns the reason for metrics and the audit log.
    fn reason(&self) -> DecisionReason;
}

impl ProtocolRejection for Infallible {
    fn reason(&self) -> DecisionReason {
        match *self {}
    }
}

/// The result of a check, including the protocol's own conditions.
#[derive(Clone, Debug)]
pub enum CheckResult<T, R> {
    /// The token is accepted.
    Allow(CredentialRef, T),
    /// The token is valid, but the protocol rejects it.
    Reject(CredentialRef, R),
    /// The token is not valid or does not meet the requirements.
    Deny(Denial<CredentialRef>),
    /// The index is not current enough for a decision.
    Unavailable(Unavailable),
}

impl<T, R> CheckResult<T, R> {
    /// Returns the record of the token, if it is known.
    fn record(&self) -> Option<&CredentialRef> {
        match self {
            Self::Allow(record, _) | Self::Reject(record, _) => Some(record),
            Self::Deny(denial) => denial.credential(),
            Self::Unavailable(_) => None,
        }
    }
}

/// The verifier that all protocols share. No method waits for anything.
pub struct Verifier {
    index: Arc<Index>,
    freshness: Box<dyn Fn() -> Freshness + Send + Sync>,
    clock: Clock,
    metrics: Arc<Metrics>,
    audit: AuditLog,
    memory: Arc<MemoryBudget>,
    draining: AtomicBool,
}

impl Verifier {
    /// Creates a verifier over this index; `freshness` returns how current the index is.
    pub fn new(
        index: Arc<Index>,
        freshness: impl Fn() -> Freshness + Send + Sync + 'static,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            index,
            freshness: Box::new(freshness),
            clock,
            metrics,
            audit: AuditLog::default(),
            memory: Arc::default(),
            draining: AtomicBool::new(false),
        }
    }

    /// Sets the memory budget of all requests together.
    #[must_use]
    pub fn with_memory(self, memory: MemoryBudget) -> Self {
        Self { memory: Arc::new(memory), ..self }
    }

    /// Returns the memory budget that all requests share.
    pub fn memory(&self) -> &Arc<MemoryBudget> {
        &self.memory
    }

    /// Reports the verifier as not serving from now on. It still answers requests.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Reports whether clients should send requests here: it is not draining, and its index is current enough for decisions.
    pub fn is_serving(&self) -> bool {
        !self.draining.load(Ordering::Relaxed) && matches!(self.freshness(), Freshness::Fresh | Freshness::Stale)
    }

    /// Starts to measure a request whose header has arrived. Dropping the timer ends the measurement.
    pub fn start_timer(&self, protocol: Protocol) -> RequestTimer<'_> {
        RequestTimer { metrics: &self.metrics, protocol, started: Instant::now() }
    }

    /// Decides on a presented token, counts and logs the decision, and records the use of an accepted token.
    pub fn check(&self, protocol: Protocol, token: &[u8], requirements: &Requirements<'_>) -> Decision<CredentialRef> {
        match self.check_and_admit(protocol, token, requirements, |_| Ok::<(), Infallible>(())) {
            CheckResult::Allow(record, ()) => Decision::Allow(record),
            CheckResult::Reject(_, never) => match never {},
            CheckResult::Deny(denial) => Decision::Deny(denial),
            CheckResult::Unavailable(reason) => Decision::Unavailable(reason),
        }
    }

    /// Does the same as [`check`](Self::check) for a protocol that may reject a valid token.
    ///
    /// For a valid token, `admit` either returns what the answer needs or rejects the token. The final result is counted and
    /// logged.
    pub fn check_and_admit<'t, T, R: ProtocolRejection>(
        &self,
        protocol: Protocol,
        token: impl TryInto<Presented<'t>, Error: Into<ParseError>>,
        requirements: &Requirements<'_>,
        admit: impl FnOnce(&CredentialRef) -> Result<T, R>,
    ) -> CheckResult<T, R> {
        let started = Instant::now();
        let now = self.clock.now().into();
        let decision = decide(&*self.index, (self.freshness)(), token, requirements, now);
        let duration = started.elapsed();
        let decided = DecisionReason::of(&decision);
        let (reason, result) = match decision {
            Decision::Allow(record) => match admit(&record) {
                Ok(admitted) => {
                    self.index.mark_used(&record, now);
                    (decided, CheckResult::Allow(record, admitted))
                }
                Err(rejection) => (rejection.reason(), CheckResult::Reject(record, rejection)),
            },
            Decision::Deny(denial) => (decided, CheckResult::Deny(denial)),
            Decision::Unavailable(why) => (decided, CheckResult::Unavailable(why)),
        };
        self.metrics.decided(protocol, reason, duration);
        self.audit.decided(protocol, result.record(), reason, now);
        result
    }

    /// Returns the profile of a token's owner, if a `TokenOwner` describes it.
    pub fn owner_of(&self, record: &CredentialRef) -> Option<Arc<OwnerProfile>> {
        self.index.owners().get(record.pat.subject())
    }

    /// Returns how current the index is.
    pub fn freshness(&self) -> Freshness {
        (self.freshness)()
    }
}
