//! The gate in front of the reconciler. It limits how many PATs are reconciled at a time, and decides which come first.
//!
//! kube's `Controller` keeps its backlog in an unordered set, so it starts every due PAT at once. The gate admits as many as may run, parks
//! the others in the order of their due times, and triggers them when a slot is free. Above `MAX_BEGUN` half-done rotations, it finishes
//! those first.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use tokio::time::Instant;

use super::namespaced_name::NamespacedName;

/// From this many half-done rotations on, the gate finishes them before it starts others. A larger limit would keep more tokens in
/// memory. With a smaller one, the controller would idle while the last rotations of a wave wait for their second write.
const MAX_BEGUN: usize = 1024;

/// A gate that lets a limited number of reconciles run.
pub struct ReconcileGate {
    limit: usize,
    state: Mutex<ReconcileGateState>,
}

#[derive(Default)]
struct ReconcileGateState {
    /// The channel to kube's `Controller`; `None` while this process does not lead.
    triggers: Option<UnboundedSender<NamespacedName>>,
    /// The due time of each PAT that waits for a reconcile, here or in kube's scheduler.
    due: HashMap<NamespacedName, Instant>,
    /// The PATs that kube has started and that have to wait, in the order of their due times.
    parked: BTreeSet<(Instant, NamespacedName)>,
    /// The parked PATs whose rotation is half done.
    parked_begun: BTreeSet<(Instant, NamespacedName)>,
    /// The PATs that were parked and may run when kube starts them again.
    admitted: HashSet<NamespacedName>,
    running: HashSet<NamespacedName>,
    /// The PATs whose rotation is half done: the new token is published and not yet in the Secret.
    begun: HashSet<NamespacedName>,
}

/// The permit to reconcile one PAT. Dropping it frees the slot.
pub struct Permit<'g> {
    gate: &'g ReconcileGate,
    key: NamespacedName,
    lag: Duration,
    begun: bool,
}

impl ReconcileGate {
    /// Creates a gate that lets this many reconciles run at a time.
    pub fn new(limit: usize) -> Self {
        Self { limit, state: Mutex::default() }
    }

    /// Opens the gate for a term of leadership, and returns the stream of the PATs to reconcile.
    pub fn open(&self) -> UnboundedReceiver<NamespacedName> {
        let (sender, receiver) = unbounded();
        self.state().triggers = Some(sender);
        receiver
    }

    /// Closes the gate: nothing is triggered any more, and waiting PATs are forgotten.
    pub fn close(&self) {
        let mut state = self.state();
        *state = ReconcileGateState { running: std::mem::take(&mut state.running), ..ReconcileGateState::default() };
    }

    /// Asks for a reconcile as soon as possible. Does nothing while the gate is closed.
    pub fn trigger(&self, key: NamespacedName) {
        let mut state = self.state();
        if state.triggers.is_some() {
            state.wait_until(&key, Instant::now());
            state.send(key);
        }
    }

    /// Records that kube's scheduler will start a PAT after this delay. An earlier due time stays.
    pub fn scheduled(&self, key: &NamespacedName, after: Duration) {
        self.state().wait_until(key, Instant::now() + after);
    }

