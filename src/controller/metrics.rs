//! The controller's metrics. Gauges are computed from the stores at each scrape, so that none is stale. No label names an object,
//! except for issuers, of which there are few.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use k8s_openapi::jiff::SignedDuration;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::{
    error::Error,
    gate::ReconcileGate,
    issuers::Issuers,
    stores::{Stores, WatchedKind},
};
use crate::api::{ConditionType, CredentialState, PersonalAccessTokenStatus, Reason, Time};
use crate::planner::EventReason;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Category {
    category: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    ready: String,
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByState {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByKind {
    kind: &'static str,
}

type Seconds = Gauge<f64, AtomicU64>;

/// How long the users of a Secret may take to pick up a new token: a kubelet checks about every minute.
const PICK_UP_TIME: SignedDuration = SignedDuration::from_mins(5);

/// The metrics of one controller.
pub struct Metrics {
    registry: Registry,
    mints: Counter,
    rotations: Counter,
    revocations: Counter,
    repairs: Counter,
    refusals: Counter,
    errors: Family<Category, Counter>,
    watch_errors: Family<ByKind, Counter>,
    duration: Histogram,
    queue_lag: Histogram,
    tokens: Family<ByReason, Gauge>,
    credentials: Family<ByState, Gauge>,
    secrets: Gauge,
    queue_depth: Gauge,
    queue_due: Gauge,
    queue_oldest: Seconds,
    nearest_expiry: Seconds,
    nearest_rotation: Seconds,
    nearest_grace_end: Seconds,
    leader: Gauge,
    clock_skew: Seconds,
}

impl Metrics {
    /// Creates all metrics at zero.
    pub fn new() -> Self {
        let buckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
        let mut metrics = Self {
            registry: Registry::with_prefix("pat_operator"),
            mints: Counter::default(),
            rotations: Counter::default(),
            revocations: Counter::default(),
            repairs: Counter::default(),
            refusals: Counter::default(),
            errors: Family::default(),
            watch_errors: Family::default(),
            duration: Histogram::new(buckets),
            queue_lag: Histogram::new(buckets),
            tokens: Family::default(),
            credentials: Family::default(),
            secrets: Gauge::default(),
            queue_depth: Gauge::default(),
            queue_due: Gauge::default(),
            queue_oldest: Seconds::default(),
            nearest_expiry: Seconds::default(),
            nearest_rotation: Seconds::default(),
            nearest_grace_end: Seconds::default(),
            leader: Gauge::default(),
            clock_skew: Seconds::default(),
        };
        metrics.register();
        metrics
    }

    /// Adds the metrics of issuers, if the controller serves any.
    #[must_use]
    pub fn with_issuers(mut self, issuers: Option<&Arc<Issuers>>) -> Self {
        if let Some(issuers) = issuers {
            issuers.register_metrics(&mut self.registry);
            for kind in [WatchedKind::Issuer, WatchedKind::ClusterIssuer] {
                let _ = self.watch_errors.get_or_create(&ByKind { kind: kind.as_str() });
            }
        }
        self
    }

    fn register(&mut self) {
        self.register_counters();
        self.register_gauges();
        for category in Error::CATEGORIES {
            let _ = self.errors.get_or_create(&Category { category });
        }
        for kind in [WatchedKind::Pat, WatchedKind::Secret, WatchedKind::Owner] {
            let _ = self.watch_errors.get_or_create(&ByKind { kind: kind.as_str() });
        }
    }

    fn register_counters(&mut self) {
        let registry = &mut self.registry;
        registry.register("mints", "Tokens written to Secrets", self.mints.clone());
        registry.register("rotations", "Tokens replaced with a grace period", self.rotations.clone());
        registry.register("revocations", "Tokens revoked by their spec", self.revocations.clone());
        registry.register("repairs", "Secrets repaired after another client changed them", self.repairs.clone());
        registry.register("refused_writes", "Writes to Secrets that the API server refused", self.refusals.clone());
        registry.register("reconcile_errors", "Failed reconciles by category", self.errors.clone());
        registry.register("watch_errors", "Interruptions of watches", self.watch_errors.clone());
        registry.register_with_unit(
            "reconcile_duration",
            "Duration of reconciles",
            Unit::Seconds,
            self.duration.clone(),
        );
        registry.register_with_unit(
            "queue_lag",
            "Delay between the time at which a reconcile is due and its start",
            Unit::Seconds,
            self.queue_lag.clone(),
        );
    }

    fn register_gauges(&mut self) {
        let registry = &mut self.registry;
        registry.register("tokens", "PersonalAccessTokens by their Ready condition", self.tokens.clone());
        registry.register("credentials", "Live credentials by state", self.credentials.clone());
        registry.register("secrets", "Secrets that the operator manages", self.secrets.clone());
        registry.register(
            "queue_depth",
            "PersonalAccessTokens that wait for their next reconcile",
            self.queue_depth.clone(),
        );
        registry.register("queue_due", "PersonalAccessTokens whose reconcile is due", self.queue_due.clone());
        registry.register_with_unit(
            "queue_oldest_due",
            "How long the oldest due reconcile has been due",
            Unit::Seconds,
            self.queue_oldest.clone(),
        );
        registry.register_with_unit(
            "nearest_expiry",
            "Time until the first token expires that no rotation will replace; +Inf if there is none",
            Unit::Seconds,
            self.nearest_expiry.clone(),
        );
        registry.register_with_unit(
            "nearest_rotation",
            "Time until the next rotation, negative if it is overdue; +Inf if there is none",
            Unit::Seconds,
            self.nearest_rotation.clone(),
        );
        registry.register_with_unit(
            "nearest_grace_end_in_use",
            "Time until the first replaced token expires that is still in use; +Inf if there is none",
            Unit::Seconds,
            self.nearest_grace_end.clone(),
        );
        registry.register("leader", "1 if this instance leads", self.leader.clone());
        registry.register_with_unit(
            "clock_skew",
            "How far the clock of this instance is ahead of the API server's, negative if it is behind; 0 before it is measured",
            Unit::Seconds,
            self.clock_skew.clone(),
        );
    }

    /// Counts a token that was written to a Secret.
    pub fn minted(&self) {
        self.mints.inc();
    }

    /// Counts a write to a Secret that the API server refused.
    pub fn refused(&self) {
        self.refusals.inc();
    }

    /// Counts the change that an event reports.
    pub fn event_published(&self, reason: EventReason) {
        match reason {
            EventReason::Rotated => self.rotations.inc(),
            EventReason::CredentialRevoked | EventReason::Condition(Reason::Revoked | Reason::NotDelivered) => {
                self.revocations.inc()
            }
            EventReason::Repaired => self.repairs.inc(),
            _ => 0,
        };
    }

    /// Counts an error of a step.
    pub fn step_failed(&self, error: &Error) {
        self.errors.get_or_create(&Category { category: error.category() }).inc();
    }

    /// Counts a reconcile, its duration and its error.
    pub fn reconciled(&self, took: Duration, lag: Duration, error: Option<&Error>) {
        self.duration.observe(took.as_secs_f64());
        self.queue_lag.observe(lag.as_secs_f64());
        error.into_iter().for_each(|error| self.step_failed(error));
    }

    /// Records how far the clock is ahead of the API server's.
    pub fn clock_skewed_by(&self, skew: SignedDuration) {
        self.clock_skew.set(skew.as_secs_f64());
    }

    /// Counts an interruption of a watch.
    pub fn watch_failed(&self, kind: WatchedKind) {
        self.watch_errors.get_or_create(&ByKind { kind: kind.as_str() }).inc();
    }

    /// Returns the text of `/metrics`.
    pub fn text(&self, stores: &Stores, gate: &ReconcileGate, leads: bool, now: Time) -> String {
        self.update_gauges(stores, now);
        let (depth, due) = gate.depth();
        self.queue_depth.set(depth as i64);
        self.queue_due.set(due as i64);
        self.queue_oldest.set(gate.lag().as_secs_f64());
        self.leader.set(i64::from(leads));
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            tracing::warn!("cannot encode metrics");
        }
        text
    }

    fn update_gauges(&self, stores: &Stores, now: Time) {
        let mut tokens: BTreeMap<(String, String), i64> = BTreeMap::new();
        let mut credentials = [0i64; 4];
        let (mut expiry, mut rotation, mut grace) = (f64::INFINITY, f64::INFINITY, f64::INFINITY);
        for pat in stores.pats().state() {
            let Ok(status) = &pat.status else { continue };
            let ready = status.conditions.iter().find(|condition| condition.type_ == ConditionType::Ready.as_str());
            let key = ready.map_or_else(
                || ("Unknown".to_owned(), Reason::Issuing.as_str().to_owned()),
                |ready| (ready.status.to_string(), ready.reason.to_string()),
            );
            *tokens.entry(key).or_default() += 1;
            for credential in status.all_credentials() {
                credentials[credential.state as usize] += 1;
            }
            if status.live().next().is_none() {
                continue;
            }
            if let Some(end) = status.expires_at {
                expiry = expiry.min(end.since(now).as_secs_f64());
            }
            if let Some(next) = status.next_rotation_at {
                rotation = rotation.min(next.since(now).as_secs_f64());
            }
            for end in in_use_until(status) {
                grace = grace.min(end.since(now).as_secs_f64());
            }
        }
        self.tokens.clear();
        for ((ready, reason), count) in tokens {
            self.tokens.get_or_create(&ByReason { ready, reason }).set(count);
        }
        for state in
            [CredentialState::Pending, CredentialState::Active, CredentialState::Grace, CredentialState::Revoking]
        {
            self.credentials.get_or_create(&ByState { state: state.as_str() }).set(credentials[state as usize]);
        }
        self.secrets.set(stores.secret_count() as i64);
        self.nearest_expiry.set(expiry);
        self.nearest_rotation.set(rotation);
        self.nearest_grace_end.set(grace);
    }
}

/// Returns the expiry of replaced tokens that were used long after their successor was issued.
fn in_use_until(status: &PersonalAccessTokenStatus) -> impl Iterator<Item = Time> {
    let replaced = status.credentials.iter().find(|one| one.state == CredentialState::Active).map(|one| one.issued_at);
    let in_grace = status.credentials.iter().filter(|one| one.state == CredentialState::Grace);
    in_grace.filter_map(move |one| {
        let used = status.usage.get(one.id.as_str())?;
        one.expires_at.filter(|_| replaced.is_some_and(|replaced| *used > replaced.plus(PICK_UP_TIME)))
    })
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn replaced_token_counts_as_in_use_if_used_long_after_its_successor_was_issued() {
        let ends = |active: serde_json::Value, used: Option<&str>| -> Vec<String> {
            let grace = json!({
                "id": "000000000001", "revision": 1, "sha256": "a".repeat(64), "state": "Grace",
                "issuedAt": "2026-01-01T00:00:00Z", "expiresAt": "2026-02-02T00:00:00Z",
            });
            let usage = used.map(|used| json!({"000000000001": used, "000000000002": "2026-02-01T23:00:00Z"}));
            let credentials: Vec<_> = [active, grace].into_iter().filter(|one| !one.is_null()).collect();
            let status = json!({"credentials": credentials, "usage": usage.unwrap_or_else(|| json!({}))});
            let status = serde_json::from_value(status).unwrap();
            in_use_until(&status).map(|end| end.to_string()).collect()
        };
        let active = json!({
            "id": "000000000002", "revision": 2, "sha256": "b".repeat(64), "state": "Active", "issuedAt": "2026-02-01T00:00:00Z",
        });
        let none: [&str; 0] = [];
        assert_eq!(ends(active.clone(), None), none);
        assert_eq!(ends(active.clone(), Some("2026-01-31T12:00:00Z")), none, "before it was replaced");
        assert_eq!(ends(active.clone(), Some("2026-02-01T00:05:00Z")), none, "a kubelet needs some time");
        assert_eq!(ends(active, Some("2026-02-01T00:05:01Z")), ["2026-02-02T00:00:00Z"]);
        assert_eq!(ends(json!(null), Some("2026-02-01T12:00:00Z")), none, "it was revoked and not replaced");
    }
}
