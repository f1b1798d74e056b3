//! What is going on, for whoever waits: a line on stderr when something begins, every few seconds, and when it is done.
//!
//! Must not know what goes on.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// How often a long step is heard of.
const EVERY: Duration = Duration::from_secs(10);

/// One step of the bench. Clones are the same step.
#[derive(Clone)]
pub struct Progress(Arc<Inner>);

struct Inner {
    what: String,
    total: usize,
    done: AtomicUsize,
    told: Mutex<Instant>,
}

impl Progress {
    /// Says that a step begins; `total` is how often [`Progress::step`] will be called.
    pub fn begin(what: impl Into<String>, total: usize) -> Self {
        let what = what.into();
        eprintln!("{} {what} …", clock());
        Self(Arc::new(Inner { what, total, done: AtomicUsize::new(0), told: Mutex::new(Instant::now()) }))
    }

    /// One more is done.
    pub fn step(&self) {
        let done = self.0.done.fetch_add(1, Ordering::Relaxed) + 1;
        self.tell(done);
    }

    /// So many are done.
    pub fn at(&self, done: usize) {
        self.0.done.store(done, Ordering::Relaxed);
        self.tell(done);
    }

    fn tell(&self, done: usize) {
        let Inner { what, total, told, .. } = &*self.0;
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.elapsed() >= EVERY {
            *told = Instant::now();
            eprintln!("{} {what}: {done} of {total}", clock());
        }
    }
}

/// Says how a step came out.
pub fn tell(what: &str) {
    eprintln!("{} {what}", clock());
}

/// Time since the first line, as `[  12 s]`.
fn clock() -> String {
    static BEGAN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    format!("[{:4} s]", BEGAN.get_or_init(Instant::now).elapsed().as_secs())
}
