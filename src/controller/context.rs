//! The context of a reconcile: everything that kube's `Controller` passes to [`reconcile`](super::reconcile::reconcile).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::jiff::SignedDuration;
use kube::runtime::controller::Action;

use super::{
    event_handlers::Triggers,
    gate::ReconcileGate,
    metrics::Metrics,
    namespaced_name::NamespacedName,
    reconciler::Reconciler,
    stores::{Stores, WatchedKind},
};
use crate::service::LeaseHandle;

/// The delay after the first failure of a reconcile. It doubles with each further failure, up to [`MAX_RETRY`].
const FIRST_RETRY: Duration = Duration::from_millis(250);
/// A larger difference between the controller's clock and the API server's is a warning.
pub const SKEW_WARNING: SignedDuration = SignedDuration::from_secs(10);

/// The shortest time between two lines of the log about the skew.
const SKEW_LOG_PERIOD: Duration = Duration::from_mins(10);

const MAX_RETRY: Duration = Duration::from_secs(120);

/// The context of every reconcile.
pub struct Context {
    /// The objects that the watches have delivered.
    pub stores: Arc<Stores>,
    /// The reconciler.
    pub reconciler: Reconciler,
    /// Limits and orders reconciles.
    pub gate: Arc<ReconcileGate>,
    /// Delays the retries of each PAT.
    pub backoff: ObjectBackoff,
    /// Whether this process leads.
    pub lease: LeaseHandle,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Warns of clock skew.
    pub skew_warning: SkewWarning,
}

impl Context {
    /// Triggers the PATs that a watch event concerns, and forgets deleted objects. Echoes of the controller's own
    /// writes trigger nothing.
    pub fn dispatch(&self, triggers: Triggers) {
        let Triggers { pats, applied, deleted, .. } = triggers;
        let author = applied.and_then(|(kind, object, version)| self.reconciler.delivered(kind, object, version));
        for (kind, key) in deleted {
            self.reconciler.forget(kind, &key);
            if kind == WatchedKind::Pat {
                self.forget(&key);
            }
        }
        pats.into_iter().filter(|pat| author.as_ref() != Some(pat)).for_each(|pat| self.gate.trigger(pat));
    }

    /// Forgets a PAT that no longer exists.
    pub fn forget(&self, pat: &NamespacedName) {
        self.gate.forget(pat);
        self.backoff.reset(pat);
    }

    /// Returns the action that makes kube reconcile a PAT again after this delay.
    pub fn requeue(&self, key: &NamespacedName, after: Duration) -> Action {
        self.gate.scheduled(key, after);
        Action::requeue(after)
    }

    /// Forgets the state of a term of leadership that has ended.
    pub fn end_term(&self) {
        self.gate.close();
        self.backoff.clear();
        self.reconciler.forget_all();
    }
}

/// Warns in the log while the controller's clock and the API server's differ by more than [`SKEW_WARNING`]: once when that begins, and
/// once when it is over. API servers whose clocks differ answer in turn, so that both happen again and again: the log says so once in 10
/// minutes.
#[derive(Default)]
pub struct SkewWarning(Mutex<SkewLog>);

/// What the log says of the skew.
#[derive(Default)]
struct SkewLog {
    is_large: bool,
    /// When it was last told.
    told: Option<Instant>,
}

impl SkewLog {
    /// Returns whether the skew is large, if that is news.
    fn update(&mut self, skew: SignedDuration, now: Instant) -> Option<bool> {
        let is_large = skew.abs() > SKEW_WARNING;
        let is_soon = self.told.is_some_and(|told| now.duration_since(told) < SKEW_LOG_PERIOD);
        if is_large == self.is_large || is_soon {
            return None;
        }
        *self = Self { is_large, told: Some(now) };
        Some(is_large)
    }
}

impl SkewWarning {
    /// Checks the skew: positive if the controller's clock is ahead.
    pub fn check(&self, skew: Option<SignedDuration>) {
        let Some(skew) = skew else { return };
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(is_large) = log.update(skew, Instant::now()) else { return };
        if is_large {
            let side = if skew.is_negative() { "behind" } else { "ahead of" };
            tracing::warn!(
                skew_seconds = skew.as_secs(),
                "the clock of this machine is {side} the API server's: synchronise both with NTP. The controller uses the API server's time, and \
                 issues no token while they differ by more than 5 minutes"
            );
        } else {
            tracing::info!("the clocks of this machine and the API server agree again");
        }
    }
}

/// The exponential backoff of each PAT: how many times in a row its reconcile has failed.
#[derive(Default)]
pub struct ObjectBackoff(Mutex<HashMap<NamespacedName, u32>>);

impl ObjectBackoff {
    /// Counts a failure and returns the delay before the next try: exponential, with jitter, and at least as long as the API
    /// server asks for.
    pub fn next(&self, key: &NamespacedName, retry_after: Option<Duration>) -> Duration {
        let mut failures = self.lock();
        let count = failures.entry(key.clone()).or_default();
        *count = (*count + 1).min(16);
        let backoff = (FIRST_RETRY * 2u32.pow(*count - 1)).min(MAX_RETRY);
        retry_after.unwrap_or_default().max(backoff.mul_f64(0.75 + 0.5 * key.jitter()))
    }

    /// Resets the backoff of one PAT.
    pub fn reset(&self, key: &NamespacedName) {
        self.lock().remove(key);
    }

    fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NamespacedName, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skew_that_comes_and_goes_is_told_once_in_ten_minutes() {
        let (mut log, start) = (SkewLog::default(), Instant::now());
        let mut told = Vec::new();
        for minute in 0..=21 {
            let seconds = if minute % 2 == 0 { 11 } else { 9 };
            let news = log.update(SignedDuration::from_secs(seconds), start + Duration::from_mins(minute));
            told.extend(news.map(|is_large| (minute, is_large)));
        }
        assert_eq!(told, [(0, true), (11, false)]);
    }

    #[test]
    fn backoff_doubles_per_pat_and_respects_retry_after() {
        let backoff = ObjectBackoff::default();
        let (a, b) = (NamespacedName::new("ns", "a"), NamespacedName::new("ns", "b"));
        let waits: Vec<_> = (0..20).map(|_| backoff.next(&a, None)).collect();
        let spread = 0.75 + 0.5 * a.jitter();
        assert_eq!(waits[..3], [1, 2, 4].map(|factor| (FIRST_RETRY * factor).mul_f64(spread)));
        assert_eq!(waits.last(), Some(&MAX_RETRY.mul_f64(spread)));
        assert!(backoff.next(&b, None) < Duration::from_secs(1), "the failures of others do not count");
        assert_eq!(backoff.next(&b, Some(Duration::from_secs(60))), Duration::from_secs(60));
        backoff.reset(&a);
        assert_eq!(backoff.next(&a, None), waits[0]);
    }
}
