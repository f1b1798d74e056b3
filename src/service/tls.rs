//! TLS from files, and from new files without a restart: certificates are renewed while servers run.
//!
//! The files are read every few seconds, which works on everything that Kubernetes mounts. A pair that is of no use
//! never replaces one that is. It must not know what is served.

mod figures;
mod files;
#[cfg(test)]
mod tests;
pub mod validity;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::files::{Content, Loaded};
pub use self::{
    figures::Figures,
    files::{Files, TlsError},
    validity::Validity,
};
use super::clock::Clock;

/// How often the files are read.
pub const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A certificate with its key, always the newest that is of use. Clones are the same one.
#[derive(Clone)]
pub struct Tls {
    files: Arc<Files>,
    clock: Clock,
    state: Arc<Mutex<State>>,
}

struct State {
    loaded: Loaded,
    digest: [u8; 32],
    /// Why what is in the files now is not what is served with.
    failure: Option<Failure>,
    reloads: u64,
}

struct Failure {
    text: String,
    category: &'static str,
    /// Whether it has been seen twice: one look may fall between the two files.
    certain: bool,
}

/// How it stands with the certificate, for metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsStatus {
    /// When the certificate in use begins and ends.
    pub validity: Validity,
    /// How often it was replaced.
    pub reloads: u64,
    /// Why the files are of no use at present, by [`TlsError::category`].
    pub failure: Option<&'static str>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// When they are of no use: nobody should find that out later.
    pub fn load(files: Files, clock: Clock) -> Result<Self, TlsError> {
        let content = files.read()?;
        let loaded = files.load(&content, clock.now())?;
        info!(expires_at = %loaded.validity.until, cert = %files.cert.display(), "serving with TLS");
        let state = State { loaded, digest: content.digest(), failure: None, reloads: 0 };
        Ok(Self { files: Arc::new(files), clock, state: Arc::new(Mutex::new(state)) })
    }

    /// Reads the files again and again until cancelled. One for all servers that share a certificate.
    pub async fn keep_fresh(self, every: Duration, cancellation: CancellationToken) {
        loop {
            tokio::select! {
                () = cancellation.cancelled() => return,
                () = tokio::time::sleep(every) => {}
            }
            let this = self.clone();
            // A mount may be slow, or hang.
            let _looked = tokio::task::spawn_blocking(move || this.look()).await;
        }
    }

    /// Takes what is in the files now, if it is new and of use.
    pub fn look(&self) {
        match self.files.read() {
            Ok(content) => self.take(&content),
            Err(error) => self.fail(&error),
        }
    }

    fn take(&self, content: &Content) {
        let digest = content.digest();
        {
            let mut state = self.lock();
            if state.digest == digest {
                if state.failure.take().is_some_and(|failure| failure.certain) {
                    info!("the TLS files are again those that are served with");
                }
                return;
            }
        }
        match self.files.load(content, self.clock.now()) {
            Ok(loaded) => {
                info!(expires_at = %loaded.validity.until, cert = %self.files.cert.display(), "the TLS certificate is a new one");
                let mut state = self.lock();
                let reloads = state.reloads + 1;
                *state = State { loaded, digest, failure: None, reloads };
            }
            Err(error) => self.fail(&error),
        }
    }

    fn fail(&self, error: &TlsError) {
        let (text, category) = (error.to_string(), error.category());
        let mut state = self.lock();
        let failure = match state.failure.take() {
            // The present is in some of the texts, so they are told apart by what is wrong.
            Some(known) if known.category == category => {
                if !known.certain {
                    warn!(error = %text, category, "the TLS files are of no use: still serving with the former certificate");
                }
                Failure { text, category, certain: true }
            }
            _ => Failure { text, category, certain: false },
        };
        state.failure = Some(failure);
    }

    /// What a connection is accepted with.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.lock().loaded.config.clone())
    }

    /// How it stands, for metrics.
    pub fn status(&self) -> TlsStatus {
        let state = self.lock();
        TlsStatus {
            validity: state.loaded.validity,
            reloads: state.reloads,
            failure: state.failure.as_ref().filter(|failure| failure.certain).map(|failure| failure.category),
        }
    }

    /// How it stands, in a line for `/readyz`.
    pub fn describe(&self) -> String {
        let state = self.lock();
        let until = state.loaded.validity.until;
        let mut line = if self.clock.now() > until {
            format!("the certificate EXPIRED at {until}: renew it")
        } else {
            format!("the certificate is valid until {until}")
        };
        if let Some(failure) = state.failure.as_ref().filter(|failure| failure.certain) {
            line = format!("{line}; the files hold no better one: {}", failure.text);
        }
        line
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).field("status", &self.status()).finish_non_exhaustive()
    }
}
