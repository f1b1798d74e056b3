//! The heartbeat of a watch: when it was last up to date, and since when it has been down.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::service::clock::uptime;

/// A watch that has not been up to date for longer than this may have missed something: a new one begins every 15 seconds.
pub const SILENCE: Duration = Duration::from_secs(30);

/// After this long without an up-to-date watch, a new list is needed.
const RESUMABLE: Duration = Duration::from_mins(3);

/// The heartbeat of one watch. Clones share it, and reading it takes no lock.
#[derive(Clone)]
pub struct WatchHeartbeat(Arc<Beats>);

struct Beats {
    /// In microseconds of uptime; 0 before the first full list.
    last: AtomicU64,
    /// In the same unit; 0 while the watch runs.
    down_since: AtomicU64,
    uptime: Box<dyn Fn() -> Duration + Send + Sync>,
}

impl Default for WatchHeartbeat {
    fn default() -> Self {
        Self::with_uptime(uptime)
    }
}

impl WatchHeartbeat {
    /// Creates a heartbeat with another monotonic clock.
    pub fn with_uptime(uptime: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self(Arc::new(Beats { last: AtomicU64::new(0), down_since: AtomicU64::new(0), uptime: Box::new(uptime) }))
    }

    /// Records that the watch is up to date.
    pub fn beat(&self) {
        self.0.last.fetch_max(self.now(), Ordering::Relaxed);
        self.0.down_since.store(0, Ordering::Relaxed);
    }

    /// Records that the watch is down.
    pub fn interrupted(&self) {
        let _already = self.0.down_since.compare_exchange(0, self.now(), Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Returns the uptime of the last beat; `None` before the first full list.
    pub fn last_beat(&self) -> Option<Duration> {
        read(&self.0.last)
    }

    /// Returns the uptime since which the watch has been down; `None` while it runs.
    pub fn down_since(&self) -> Option<Duration> {
        read(&self.0.down_since)
    }

    /// Whether the watch has been silent for so long that only a new list helps.
    pub fn is_stale(&self) -> bool {
        self.last_beat().unwrap_or_default() + RESUMABLE < (self.0.uptime)()
    }

    fn now(&self) -> u64 {
        u64::try_from((self.0.uptime)().as_micros()).unwrap_or(u64::MAX).max(1)
    }
}

fn read(micros: &AtomicU64) -> Option<Duration> {
    let micros = micros.load(Ordering::Relaxed);
    (micros != 0).then(|| Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_watch_becomes_stale_after_three_minutes() {
        let seconds = Arc::new(AtomicU64::new(1_000));
        let clock = seconds.clone();
        let heartbeat = WatchHeartbeat::with_uptime(move || Duration::from_secs(clock.load(Ordering::SeqCst)));
        assert_eq!((heartbeat.last_beat(), heartbeat.down_since()), (None, None));
        heartbeat.interrupted();
        assert_eq!(heartbeat.down_since(), Some(Duration::from_secs(1_000)));
        seconds.store(1_010, Ordering::SeqCst);
        heartbeat.interrupted();
        assert_eq!(heartbeat.down_since(), Some(Duration::from_secs(1_000)), "the first interruption counts");
        heartbeat.beat();
        assert_eq!((heartbeat.last_beat(), heartbeat.down_since()), (Some(Duration::from_secs(1_010)), None));
        seconds.store(1_190, Ordering::SeqCst);
        assert!(!heartbeat.is_stale());
        seconds.store(1_191, Ordering::SeqCst);
        assert!(heartbeat.is_stale());
    }
}
