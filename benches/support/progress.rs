//! Progress messages on stderr: at the start of a step, every few seconds, and at its end.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// The interval between two messages.
const EVERY: Duration = Duration::from_secs(10);

/// One step of the benchmark. Clones are the same step.
#[derive(Clone)]
pub struct Progress(Arc<Inner>);

struct Inner {
    what: String,
    total: usize,
    done: AtomicUsize,
    reported: Mutex<Instant>,
}

impl Progress {
    /// Prints that a step starts. `total` is the expected number of calls of [`Progress::step`].
    pub fn begin(what: impl Into<String>, total: usize) -> Self {
        let what = what.into();
        eprintln!("{} {what} …", clock());
        Self(Arc::new(Inner { what, total, done: AtomicUsize::new(0), reported: Mutex::new(Instant::now()) }))
    }

    /// Counts one item as done.
    pub fn step(&self) {
        let done = self.0.done.fetch_add(1, Ordering::Relaxed) + 1;
        self.report(done);
    }

    /// Sets the number of items that are done.
    pub fn at(&self, done: usize) {
        self.0.done.store(done, Ordering::Relaxed);
        self.report(done);
    }

    fn report(&self, done: usize) {
        let Inner { what, total, reported, .. } = &*self.0;
        let mut reported = reported.lock().unwrap_or_else(PoisonError::into_inner);
        if reported.elapsed() >= EVERY {
            *reported = Instant::now();
            eprintln!("{} {what}: {done} of {total}", clock());
        }
    }
}

/// Prints the result of a step.
pub fn report(what: &str) {
    eprintln!("{} {what}", clock());
}

/// The time since the first message, such as `[  12 s]`.
fn clock() -> String {
    static BEGAN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    format!("[{:4} s]", BEGAN.get_or_init(Instant::now).elapsed().as_secs())
}
