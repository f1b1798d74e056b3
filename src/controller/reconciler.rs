//! The reconciler: it observes, plans and executes one step at a time, until the plan rests.
//!
//! The planner makes all decisions about tokens.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::jiff::SignedDuration;

use super::{
    apply::{self, Written},
    cluster::ClusterClient,
    error::Error,
    issuers::Issuers,
    metrics::Metrics,
    namespaced_name::NamespacedName,
    own_writes::OwnWrites,
    state::{HeldText, HeldToken, LastWrite, ReconcileState},
    stores::{Stores, WatchProgress, WatchedKind},
};
use crate::{
    api::{PersonalAccessTokenStatus, StoredPat, Time},
    planner::{
        EventToPublish, Plan, RemoteDeletion, RemoteRequest, SecretContent, SecretVersion, SecretWrite, Step,
        TokenSource,
        intent::{ControllerConfig, secret_name},
        observed::{Observed, SecretView, WriteRefusalKind, newest_version},
        plan,
        remote::awaits_list,
    },
    service::{Clock, LeaseHandle},
    token::{Token, TokenPrefix},
};

/// The maximum number of steps of a reconcile. The longest valid sequence has 12.
const MAX_STEPS: usize = 32;

/// After this many conflicts a reconcile fails, so that other PATs are not delayed.
const MAX_CONFLICTS: usize = 4;

/// Reconciles PATs: different PATs in parallel, but each PAT only once at a time.
pub struct Reconciler {
    cluster: ClusterClient,
    stores: Arc<Stores>,
    config: ControllerConfig,
    clock: Clock,
    metrics: Arc<Metrics>,
    lease: LeaseHandle,
    /// The issuers of other systems, if they are enabled.
    issuers: Option<Arc<Issuers>>,
    states: Mutex<HashMap<NamespacedName, ReconcileState>>,
    own_writes: OwnWrites,
}

/// One reconcile of one PAT.
struct Run<'a> {
    key: &'a NamespacedName,
    pat: Arc<StoredPat>,
    state: &'a mut ReconcileState,
    /// The time at which the current step was planned. It does not go back within a reconcile.
    now: Time,
    /// The Secret as read from the API server in this reconcile.
    uncached: Option<UncachedRead>,
    /// The Secret as the current step was planned on.
    secret: Option<Arc<SecretView>>,
    /// Secrets that this PAT controls, whatever their name.
    controlled: Vec<Arc<SecretView>>,
    /// The newest version of those with a former name.
    former_version: u64,
    /// How many Secrets were deleted.
    deletions: usize,
    /// A dry run of the next write to the Secret succeeded.
    dry_run_passed: bool,
    conflicts: usize,
}

/// A Secret as it was read from the API server in this reconcile.
struct UncachedRead {
    name: String,
    secret: Option<Arc<SecretView>>,
}

/// What a reconcile does after a step.
#[derive(PartialEq, Eq)]
enum Next {
    Plan,
    /// The PAT no longer exists, so there is nothing to reconcile.
    Stop,
}

impl<'a> Run<'a> {
    fn new(key: &'a NamespacedName, pat: Arc<StoredPat>, state: &'a mut ReconcileState, now: Time) -> Self {
        Self {
            key,
            pat,
            state,
            now,
            uncached: None,
            secret: None,
            controlled: Vec::new(),
            former_version: 0,
            deletions: 0,
            dry_run_passed: false,
            conflicts: 0,
        }
    }

    /// Returns the name of the Secret according to the spec; empty if the spec is invalid.
    fn wanted(&self) -> &str {
        self.pat.spec.as_ref().map_or("", |spec| secret_name(&self.pat, spec))
    }

    /// Records the response to a write, which the next plan is made from.
    fn note_written(&mut self, written: Arc<SecretView>) {
        if *written.name == *self.wanted() {
            self.uncached = Some(UncachedRead { name: written.name.to_string(), secret: Some(written) });
        } else {
            self.controlled.retain(|secret| secret.name != written.name);
            self.controlled.push(written);
        }
    }
}

