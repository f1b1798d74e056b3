//! How many requests an owner may make: so many a second, and some more at a time. More tokens give no fresh budget.
//!
//! By GCRA (<https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm>): one number for each owner. It must not know what a
//! request is about.

use std::{
    collections::HashMap,
    hash::Hash,
    num::NonZeroU32,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::service::clock::uptime;

/// So many entries are kept before those go that say nothing any more.
const SWEEP_AT: usize = 1024;

/// How many requests, for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// In a second, over time.
    pub per_second: NonZeroU32,
    /// At a time, after a pause.
    pub burst: NonZeroU32,
}

/// See the module.
#[derive(Debug)]
pub struct Limiter<K> {
    rate: Rate,
    state: Mutex<State<K>>,
}

#[derive(Debug)]
struct State<K> {
    /// When everything that was let through would have come at a steady rate; see the algorithm.
    arrivals: HashMap<K, Duration>,
    sweep_at: usize,
}

impl Rate {
    /// How far one request moves the number.
    fn interval(self) -> Duration {
        Duration::from_secs(1) / self.per_second.get()
    }

    /// Decides on a request at `now`: the new number, or how long to wait.
    fn decide(self, arrival: Duration, now: Duration) -> Result<Duration, Duration> {
        let next = arrival.max(now) + self.interval();
        let latest = now + self.interval() * self.burst.get();
        if next <= latest { Ok(next) } else { Err(next - latest) }
    }
}

impl<K: Hash + Eq> Limiter<K> {
    /// Everybody has all of it.
    pub fn new(rate: Rate) -> Self {
        Self { rate, state: Mutex::new(State { arrivals: HashMap::new(), sweep_at: SWEEP_AT }) }
    }

    /// Takes one request of the budget.
    ///
    /// # Errors
    /// How long to wait, if there is none left.
    pub fn take(&self, key: K) -> Result<(), Duration> {
        self.take_at(key, uptime())
    }

    fn take_at(&self, key: K, now: Duration) -> Result<(), Duration> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.arrivals.len() >= state.sweep_at {
            // What lies in the past is as if it had never been.
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

    fn rate(per_second: u32, burst: u32) -> Rate {
        Rate { per_second: per_second.try_into().unwrap(), burst: burst.try_into().unwrap() }
    }

    #[test]
    fn a_burst_is_let_through_then_a_steady_rate_and_each_owner_has_a_budget_of_its_own() {
        let limiter = Limiter::new(rate(2, 3));
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
    fn owners_who_have_been_quiet_take_no_memory() {
        let limiter = Limiter::new(rate(1, 1));
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
        fn never_more_than_rate_and_burst_and_whoever_waits_as_told_is_let_through(
            per_second in 1_u32..50, burst in 1_u32..20, gaps in prop::collection::vec(0_u64..400, 1..200),
        ) {
            let limiter = Limiter::new(rate(per_second, burst));
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
