//! Graceful shutdown: SIGTERM or SIGINT cancels a token, and a second signal ends the process at once.
//!
//! `tokio-graceful` does not suffice: the second signal must end the process with the exit code of that signal.

use std::io;

use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Exit code after a second SIGINT: 128 + the signal's number.
pub const EXIT_INTERRUPTED: i32 = 130;

/// Exit code after a second SIGTERM: 128 + the signal's number.
pub const EXIT_TERMINATED: i32 = 143;

/// Listens for signals until dropped. Tasks that end with the process take a clone of its token.
#[derive(Debug)]
pub struct Shutdown {
    token: CancellationToken,
    listener: JoinHandle<()>,
}

impl Shutdown {
    /// Installs the signal handlers. Must run on a tokio runtime, before anything that needs a graceful shutdown.
    ///
    /// # Errors
    /// The signal handlers cannot be installed.
    pub fn listen() -> io::Result<Self> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let token = CancellationToken::new();
        let next = async move || {
            tokio::select! {
                _ = terminate.recv() => EXIT_TERMINATED,
                _ = interrupt.recv() => EXIT_INTERRUPTED,
            }
        };
        let listener = tokio::spawn(handle_signals(next, token.clone(), |code| std::process::exit(code)));
        Ok(Self { token, listener })
    }

    /// Returns the token that the first signal cancels.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }
}

impl Drop for Shutdown {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

async fn handle_signals(mut next: impl AsyncFnMut() -> i32, token: CancellationToken, exit: impl Fn(i32)) {
    let code = next().await;
    info!(signal = name(code), "stopping: finishing work in flight; a second signal stops at once");
    token.cancel();
    let code = next().await;
    warn!(signal = name(code), "second signal: stopping at once");
    exit(code);
}

fn name(code: i32) -> &'static str {
    if code == EXIT_INTERRUPTED { "SIGINT" } else { "SIGTERM" }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI32, Ordering};

    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn the_second_signal_exits_with_its_code() {
        let (send, mut receive) = mpsc::channel(2);
        let token = CancellationToken::new();
        let exited_with = AtomicI32::new(0);
        let next = async move || receive.recv().await.unwrap();
        let handling = handle_signals(next, token.clone(), |code| exited_with.store(code, Ordering::SeqCst));
        let signalling = async {
            assert!(!token.is_cancelled());
            send.send(EXIT_TERMINATED).await.unwrap();
            token.cancelled().await;
            assert_eq!(exited_with.load(Ordering::SeqCst), 0);
            send.send(EXIT_INTERRUPTED).await.unwrap();
        };
        tokio::join!(handling, signalling);
        assert_eq!(exited_with.load(Ordering::SeqCst), EXIT_INTERRUPTED);
    }
}