impl Reconciler {
    /// Creates a reconciler over these stores.
    pub fn new(
        cluster: ClusterClient,
        stores: Arc<Stores>,
        config: ControllerConfig,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            cluster,
            stores,
            config,
            clock,
            metrics,
            lease: LeaseHandle::always(),
            issuers: None,
            states: Mutex::default(),
            own_writes: OwnWrites::default(),
        }
    }

    /// Sets the lease. The reconciler takes no step unless this instance holds it.
    #[must_use]
    pub fn with_lease(self, lease: LeaseHandle) -> Self {
        Self { lease, ..self }
    }

    /// Sets the issuers of other systems.
    #[must_use]
    pub fn with_issuers(self, issuers: Option<Arc<Issuers>>) -> Self {
        Self { issuers, ..self }
    }

    /// Returns the current time, which all decisions use.
    pub fn now(&self) -> Time {
        self.clock.now().into()
    }

    /// Returns how far the controller's clock is ahead of the API server's, or behind if negative; `None` before it is measured.
    pub fn clock_skew(&self) -> Option<SignedDuration> {
        self.clock.skew()
    }

    /// Reconciles one PAT until its plan rests, and returns when to reconcile it again even if nothing changes.
    ///
    /// # Errors
    /// A step failed in a way that needs another try later. Completed steps stay.
    pub async fn reconcile(&self, key: &NamespacedName) -> Result<Option<Time>, Error> {
        // The progress is read before the PAT, so that the stored PAT is at least as new.
        let progress = self.stores.progress(WatchedKind::Pat, key.namespace());
        let Some(stored) = self.stores.pat(key) else {
            self.forget(WatchedKind::Pat, key);
            return Ok(None);
        };
        let state = self.states().remove(key).filter(|state| state.uid == stored.uid());
        let mut state = state.unwrap_or_else(|| ReconcileState::of(stored.uid()));
        let result = self.run(key, stored, progress, &mut state).await;
        if matches!(result, Err(Error::Timeout { .. } | Error::Unavailable { .. } | Error::Conflict { .. })) {
            state.uncertain = true;
        }
        state.drop_delivered(&self.stores, key);
        let mut states = self.states();
        // The state of a PAT that was deleted meanwhile must not be kept.
        let still_stored = self.stores.pat(key).is_some_and(|pat| pat.uid() == state.uid);
        if state.is_worth_keeping() && still_stored {
            states.insert(key.clone(), state);
        }
        result
    }

    /// Whether a rotation is half done: the new token of this PAT is published but not yet written to the Secret.
    pub fn is_rotation_begun(&self, key: &NamespacedName) -> bool {
        self.states().get(key).is_some_and(ReconcileState::is_rotation_begun)
    }

    /// Forgets an object that no longer exists.
    pub fn forget(&self, kind: WatchedKind, key: &NamespacedName) {
        self.own_writes.forget(kind, key.clone());
        if kind == WatchedKind::Pat {
            self.states().remove(key);
            self.issuers.iter().for_each(|issuers| drop(issuers.take_finished(key)));
        }
    }

    /// Forgets all state between reconciles, because another process may lead now.
    pub fn forget_all(&self) {
        self.states().clear();
        self.own_writes.clear();
        if let Some(issuers) = &self.issuers {
            issuers.forget_finished();
        }
    }

    /// Records that a watch has delivered this version of an object. If the controller itself wrote it, returns the PAT
    /// that it was written for.
    pub fn delivered(&self, kind: WatchedKind, object: NamespacedName, version: u64) -> Option<NamespacedName> {
        let pat = self.own_writes.recognize(kind, object, version)?;
        let mut states = self.states();
        if let Some(state) = states.get_mut(&pat) {
            state.drop_delivered(&self.stores, &pat);
            if !state.is_worth_keeping() {
                states.remove(&pat);
            }
        }
        Some(pat)
    }

    /// Returns the number of PATs with state.
    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.states().len()
    }

    async fn run(
        &self,
        key: &NamespacedName,
        stored: Arc<StoredPat>,
        progress: WatchProgress,
        state: &mut ReconcileState,
    ) -> Result<Option<Time>, Error> {
        let pat = match &state.pat {
            Some(written) if written.is_ahead_of(progress) => written.object.clone(),
            _ => stored,
        };
        let mut run = Run::new(key, pat, state, self.now());
        for call in self.issuers.iter().flat_map(|issuers| issuers.take_finished(key)) {
            run.state.note_call(call);
        }
        if run.state.uncertain {
            if self.read_uncached(&mut run).await? == Next::Stop {
                return Ok(None);
            }
            run.state.uncertain = false;
        }
        run.state.repairs.take_if(|repairs| repairs.is_over(run.now));
        run.controlled = self.controlled_secrets(&run).await?;
        let wanted = run.wanted().to_owned();
        let concerns = |name: &str| *name == *wanted || run.controlled.iter().any(|secret| *secret.name == *name);
        run.state.retain_refusals(run.now, concerns);
        for _ in 0..MAX_STEPS {
            // The process may have been paused in the middle of this reconcile, for longer than its lease.
            if !self.lease.is_leading() {
                return Ok(None);
            }
            let Plan { step, events, wake_at, .. } = self.plan(&mut run);
            let target = step.secret().unwrap_or_default().to_owned();
            let result = match step {
                Step::Rest => {
                    if let Ok(status) = &run.pat.status {
                        run.state.retain_revoked(status);
                    }
                    self.await_confirmation(&run);
                    return Ok(wake_at);
                }
                // A read that is refused fails the reconcile: it is no refused write, for which the plan would wait.
                Step::ReadUncached => Ok(self.read_secret_uncached(&mut run).await?),
                Step::Mint(prefix) => mint(&mut run, &prefix),
                Step::DryRun(write) => self.dry_run(&mut run, &write).await,
                Step::WriteStatus(status) => self.write_status(&mut run, *status).await,
                Step::WriteSecret(write) => self.write_secret(&mut run, &write).await,
                Step::DeleteSecret(target) => self.delete_secret(&mut run, &target).await,
                Step::Reserve => reserve(&mut run),
                Step::AddFinalizer => self.set_finalizer(&mut run, true).await,
                Step::RemoveFinalizer(names) => self.release(&mut run, names).await,
                Step::CreateRemote(request) => Ok(self.create_remote(&mut run, *request)),
                Step::DeleteRemote(deletion) => Ok(self.delete_remote(&mut run, *deletion)),
            };
            match result {
                Ok(Next::Plan) => self.publish(&run.pat, &events).await,
                Ok(Next::Stop) => return Ok(None),
                Err(error) => {
                    if self.recover(&mut run, &target, error).await? == Next::Stop {
                        return Ok(None);
                    }
                }
            }
        }
        Err(Error::Restless { steps: MAX_STEPS })
    }

    /// Plans the next step from what is known now.
    fn plan(&self, run: &mut Run<'_>) -> Plan {
        // The clocks of API servers differ, and the last answer corrects ours.
        run.now = run.now.max(self.now());
        let pat = run.pat.clone();
        let wanted = pat.spec.as_ref().map_or("", |spec| secret_name(&pat, spec));
        let is_former = |secret: &&Arc<SecretView>| *secret.name != *wanted && !run.state.has_deleted(&secret.name);
        let former: Vec<_> = run.controlled.iter().filter(is_former).map(|secret| SecretView::clone(secret)).collect();
        run.former_version = newest_version(None, &former);
        let read = run.uncached.as_ref().filter(|read| read.name == wanted);
        let is_uncached = read.is_some();
        run.secret = match read {
            Some(read) => read.secret.clone(),
            None => run.state.known_secret(&self.stores, run.key.namespace(), wanted),
        };
        // The write of the status may have succeeded although its response was lost.
        let over = newest_version(run.secret.as_deref(), &former);
        run.state.note_publication(&pat, run.now, is_uncached.then_some(over));
        let conflicting_pat = self.stores.conflicting_pat(&pat, wanted);
        let disabled_by = self.stores.disabled_by(&pat);
        let issuer = self.issuers.as_ref().map(|issuers| issuers.facts(&pat)).unwrap_or_default();
        let view = Observed {
            pat: &pat,
            secret: run.secret.as_deref(),
            uncached: is_uncached,
            former: &former,
            conflicting_pat: conflicting_pat.as_deref(),
            disabled_by: disabled_by.as_deref(),
            clock_skew: self.clock.skew().unwrap_or_default(),
            held: run.state.held.as_ref().map(HeldToken::public),
            issuer: issuer.view.as_deref(),
            remote_lists: &issuer.lists,
            list_problems: &issuer.list_problems,
            shared_names: &issuer.shared_names,
            calls: &run.state.calls,
            created: run.state.held.as_ref().and_then(|held| held.text.facts()),
            refusals: &run.state.refusals,
            deletions: run.deletions,
            repairs: run.state.repairs.as_ref(),
            dry_run_accepted: run.dry_run_passed,
        };
        let plan = plan(&view, &self.config, run.now);
        if !plan.keep_held {
            run.state.held = None;
        }
        plan
    }

    async fn dry_run(&self, run: &mut Run<'_>, write: &SecretWrite) -> Result<Next, Error> {
        run.dry_run_passed = false;
        let answer = apply::write_secret(&self.cluster, &run.pat, None, write, true).await?;
        match answer.alteration {
            Err(damage) => run.state.write_refused(&write.name, WriteRefusalKind::Altered, damage.message, run.now),
            Ok(_) => {
                run.dry_run_passed = true;
                run.state.write_accepted(&write.name);
            }
        }
        Ok(Next::Plan)
    }

    async fn write_status(&self, run: &mut Run<'_>, status: PersonalAccessTokenStatus) -> Result<Next, Error> {
        let written = match self.cluster.write_status(&run.pat, status).await {
            Ok(written) => written,
            Err(Error::NotFound { .. }) => return Ok(Next::Stop),
            // A spec never makes a status invalid, so this error is retried and not reported as a refusal.
            Err(Error::Refused { message }) => {
                let what = format!("patch status of PersonalAccessToken {}", run.key);
                return Err(Error::Unavailable { what, message, retry_after: None });
            }
            Err(error) => return Err(error),
        };
        self.note_pat_written(run, written);
        let over = run.former_version.max(newest_version(run.secret.as_deref(), &[]));
        run.state.note_publication(&run.pat, run.now, Some(over));
        Ok(Next::Plan)
    }

    async fn write_secret(&self, run: &mut Run<'_>, write: &SecretWrite) -> Result<Next, Error> {
        let held = run.state.held.as_ref().and_then(|held| held.text.token());
        let Written { secret: written, alteration } =
            apply::write_secret(&self.cluster, &run.pat, held, write, false).await?;
        if matches!(&write.content, SecretContent::Token { token: TokenSource::Held { .. }, .. }) {
            self.metrics.minted();
        }
        let object = NamespacedName::new(run.key.namespace(), &written.name);
        self.own_writes.expect(&self.stores, WatchedKind::Secret, object, &written.resource_version, run.key);
        run.state.secret_written(&written, self.stores.progress(WatchedKind::Secret, run.key.namespace()));
        run.state.note_alteration(write, alteration, run.now);
        run.note_written(Arc::new(written));
        Ok(Next::Plan)
    }

    async fn delete_secret(&self, run: &mut Run<'_>, target: &SecretVersion) -> Result<Next, Error> {
        self.cluster.delete_secret(run.key.namespace(), target).await?;
        if let Some(read) = run.uncached.as_mut().filter(|read| read.name == target.name) {
            read.secret = None;
        }
        run.state.secret_deleted(&target.name, &target.uid);
        run.deletions += 1;
        Ok(Next::Plan)
    }

    async fn set_finalizer(&self, run: &mut Run<'_>, present: bool) -> Result<Next, Error> {
        let Some(written) = self.cluster.set_finalizer(&run.pat, present).await? else { return Ok(Next::Stop) };
        self.note_pat_written(run, written);
        Ok(Next::Plan)
    }

    /// Records the response to a write of the PAT, which the next plan is made from.
    fn note_pat_written(&self, run: &mut Run<'_>, written: StoredPat) {
        let version = written.resource_version().to_owned();
        self.own_writes.expect(&self.stores, WatchedKind::Pat, run.key.clone(), &version, run.key);
        let progress = self.stores.progress(WatchedKind::Pat, run.key.namespace());
        let written = LastWrite::new(written, &version, progress);
        run.pat = written.object.clone();
        run.state.pat = Some(written);
    }

    /// Lets a PAT go that is being deleted. `left` names the tokens that stay at the issuer.
    async fn release(&self, run: &mut Run<'_>, left: Vec<String>) -> Result<Next, Error> {
        if let Some(issuers) = self.issuers.as_ref().filter(|_| !left.is_empty()) {
            issuers.leave(&run.pat, left).await?;
        }
        self.set_finalizer(run, false).await?;
        Ok(Next::Stop)
    }

    fn create_remote(&self, run: &mut Run<'_>, request: RemoteRequest) -> Next {
        let held = run.state.held.as_ref().map(|held| held.text.id());
        let began = self.issuers.as_ref().zip(held).is_some_and(|(issuers, id)| issuers.create(&run.pat, id, request));
        run.state.note_call_begun(began, run.now);
        Next::Plan
    }

    fn delete_remote(&self, run: &mut Run<'_>, deletion: RemoteDeletion) -> Next {
        let began = self.issuers.as_ref().is_some_and(|issuers| issuers.delete(&run.pat, deletion));
        run.state.note_call_begun(began, run.now);
        Next::Plan
    }

    /// Asks for a new list of the issuer's tokens if a revocation waits for it.
    fn await_confirmation(&self, run: &Run<'_>) {
        let (Some(issuers), Ok(status)) = (&self.issuers, &run.pat.status) else { return };
        let facts = issuers.facts(&run.pat);
        let mut all = status.remote_credentials.iter();
        if all.any(|one| awaits_list(one, &facts.lists, &facts.list_problems, &run.state.calls)) {
            issuers.poll_soon(&run.pat);
        }
    }

    async fn publish(&self, pat: &StoredPat, events: &[EventToPublish]) {
        for event in events {
            tracing::info!(reason = %event.reason, "{}", event.note);
            if event.reason.is_routine() && !self.config.issue_events {
                continue;
            }
            self.metrics.event_published(event.reason);
            self.cluster.publish_event(pat, event).await;
        }
    }

    /// Decides whether the reconcile continues after a failed step; `Err` ends it.
    /// `secret` is the name of the Secret that the step was to write.
    async fn recover(&self, run: &mut Run<'_>, secret: &str, error: Error) -> Result<Next, Error> {
        let (kind, message) = match error {
            Error::Conflict { .. }
            | Error::AlreadyExists { .. }
            | Error::NotFound { .. }
            | Error::TokenMoved { .. } => {
                run.conflicts += 1;
                self.metrics.step_failed(&error);
                if run.conflicts > MAX_CONFLICTS {
                    return Err(error);
                }
                return self.read_uncached(run).await;
            }
            Error::NamespaceTerminating { message } => (WriteRefusalKind::NamespaceTerminating, message),
            Error::Refused { message } => (WriteRefusalKind::Other, message),
            Error::Render(problem) => (WriteRefusalKind::Other, problem.to_string()),
            other => return Err(other),
        };
        // A refused change of the PAT's finalizer concerns no Secret.
        if secret.is_empty() {
            return Err(Error::Unavailable {
                what: format!("patch PersonalAccessToken {}", run.key),
                message,
                retry_after: None,
            });
        }
        run.state.write_refused(secret, kind, message, run.now);
        self.metrics.refused();
        Ok(Next::Plan)
    }

    /// Reads the Secret and then the PAT from the API server. In the reverse order, another leader could rotate in between,
    /// and its new Secret would look damaged.
    async fn read_uncached(&self, run: &mut Run<'_>) -> Result<Next, Error> {
        let pat = run.pat.clone();
        run.uncached = match &pat.spec {
            Ok(spec) => Some(self.read_secret(pat.namespace(), secret_name(&pat, spec)).await?),
            Err(_) => None,
        };
        self.read_pat(run).await
    }

    /// Reads the Secret from the API server, and the PAT only if the Secret may be newer than the PAT.
    async fn read_secret_uncached(&self, run: &mut Run<'_>) -> Result<Next, Error> {
        let pat = run.pat.clone();
        let Ok(spec) = &pat.spec else { return Ok(Next::Plan) };
        let read = self.read_secret(pat.namespace(), secret_name(&pat, spec)).await?;
        let is_ours = read.secret.as_ref().is_some_and(|secret| secret.is_of(pat.uid()));
        let version = run.former_version.max(newest_version(read.secret.as_deref(), &[]));
        let held = run.state.held.as_ref();
        let is_as_published = held.is_none_or(|held| held.published_over == Some(version));
        run.uncached = Some(read);
        if is_ours || !is_as_published { self.read_pat(run).await } else { Ok(Next::Plan) }
    }

    async fn read_pat(&self, run: &mut Run<'_>) -> Result<Next, Error> {
        let found = self.cluster.pat(run.key.namespace(), run.key.name()).await?;
        let Some(found) = found.filter(|found| found.uid() == run.pat.uid()) else { return Ok(Next::Stop) };
        run.pat = Arc::new(found);
        Ok(Next::Plan)
    }

    async fn read_secret(&self, namespace: &str, name: &str) -> Result<UncachedRead, Error> {
        let secret = self.cluster.secret(namespace, name).await?.map(|secret| Arc::new(SecretView::of(secret)));
        Ok(UncachedRead { name: name.to_owned(), secret })
    }

    /// Returns the Secrets that the PAT controls, whatever their name.
    async fn controlled_secrets(&self, run: &Run<'_>) -> Result<Vec<Arc<SecretView>>, Error> {
        let pat = &run.pat;
        let mut secrets = run.state.known_controlled_secrets(&self.stores, pat);
        if let (Ok(spec), Ok(status)) = (&pat.spec, &pat.status)
            && let Some(last) = &status.secret_name
            && last != secret_name(pat, spec)
            && !secrets.iter().any(|secret| *secret.name == **last)
            && !run.state.has_deleted(last)
        {
            // A Secret without our label is not watched.
            let read = self.read_secret(pat.namespace(), last).await?;
            secrets.extend(read.secret.filter(|secret| secret.is_controlled_by(pat.uid())));
        }
        Ok(secrets)
    }

    fn states(&self) -> MutexGuard<'_, HashMap<NamespacedName, ReconcileState>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Draws the ID of a token that the issuer of another system is to create.
fn reserve(run: &mut Run<'_>) -> Result<Next, Error> {
    let id = Token::mint(&TokenPrefix::default())?.id();
    run.state.held = Some(HeldToken::new(HeldText::Reserved(id), run.now));
    Ok(Next::Plan)
}

fn mint(run: &mut Run<'_>, prefix: &TokenPrefix) -> Result<Next, Error> {
    run.state.held = Some(HeldToken::new(HeldText::Minted(Token::mint(prefix)?), run.now));
    Ok(Next::Plan)
}
