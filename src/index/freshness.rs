//! How far the index can be trusted: what was heard last, on each watch and from the API server itself.
//!
//! Told by a clock that never jumps. It must not know what a watch is for, nor who asks.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{auth::decision::Freshness, service::clock::uptime};

/// A watch on which nothing was heard for so long may have missed something: idle ones bring a bookmark every one to two
/// minutes.
pub const SILENCE: Duration = Duration::from_mins(3);

/// How often the API server is asked whether it is there.
pub const PROBE_EVERY: Duration = Duration::from_secs(5);

/// So long without a good answer: two in a row were bad or missing, and the third is late. One may be lost on the way, or be late
/// on a busy machine, without any consequence.
pub const UNANSWERED: Duration = Duration::from_secs(15);

type Uptime = Box<dyn Fn() -> Duration + Send + Sync>;

/// When each watch and the API server were last heard of. Reading it takes no lock and a few nanoseconds.
pub struct Pulse {
    /// In microseconds of uptime; 0: its first list is not in.
    watches: Box<[AtomicU64]>,
    /// Since when each watch has been broken, in the same measure; 0: it runs.
    broken: Box<[AtomicU64]>,
    api_server: AtomicU64,
    max_staleness: Duration,
    uptime: Uptime,
}

/// The pulse of one watch.
#[derive(Clone)]
pub struct Beat {
    pulse: Arc<Pulse>,
    watch: usize,
}

impl Pulse {
    /// Nothing has been heard of any of so many watches; the API server was there a moment ago.
    pub fn new(watches: usize, max_staleness: Duration) -> Arc<Self> {
        Self::by(watches, max_staleness, Box::new(uptime))
    }

    fn by(watches: usize, max_staleness: Duration, uptime: Uptime) -> Arc<Self> {
        let now = micros(uptime());
        let zeros = || (0..watches).map(|_| AtomicU64::new(0)).collect();
        let (watches, broken) = (zeros(), zeros());
        Arc::new(Self { watches, broken, api_server: AtomicU64::new(now), max_staleness, uptime })
    }

    /// The part of the watch of this number.
    pub fn beat(self: &Arc<Self>, watch: usize) -> Beat {
        assert!(watch < self.watches.len(), "there is no such watch");
        Beat { pulse: self.clone(), watch }
    }

    /// The API server has answered.
    pub fn answered(&self) {
        self.api_server.fetch_max(self.now(), Ordering::Relaxed);
    }

    /// How far the index can be trusted now.
    pub fn freshness(&self) -> Freshness {
        let Some(oldest) = self.oldest() else { return Freshness::Starting };
        match self.stale_since(oldest) {
            None => Freshness::Fresh,
            Some(stale) if stale <= self.max_staleness => Freshness::Stale,
            Some(_) => Freshness::Lost,
        }
    }

    /// How long the index has been stale; zero while it is not, or has never been full.
    pub fn stale_for(&self) -> Duration {
        self.oldest().and_then(|oldest| self.stale_since(oldest)).unwrap_or_default()
    }

    /// How many watches have had their first full list.
    pub fn listed(&self) -> usize {
        self.watches.iter().filter(|heard| heard.load(Ordering::Relaxed) != 0).count()
    }

    /// When the watch was heard of that has been silent the longest; `None` if there is one without a list.
    fn oldest(&self) -> Option<u64> {
        let oldest = self.watches.iter().map(|heard| heard.load(Ordering::Relaxed)).min().unwrap_or(u64::MAX);
        (oldest != 0).then_some(oldest)
    }

    fn stale_since(&self, oldest: u64) -> Option<Duration> {
        let watches = oldest.saturating_add(micros(SILENCE));
        let api_server = self.api_server.load(Ordering::Relaxed).saturating_add(micros(UNANSWERED));
        // A watch that is known to be down may be missing something at this very moment.
        let down = self.broken.iter().map(|since| since.load(Ordering::Relaxed)).filter(|since| *since != 0).min();
        let stale = self.now().checked_sub(watches.min(api_server).min(down.unwrap_or(u64::MAX)))?;
        (stale > 0).then(|| Duration::from_micros(stale))
    }

    fn now(&self) -> u64 {
        micros((self.uptime)()).max(1)
    }
}

impl Beat {
    /// What this watch knows is what the API server has, or had a moment ago.
    pub fn heard(&self) {
        self.pulse.watches[self.watch].fetch_max(self.pulse.now(), Ordering::Relaxed);
        self.runs();
    }

