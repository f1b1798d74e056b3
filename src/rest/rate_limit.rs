//! Rate limits by owner, with the generic cell rate algorithm (<https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm>).
//!
//! tower_governor keys by IP address or header, before the caller is authenticated. The governor crate would bring seven more crates for
//! these forty lines.

use std::{
    collections::HashMap,
    hash::Hash,
    num::NonZeroU32,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::service::clock::uptime;

/// The number of entries at which outdated ones are first removed.
const SWEEP_AT: usize = 1024;

/// A rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Sustained requests per second.
    pub per_second: NonZeroU32,
    /// Additional requests at once after a pause.
    pub burst: NonZeroU32,
}

/// Limits the rate for each key.
#[derive(Debug)]
pub struct RateLimiter<K> {
    rate: RateLimit,
    state: Mutex<RateLimiterState<K>>,
}

#[derive(Debug)]
struct RateLimiterState<K> {
    /// The theoretical arrival time of the next request.
    arrivals: HashMap<K, Duration>,
    sweep_at: usize,
}

impl RateLimit {
    /// The time between requests at the sustained rate.
    fn interval(self) -> Duration {
        Duration::from_secs(1) / self.per_second.get()
    }

    /// Returns the new arrival time for a request at `now`, or how long to wait.
    fn decide(self, arrival: Duration, now: Duration) -> Result<Duration, Duration> {
        let next = arrival.max(now) + self.interval();
        let latest = now + self.interval() * self.burst.get();
        if next <= latest { Ok(next) } else { Err(next - latest) }
    }
}

impl<K: Hash + Eq> RateLimiter<K> {
    /// Creates a limiter.
    pub fn new(rate: RateLimit) -> Self {
        Self { rate, state: Mutex::new(RateLimiterState { arrivals: HashMap::new(), sweep_at: SWEEP_AT }) }
    }

    /// Counts a request, or returns how long to wait.
    pub fn take(&self, key: K) -> Result<(), Duration> {
        self.take_at(key, uptime())
    }

    fn take_at(&self, key: K, now: Duration) -> Result<(), Duration> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.arrivals.len() >= state.sweep_at {
            // An arrival in the past is the same as none.
            state.arrivals.retain(|_, arrival| *arrival > now);
            state.sweep_at = (2 * state.arrivals.len()).max(SWEEP_AT);
        }
        let arrival = state.arrivals.get(&key).copied().unwrap_or_default();
        let next = self.rate.decide(arrival, now)?;
        state.arrivals.insert(key, next);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(per_second: u32, burst: u32) -> RateLimit {
        RateLimit { per_second: per_second.try_into().unwrap(), burst: burst.try_into().unwrap() }
    }

    #[test]
    fn burst_is_allowed_then_the_steady_rate_for_each_owner_alone() {
        let limiter = RateLimiter::new(rate(2, 3));
        let at = Duration::from_secs(1_000);
        for _ in 0..3 {
            assert_eq!(limiter.take_at("a", at), Ok(()));
        }
        assert_eq!(limiter.take_at("a", at), Err(Duration::from_millis(500)));
        assert_eq!(limiter.take_at("b", at), Ok(()));
        assert_eq!(limiter.take_at("a", at + Duration::from_millis(499)), Err(Duration::from_millis(1)));
        assert_eq!(limiter.take_at("a", at + Duration::from_millis(500)), Ok(()));
        assert_eq!(limiter.take_at("a", at + Duration::from_millis(500)), Err(Duration::from_millis(500)));
    }

    #[test]
    fn quiet_owners_use_no_memory() {
        let limiter = RateLimiter::new(rate(1, 1));
        for second in 0..100 {
            for owner in 0..1_000 {
                let at = Duration::from_secs(1_000 + 2 * second);
                assert_eq!(limiter.take_at((second, owner), at), Ok(()));
            }
        }
        assert!(limiter.state.lock().unwrap().arrivals.len() <= 2 * SWEEP_AT);
    }

    proptest! {
        #[test]
        fn limit_is_never_exceeded_and_retry_after_the_wait_succeeds(
            per_second in 1_u32..50, burst in 1_u32..20, gaps in prop::collection::vec(0_u64..400, 1..200),
        ) {
            let limiter = RateLimiter::new(rate(per_second, burst));
            let (mut now, start, mut taken) = (Duration::from_secs(50), Duration::from_secs(50), 0_u32);
            for gap in gaps {
                now += Duration::from_millis(gap);
                match limiter.take_at((), now) {
                    Ok(()) => taken += 1,
                    Err(wait) => {
                        now += wait;
                        prop_assert_eq!(limiter.take_at((), now), Ok(()));
                        taken += 1;
                    }
                }
                let most = f64::from(burst) + (now - start).as_secs_f64() * f64::from(per_second);
                prop_assert!(f64::from(taken) <= most + 0.001, "{taken} in {:?}", now - start);
            }
        }
    }
}
