//! The audit log: one line per decision at level debug, and a sample of each kind every second at level info.
//!
//! A line has the protocol, the answer and its reason, and for a known token its ID and owner. It never has the token. Because
//! each kind is sampled on its own, a flood of one kind does not hide the others.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use tracing::{Level, debug, enabled, info};

use super::{
    Protocol,
    reason::{DecisionAnswer, DecisionReason},
    sharded::Sharded,
};
use crate::{api::Time, index::CredentialRef};

/// Number of lines per second and kind at level info.
const LINES_PER_SECOND: u64 = 5;

/// The audit log of one verifier.
#[derive(Default)]
pub struct AuditLog {
    kinds: [LogSampler; 4],
}

/// Kinds of decisions, which are sampled independently.
#[derive(Clone, Copy)]
enum DecisionKind {
    Allow,
    /// Denial of a token that is or was known.
    Deny,
    /// Denial of anything else.
    Junk,
    Unavailable,
}

#[derive(Default)]
struct LogSampler {
    second: AtomicI64,
    lines: AtomicU64,
    left_out: Sharded<AtomicU64>,
}

impl AuditLog {
    /// Logs a decision; `record` belongs to the presented token, if it is known.
    pub fn decided(&self, protocol: Protocol, record: Option<&CredentialRef>, reason: DecisionReason, now: Time) {
        if !enabled!(Level::INFO) {
            return;
        }
        let answer = reason.answer();
        let left_out = self.kinds[kind(reason) as usize].take(now);
        if left_out.is_none() && !enabled!(Level::DEBUG) {
            return;
        }
        let id = record.map(|record| record.credential().id);
        let (id, owner) = (id.as_ref().map(|id| id.as_str()), record.map(|record| record.pat.subject()));
        let (protocol, answer, reason) = (protocol.as_str(), answer.as_str(), reason.as_str());
        match left_out {
            Some(left_out) => {
                info!(target: "pat_operator::audit", protocol, answer, reason, id, owner, left_out, "decided")
            }
            None => debug!(target: "pat_operator::audit", protocol, answer, reason, id, owner, "decided"),
        }
    }
}

impl LogSampler {
    /// Returns how many lines were left out since the last one, if a line is due now.
    fn take(&self, now: Time) -> Option<u64> {
        let second = now.as_micros().div_euclid(1_000_000);
        let before = self.second.load(Ordering::Relaxed);
        if before != second
            && self.second.compare_exchange(before, second, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            self.lines.store(0, Ordering::Relaxed);
        }
        if self.lines.load(Ordering::Relaxed) < LINES_PER_SECOND
            && self.lines.fetch_add(1, Ordering::Relaxed) < LINES_PER_SECOND
        {
            Some(self.left_out.iter().map(|part| part.swap(0, Ordering::Relaxed)).sum())
        } else {
            self.left_out.local().fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}

fn kind(reason: DecisionReason) -> DecisionKind {
    match (reason.answer(), reason) {
        (DecisionAnswer::Allow, _) => DecisionKind::Allow,
        (DecisionAnswer::Deny, DecisionReason::Malformed | DecisionReason::Checksum | DecisionReason::Unknown) => {
            DecisionKind::Junk
        }
        (DecisionAnswer::Deny, _) => DecisionKind::Deny,
        (DecisionAnswer::Unavailable, _) => DecisionKind::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::{Event, Metadata, Subscriber};
    use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

    use super::*;

    /// Records the level of each line up to level `most`.
    #[derive(Clone)]
    struct AuditLines {
        most: Level,
        seen: Arc<Mutex<Vec<Level>>>,
    }

    impl<S: Subscriber> Layer<S> for AuditLines {
        fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
            *metadata.level() <= self.most
        }

        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            assert_eq!(event.metadata().target(), "pat_operator::audit");
            self.seen.lock().unwrap().push(*event.metadata().level());
        }
    }

    /// Returns the number of lines at levels info and debug for this many decisions in one second, half of them accepted.
    fn lines(most: Level, decisions: usize) -> (usize, usize) {
        let lines = AuditLines { most, seen: Arc::default() };
        let audit = AuditLog::default();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines.clone()), || {
            for number in 0..decisions {
                let reason = if number % 2 == 0 { DecisionReason::Good } else { DecisionReason::Unknown };
                audit.decided(Protocol::ForwardAuth, None, reason, Time::from_micros(7));
            }
        });
        let seen = lines.seen.lock().unwrap();
        let of = |level| seen.iter().filter(|one| **one == level).count();
        (of(Level::INFO), of(Level::DEBUG))
    }

    #[test]
    fn level_debug_logs_every_decision_and_level_info_a_sample() {
        let sampled = 2 * LINES_PER_SECOND as usize;
        assert_eq!(lines(Level::DEBUG, 100), (sampled, 100 - sampled));
        assert_eq!(lines(Level::INFO, 100), (sampled, 0));
        assert_eq!(lines(Level::WARN, 100), (0, 0));
    }

    #[test]
    fn each_second_has_its_own_sample_and_reports_what_was_left_out() {
        let sample = LogSampler::default();
        let at = |seconds: i64| Time::from_micros(seconds * 1_000_000 + 7);
        for _ in 0..LINES_PER_SECOND {
            assert_eq!(sample.take(at(100)), Some(0));
        }
        for _ in 0..40 {
            assert_eq!(sample.take(at(100)), None);
        }
        assert_eq!(sample.take(at(101)), Some(40));
        assert_eq!(sample.take(at(101)), Some(0));
    }
}
