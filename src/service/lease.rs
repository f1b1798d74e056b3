//! Leader election on a `coordination.k8s.io/v1` Lease, as client-go does it.
//!
//! Every write is a create, or a PUT with a `resourceVersion`, so two candidates cannot both win. Clocks of other machines are not trusted: a
//! lease is stale when its record has not changed for its duration, as measured here. The lease only avoids duplicate work; writes must be safe
//! without it.
//!
//! `kube-leader-election` patches without `resourceVersion`; `kube-lease-manager` and `kubert` require an older kube.

mod action;
mod handle;
mod settings;

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, api::PostParams};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::{
    action::{LeaseAction, next_action, next_record, released_record},
    handle::ElectionRole,
};
use super::{
    client::explain_api_error,
    clock::{Clock, uptime},
};

pub use self::{
    handle::LeaseHandle,
    settings::{LeaseSettings, identity},
};

/// Why leader election cannot work. Temporary errors are logged and retried instead.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The API server refuses access to the Lease.
    #[error("leader election on Lease {lease} is refused: {why}")]
    Refused {
        /// The Lease, as namespace/name.
        lease: String,
        /// What was refused, and what to do.
        why: String,
    },
    /// The namespace of the Lease does not exist.
    #[error("leader election needs namespace {namespace}, which does not exist: create it or set --lease-namespace")]
    NoNamespace {
        /// The missing namespace.
        namespace: String,
    },
    /// The API server rejects the Lease, usually because of its name.
    #[error("leader election cannot use Lease {lease}: {why}")]
    Invalid {
        /// The Lease, as namespace/name.
        lease: String,
        /// The message of the API server.
        why: String,
    },
}

impl LeaseError {
    /// Returns the name of this error in metrics, events and logs.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "LeaseRefused",
            Self::NoNamespace { .. } => "LeaseNamespaceMissing",
            Self::Invalid { .. } => "LeaseInvalid",
        }
    }
}

/// Why an attempt failed.
enum AttemptError {
    /// Another instance wrote first.
    Conflict,
    /// Retrying does not help.
    Permanent(LeaseError),
    /// Retrying may help.
    Transient(String),
}

/// The Lease as last read or written by this instance.
struct ObservedLease {
    lease: Lease,
    record: LeaseSpec,
    /// When its record last changed, by [`uptime`].
    changed_at: Duration,
}

/// A candidate in the election. The program runs it; everything else holds a [`LeaseHandle`].
pub struct LeaderElector {
    leases: Api<Lease>,
    settings: LeaseSettings,
    clock: Clock,
    role: watch::Sender<ElectionRole>,
    observed: Option<ObservedLease>,
    /// Whether a write got no response, so that the state of the Lease is unknown.
    is_unsure: bool,
    terms: u64,
    ever_worked: bool,
    is_failing: bool,
    refused_since: Option<Duration>,
}

impl LeaderElector {
    /// Creates a candidate, which joins the election in [`run`](Self::run).
    pub fn new(client: Client, settings: LeaseSettings) -> Self {
        Self {
            leases: Api::namespaced(client, &settings.namespace),
            settings,
            clock: Clock::system(),
            role: watch::Sender::new(ElectionRole::Standby { holder: None }),
            observed: None,
            is_unsure: false,
            terms: 0,
            ever_worked: false,
            is_failing: false,
            refused_since: None,
        }
    }

    /// Returns namespace and name of the Lease.
    pub fn lease(&self) -> (&str, &str) {
        (&self.settings.namespace, &self.settings.name)
    }

    /// Returns a handle that shows whether this instance leads.
    pub fn watch(&self) -> LeaseHandle {
        LeaseHandle::following(self.role.subscribe())
    }

    /// Takes part in the election until cancelled, then releases the lease, so that another instance can lead at once. Cancel it after all
    /// work has ended. If the lease is lost, the instance stands by and tries again.
    ///
    /// # Errors
    /// A permanent error: no permission, no such namespace, an invalid name. Once the election has worked, an error must persist
    /// for the lease's duration, because a restarting API server refuses requests for a moment.
    pub async fn run(mut self, cancellation: CancellationToken) -> Result<(), LeaseError> {
        let LeaseSettings { namespace, name, identity, .. } = &self.settings;
        info!(lease = format!("{namespace}/{name}"), identity, "taking part in leader election");
        let ended = loop {
            let round = async {
                let next = self.round().await?;
                tokio::time::sleep(next).await;
                Ok::<_, LeaseError>(())
            };
            tokio::select! {
                biased;
                () = cancellation.cancelled() => break Ok(()),
                done = round => if let Err(error) = done { break Err(error) },
            }
        };
        self.stand_by(None);
        if ended.is_ok() {
            self.release().await;
        }
        ended
    }

