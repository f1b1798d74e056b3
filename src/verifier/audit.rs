//! What the log tells of decisions: each at level debug, and at level info some of each kind every second.
//!
//! The id and the owner, the protocol and the reason; never the token, nor any part of it but the id of one that is known.
//! A flood of one kind does not hide the others. It must not know how an answer is sent.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use tracing::{Level, debug, enabled, info};

use super::{
    Protocol,
    reason::{Answer, Reason},
    striped::Striped,
};
use crate::{api::Time, index::CredentialRef};

/// Lines a second of each kind, at level info.
const LINES: u64 = 5;

/// The samples of one verifier.
#[derive(Default)]
pub struct Audit {
    kinds: [Sample; 4],
}

/// Kinds of decisions that are sampled apart from each other.
#[derive(Clone, Copy)]
enum Kind {
    Allow,
    /// A token that is or was known.
    Deny,
    /// Anything else that somebody presents.
    Junk,
    Unavailable,
}

#[derive(Default)]
struct Sample {
    second: AtomicI64,
    lines: AtomicU64,
    left_out: Striped<AtomicU64>,
}

impl Audit {
    /// Writes down a decision; `record` is the token that was presented, if it is known.
    pub fn decided(&self, protocol: Protocol, record: Option<&CredentialRef>, reason: Reason, now: Time) {
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

impl Sample {
    /// How many were left out since the last line, if there is to be a line now.
    fn take(&self, now: Time) -> Option<u64> {
        let second = now.as_micros().div_euclid(1_000_000);
        let before = self.second.load(Ordering::Relaxed);
        if before != second
            && self.second.compare_exchange(before, second, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            self.lines.store(0, Ordering::Relaxed);
        }
        if self.lines.load(Ordering::Relaxed) < LINES && self.lines.fetch_add(1, Ordering::Relaxed) < LINES {
            Some(self.left_out.iter().map(|part| part.swap(0, Ordering::Relaxed)).sum())
        } else {
            self.left_out.mine().fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}

fn kind(reason: Reason) -> Kind {
    match (reason.answer(), reason) {
        (Answer::Allow, _) => Kind::Allow,
        (Answer::Deny, Reason::Malformed | Reason::Checksum | Reason::Unknown) => Kind::Junk,
        (Answer::Deny, _) => Kind::Deny,
        (Answer::Unavailable, _) => Kind::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::{Event, Metadata, Subscriber};
    use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

    use super::*;

    /// Counts lines by level, of what is told at `most`.
    #[derive(Clone)]
    struct Lines {
        most: Level,
        seen: Arc<Mutex<Vec<Level>>>,
    }

    impl<S: Subscriber> Layer<S> for Lines {
        fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
            *metadata.level() <= self.most
        }

        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            assert_eq!(event.metadata().target(), "pat_operator::audit");
            self.seen.lock().unwrap().push(*event.metadata().level());
        }
    }

    /// How many lines of level info and of level debug there are of so many decisions in one second, half of them good.
    fn lines(most: Level, decisions: usize) -> (usize, usize) {
        let lines = Lines { most, seen: Arc::default() };
        let audit = Audit::default();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines.clone()), || {
            for number in 0..decisions {
                let reason = if number % 2 == 0 { Reason::Good } else { Reason::Unknown };
                audit.decided(Protocol::ForwardAuth, None, reason, Time::from_micros(7));
            }
        });
        let seen = lines.seen.lock().unwrap();
        let of = |level| seen.iter().filter(|one| **one == level).count();
        (of(Level::INFO), of(Level::DEBUG))
    }

    #[test]
    fn at_level_debug_there_is_one_line_for_each_decision_and_at_level_info_some() {
        let sampled = 2 * LINES as usize;
        assert_eq!(lines(Level::DEBUG, 100), (sampled, 100 - sampled));
        assert_eq!(lines(Level::INFO, 100), (sampled, 0));
        assert_eq!(lines(Level::WARN, 100), (0, 0));
    }

    #[test]
    fn each_second_has_its_lines_and_what_is_left_out_is_told_by_the_next() {
        let sample = Sample::default();
        let at = |seconds: i64| Time::from_micros(seconds * 1_000_000 + 7);
        for _ in 0..LINES {
            assert_eq!(sample.take(at(100)), Some(0));
        }
        for _ in 0..40 {
            assert_eq!(sample.take(at(100)), None);
        }
        assert_eq!(sample.take(at(101)), Some(40));
        assert_eq!(sample.take(at(101)), Some(0));
    }
}
