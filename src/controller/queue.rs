//! Which token is looked at next: a queue of names with deadlines.
//!
//! A name is in the queue at most once, is never handed out twice at a time, and comes in the order of its deadline; so what
//! is due longest is served first and nothing starves. Where much has been begun, that goes first: in a wave of ten thousand rotations it is a
//! thousand tokens at a time that are between two of their writes, and not all of them. (kube-runtime's own scheduler keeps its backlog in a set without
//! order and polls every running slot at each wake-up.) It must not know what is done with a name.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::cache::Key;

/// So much may have been begun before it goes first. More would only be held in memory for longer; with less there would be nothing to do
/// while the last of a wave wait.
const MOST_BEGUN: usize = 1024;

/// The queue. Share it by reference; every method takes `&self`.
#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    /// One at a time waits for what is due, so that a deadline wakes one and not all.
    turn: tokio::sync::Mutex<()>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// In the order of their deadlines; what has been begun, and all else.
    begun: BTreeSet<(Instant, Key)>,
    fresh: BTreeSet<(Instant, Key)>,
    time_of: HashMap<Key, Instant>,
    running: HashSet<Key>,
    closed: bool,
}

/// A name that was handed out, and how long it had been due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The name.
    pub key: Key,
    /// How long it had been due.
    pub lag: Duration,
}

impl Queue {
    /// Asks for a name to be served as soon as possible.
    pub fn add(&self, key: Key) {
        self.add_at(key, Instant::now());
    }

    /// Asks for a name to be served after a while. An earlier deadline stands.
    pub fn add_after(&self, key: Key, delay: Duration) {
        self.add_at(key, Instant::now() + delay);
    }

    /// The same for a name of which something has been begun: if there are many such, they are served before all others once they are due.
    /// An earlier deadline stands.
    pub fn resume_after(&self, key: Key, delay: Duration) {
        self.insert(key, Instant::now() + delay, |state| &mut state.begun);
    }

    fn add_at(&self, key: Key, at: Instant) {
        self.insert(key, at, |state| &mut state.fresh);
    }

    fn insert(&self, key: Key, at: Instant, into: impl FnOnce(&mut State) -> &mut BTreeSet<(Instant, Key)>) {
        let mut state = self.state();
        if state.closed {
            return;
        }
        if let Some(present) = state.time_of.get(&key).copied() {
            if present <= at {
                return;
            }
            state.forget(&key, present);
        }
        let is_first = state.next_at().is_none_or(|next| at < next);
        state.time_of.insert(key.clone(), at);
        into(&mut state).insert((at, key));
        drop(state);
        if is_first {
            self.changed.notify_one();
        }
    }

