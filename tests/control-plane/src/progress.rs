//! Progress of slow work on standard error.

use std::{
    io::{self, IsTerminal, Write},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Reports that work goes on, until [`done`](Self::done) or [`cancel`](Self::cancel).
///
/// On a terminal it rewrites one line every second. Elsewhere it adds a line every 30 seconds.
pub(crate) struct Progress {
    begin: Instant,
    text: String,
    detail: Arc<Mutex<String>>,
    ticker: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Progress {
    /// Prints `text` and starts to report.
    pub(crate) fn begin(text: String) -> Self {
        let begin = Instant::now();
        let (stop, stopped) = mpsc::channel();
        let live = io::stderr().is_terminal();
        print(&if live { format!("{text} …") } else { format!("{text} …\n") });
        let detail = Arc::<Mutex<String>>::default();
        let (ticking, latest) = (text.clone(), Arc::clone(&detail));
        let ticker = thread::spawn(move || {
            let every = Duration::from_secs(if live { 1 } else { 30 });
            while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                let detail = latest.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let state = state(begin.elapsed(), &detail);
                print(&if live { format!("{REWRITE}{ticking} … {state}") } else { format!("  … {state}\n") });
            }
        });
        Self { begin, text, detail, ticker: Some((stop, ticker)) }
    }

    /// Sets what the next report adds to the elapsed time.
    pub(crate) fn detail(&self, detail: String) {
        *self.detail.lock().unwrap_or_else(PoisonError::into_inner) = detail;
    }

    /// Prints the result and how long the work took.
    pub(crate) fn done(mut self, result: &str) {
        self.stop();
        let elapsed = duration(self.begin.elapsed());
        let start = if io::stderr().is_terminal() { format!("{REWRITE}{}", self.text) } else { " ".to_owned() };
        print(&format!("{start} … {result} in {elapsed}\n"));
    }

    /// Ends without a result; the caller prints one.
    pub(crate) fn cancel(mut self) {
        self.stop();
        if io::stderr().is_terminal() {
            print(REWRITE);
        }
    }

    fn stop(&mut self) {
        if let Some((stop, ticker)) = self.ticker.take() {
            drop(stop);
            let _ = ticker.join();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Back to the start of the line, and clear it.
const REWRITE: &str = "\r\x1b[K";

/// Prints straight to standard error: the test harness captures only `eprint!`.
pub(crate) fn print(text: &str) {
    let mut out = io::stderr();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn state(elapsed: Duration, detail: &str) -> String {
    let elapsed = duration(elapsed);
    if detail.is_empty() { elapsed } else { format!("{elapsed}, {detail}") }
}

fn duration(elapsed: Duration) -> String {
    match elapsed.as_secs() {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds => format!("{}m{:02}s", seconds / 60, seconds % 60),
    }
}

/// A rough duration, such as `about 6 minutes`.
pub(crate) fn about(duration: Duration) -> String {
    match (duration.as_secs() + 30) / 60 {
        _ if duration.as_secs() < 60 => "half a minute".to_owned(),
        1 => "about 1 minute".to_owned(),
        minutes => format!("about {minutes} minutes"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{about, duration, state};

    #[test]
    fn durations_have_minutes_from_one_minute_on() {
        assert_eq!(duration(Duration::from_secs(59)), "59s");
        assert_eq!(duration(Duration::from_secs(341)), "5m41s");
    }

    #[test]
    fn estimates_are_rounded_to_minutes() {
        let estimates = [30, 60, 90, 750].map(|seconds| about(Duration::from_secs(seconds)));
        assert_eq!(estimates, ["half a minute", "about 1 minute", "about 2 minutes", "about 13 minutes"]);
    }

    #[test]
    fn detail_follows_the_elapsed_time() {
        assert_eq!(state(Duration::from_secs(7), ""), "7s");
        assert_eq!(state(Duration::from_secs(7), "12 of 48 MB (25 %)"), "7s, 12 of 48 MB (25 %)");
    }
}