    /// Requests a permit for a PAT that kube has started. Returns `None` if it has to wait; the gate then triggers it
    /// later.
    pub fn enter(&self, key: &NamespacedName) -> Option<Permit<'_>> {
        let mut state = self.state();
        let now = Instant::now();
        if !state.admitted.remove(key) {
            // Never later than now: a trigger could move that time, and the entry in `parked` would not follow.
            let due = state.due.entry(key.clone()).or_insert(now);
            *due = (*due).min(now);
            let due = *due;
            let parked = if state.begun.contains(key) { &mut state.parked_begun } else { &mut state.parked };
            parked.insert((due, key.clone()));
            state.admit(self.limit, Some(key));
            if !state.admitted.remove(key) {
                return None;
            }
        }
        state.running.insert(key.clone());
        let due = state.due.remove(key).unwrap_or(now);
        Some(Permit { gate: self, key: key.clone(), lag: now.saturating_duration_since(due), begun: false })
    }

    /// Forgets a PAT that no longer exists.
    pub fn forget(&self, key: &NamespacedName) {
        let mut state = self.state();
        if let Some(due) = state.due.remove(key) {
            let entry = (due, key.clone());
            state.parked.remove(&entry);
            state.parked_begun.remove(&entry);
        }
        state.begun.remove(key);
        state.admitted.remove(key);
        state.admit(self.limit, None);
    }

    /// Returns how many PATs wait, and how many of them are due.
    pub fn depth(&self) -> (usize, usize) {
        let (state, now) = (self.state(), Instant::now());
        (state.due.len(), state.due.values().filter(|due| **due <= now).count())
    }

    /// Returns how long the waiting PAT with the earliest due time has been due. A running PAT does not wait.
    pub fn lag(&self) -> Duration {
        let state = self.state();
        let waiting = state.due.iter().filter(|(key, _)| !state.running.contains(*key));
        let first = waiting.map(|(_, due)| *due).min();
        first.map_or(Duration::ZERO, |due| Instant::now().saturating_duration_since(due))
    }

    /// Returns how many reconciles run.
    pub fn running(&self) -> usize {
        self.state().running.len()
    }

    fn state(&self) -> MutexGuard<'_, ReconcileGateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReconcileGateState {
    /// Records when a PAT is due. An earlier due time stays.
    fn wait_until(&mut self, key: &NamespacedName, due: Instant) {
        if let Some(present) = self.due.get_mut(key) {
            *present = (*present).min(due);
        } else {
            self.due.insert(key.clone(), due);
        }
    }

    /// Admits the first parked PATs to free slots and triggers them, except `entering`, which kube has just started.
    fn admit(&mut self, limit: usize, entering: Option<&NamespacedName>) {
        while self.running.len() + self.admitted.len() < limit
            && let Some(key) = self.next_parked()
        {
            self.admitted.insert(key.clone());
            if Some(&key) != entering {
                self.send(key);
            }
        }
    }

    fn next_parked(&mut self) -> Option<NamespacedName> {
        let begun_first = match (self.parked_begun.first(), self.parked.first()) {
            (Some(begun), Some(other)) => self.begun.len() >= MAX_BEGUN || begun < other,
            (begun, _) => begun.is_some(),
        };
        let next = if begun_first { self.parked_begun.pop_first() } else { self.parked.pop_first() };
        next.map(|(_, key)| key)
    }

    fn send(&self, key: NamespacedName) {
        if let Some(triggers) = &self.triggers {
            // The stream ends with the term, and the gate is closed right after that.
            let _ = triggers.unbounded_send(key);
        }
    }
}

