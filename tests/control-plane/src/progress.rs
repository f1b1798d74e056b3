//! One line on standard error for each thing that takes long.
//!
//! For: builds of minutes, which must not look like a hang.
//! Must not know what takes long.

use std::{
    io::{self, IsTerminal, Write},
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Says what is being done, then how it goes on, until it is told how it ended.
pub(crate) struct Progress {
    begin: Instant,
    text: String,
    ticker: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Progress {
    /// Says `text` and keeps saying how long it has been: at a terminal each second in the same line, else every
    /// 30 seconds in a new one.
    pub(crate) fn begin(text: String) -> Self {
        let begin = Instant::now();
        let (stop, stopped) = mpsc::channel();
        let live = io::stderr().is_terminal();
        say(&if live { format!("{text} …") } else { format!("{text} …\n") });
        let ticking = text.clone();
        let ticker = thread::spawn(move || {
            let every = Duration::from_secs(if live { 1 } else { 30 });
            while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                let elapsed = minutes(begin.elapsed());
                say(&if live { format!("\r{ticking} … {elapsed}") } else { format!("  … {elapsed}\n") });
            }
        });
        Self { begin, text, ticker: Some((stop, ticker)) }
    }

    /// Says how it ended, and how long it took.
    pub(crate) fn done(mut self, how: &str) {
        self.stop();
        let elapsed = minutes(self.begin.elapsed());
        let start = if io::stderr().is_terminal() { format!("\r{}", self.text) } else { " ".to_owned() };
        say(&format!("{start} … {how} in {elapsed}\n"));
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

/// Straight to standard error, past the capture of the test harness: whoever waits shall see why.
fn say(text: &str) {
    let mut out = io::stderr();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn minutes(elapsed: Duration) -> String {
    match elapsed.as_secs() {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds => format!("{}m{:02}s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::minutes;
    use std::time::Duration;

    #[test]
    fn a_time_is_told_in_minutes_from_one_minute_on() {
        assert_eq!(minutes(Duration::from_secs(59)), "59s");
        assert_eq!(minutes(Duration::from_secs(341)), "5m41s");
    }
}
