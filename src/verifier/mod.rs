//! The verifier: is this token good, whose is it, what may it do. One decision, and one thin file for each protocol over it.
//!
//! It answers from memory and must not know the controller.

pub mod audit;
pub mod caller;
pub mod challenge;
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
mod striped;
pub mod tokenreview;

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use self::{audit::Audit, metrics::Metrics, reason::Reason};
use crate::{
    auth::decision::{Decision, Demand, Denial, Unavailable, decide},
    index::{CredentialRef, Freshness, Index, OwnerProfile},
    service::{Clock, http::Budget},
    token::{ParseError, Presented},
};

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

/// A request that is being timed, until it is dropped.
pub struct Timing<'a> {
    metrics: &'a Metrics,
    protocol: Protocol,
    began: Instant,
}

impl Drop for Timing<'_> {
    fn drop(&mut self) {
        self.metrics.answered(self.protocol, self.began.elapsed());
    }
}

/// Why a protocol does not let a good token in.
pub trait Refusal {
    /// As which it is counted.
    fn reason(&self) -> Reason;
}

impl Refusal for Infallible {
    fn reason(&self) -> Reason {
        match *self {}
    }
}

/// What came of a check in the end.
#[derive(Clone, Debug)]
pub enum Checked<T, R> {
    /// It is let in.
    Allow(CredentialRef, T),
    /// It is good, but the protocol cannot let it in.
    Refused(CredentialRef, R),
    /// It is not good for what is asked.
    Deny(Denial),
    /// Nobody can tell at the moment.
    Unavailable(Unavailable),
}

impl<T, R> Checked<T, R> {
    /// Which token it was, if it is known.
    fn record(&self) -> Option<&CredentialRef> {
        match self {
            Self::Allow(record, _) | Self::Refused(record, _) => Some(record),
            Self::Deny(denial) => denial.record(),
            Self::Unavailable(_) => None,
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
    memory: Arc<Budget>,
    draining: AtomicBool,
}

impl Verifier {
    /// A verifier over this index; `freshness` tells how far to trust it.
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
            audit: Audit::default(),
            memory: Arc::default(),
            draining: AtomicBool::new(false),
        }
    }

    /// The same within so much memory for what is asked.
    #[must_use]
    pub fn with_memory(self, memory: Budget) -> Self {
        Self { memory: Arc::new(memory), ..self }
    }

    /// The memory that all requests share.
    pub fn memory(&self) -> &Arc<Budget> {
        &self.memory
    }

    /// From now on nobody should be sent here, though whoever comes is still answered.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether others should be sent here: it has not been told to stop, and not every answer would be that nobody can tell.
    pub fn is_serving(&self) -> bool {
        !self.draining.load(Ordering::Relaxed) && matches!(self.freshness(), Freshness::Fresh | Freshness::Stale)
    }

    /// Begins to time a request to a protocol, whose header is in; it ends when what is returned is dropped.
    pub fn time(&self, protocol: Protocol) -> Timing<'_> {
        Timing { metrics: &self.metrics, protocol, began: Instant::now() }
    }

    /// Decides on what somebody presented, counts it, logs it and notes the use of what is let in.
    pub fn check(&self, protocol: Protocol, token: &[u8], demand: &Demand<'_>) -> Decision {
        match self.check_for(protocol, token, demand, |_| Ok::<(), Infallible>(())) {
            Checked::Allow(record, ()) => Decision::Allow(record),
            Checked::Refused(_, never) => match never {},
            Checked::Deny(denial) => Decision::Deny(denial),
            Checked::Unavailable(reason) => Decision::Unavailable(reason),
        }
    }

    /// The same for a protocol that has a say itself in whether it can let a good token in: `admit` makes what the answer
    /// needs of it, or refuses. What is counted and logged is what came of it in the end.
    pub fn check_for<'t, T, R: Refusal>(
        &self,
        protocol: Protocol,
        token: impl TryInto<Presented<'t>, Error: Into<ParseError>>,
        demand: &Demand<'_>,
        admit: impl FnOnce(&CredentialRef) -> Result<T, R>,
    ) -> Checked<T, R> {
        let began = Instant::now();
        let now = self.clock.now().into();
        let decision = decide(&self.index, (self.freshness)(), token, demand, now);
        let took = began.elapsed();
        let judged = Reason::of(&decision);
        let (reason, checked) = match decision {
            Decision::Allow(record) => match admit(&record) {
                Ok(admitted) => {
                    self.index.mark_used(&record, now);
                    (judged, Checked::Allow(record, admitted))
                }
                Err(refusal) => (refusal.reason(), Checked::Refused(record, refusal)),
            },
            Decision::Deny(denial) => (judged, Checked::Deny(denial)),
            Decision::Unavailable(why) => (judged, Checked::Unavailable(why)),
        };
        self.metrics.decided(protocol, reason, took);
        self.audit.decided(protocol, checked.record(), reason, now);
        checked
    }

    /// What is known of the owner of a token, beside the name.
    pub fn owner_of(&self, record: &CredentialRef) -> Option<Arc<OwnerProfile>> {
        self.index.owners().get(record.pat.subject())
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
