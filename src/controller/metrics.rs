//! The controller's figures. Counters count as things happen; gauges are read from the caches when somebody asks, so nothing goes stale.
//!
//! No object's name is a label. It must not change anything.

use std::{collections::BTreeMap, sync::atomic::AtomicU64, time::Duration};

use k8s_openapi::jiff::SignedDuration;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::{cache::Cache, error::Error, queue::Queue, reconcile::counts_as};
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

/// How long whoever reads a Secret may take to hear of a new token: a kubelet looks every minute or so.
const TO_BE_PICKED_UP: SignedDuration = SignedDuration::from_mins(5);

/// All figures of one controller.
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
}

impl Metrics {
    /// Every figure at zero.
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
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("mints", "Tokens put into Secrets", self.mints.clone());
        registry.register("rotations", "Tokens replaced with a grace period", self.rotations.clone());
        registry.register("revocations", "Tokens revoked by their spec", self.revocations.clone());
        registry.register("repairs", "Secrets put right after somebody changed them", self.repairs.clone());
        registry.register("refused_writes", "Writes to Secrets that the API server refused", self.refusals.clone());
        registry.register("reconcile_errors", "Failed runs, by category", self.errors.clone());
        registry.register("watch_errors", "Interruptions of watches", self.watch_errors.clone());
        registry.register_with_unit("reconcile_duration", "How long runs take", Unit::Seconds, self.duration.clone());
        registry.register_with_unit(
            "queue_lag",
            "How long after its due time a run begins",
            Unit::Seconds,
            self.queue_lag.clone(),
        );
        registry.register("tokens", "PersonalAccessTokens by their Ready condition", self.tokens.clone());
        registry.register("credentials", "Live credentials by state", self.credentials.clone());
        registry.register("secrets", "Secrets of this operator", self.secrets.clone());
        registry.register("queue_depth", "Tokens with a deadline in the queue", self.queue_depth.clone());
        registry.register("queue_due", "Tokens in the queue that are due", self.queue_due.clone());
        registry.register_with_unit(
            "queue_oldest_due",
            "How long the token that is due longest has been due",
            Unit::Seconds,
            self.queue_oldest.clone(),
        );
        registry.register_with_unit(
            "nearest_expiry",
            "Time to the nearest end of a token that no rotation will put off; +Inf if there is none",
            Unit::Seconds,
            self.nearest_expiry.clone(),
        );
        registry.register_with_unit(
            "nearest_rotation",
            "Time to the nearest rotation, negative if it is overdue; +Inf if there is none",
            Unit::Seconds,
            self.nearest_rotation.clone(),
        );
        registry.register_with_unit(
            "nearest_grace_end_in_use",
            "Time to the nearest end of a replaced token that somebody still uses; +Inf if there is none",
            Unit::Seconds,
            self.nearest_grace_end.clone(),
        );
        registry.register("leader", "1 if this instance leads", self.leader.clone());
        for category in Error::CATEGORIES {
            let _ = self.errors.get_or_create(&Category { category });
        }
        for kind in ["PersonalAccessToken", "Secret"] {
            let _ = self.watch_errors.get_or_create(&ByKind { kind });
        }
    }

    /// A token went into a Secret.
    pub fn minted(&self) {
        self.mints.inc();
    }

    /// The API server refused a write to a Secret.
    pub fn refused(&self) {
        self.refusals.inc();
    }

    /// Something was told.
    pub fn told(&self, reason: EventReason) {
        match counts_as(reason) {
            Some("rotation") => self.rotations.inc(),
            Some("revocation") => self.revocations.inc(),
            Some("repair") => self.repairs.inc(),
            _ => 0,
        };
    }

    /// A run had to look again.
    pub fn conflict(&self, error: &Error) {
        self.errors.get_or_create(&Category { category: error.category() }).inc();
    }

    /// A run ended.
    pub fn ran(&self, took: Duration, lag: Duration, error: Option<&Error>) {
        self.duration.observe(took.as_secs_f64());
        self.queue_lag.observe(lag.as_secs_f64());
        if let Some(error) = error {
            self.errors.get_or_create(&Category { category: error.category() }).inc();
        }
    }

    /// A watch was interrupted.
    pub fn watch_failed(&self, kind: &'static str) {
        self.watch_errors.get_or_create(&ByKind { kind }).inc();
    }

    /// The text that `/metrics` serves.
    pub fn text(&self, cache: &Cache, queue: &Queue, leads: bool, now: Time) -> String {
        self.survey(cache, now);
        let (depth, due) = queue.depth();
        self.queue_depth.set(depth as i64);
        self.queue_due.set(due as i64);
        self.queue_oldest.set(queue.lag().as_secs_f64());
        self.leader.set(i64::from(leads));
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            tracing::warn!("metrics could not be written");
        }
        text
    }

    fn survey(&self, cache: &Cache, now: Time) {
        let mut tokens: BTreeMap<(String, String), i64> = BTreeMap::new();
        let mut credentials = [0i64; 3];
        let (mut expiry, mut rotation, mut grace) = (f64::INFINITY, f64::INFINITY, f64::INFINITY);
        cache.for_each_pat(|pat| {
            let Ok(status) = &pat.status else { return };
            let ready = status.conditions.iter().find(|condition| condition.type_ == ConditionType::Ready.as_str());
            let key = ready.map_or_else(
                || ("Unknown".to_owned(), Reason::Issuing.as_str().to_owned()),
                |ready| (ready.status.to_string(), ready.reason.to_string()),
            );
            *tokens.entry(key).or_default() += 1;
            for credential in &status.credentials {
                credentials[credential.state as usize] += 1;
            }
            if status.credentials.is_empty() {
                return;
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
        });
        self.tokens.clear();
        for ((ready, reason), count) in tokens {
            self.tokens.get_or_create(&ByReason { ready, reason }).set(count);
        }
        for state in [CredentialState::Pending, CredentialState::Active, CredentialState::Grace] {
            self.credentials.get_or_create(&ByState { state: state.as_str() }).set(credentials[state as usize]);
        }
        self.secrets.set(cache.secret_count() as i64);
        self.nearest_expiry.set(expiry);
        self.nearest_rotation.set(rotation);
        self.nearest_grace_end.set(grace);
    }
}

/// When replaced tokens end that were used although their successor has been there for a while.
fn in_use_until(status: &PersonalAccessTokenStatus) -> impl Iterator<Item = Time> {
    let replaced = status.credentials.iter().find(|one| one.state == CredentialState::Active).map(|one| one.issued_at);
    let in_grace = status.credentials.iter().filter(|one| one.state == CredentialState::Grace);
    in_grace.filter_map(move |one| {
        let used = status.usage.get(one.id.as_str())?;
        one.expires_at.filter(|_| replaced.is_some_and(|replaced| *used > replaced.plus(TO_BE_PICKED_UP)))
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
    fn a_replaced_token_counts_as_in_use_if_it_was_used_when_its_successor_had_been_there_for_a_while() {
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
        assert_eq!(ends(active.clone(), Some("2026-02-01T00:05:00Z")), none, "a kubelet takes its time");
        assert_eq!(ends(active, Some("2026-02-01T00:05:01Z")), ["2026-02-02T00:00:00Z"]);
        assert_eq!(ends(json!(null), Some("2026-02-01T12:00:00Z")), none, "it was revoked, and not replaced");
    }
}