    /// This watch is down: from now on its index is stale.
    pub fn broke(&self) {
        let _already =
            self.pulse.broken[self.watch].compare_exchange(0, self.pulse.now(), Ordering::Relaxed, Ordering::Relaxed);
    }

    /// This watch is up again, from where it broke off.
    pub fn runs(&self) {
        self.pulse.broken[self.watch].store(0, Ordering::Relaxed);
    }

    /// Whether it has been silent for so long that only a new list helps.
    pub fn is_stale(&self) -> bool {
        let heard = self.pulse.watches[self.watch].load(Ordering::Relaxed);
        heard.saturating_add(micros(SILENCE)) < self.pulse.now()
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Story {
        pulse: Arc<Pulse>,
        seconds: Arc<AtomicU64>,
    }

    impl Story {
        fn of(watches: usize) -> Self {
            let seconds = Arc::new(AtomicU64::new(1_000));
            let hand = seconds.clone();
            let uptime = Box::new(move || Duration::from_secs(hand.load(Ordering::SeqCst)));
            Self { pulse: Pulse::by(watches, Duration::from_mins(5), uptime), seconds }
        }

        /// The clock goes on by so many seconds, in which probes are answered or not.
        fn pass(&self, seconds: u64, answered: bool) {
            for _ in 0..seconds {
                self.seconds.fetch_add(1, Ordering::SeqCst);
                if answered {
                    self.pulse.answered();
                }
            }
        }

        fn is(&self, freshness: Freshness, stale: u64) {
            assert_eq!(self.pulse.freshness(), freshness);
            assert_eq!(self.pulse.stale_for(), Duration::from_secs(stale));
        }
    }

    #[test]
    fn it_starts_until_every_watch_has_its_list() {
        let story = Story::of(2);
        story.pulse.beat(1).heard();
        story.pass(1_000, true);
        story.is(Freshness::Starting, 0);
        assert_eq!(story.pulse.listed(), 1);
        story.pulse.beat(0).heard();
        story.pulse.beat(1).heard();
        story.is(Freshness::Fresh, 0);
    }

    #[test]
    fn one_silent_watch_makes_it_stale_after_three_minutes_and_lost_after_five_more() {
        let story = Story::of(2);
        (0..2).for_each(|watch| story.pulse.beat(watch).heard());
        story.pass(180, true);
        story.pulse.beat(1).heard();
        story.is(Freshness::Fresh, 0);
        assert!(!story.pulse.beat(0).is_stale());
        story.pass(1, true);
        story.is(Freshness::Stale, 1);
        assert!(story.pulse.beat(0).is_stale() && !story.pulse.beat(1).is_stale());
        story.pass(299, true);
        story.pulse.beat(1).heard();
        story.is(Freshness::Stale, 300);
        story.pass(1, true);
        story.is(Freshness::Lost, 301);
        story.pulse.beat(0).heard();
        story.is(Freshness::Fresh, 0);
    }

    #[test]
    fn a_watch_that_broke_makes_it_stale_at_once_until_it_runs_again() {
        let story = Story::of(2);
        story.pulse.beat(0).broke();
        story.is(Freshness::Starting, 0);
        (0..2).for_each(|watch| story.pulse.beat(watch).heard());
        story.is(Freshness::Fresh, 0);
        story.pulse.beat(1).broke();
        story.pass(1, true);
        story.pulse.beat(1).broke();
        story.pulse.beat(0).heard();
        story.is(Freshness::Stale, 1);
        story.pass(300, true);
        story.is(Freshness::Lost, 301);
        story.pulse.beat(1).runs();
        story.pulse.beat(0).heard();
        story.pulse.beat(1).heard();
        story.is(Freshness::Fresh, 0);
    }

    #[test]
    fn an_api_server_that_does_not_answer_makes_it_stale_much_sooner() {
        let story = Story::of(1);
        story.pulse.beat(0).heard();
        story.pass(15, false);
        story.is(Freshness::Fresh, 0);
        story.pass(1, false);
        story.is(Freshness::Stale, 1);
        story.pulse.beat(0).heard();
        story.is(Freshness::Stale, 1);
        story.pass(1, true);
        story.is(Freshness::Fresh, 0);
        story.pass(316, false);
        story.is(Freshness::Lost, 301);
    }
}
