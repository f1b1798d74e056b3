//! TLS from files that are reloaded without a restart.
//!
//! The files are read every few seconds, which works on every volume that Kubernetes mounts. An unusable pair never replaces a usable one.
//! `axum_server::tls_rustls` has neither validity checks nor limits on handshakes and connections.

mod files;
#[cfg(test)]
mod tests;
pub mod validity;

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus_client::{
    encoding::text::encode_registry,
    metrics::{counter::Counter, gauge::Gauge},
    registry::{Registry, Unit},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::files::{LoadedCertificate, TlsFileContents};
pub use self::{
    files::{TlsError, TlsFiles},
    validity::Validity,
};
use super::clock::Clock;

/// The interval in which the files are read.
pub const READ_EVERY: Duration = Duration::from_secs(5);

/// The newest usable certificate and key of two files. Clones share it.
#[derive(Clone)]
pub struct TlsReloader {
    files: Arc<TlsFiles>,
    clock: Clock,
    state: Arc<Mutex<TlsState>>,
}

struct TlsState {
    loaded: LoadedCertificate,
    digest: [u8; 32],
    /// Why the files are not in use.
    failure: Option<ReloadError>,
    reloads: u64,
}

struct ReloadError {
    text: String,
    category: &'static str,
    /// Whether it was seen twice: one read may fall between the writes of the two files.
    certain: bool,
}

/// The state of the certificate, for metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsStatus {
    /// The validity of the certificate in use.
    pub validity: Validity,
    /// The number of reloads.
    pub reloads: u64,
    /// Why the files are unusable at present, by [`TlsError::category`].
    pub failure: Option<&'static str>,
}

impl TlsReloader {
    /// Reads the files.
    ///
    /// # Errors
    /// The files are unusable.
    pub fn load(files: TlsFiles, clock: Clock) -> Result<Self, TlsError> {
        let content = files.read()?;
        let loaded = files.load(&content, clock.now())?;
        info!(expires_at = %loaded.validity.until, cert = %files.cert.display(), "serving with TLS");
        let state = TlsState { loaded, digest: content.digest(), failure: None, reloads: 0 };
        Ok(Self { files: Arc::new(files), clock, state: Arc::new(Mutex::new(state)) })
    }

    /// Reloads the files until cancelled.
    pub async fn keep_fresh(self, every: Duration, cancellation: CancellationToken) {
        loop {
            tokio::select! {
                () = cancellation.cancelled() => return,
                () = tokio::time::sleep(every) => {}
            }
            let this = self.clone();
            // A mounted file system may hang.
            let _reloaded = tokio::task::spawn_blocking(move || this.reload()).await;
        }
    }

    /// Loads the files if they are new and usable.
    pub fn reload(&self) {
        match self.files.read() {
            Ok(content) => self.take(&content),
            Err(error) => self.fail(&error),
        }
    }

    fn take(&self, content: &TlsFileContents) {
        let digest = content.digest();
        {
            let mut state = self.lock();
            if state.digest == digest {
                if state.failure.take().is_some_and(|failure| failure.certain) {
                    info!("the TLS files match the certificate in use again");
                }
                return;
            }
        }
        match self.files.load(content, self.clock.now()) {
            Ok(loaded) => {
                info!(expires_at = %loaded.validity.until, cert = %self.files.cert.display(), "reloaded the TLS certificate");
                let mut state = self.lock();
                let reloads = state.reloads + 1;
                *state = TlsState { loaded, digest, failure: None, reloads };
            }
            Err(error) => self.fail(&error),
        }
    }

    fn fail(&self, error: &TlsError) {
        let (text, category) = (error.to_string(), error.category());
        let mut state = self.lock();
        let failure = match state.failure.take() {
            // Some texts contain the time, so errors are compared by category.
            Some(known) if known.category == category => {
                if !known.certain {
                    warn!(error = %text, category, "the TLS files are unusable, still serving with the former certificate");
                }
                ReloadError { text, category, certain: true }
            }
            _ => ReloadError { text, category, certain: false },
        };
        state.failure = Some(failure);
    }

    /// Returns the acceptor for one connection.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.lock().loaded.config.clone())
    }

    /// Returns the state, for metrics.
    pub fn status(&self) -> TlsStatus {
        let state = self.lock();
        TlsStatus {
            validity: state.loaded.validity,
            reloads: state.reloads,
            failure: state.failure.as_ref().filter(|failure| failure.certain).map(|failure| failure.category),
        }
    }

    /// Returns the state in one line, for `/readyz`.
    pub fn describe(&self) -> String {
        let state = self.lock();
        let until = state.loaded.validity.until;
        let mut line = if self.clock.now() > until {
            format!("the certificate EXPIRED at {until}: renew it")
        } else {
            format!("the certificate is valid until {until}")
        };
        if let Some(failure) = state.failure.as_ref().filter(|failure| failure.certain) {
            line = format!("{line}; the files are unusable: {}", failure.text);
        }
        line
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, TlsState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for TlsReloader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsReloader")
            .field("files", &self.files)
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

/// The TLS metrics of one server, read when they are scraped.
pub struct TlsMetrics {
    registry: Registry,
    tls: Option<TlsReloader>,
    clock: Clock,
    expiry: Gauge<f64, AtomicU64>,
    lifetime: Gauge<f64, AtomicU64>,
    reloads: Counter,
    unusable: Gauge,
}

impl TlsMetrics {
    /// Creates the metrics of this certificate, if any.
    pub fn new(tls: Option<TlsReloader>, clock: Clock) -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("pat_operator"),
            tls,
            clock,
            expiry: Gauge::default(),
            lifetime: Gauge::default(),
            reloads: Counter::default(),
            unusable: Gauge::default(),
        };
        let registry = &mut metrics.registry;
        registry.register_with_unit(
            "tls_certificate_expiry",
            "Time until the serving certificate expires; +Inf without TLS",
            Unit::Seconds,
            metrics.expiry.clone(),
        );
        registry.register_with_unit(
            "tls_certificate_lifetime",
            "Lifetime of the serving certificate; +Inf without TLS",
            Unit::Seconds,
            metrics.lifetime.clone(),
        );
        registry.register("tls_reloads", "Reloads of the serving certificate", metrics.reloads.clone());
        registry.register(
            "tls_files_unusable",
            "1 while the TLS files are unusable and differ from the certificate in use",
            metrics.unusable.clone(),
        );
        metrics
    }

    /// Returns the metrics as OpenMetrics text, without the end mark, because others follow.
    pub fn text(&self) -> String {
        let status = self.tls.as_ref().map(TlsReloader::status);
        let (mut expiry, mut lifetime) = (f64::INFINITY, f64::INFINITY);
        if let Some(status) = &status {
            expiry = status.validity.until.duration_since(self.clock.now()).as_secs_f64();
            lifetime = status.validity.until.duration_since(status.validity.from).as_secs_f64();
            self.reloads.inner().store(status.reloads, Ordering::Relaxed);
        }
        self.expiry.set(expiry);
        self.lifetime.set(lifetime);
        self.unusable.set(i64::from(status.is_some_and(|status| status.failure.is_some())));
        let mut text = String::new();
        if encode_registry(&mut text, &self.registry).is_err() {
            tracing::warn!("cannot render metrics");
        }
        text
    }
}
