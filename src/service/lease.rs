//! Leader election on a `coordination.k8s.io/v1` Lease, as client-go does it: of several instances one works.
//!
//! Every write is a create or a PUT guarded by `resourceVersion`, so two that try at once cannot both win. Nobody's
//! clock is trusted: a lease is stale when its record has not changed for its duration *as seen from here*. The lease
//! only saves work; whoever writes must be safe without it. This module must not know what is led.

mod decision;
mod error;
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
    decision::{Decision, decide, next_record, released_record},
    handle::Role,
};
use super::{
    client::explain_api_error,
    clock::{Clock, uptime},
};

pub use self::{
    error::LeaseError,
    handle::LeaseHandle,
    settings::{LeaseSettings, identity},
};

/// Why one attempt did not work.
enum Trouble {
    /// Somebody else was faster: look again.
    Conflict,
    /// Will not pass by itself.
    Lasting(LeaseError),
    /// May pass by itself.
    Passing(String),
}

/// The Lease as this instance last saw it.
struct Seen {
    lease: Lease,
    record: LeaseSpec,
    /// When its record last changed, by [`uptime`].
    changed_at: Duration,
}

/// Takes part in the election. `main` owns and runs it; everybody else holds a [`LeaseHandle`].
pub struct Elector {
    leases: Api<Lease>,
    settings: LeaseSettings,
    clock: Clock,
    role: watch::Sender<Role>,
    seen: Option<Seen>,
    /// Whether a write of ours has no answer, so that nobody knows what the API server has.
    is_unsure: bool,
    terms: u64,
    ever_worked: bool,
    is_in_trouble: bool,
    refused_since: Option<Duration>,
}

impl Elector {
    /// Takes no part before it [`run`](Self::run)s.
    pub fn new(client: Client, settings: LeaseSettings) -> Self {
        Self {
            leases: Api::namespaced(client, &settings.namespace),
            settings,
            clock: Clock::system(),
            role: watch::Sender::new(Role::Standby { holder: None }),
            seen: None,
            is_unsure: false,
            terms: 0,
            ever_worked: false,
            is_in_trouble: false,
            refused_since: None,
        }
    }

    /// Namespace and name of the Lease.
    pub fn lease(&self) -> (&str, &str) {
        (&self.settings.namespace, &self.settings.name)
    }

    /// What everybody else holds to ask whether this instance leads.
    pub fn watch(&self) -> LeaseHandle {
        LeaseHandle::following(self.role.subscribe())
    }

    /// Takes part until cancelled, then gives the lease up so that the next one leads at once: cancel it when the work
    /// is done. Losing the lease does not end it: it stands by and tries again.
    ///
    /// # Errors
    /// When it can never work: no permission, no such namespace, an impossible name. Once it has worked, it takes as
    /// long as the lease's duration to believe that, since an API server that restarts refuses for a moment.
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

    /// One attempt, and how long to wait for the next.
    async fn round(&mut self) -> Result<Duration, LeaseError> {
        let started = uptime();
        match self.attempt().await {
            Ok(next_at) => {
                if std::mem::take(&mut self.is_in_trouble) {
                    info!("leader election works again");
                }
                self.refused_since = None;
                self.ever_worked = true;
                Ok(next_at.saturating_sub(uptime()))
            }
            Err(Trouble::Conflict) => {
                // Not worth a warning: it is how the race for a free lease ends for all but one.
                debug!("somebody else wrote the lease first; looking again");
                Ok(self.settings.look_again())
            }
            Err(Trouble::Lasting(error)) => {
                let since = *self.refused_since.get_or_insert(started);
                if !self.ever_worked || uptime().saturating_sub(since) >= self.settings.duration {
                    return Err(error);
                }
                Ok(self.endure(&error.to_string()))
            }
            Err(Trouble::Passing(why)) => {
                self.refused_since = None;
                Ok(self.endure(&why))
            }
        }
    }

    /// Tells of an attempt that did not work, once, and returns how long to wait for the next.
    fn endure(&mut self, why: &str) -> Duration {
        if std::mem::replace(&mut self.is_in_trouble, true) {
            debug!(why, "leader election: still cannot reach the lease");
        } else {
            warn!(why, "leader election: cannot reach the lease, trying again");
        }
        let until = match *self.role.borrow() {
            Role::Leading { until, .. } => until,
            Role::Standby { .. } => return self.settings.retry(),
        };
        if uptime() < until {
            return self.settings.look_again();
        }
        warn!("gave up leading: the lease could not be renewed in time");
        self.stand_by(None);
        self.settings.retry()
    }

    /// Looks if need be, decides, writes if need be. Returns when to do it again.
    async fn attempt(&mut self) -> Result<Duration, Trouble> {
        let started = uptime();
        let holds = |seen: &Seen| seen.record.holder_identity.as_deref() == Some(&*self.settings.identity);
        if self.is_unsure || !self.seen.as_ref().is_some_and(holds) {
            self.look().await?;
        }
        let decision = {
            let seen = self.seen.as_ref().map(|seen| (&seen.record, seen.changed_at));
            decide(seen, uptime(), &self.settings.identity, self.settings.duration)
        };
        match decision {
            Decision::Wait { holder, until } => {
                self.stand_by(Some(holder));
                Ok(until.min(uptime() + self.settings.retry()))
            }
            take @ (Decision::Create | Decision::TakeOver | Decision::Renew) => {
                self.write(take).await?;
                Ok(started + self.settings.renew_every())
            }
        }
    }

    async fn look(&mut self) -> Result<(), Trouble> {
        let lease = self.ask(self.leases.get_opt(&self.settings.name)).await?;
        self.saw(lease);
        Ok(())
    }

