//! The next action on a lease, decided from the record, the time of its last change, and the current time. Pure.

use std::time::Duration;

use k8s_openapi::{api::coordination::v1::LeaseSpec, apimachinery::pkg::apis::meta::v1::MicroTime};

/// The next action on the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LeaseAction {
    /// No lease exists: create it.
    Create,
    /// The lease is free or stale: take it.
    TakeOver,
    /// This instance holds the lease: renew it.
    Renew,
    /// Another instance holds the lease: read it again, at the latest when it would be stale.
    Wait {
        holder: String,
        /// When the lease would be stale.
        until: Duration,
    },
}

/// Returns the next action. The time of the last change is from the same monotonic clock as `now`. `fallback` is the duration of a record
/// without one.
pub(super) fn next_action(
    observed: Option<(&LeaseSpec, Duration)>,
    now: Duration,
    identity: &str,
    fallback: Duration,
) -> LeaseAction {
    let Some((record, changed_at)) = observed else { return LeaseAction::Create };
    let holder = match record.holder_identity.as_deref() {
        None | Some("") => return LeaseAction::TakeOver,
        Some(holder) if holder == identity => return LeaseAction::Renew,
        Some(holder) => holder,
    };
    let stated = record.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).filter(|&s| s > 0);
    let until = changed_at + stated.map_or(fallback, Duration::from_secs);
    if until <= now { LeaseAction::TakeOver } else { LeaseAction::Wait { holder: holder.to_owned(), until } }
}

/// Returns the record to write for an action other than [`LeaseAction::Wait`].
pub(super) fn next_record(
    action: &LeaseAction,
    old: Option<&LeaseSpec>,
    identity: &str,
    duration: Duration,
    now: MicroTime,
) -> LeaseSpec {
    let mut record = old.cloned().unwrap_or_default();
    if *action != LeaseAction::Renew {
        record.acquire_time = Some(now.clone());
        record.lease_transitions = Some(match record.lease_transitions {
            Some(transitions) if old.is_some() => transitions.saturating_add(1),
            _ => i32::from(old.is_some()),
        });
    }
    record.holder_identity = Some(identity.to_owned());
    record.lease_duration_seconds = Some(whole_seconds(duration));
    record.renew_time = Some(now);
    record
}

pub(super) fn released_record(old: &LeaseSpec, now: MicroTime) -> LeaseSpec {
    // The API server requires at least a second.
    LeaseSpec { holder_identity: None, lease_duration_seconds: Some(1), renew_time: Some(now), ..old.clone() }
}

/// Rounds up: others may wait longer than the holder leads, never shorter.
fn whole_seconds(duration: Duration) -> i32 {
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    i32::try_from(seconds).unwrap_or(i32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FALLBACK: Duration = Duration::from_secs(10);

    fn record(holder: Option<&str>, seconds: Option<i32>) -> LeaseSpec {
        LeaseSpec {
            holder_identity: holder.map(str::to_owned),
            lease_duration_seconds: seconds,
            ..LeaseSpec::default()
        }
    }

    fn time(text: &str) -> MicroTime {
        MicroTime(text.parse().unwrap())
    }

    #[test]
    fn action_follows_holder_and_age_of_the_record() {
        let wait = |until| LeaseAction::Wait { holder: "other".into(), until: Duration::from_secs(until) };
        for (name, holder, seconds, changed_at, now, action) in [
            ("released", None, Some(1), 100, 100, LeaseAction::TakeOver),
            ("released, as an empty string", Some(""), Some(10), 100, 100, LeaseAction::TakeOver),
            ("ours and new", Some("me"), Some(10), 100, 101, LeaseAction::Renew),
            ("ours, long not renewed", Some("me"), Some(10), 100, 1_000, LeaseAction::Renew),
            ("another's, just read", Some("other"), Some(10), 100, 100, wait(110)),
            ("another's, nearly stale", Some("other"), Some(10), 100, 109, wait(110)),
            ("another's, stale", Some("other"), Some(10), 100, 110, LeaseAction::TakeOver),
            ("its own duration counts", Some("other"), Some(60), 100, 110, wait(160)),
            ("no duration", Some("other"), None, 100, 109, wait(110)),
            ("an impossible duration", Some("other"), Some(-5), 100, 109, wait(110)),
            ("no duration, stale", Some("other"), Some(0), 100, 110, LeaseAction::TakeOver),
            ("the longest duration", Some("other"), Some(i32::MAX), 0, 100, wait(i32::MAX as u64)),
        ] {
            let record = record(holder, seconds);
            let observed = Some((&record, Duration::from_secs(changed_at)));
            assert_eq!(next_action(observed, Duration::from_secs(now), "me", FALLBACK), action, "{name}");
        }
        assert_eq!(next_action(None, Duration::ZERO, "me", FALLBACK), LeaseAction::Create);
    }

    #[test]
    fn times_in_the_record_are_ignored() {
        let mut ancient = record(Some("other"), Some(10));
        ancient.renew_time = Some(time("1970-01-01T00:00:00Z"));
        let observed = Some((&ancient, Duration::from_secs(100)));
        assert!(matches!(next_action(observed, Duration::from_secs(101), "me", FALLBACK), LeaseAction::Wait { .. }));
    }

    #[test]
    fn transitions_count_changes_of_holder() {
        let (first, later) = (time("2026-01-01T00:00:00Z"), time("2026-01-01T00:00:05Z"));
        let duration = Duration::from_millis(1_500);
        let created = next_record(&LeaseAction::Create, None, "a", duration, first.clone());
        assert_eq!(
            created,
            LeaseSpec {
                holder_identity: Some("a".into()),
                lease_duration_seconds: Some(2),
                acquire_time: Some(first.clone()),
                renew_time: Some(first.clone()),
                lease_transitions: Some(0),
                ..LeaseSpec::default()
            }
        );
        let renewed = next_record(&LeaseAction::Renew, Some(&created), "a", duration, later.clone());
        assert_eq!(renewed, LeaseSpec { renew_time: Some(later.clone()), ..created.clone() });
        let released = released_record(&renewed, later.clone());
        assert_eq!((released.holder_identity.as_deref(), released.lease_transitions), (None, Some(0)));
        let taken = next_record(&LeaseAction::TakeOver, Some(&released), "b", duration, later.clone());
        assert_eq!((taken.holder_identity.as_deref(), taken.lease_transitions), (Some("b"), Some(1)));
        assert_eq!(taken.acquire_time, Some(later));
    }

    #[test]
    fn foreign_fields_of_the_record_are_kept() {
        let mut old = record(Some("other"), Some(10));
        old.preferred_holder = Some("another".into());
        let taken = next_record(&LeaseAction::TakeOver, Some(&old), "me", FALLBACK, time("2026-01-01T00:00:00Z"));
        assert_eq!(taken.preferred_holder.as_deref(), Some("another"));
    }
}