    /// The next name that is due and not being served; `None` once the queue is closed. Give it back by [`Queue::done`].
    pub async fn next(&self) -> Option<Job> {
        let _turn = self.turn.lock().await;
        loop {
            let next_at = {
                let mut state = self.state();
                if state.closed {
                    return None;
                }
                match state.take_due(Instant::now()) {
                    Ok(job) => return Some(job),
                    Err(next_at) => next_at,
                }
            };
            match next_at {
                Some(at) => {
                    tokio::select! {
                        () = self.changed.notified() => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
                None => self.changed.notified().await,
            }
        }
    }

    /// A name has been served. If it was asked for in the meantime it may be handed out again.
    pub fn done(&self, key: &Key) {
        let mut state = self.state();
        state.running.remove(key);
        if state.time_of.contains_key(key) {
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Forgets everything that waits.
    pub fn clear(&self) {
        let mut state = self.state();
        state.begun.clear();
        state.fresh.clear();
        state.time_of.clear();
    }

    /// Hands out nothing more; whoever waits gets `None`.
    pub fn close(&self) {
        self.state().closed = true;
        // Whoever has the turn leaves it to the next, who sees the same.
        self.changed.notify_one();
    }

    /// How many names wait, and how many of them are due.
    pub fn depth(&self) -> (usize, usize) {
        let state = self.state();
        let now = Instant::now();
        let due = |names: &BTreeSet<(Instant, Key)>| names.iter().take_while(|(at, _)| *at <= now).count();
        (state.time_of.len(), due(&state.begun) + due(&state.fresh))
    }

    /// How many names have been handed out and not been given back.
    pub fn running(&self) -> usize {
        self.state().running.len()
    }

    /// How long the name that is due longest has been due.
    pub fn lag(&self) -> Duration {
        let next = self.state().next_at();
        next.map_or(Duration::ZERO, |at| Instant::now().saturating_duration_since(at))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A name that is due, or when the next one will be.
    fn take_due(&mut self, now: Instant) -> Result<Job, Option<Instant>> {
        let due = |names| self.first(names).filter(|(at, _)| *at <= now);
        let (begun, fresh) = (due(&self.begun), due(&self.fresh));
        let next = if self.begun.len() < MOST_BEGUN { begun.into_iter().chain(fresh).min() } else { begun.or(fresh) };
        let Some((at, key)) = next.cloned() else { return Err(self.next_at()) };
        self.forget(&key, at);
        self.running.insert(key.clone());
        Ok(Job { key, lag: now - at })
    }

    /// When the next name is due.
    fn next_at(&self) -> Option<Instant> {
        [&self.begun, &self.fresh].into_iter().filter_map(|names| self.first(names)).map(|(at, _)| *at).min()
    }

    /// The first of these that is not being served.
    fn first<'a>(&self, names: &'a BTreeSet<(Instant, Key)>) -> Option<&'a (Instant, Key)> {
        names.iter().find(|(_, key)| !self.running.contains(key))
    }

    fn forget(&mut self, key: &Key, at: Instant) {
        let entry = (at, key.clone());
        let _one_of_them = self.begun.remove(&entry) || self.fresh.remove(&entry);
        self.time_of.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::new("ns", name)
    }

    #[tokio::test(start_paused = true)]
    async fn serves_by_deadline_and_each_name_once() {
        let queue = Queue::default();
        queue.add_after(key("late"), Duration::from_secs(20));
        queue.add_after(key("early"), Duration::from_secs(10));
        queue.add_after(key("early"), Duration::from_secs(15));
        queue.add(key("now"));
        queue.add(key("now"));
        let mut order = Vec::new();
        for _ in 0..3 {
            let job = queue.next().await.unwrap();
            queue.done(&job.key);
            order.push(job.key.name().to_owned());
        }
        assert_eq!(order, ["now", "early", "late"]);
        assert_eq!(queue.depth(), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_is_being_served_waits_until_it_is_given_back() {
        let queue = Queue::default();
        queue.add(key("a"));
        let job = queue.next().await.unwrap();
        queue.add(key("a"));
        let waits = tokio::time::timeout(Duration::from_secs(60), queue.next()).await;
        assert!(waits.is_err());
        queue.done(&job.key);
        assert_eq!(queue.next().await.unwrap().key, key("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_moves_forward_only() {
        let queue = Queue::default();
        queue.add_after(key("a"), Duration::from_secs(100));
        queue.add_after(key("a"), Duration::from_secs(10));
        let before = Instant::now();
        queue.next().await.unwrap();
        assert_eq!(before.elapsed().as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_been_begun_is_served_first_where_there_is_much_of_it_but_not_before_it_is_due() {
        let queue = Queue::default();
        let next = async || {
            let job = queue.next().await.unwrap();
            queue.done(&job.key);
            job.key.name().to_owned()
        };
        for name in ["a", "b", "c"] {
            queue.add(key(name));
        }
        queue.resume_after(key("begun"), Duration::from_secs(2));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!((queue.depth(), queue.lag().as_secs()), ((4, 4), 5));
        assert_eq!(next().await, "a", "it is due longest, and little has been begun");
        for number in 1..MOST_BEGUN {
            queue.resume_after(key(&format!("later-{number}")), Duration::from_secs(60));
        }
        // Asked for in between: its place is the better one.
        queue.add(key("begun"));
        assert_eq!(
            [next().await, next().await, next().await],
            ["begun", "b", "c"],
            "there is time until the others are due"
        );
        queue.add_after(key("d"), Duration::from_secs(50));
        queue.resume_after(key("another"), Duration::from_secs(60));
        tokio::time::advance(Duration::from_secs(70)).await;
        assert!(next().await != "d");
        assert_eq!(next().await, "d", "it has been due longer than what is left");
        queue.resume_after(key("e"), Duration::from_secs(9));
        queue.add(key("e"));
        let (waiting, due) = queue.depth();
        assert_eq!((waiting, due), (MOST_BEGUN, MOST_BEGUN), "an earlier deadline counts");
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_in_is_not_slept_through_while_an_earlier_one_is_being_served() {
        let queue = Queue::default();
        queue.add(key("a"));
        let job = queue.next().await.unwrap();
        queue.add(job.key.clone());
        queue.add_after(key("late"), Duration::from_secs(100));
        let served = async {
            let began = Instant::now();
            (queue.next().await.unwrap().key, began.elapsed().as_secs())
        };
        let asked = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            queue.add(key("b"));
        };
        assert_eq!(tokio::join!(served, asked).0, (key("b"), 1));
    }

    #[tokio::test]
    async fn closing_releases_every_waiter() {
        let queue = std::sync::Arc::new(Queue::default());
        let waiters: Vec<_> = (0..4)
            .map(|_| {
                let queue = queue.clone();
                tokio::spawn(async move { queue.next().await })
            })
            .collect();
        tokio::task::yield_now().await;
        queue.close();
        for waiter in waiters {
            assert_eq!(waiter.await.unwrap(), None);
        }
    }
}
