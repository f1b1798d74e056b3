//! Which lease, who wants it, and all the times that follow from its duration.
//!
//! It must not know how an election goes.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::Duration,
};

/// Which lease, and who wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseSettings {
    /// The Lease's name. Instances that share it share one leader.
    pub name: String,
    /// The Lease's namespace.
    pub namespace: String,
    /// Who this instance is; must differ between any two, a restarted one included. See [`identity`].
    pub identity: String,
    /// After how long without a renewal another may take over. Everything else follows from it, in proportions that
    /// keep a leader from believing in its lease longer than others do.
    pub duration: Duration,
}

impl LeaseSettings {
    /// A lease of 10 seconds under an [`identity`] of its own.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { name: name.into(), namespace: namespace.into(), identity: identity(), duration: Duration::from_secs(10) }
    }

    /// From the start of one renewal to the start of the next: 2.5 s of 10 s.
    pub(super) fn renew_every(&self) -> Duration {
        self.duration / 4
    }

    /// How long after the start of its last successful renewal a leader still leads: 7 s of 10 s.
    pub(super) fn renew_deadline(&self) -> Duration {
        self.duration * 7 / 10
    }

    /// How long one request may take: 5 s of 10 s.
    pub(super) fn request_timeout(&self) -> Duration {
        self.duration / 2
    }

    /// How often a standby looks: every 2 s of 10 s, and up to a fifth later so that standbys spread.
    pub(super) fn retry(&self) -> Duration {
        jittered(self.duration / 5)
    }

    /// How soon to look again after somebody else was faster or a renewal failed: 0.5 s of 10 s.
    pub(super) fn look_again(&self) -> Duration {
        jittered(self.duration / 20)
    }
}

/// A name for this instance: the pod's or machine's name and something random, as a restart is another instance.
pub fn identity() -> String {
    let host = std::env::var("POD_NAME").ok().filter(|name| !name.is_empty());
    let host = host.unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned());
    let mut random = random();
    let suffix: String = (0..8)
        .map(|_| {
            let digit = random % 36;
            random /= 36;
            char::from_digit(digit as u32, 36).unwrap_or('0')
        })
        .collect();
    format!("{host}_{suffix}")
}

/// Up to a fifth more, so that instances which started together do not stay together.
fn jittered(length: Duration) -> Duration {
    length + length / 5 * (random() % 1_000) as u32 / 1_000
}

/// Random enough to tell instances apart and to spread them; from the operating system by way of the standard library.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_stops_believing_in_its_lease_before_others_do() {
        for seconds in [1, 2, 10, 60] {
            let settings = LeaseSettings { duration: Duration::from_secs(seconds), ..LeaseSettings::new("n", "l") };
            assert!(settings.renew_every() + settings.look_again() < settings.renew_deadline());
            assert!(settings.request_timeout() < settings.renew_deadline());
            assert!(settings.renew_deadline() < settings.duration);
        }
    }

    #[test]
    fn the_defaults_hand_over_well_within_15_seconds() {
        let settings = LeaseSettings::new("n", "l");
        // A standby sees the last renewal at most one look late, and then wakes up when the lease is stale.
        let worst = settings.duration + settings.duration / 5 * 6 / 5;
        assert!(worst < Duration::from_secs(13), "{worst:?}");
    }

    #[test]
    fn no_two_instances_have_the_same_identity() {
        let (one, other) = (identity(), identity());
        assert_ne!(one, other);
        let suffix = one.rsplit_once('_').unwrap().1;
        assert!(suffix.len() == 8 && suffix.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{one}");
    }

    #[test]
    fn jitter_is_at_most_a_fifth() {
        let length = Duration::from_secs(10);
        for _ in 0..1_000 {
            assert!((length..length + length / 5).contains(&jittered(length)));
        }
    }
}