    /// Makes one attempt and returns the delay to the next.
    async fn round(&mut self) -> Result<Duration, LeaseError> {
        let started = uptime();
        match self.attempt().await {
            Ok(next_at) => {
                if std::mem::take(&mut self.is_failing) {
                    info!("leader election works again");
                }
                self.refused_since = None;
                self.ever_worked = true;
                Ok(next_at.saturating_sub(uptime()))
            }
            Err(AttemptError::Conflict) => {
                // This is not a warning, because all candidates for a free lease but one get a conflict.
                debug!("another instance wrote the lease first, reading it again");
                Ok(self.settings.retry_soon())
            }
            Err(AttemptError::Permanent(error)) => {
                let since = *self.refused_since.get_or_insert(started);
                if !self.ever_worked || uptime().saturating_sub(since) >= self.settings.duration {
                    return Err(error);
                }
                Ok(self.after_failure(&error.to_string()))
            }
            Err(AttemptError::Transient(why)) => {
                self.refused_since = None;
                Ok(self.after_failure(&why))
            }
        }
    }

    /// Logs a failed attempt and returns the delay to the next.
    fn after_failure(&mut self, why: &str) -> Duration {
        if std::mem::replace(&mut self.is_failing, true) {
            debug!(why, "leader election still cannot reach the lease");
        } else {
            warn!(why, "leader election cannot reach the lease, trying again");
        }
        let until = match *self.role.borrow() {
            ElectionRole::Leading { until, .. } => until,
            ElectionRole::Standby { .. } => return self.settings.retry(),
        };
        if uptime() < until {
            return self.settings.retry_soon();
        }
        warn!("stopped leading, because the lease could not be renewed in time");
        self.stand_by(None);
        self.settings.retry()
    }

    /// Reads the lease if needed, decides, and writes if needed. Returns the time of the next attempt.
    async fn attempt(&mut self) -> Result<Duration, AttemptError> {
        let started = uptime();
        let holds =
            |observed: &ObservedLease| observed.record.holder_identity.as_deref() == Some(&*self.settings.identity);
        if self.is_unsure || !self.observed.as_ref().is_some_and(holds) {
            self.read().await?;
        }
        let action = {
            let observed = self.observed.as_ref().map(|observed| (&observed.record, observed.changed_at));
            next_action(observed, uptime(), &self.settings.identity, self.settings.duration)
        };
        match action {
            LeaseAction::Wait { holder, until } => {
                self.stand_by(Some(holder));
                Ok(until.min(uptime() + self.settings.retry()))
            }
            write @ (LeaseAction::Create | LeaseAction::TakeOver | LeaseAction::Renew) => {
                self.write(write).await?;
                Ok(started + self.settings.renew_every())
            }
        }
    }

    async fn read(&mut self) -> Result<(), AttemptError> {
        let lease = self.request(self.leases.get_opt(&self.settings.name)).await?;
        self.observe(lease);
        Ok(())
    }

    /// Writes the lease for this instance, and leads on success.
    async fn write(&mut self, action: LeaseAction) -> Result<(), AttemptError> {
        let wall = MicroTime(self.clock.now());
        let old = self.observed.as_ref().map(|observed| &observed.record);
        let record = next_record(&action, old, &self.settings.identity, self.settings.duration, wall);
        // The lease counts from the start of the request, because others may see the write before its response arrives.
        let asked_at = uptime();
        let lease = self.put(record).await?;
        self.observe(Some(lease));
        self.lead(asked_at + self.settings.renew_deadline());
        Ok(())
    }

    /// Writes a record over the observed one.
    async fn put(&mut self, record: LeaseSpec) -> Result<Lease, AttemptError> {
        self.is_unsure = true;
        let params = PostParams::default();
        match &self.observed {
            Some(observed) => {
                // Other fields stay unchanged. `resourceVersion` and uid make the write fail if the Lease has changed.
                let lease = Lease { spec: Some(record), ..observed.lease.clone() };
                self.request(self.leases.replace(&self.settings.name, &params, &lease)).await
            }
            None => {
                let metadata = ObjectMeta { name: Some(self.settings.name.clone()), ..ObjectMeta::default() };
                let lease = Lease { metadata, spec: Some(record) };
                self.request(self.leases.create(&params, &lease)).await
            }
        }
    }

