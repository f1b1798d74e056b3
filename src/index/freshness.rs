//! How current the index is, according to its watches and to probes of the API server.
//!
//! All times are measured by a monotonic clock.

use std::{
    fmt::Debug,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use kube::{Api, Resource, api::ListParams};
use serde::de::DeserializeOwned;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{info, warn};

use crate::{
    auth::decision::Freshness,
    service::{
        clock::uptime,
        explain_api_error,
        watch::{SILENCE, WatchHeartbeat},
    },
};

/// The interval of probes of the API server.
pub const PROBE_EVERY: Duration = Duration::from_secs(5);

/// The index is stale after this long without a successful probe. A single failed or slow probe has no effect: two must fail in a row, and the
/// third must be late.
pub const UNANSWERED: Duration = Duration::from_secs(15);

/// The timeout of a probe. The next probe follows a second later.
const PROBE_TIMEOUT: Duration = Duration::from_secs(4);

/// The heartbeats of all watches that feed an index, and the last answer of the API server. Reading it takes no lock and a few nanoseconds.
pub struct IndexFreshness {
    watches: Box<[WatchHeartbeat]>,
    /// The uptime of the last answer, in microseconds.
    api_server: AtomicU64,
    max_staleness: Duration,
    uptime: Box<dyn Fn() -> Duration + Send + Sync>,
}

impl IndexFreshness {
    /// Creates the freshness of an index fed by this many watches, none of which has its list yet. The API server counts as
    /// reachable.
    pub fn new(watches: usize, max_staleness: Duration) -> Arc<Self> {
        Self::with_uptime(watches, max_staleness, uptime)
    }

    fn with_uptime(
        watches: usize,
        max_staleness: Duration,
        uptime: impl Fn() -> Duration + Clone + Send + Sync + 'static,
    ) -> Arc<Self> {
        let watches = (0..watches).map(|_| WatchHeartbeat::with_uptime(uptime.clone())).collect();
        let api_server = AtomicU64::new(micros(uptime()));
        Arc::new(Self { watches, api_server, max_staleness, uptime: Box::new(uptime) })
    }

    /// Returns the heartbeat of the watch with this number.
    pub fn heartbeat(&self, watch: usize) -> WatchHeartbeat {
        self.watches[watch].clone()
    }

    /// Records an answer of the API server.
    pub fn answered(&self) {
        self.api_server.fetch_max(micros((self.uptime)()), Ordering::Relaxed);
    }

    /// Returns how current the index is now.
    pub fn freshness(&self) -> Freshness {
        match self.stale() {
            None => Freshness::Starting,
            Some(Duration::ZERO) => Freshness::Fresh,
            Some(stale) if stale <= self.max_staleness => Freshness::Stale,
            Some(_) => Freshness::Lost,
        }
    }

    /// Returns how long the index has been stale; zero while it is fresh or was never complete.
    pub fn stale_for(&self) -> Duration {
        self.stale().unwrap_or_default()
    }

    /// Returns the number of watches whose first full list is complete.
    pub fn listed(&self) -> usize {
        self.watches.iter().filter(|watch| watch.last_beat().is_some()).count()
    }

    /// Returns how long the index has been stale; `None` while a watch has no list.
    fn stale(&self) -> Option<Duration> {
        let mut stale_at = Duration::from_micros(self.api_server.load(Ordering::Relaxed)).saturating_add(UNANSWERED);
        for watch in &self.watches {
            stale_at = stale_at.min(watch.last_beat()?.saturating_add(SILENCE));
            // A watch that is down may be missing events.
            stale_at = stale_at.min(watch.down_since().unwrap_or(Duration::MAX));
        }
        Some(Duration::from_micros(micros((self.uptime)())).saturating_sub(stale_at))
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Probes the API server periodically with a request that only etcd can answer, and never returns.
///
/// An API server that has lost its etcd serves its cache and sends bookmarks for a while. A list without a resourceVersion is
/// consistent: the API server first asks etcd for the newest version
/// (<https://kubernetes.io/docs/reference/using-api/api-concepts/#semantics-for-get-and-list>).
pub async fn probe<K>(api: Api<K>, freshness: &IndexFreshness)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let mut turns = interval(PROBE_EVERY);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        turns.tick().await;
        match probe_once(&api).await {
            Ok(()) => {
                freshness.answered();
                if std::mem::take(&mut failing) {
                    info!("the API server answers again");
                }
            }
            Err(why) => {
                if !std::mem::replace(&mut failing, true) {
                    warn!(why, "the API server does not answer from its etcd");
                }
            }
        }
    }
}

/// Every error counts as a failed probe: an API server that waits for its etcd answers 429, and after 401 or 403 the next watch
/// will fail.
async fn probe_once<K>(api: &Api<K>) -> Result<(), String>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let newest = ListParams::default().limit(1);
    match timeout(PROBE_TIMEOUT, api.list_metadata(&newest)).await {
        Err(_) => Err(format!("no answer within {} seconds", PROBE_TIMEOUT.as_secs())),
        Ok(Err(error)) => Err(explain_api_error(&error)),
        Ok(Ok(_)) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct FreshnessStage {
        index: Arc<IndexFreshness>,
        seconds: Arc<AtomicU64>,
    }

    impl FreshnessStage {
        fn new(watches: usize) -> Self {
            let seconds = Arc::new(AtomicU64::new(1_000));
            let hand = seconds.clone();
            let uptime = move || Duration::from_secs(hand.load(Ordering::SeqCst));
            Self { index: IndexFreshness::with_uptime(watches, Duration::from_mins(5), uptime), seconds }
        }

        /// Moves the clock by this many seconds, with or without answers to probes.
        fn pass(&self, seconds: u64, answered: bool) {
            for _ in 0..seconds {
                self.seconds.fetch_add(1, Ordering::SeqCst);
                if answered {
                    self.index.answered();
                }
            }
        }

        fn assert(&self, freshness: Freshness, stale: u64) {
            assert_eq!(self.index.freshness(), freshness);
            assert_eq!(self.index.stale_for(), Duration::from_secs(stale));
        }
    }

    #[test]
    fn an_index_is_starting_until_every_watch_is_listed() {
        let stage = FreshnessStage::new(2);
        stage.index.heartbeat(1).beat();
        stage.pass(1_000, true);
        stage.assert(Freshness::Starting, 0);
        assert_eq!(stage.index.listed(), 1);
        stage.index.heartbeat(0).beat();
        stage.index.heartbeat(1).beat();
        stage.assert(Freshness::Fresh, 0);
    }

    #[test]
    fn a_silent_watch_makes_the_index_stale_and_then_lost() {
        let stage = FreshnessStage::new(2);
        (0..2).for_each(|watch| stage.index.heartbeat(watch).beat());
        stage.pass(30, true);
        stage.index.heartbeat(1).beat();
        stage.assert(Freshness::Fresh, 0);
        stage.pass(1, true);
        stage.assert(Freshness::Stale, 1);
        assert!(!stage.index.heartbeat(0).is_stale(), "it can still be resumed");
        stage.pass(299, true);
        stage.index.heartbeat(1).beat();
        stage.assert(Freshness::Stale, 300);
        stage.pass(1, true);
        stage.assert(Freshness::Lost, 301);
        stage.index.heartbeat(0).beat();
        stage.assert(Freshness::Fresh, 0);
    }

    #[test]
    fn an_interrupted_watch_makes_the_index_stale_at_once() {
        let stage = FreshnessStage::new(2);
        stage.index.heartbeat(0).interrupted();
        stage.assert(Freshness::Starting, 0);
        (0..2).for_each(|watch| stage.index.heartbeat(watch).beat());
        stage.assert(Freshness::Fresh, 0);
        stage.index.heartbeat(1).interrupted();
        stage.pass(1, true);
        stage.index.heartbeat(1).interrupted();
        stage.index.heartbeat(0).beat();
        stage.assert(Freshness::Stale, 1);
        stage.pass(300, true);
        stage.assert(Freshness::Lost, 301);
        (0..2).for_each(|watch| stage.index.heartbeat(watch).beat());
        stage.assert(Freshness::Fresh, 0);
    }

    #[test]
    fn unanswered_probes_make_the_index_stale_after_15_seconds() {
        let stage = FreshnessStage::new(1);
        stage.index.heartbeat(0).beat();
        stage.pass(15, false);
        stage.assert(Freshness::Fresh, 0);
        stage.pass(1, false);
        stage.assert(Freshness::Stale, 1);
        stage.index.heartbeat(0).beat();
        stage.assert(Freshness::Stale, 1);
        stage.pass(1, true);
        stage.assert(Freshness::Fresh, 0);
        stage.pass(316, false);
        stage.assert(Freshness::Lost, 301);
    }
}