    /// Writes the lease for this instance, and leads if that worked.
    async fn write(&mut self, decision: Decision) -> Result<(), Trouble> {
        let wall = MicroTime(self.clock.now());
        let old = self.seen.as_ref().map(|seen| &seen.record);
        let record = next_record(&decision, old, &self.settings.identity, self.settings.duration, wall);
        // The lease counts from before it was asked for: others may see the answer before we do.
        let asked_at = uptime();
        let lease = self.put(record).await?;
        self.saw(Some(lease));
        self.lead(asked_at + self.settings.renew_deadline());
        Ok(())
    }

    /// Sends a record, decided on what was last seen.
    async fn put(&mut self, record: LeaseSpec) -> Result<Lease, Trouble> {
        self.is_unsure = true;
        let params = PostParams::default();
        match &self.seen {
            Some(seen) => {
                // All that others may have set stays, and resourceVersion and uid make it fail if it is another by now.
                let lease = Lease { spec: Some(record), ..seen.lease.clone() };
                self.ask(self.leases.replace(&self.settings.name, &params, &lease)).await
            }
            None => {
                let metadata = ObjectMeta { name: Some(self.settings.name.clone()), ..ObjectMeta::default() };
                let lease = Lease { metadata, spec: Some(record) };
                self.ask(self.leases.create(&params, &lease)).await
            }
        }
    }

    async fn ask<T>(&self, request: impl Future<Output = kube::Result<T>>) -> Result<T, Trouble> {
        let limit = self.settings.request_timeout();
        match tokio::time::timeout(limit, request).await {
            Ok(answer) => answer.map_err(|error| self.trouble(&error)),
            Err(_) => Err(Trouble::Passing(format!("the API server did not answer within {} ms", limit.as_millis()))),
        }
    }

    fn trouble(&self, error: &kube::Error) -> Trouble {
        let LeaseSettings { namespace, name, .. } = &self.settings;
        let lease = || format!("{namespace}/{name}");
        let why = explain_api_error(error);
        let kube::Error::Api(status) = error else { return Trouble::Passing(why) };
        let kind = status.details.as_ref().map_or("", |details| &*details.kind);
        match status.code {
            409 => Trouble::Conflict,
            404 if kind == "namespaces" => Trouble::Lasting(LeaseError::NoNamespace { namespace: namespace.clone() }),
            // The lease was deleted between looking and writing.
            404 if kind == "leases" => Trouble::Conflict,
            401 | 403 => Trouble::Lasting(LeaseError::Refused { lease: lease(), why }),
            400 | 422 => Trouble::Lasting(LeaseError::Invalid { lease: lease(), why }),
            _ => Trouble::Passing(why),
        }
    }

    /// Remembers the lease. Only a changed record counts as a sign of life, not just any write to the object.
    fn saw(&mut self, lease: Option<Lease>) {
        let before = self.seen.take();
        self.seen = lease.map(|lease| {
            let record = lease.spec.clone().unwrap_or_default();
            let changed_at = match before {
                Some(before) if before.record == record => before.changed_at,
                _ => uptime(),
            };
            Seen { lease, record, changed_at }
        });
        self.is_unsure = false;
    }

    fn lead(&mut self, until: Duration) {
        let now = uptime();
        if until <= now {
            // The answer was read too late, as after a pause. Nobody led in the meantime; the next renewal will tell.
            return debug!("the lease was renewed, but too late to lead on it");
        }
        let since = match *self.role.borrow() {
            Role::Leading { since, until, .. } if now < until => Some(since),
            _ => None,
        };
        if since.is_none() {
            self.terms += 1;
            info!("leading");
        }
        let since = since.unwrap_or_else(|| self.clock.now());
        self.role.send_replace(Role::Leading { since, until, term: self.terms });
    }

    fn stand_by(&mut self, holder: Option<String>) {
        let standby = Role::Standby { holder };
        let before = self.role.borrow().clone();
        match (&before, &standby) {
            (Role::Leading { .. }, Role::Standby { holder: Some(holder) }) => warn!(holder, "lost the lease"),
            (_, Role::Standby { holder: Some(holder) }) if before != standby => info!(holder, "standing by"),
            _ => {}
        }
        if before != standby {
            self.role.send_replace(standby);
        }
    }

    /// Gives the lease up if it is still ours, in no more time than one request may take.
    async fn release(&mut self) {
        let limit = self.settings.request_timeout();
        let why = match tokio::time::timeout(limit, self.clear_holder()).await {
            Ok(Ok(())) => return,
            Ok(Err(Trouble::Lasting(error))) => error.to_string(),
            Ok(Err(Trouble::Passing(why))) => why,
            Ok(Err(Trouble::Conflict)) | Err(_) => "no answer in time".to_owned(),
        };
        warn!(why, "could not release the lease; the next leader has to wait until it is stale");
    }

    /// Whatever else of ours is still under way then fails, by its `resourceVersion`.
    async fn clear_holder(&mut self) -> Result<(), Trouble> {
        loop {
            if self.is_unsure {
                self.look().await?;
            }
            let Some(seen) = &self.seen else { return Ok(()) };
            if seen.record.holder_identity.as_deref() != Some(&*self.settings.identity) {
                return Ok(());
            }
            let record = released_record(&seen.record, MicroTime(self.clock.now()));
            match self.put(record).await {
                Err(Trouble::Conflict) => {}
                Err(trouble) => return Err(trouble),
                Ok(_) => {
                    info!("released the lease");
                    return Ok(());
                }
            }
        }
    }
}