impl Permit<'_> {
    /// Returns how long the PAT had been due.
    pub fn lag(&self) -> Duration {
        self.lag
    }

    /// Marks the rotation as half done.
    pub fn begun(&mut self, begun: bool) {
        self.begun = begun;
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut state = self.gate.state();
        state.running.remove(&self.key);
        if self.begun && state.triggers.is_some() {
            state.begun.insert(self.key.clone());
        } else {
            state.begun.remove(&self.key);
        }
        state.admit(self.gate.limit, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> NamespacedName {
        NamespacedName::new("ns", name)
    }

    /// An open gate, and the triggers that kube's `Controller` would receive.
    fn open(limit: usize) -> (ReconcileGate, UnboundedReceiver<NamespacedName>) {
        let gate = ReconcileGate::new(limit);
        let triggers = gate.open();
        (gate, triggers)
    }

    /// The names that the gate has triggered since the last call.
    fn names(triggers: &mut UnboundedReceiver<NamespacedName>) -> Vec<String> {
        std::iter::from_fn(|| triggers.try_recv().ok()).map(|key| key.name().to_owned()).collect()
    }

    /// Marks a PAT as one whose rotation is half done, due after some seconds.
    fn begin(gate: &ReconcileGate, name: &str, after: u64) {
        let mut permit = gate.enter(&key(name)).expect("there is room");
        permit.begun(true);
        drop(permit);
        gate.scheduled(&key(name), Duration::from_secs(after));
    }

    #[tokio::test(start_paused = true)]
    async fn parked_pats_run_in_the_order_in_which_they_were_due() {
        let (gate, mut triggers) = open(1);
        for (name, after) in [("late", 20), ("early", 10), ("early", 15)] {
            gate.scheduled(&key(name), Duration::from_secs(after));
        }
        let first = gate.enter(&key("first")).expect("there is room");
        tokio::time::advance(Duration::from_secs(30)).await;
        for name in ["late", "early", "late"] {
            assert!(gate.enter(&key(name)).is_none(), "{name}");
        }
        assert_eq!((gate.depth(), gate.lag().as_secs()), ((2, 2), 20));
        assert_eq!(triggers.try_recv().ok(), None);
        drop(first);
        assert_eq!(triggers.try_recv().ok(), Some(key("early")));
        assert!(gate.enter(&key("late")).is_none(), "the room is reserved");
        let early = gate.enter(&key("early")).expect("it was triggered");
        assert_eq!(early.lag().as_secs(), 20);
        drop(early);
        assert_eq!(names(&mut triggers), ["late"]);
        drop(gate.enter(&key("late")).expect("it was triggered"));
        assert_eq!((gate.depth(), gate.running()), ((0, 0), 0));
    }

    #[test]
    fn no_more_run_than_the_limit() {
        let (gate, mut triggers) = open(2);
        for name in ["a", "b", "c", "d"] {
            gate.trigger(key(name));
        }
        assert_eq!(names(&mut triggers), ["a", "b", "c", "d"]);
        let (a, b) = (gate.enter(&key("a")), gate.enter(&key("b")));
        assert!(a.is_some() && b.is_some());
        assert!(gate.enter(&key("c")).is_none() && gate.enter(&key("d")).is_none());
        drop((a, b));
        assert_eq!(names(&mut triggers), ["c", "d"]);
        let c = gate.enter(&key("c"));
        assert!(c.is_some() && gate.enter(&key("e")).is_none(), "the other place is reserved");
    }

    #[tokio::test(start_paused = true)]
    async fn trigger_during_a_run_waits_and_does_not_count_as_late() {
        let (gate, mut triggers) = open(1);
        let running = gate.enter(&key("a")).expect("there is room");
        gate.trigger(key("a"));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!((gate.depth(), gate.lag()), ((1, 1), Duration::ZERO));
        drop(running);
        gate.scheduled(&key("a"), Duration::from_secs(600));
        assert_eq!((gate.depth(), gate.lag().as_secs()), ((1, 1), 5), "an earlier time stands");
        assert_eq!(names(&mut triggers), ["a"]);
    }

    #[tokio::test(start_paused = true)]
    async fn half_done_rotations_come_first_where_there_are_many() {
        let (gate, mut triggers) = open(1);
        begin(&gate, "begun", 2);
        let busy = gate.enter(&key("busy")).expect("there is room");
        assert!(gate.enter(&key("a")).is_none());
        tokio::time::advance(Duration::from_secs(3)).await;
        assert!(gate.enter(&key("b")).is_none() && gate.enter(&key("begun")).is_none());
        drop(busy);
        assert_eq!(names(&mut triggers), ["a"], "it was due first, and few rotations are half done");
        drop(gate.enter(&key("a")));
        assert_eq!(names(&mut triggers), ["begun"]);
        let mut begun = gate.enter(&key("begun")).expect("it was triggered");
        begun.begun(true);
        drop(begun);
        assert_eq!(names(&mut triggers), ["b"]);
        drop(gate.enter(&key("b")));

        for number in 1..MAX_BEGUN {
            begin(&gate, &format!("later-{number}"), 60);
        }
        let busy = gate.enter(&key("busy")).expect("there is room");
        assert!(gate.enter(&key("c")).is_none() && gate.enter(&key("d")).is_none());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(gate.enter(&key("begun")).is_none());
        drop(busy);
        assert_eq!(names(&mut triggers), ["begun"], "although others were due first");
        drop(gate.enter(&key("begun")));
        assert_eq!(names(&mut triggers), ["c"], "there is time until the other rotations are due");
        drop(gate.enter(&key("c")));
        assert_eq!(names(&mut triggers), ["d"]);
        assert_eq!(gate.depth().0, MAX_BEGUN);
    }

    #[test]
    fn finished_or_failed_rotation_no_longer_counts_as_half_done() {
        let gate = ReconcileGate::new(1);
        let _triggers = gate.open();
        begin(&gate, "a", 0);
        begin(&gate, "b", 0);
        assert_eq!(gate.state().begun.len(), 2);
        drop(gate.enter(&key("a")));
        assert_eq!(gate.state().begun.len(), 1);
        gate.forget(&key("b"));
        assert_eq!(gate.state().begun.len(), 0);
    }

    #[test]
    fn deleted_pat_takes_no_place_and_leaves_nothing_behind() {
        let (gate, mut triggers) = open(1);
        let busy = gate.enter(&key("busy")).expect("there is room");
        for name in ["a", "b", "c"] {
            assert!(gate.enter(&key(name)).is_none());
        }
        drop(busy);
        assert_eq!(names(&mut triggers), ["a"]);
        gate.forget(&key("a"));
        assert_eq!(names(&mut triggers), ["b"], "the place of the first goes to the next");
        gate.forget(&key("c"));
        gate.forget(&key("b"));
        assert_eq!((names(&mut triggers).len(), gate.depth()), (0, (0, 0)));
        assert!(gate.enter(&key("d")).is_some());
    }

    #[test]
    fn closed_gate_forgets_what_waits_and_triggers_nothing() {
        let gate = ReconcileGate::new(1);
        gate.trigger(key("standby"));
        assert_eq!(gate.depth(), (0, 0), "a standby collects nothing");
        let mut triggers = gate.open();
        let busy = gate.enter(&key("busy")).expect("there is room");
        assert!(gate.enter(&key("a")).is_none());
        gate.close();
        drop(busy);
        gate.trigger(key("b"));
        assert!(triggers.try_recv().is_err());
        assert_eq!((gate.depth(), gate.running()), ((0, 0), 0));
        let mut triggers = gate.open();
        gate.trigger(key("c"));
        assert_eq!(triggers.try_recv().ok(), Some(key("c")));
        assert!(gate.enter(&key("c")).is_some());
    }
}