    async fn request<T>(&self, request: impl Future<Output = kube::Result<T>>) -> Result<T, AttemptError> {
        let limit = self.settings.request_timeout();
        match tokio::time::timeout(limit, request).await {
            Ok(answer) => answer.map_err(|error| self.attempt_error(&error)),
            Err(_) => {
                Err(AttemptError::Transient(format!("the API server did not answer within {} ms", limit.as_millis())))
            }
        }
    }

    fn attempt_error(&self, error: &kube::Error) -> AttemptError {
        let LeaseSettings { namespace, name, .. } = &self.settings;
        let lease = || format!("{namespace}/{name}");
        let why = explain_api_error(error);
        let kube::Error::Api(status) = error else { return AttemptError::Transient(why) };
        let kind = status.details.as_ref().map_or("", |details| &*details.kind);
        match status.code {
            409 => AttemptError::Conflict,
            404 if kind == "namespaces" => {
                AttemptError::Permanent(LeaseError::NoNamespace { namespace: namespace.clone() })
            }
            // The lease was deleted between the read and the write.
            404 if kind == "leases" => AttemptError::Conflict,
            401 | 403 => AttemptError::Permanent(LeaseError::Refused { lease: lease(), why }),
            400 | 422 => AttemptError::Permanent(LeaseError::Invalid { lease: lease(), why }),
            _ => AttemptError::Transient(why),
        }
    }

    /// Records the observed lease. Only a changed record is a sign of life, not every write to the object.
    fn observe(&mut self, lease: Option<Lease>) {
        let before = self.observed.take();
        self.observed = lease.map(|lease| {
            let record = lease.spec.clone().unwrap_or_default();
            let changed_at = match before {
                Some(before) if before.record == record => before.changed_at,
                _ => uptime(),
            };
            ObservedLease { lease, record, changed_at }
        });
        self.is_unsure = false;
    }

    fn lead(&mut self, until: Duration) {
        let now = uptime();
        if until <= now {
            // The response came too late, such as after a pause of the process. The next renewal decides.
            return debug!("the lease was renewed, but too late to lead");
        }
        let since = match *self.role.borrow() {
            ElectionRole::Leading { since, until, .. } if now < until => Some(since),
            _ => None,
        };
        if since.is_none() {
            self.terms += 1;
            info!("leading");
        }
        let since = since.unwrap_or_else(|| self.clock.now());
        self.role.send_replace(ElectionRole::Leading { since, until, term: self.terms });
    }

    fn stand_by(&mut self, holder: Option<String>) {
        let standby = ElectionRole::Standby { holder };
        let before = self.role.borrow().clone();
        match (&before, &standby) {
            (ElectionRole::Leading { .. }, ElectionRole::Standby { holder: Some(holder) }) => {
                warn!(holder, "lost the lease")
            }
            (_, ElectionRole::Standby { holder: Some(holder) }) if before != standby => info!(holder, "standing by"),
            _ => {}
        }
        if before != standby {
            self.role.send_replace(standby);
        }
    }

    /// Releases the lease if this instance still holds it, within the time of one request.
    async fn release(&mut self) {
        let limit = self.settings.request_timeout();
        let why = match tokio::time::timeout(limit, self.clear_holder()).await {
            Ok(Ok(())) => return,
            Ok(Err(AttemptError::Permanent(error))) => error.to_string(),
            Ok(Err(AttemptError::Transient(why))) => why,
            Ok(Err(AttemptError::Conflict)) | Err(_) => "no answer in time".to_owned(),
        };
        warn!(why, "cannot release the lease, so the next leader waits until it is stale");
    }

    /// Clears the holder. Any other write in flight then fails by its `resourceVersion`.
    async fn clear_holder(&mut self) -> Result<(), AttemptError> {
        loop {
            if self.is_unsure {
                self.read().await?;
            }
            let Some(observed) = &self.observed else { return Ok(()) };
            if observed.record.holder_identity.as_deref() != Some(&*self.settings.identity) {
                return Ok(());
            }
            let record = released_record(&observed.record, MicroTime(self.clock.now()));
            match self.put(record).await {
                Err(AttemptError::Conflict) => {}
                Err(error) => return Err(error),
                Ok(_) => {
                    info!("released the lease");
                    return Ok(());
                }
            }
        }
    }
}
