//! Memory that all requests of a process share: what strangers make it hold stays bounded, however many they are.
//!
//! Limits of a single request and of a connection multiply to more than any machine has. It must not know what is held.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Enough for a thousand of the verifier's largest bodies at once; usual ones are a hundred bytes.
const DEFAULT: usize = 64 * 1024 * 1024;

/// A number of bytes, of which requests take their shares.
#[derive(Debug)]
pub struct Budget {
    left: AtomicUsize,
}

/// What one request has taken; given back on drop.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    taken: usize,
}

/// There is no room at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many requests are under way: try again")]
pub struct NoRoom;

impl Default for Budget {
    fn default() -> Self {
        Self::of(DEFAULT)
    }
}

impl Budget {
    /// A budget of so many bytes.
    pub fn of(bytes: usize) -> Self {
        Self { left: AtomicUsize::new(bytes) }
    }

    /// A share of nothing yet.
    pub fn share(self: &Arc<Self>) -> Share {
        Share { budget: self.clone(), taken: 0 }
    }

    /// How much is left.
    pub fn left(&self) -> usize {
        self.left.load(Ordering::Relaxed)
    }
}

impl Share {
    /// Takes so many bytes more.
    ///
    /// # Errors
    /// When they are not there; then none are taken.
    pub fn take(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let rest = |left: usize| left.checked_sub(bytes);
        self.budget.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, rest).map_err(|_| NoRoom)?;
        self.taken += bytes;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.left.fetch_add(self.taken, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_given_back_and_never_are_more_than_the_whole() {
        let budget = Arc::new(Budget::of(100));
        let (mut one, mut other) = (budget.share(), budget.share());
        one.take(60).unwrap();
        assert_eq!(other.take(41), Err(NoRoom));
        other.take(40).unwrap();
        assert_eq!((budget.left(), one.take(1)), (0, Err(NoRoom)));
        drop(one);
        assert_eq!(budget.left(), 60);
        other.take(60).unwrap();
        drop(other);
        assert_eq!(budget.left(), 100);
    }
}
