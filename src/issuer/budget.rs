//! The budget of calls of one issuer: how many in a minute, and how many at once.
//!
//! A call that does not fit is refused at once, so that a slow or busy issuer holds no worker that other issuers need. Crates such as
//! `governor` wait, or know no pause that the server orders.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

/// When to try again if too many calls are under way.
const CROWDED: Duration = Duration::from_millis(500);

/// The longest pause that a server can order, so that a wrong header does not stop an issuer for a year.
pub(super) const MAX_PAUSE: Duration = Duration::from_secs(60 * 60);

/// The budget of one issuer. All its clients share it, also those with a new credential.
#[derive(Debug)]
pub struct CallBudget {
    per_minute: u32,
    at_once: Arc<Semaphore>,
    state: Mutex<BudgetState>,
}

#[derive(Debug)]
struct BudgetState {
    /// The calls that may be made at this moment.
    left: f64,
    counted_at: Instant,
    paused_until: Option<Instant>,
}

impl CallBudget {
    /// Creates a budget of so many calls in a minute, which may all be made in a row, and so many at once. Both are at least 1.
    pub fn new(per_minute: u32, at_once: usize) -> Arc<Self> {
        let per_minute = per_minute.max(1);
        let state = BudgetState { left: f64::from(per_minute), counted_at: Instant::now(), paused_until: None };
        Arc::new(Self { per_minute, at_once: Arc::new(Semaphore::new(at_once.max(1))), state: Mutex::new(state) })
    }

    /// Whether a call may be made now. It takes nothing.
    ///
    /// # Errors
    /// Not before this time has passed.
    pub fn check(&self) -> Result<(), Duration> {
        if self.at_once.available_permits() == 0 {
            return Err(CROWDED);
        }
        self.lock().refilled(self.per_minute)
    }

    /// Returns the part of the calls of a minute that is used, from 0 to 1; 1 during a pause.
    pub fn used(&self) -> f64 {
        let mut state = self.lock();
        let is_paused = state.refilled(self.per_minute).is_err() && state.paused_until.is_some();
        if is_paused { 1.0 } else { 1.0 - state.left / f64::from(self.per_minute) }
    }

    /// Takes one call. Dropping the permit ends it.
    pub(super) fn take(&self) -> Result<OwnedSemaphorePermit, Duration> {
        let permit = self.at_once.clone().try_acquire_owned().map_err(|_| CROWDED)?;
        let mut state = self.lock();
        state.refilled(self.per_minute)?;
        state.left -= 1.0;
        Ok(permit)
    }

    /// Refuses all calls for this time, because the server asked for it.
    pub(super) fn pause(&self, pause: Duration) {
        let until = Instant::now() + pause.min(MAX_PAUSE);
        let mut state = self.lock();
        state.paused_until = state.paused_until.max(Some(until));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BudgetState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BudgetState {
    /// Adds what has come since the last call, and says whether there is one left.
    fn refilled(&mut self, per_minute: u32) -> Result<(), Duration> {
        let (now, per_second) = (Instant::now(), f64::from(per_minute) / 60.0);
        let come = now.duration_since(self.counted_at).as_secs_f64() * per_second;
        self.left = (self.left + come).min(f64::from(per_minute));
        self.counted_at = now;
        if let Some(until) = self.paused_until.filter(|until| *until > now) {
            return Err(until - now);
        }
        self.paused_until = None;
        if self.left >= 1.0 { Ok(()) } else { Err(Duration::from_secs_f64((1.0 - self.left) / per_second)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn calls_of_a_minute_are_limited_and_come_back() {
        let budget = CallBudget::new(60, 100);
        for _ in 0..60 {
            drop(budget.take().expect("within the budget"));
        }
        assert_eq!(budget.take().unwrap_err(), Duration::from_secs(1));
        assert_eq!(budget.check().unwrap_err(), Duration::from_secs(1));
        tokio::time::advance(Duration::from_millis(2_100)).await;
        assert!(budget.check().is_ok() && (0.96..0.97).contains(&budget.used()), "{}", budget.used());
        assert!(budget.take().is_ok() && budget.take().is_ok());
        let wait = budget.take().unwrap_err();
        assert!(wait > Duration::from_millis(800) && wait < Duration::from_secs(1), "{wait:?}");
        tokio::time::advance(Duration::from_secs(600)).await;
        assert_eq!(std::iter::repeat_with(|| budget.take()).take_while(Result::is_ok).count(), 60, "never more");
    }

    #[tokio::test(start_paused = true)]
    async fn calls_at_once_are_limited() {
        let budget = CallBudget::new(60, 2);
        let (first, _second) = (budget.take().unwrap(), budget.take().unwrap());
        assert_eq!(budget.take().unwrap_err(), CROWDED);
        drop(first);
        assert!(budget.take().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_refuses_all_calls_and_is_never_shortened() {
        let budget = CallBudget::new(60, 2);
        budget.pause(Duration::from_secs(30));
        budget.pause(Duration::from_secs(10));
        assert_eq!((budget.take().unwrap_err(), budget.used()), (Duration::from_secs(30), 1.0));
        tokio::time::advance(Duration::from_secs(30)).await;
        assert!(budget.take().is_ok());
        budget.pause(Duration::MAX);
        assert_eq!(budget.take().unwrap_err(), MAX_PAUSE);
    }
}
