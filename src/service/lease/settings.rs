//! The settings of an election, and the times derived from the lease's duration.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::Duration,
};

/// The Lease and the identity of this candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseSettings {
    /// The Lease's name. Instances that share it share one leader.
    pub name: String,
    /// The Lease's namespace.
    pub namespace: String,
    /// The identity of this instance, unique among all and after a restart. See [`identity`].
    pub identity: String,
    /// The time without a renewal after which another instance may take over. All other times derive from it, so that a leader stops before
    /// others take over.
    pub duration: Duration,
}

impl LeaseSettings {
    /// Creates settings with a duration of 10 seconds and a new [`identity`].
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { name: name.into(), namespace: namespace.into(), identity: identity(), duration: Duration::from_secs(10) }
    }

    /// Returns the time from the start of one renewal to the start of the next: 2.5 s for a lease of 10 s.
    pub(super) fn renew_every(&self) -> Duration {
        self.duration / 4
    }

    /// Returns the time from the start of the last successful renewal until a leader stops leading: 7 s for 10 s.
    pub(super) fn renew_deadline(&self) -> Duration {
        self.duration * 7 / 10
    }

    /// Returns the timeout of one request: 5 s for 10 s.
    pub(super) fn request_timeout(&self) -> Duration {
        self.duration / 2
    }

    /// Returns the interval in which a standby reads the lease: 2 s for 10 s, plus jitter.
    pub(super) fn retry(&self) -> Duration {
        jittered(self.duration / 5)
    }

    /// Returns the delay after a conflict or a failed renewal: 0.5 s for 10 s, plus jitter.
    pub(super) fn retry_soon(&self) -> Duration {
        jittered(self.duration / 20)
    }
}

/// The maximum length of an identity in bytes: that of `reportingInstance` of an event.
const MAX_IDENTITY: usize = 128;

/// Returns a unique identity: the name of the pod or machine, cut if it is long, and a random suffix, because a restarted process is
/// another instance.
pub fn identity() -> String {
    let host = std::env::var("POD_NAME").ok().filter(|name| !name.is_empty());
    let host = host.unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned());
    unique(&host)
}

fn unique(host: &str) -> String {
    let mut random = random();
    let suffix: String = (0..8)
        .map(|_| {
            let digit = random % 36;
            random /= 36;
            char::from_digit(digit as u32, 36).unwrap_or('0')
        })
        .collect();
    format!("{}_{suffix}", &host[..host.floor_char_boundary(MAX_IDENTITY - 1 - suffix.len())])
}

/// Adds up to a fifth, so that instances that started together spread.
fn jittered(length: Duration) -> Duration {
    length + length / 5 * (random() % 1_000) as u32 / 1_000
}

/// A random number, seeded by the operating system through the standard library.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_stops_before_others_take_over() {
        for seconds in [1, 2, 10, 60] {
            let settings = LeaseSettings { duration: Duration::from_secs(seconds), ..LeaseSettings::new("n", "l") };
            assert!(settings.renew_every() + settings.retry_soon() < settings.renew_deadline());
            assert!(settings.request_timeout() < settings.renew_deadline());
            assert!(settings.renew_deadline() < settings.duration);
        }
    }

    #[test]
    fn default_failover_takes_less_than_15_seconds() {
        let settings = LeaseSettings::new("n", "l");
        // A standby reads the last renewal at most one interval late, and then wakes up when the lease is stale.
        let worst = settings.duration + settings.duration / 5 * 6 / 5;
        assert!(worst < Duration::from_secs(13), "{worst:?}");
    }

    #[test]
    fn identities_are_unique() {
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

    #[test]
    fn long_names_are_cut_to_what_an_event_accepts() {
        for (host, length) in
            [("pod", 12), (&*"p".repeat(119), 128), (&*"p".repeat(253), 128), (&*"é".repeat(100), 127)]
        {
            let identity = unique(host);
            assert_eq!(identity.len(), length, "{identity}");
            assert_ne!(identity, unique(host));
        }
    }
}
