//! One token, brought to where its spec wants it: observe, plan, perform one step, and again until the plan rests.
//!
//! It must not decide anything about tokens. What it keeps between two runs is what a fresh process can do without: a token that is
//! on its way, and what its own last writes answered until the watches have caught up.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use k8s_openapi::jiff::SignedDuration;

use super::{
    apply,
    cache::{Cache, Key, Kind, Progress, version},
    cluster::Cluster,
    error::Error,
    metrics::Metrics,
};
use crate::planner::{
    Content, EventReason, Notice, Source, Step,
    intent::{Settings, secret_name},
    plan,
    view::{Held, Refusal, RefusalKind, SecretView, View},
};
use crate::{
    api::{StoredPat, Time},
    service::Clock,
    token::Token,
};

/// A plan that has not come to rest after this many steps never will; the longest honest way has 12.
const MOST_STEPS: usize = 32;

/// Conflicts in one run before it gives way to others.
const MOST_CONFLICTS: usize = 4;

/// How long a refused write rests: this long at first, twice as long each time, at most [`REFUSAL_MOST`].
const REFUSAL_FIRST: Duration = Duration::from_secs(10);
const REFUSAL_MOST: Duration = Duration::from_secs(300);

/// Brings tokens to where their specs want them. One run at a time for one token; any number for different ones.
pub struct Reconciler {
    cluster: Cluster,
    cache: Arc<Cache>,
    settings: Settings,
    clock: Clock,
    metrics: Arc<Metrics>,
    memories: Mutex<HashMap<Key, Memory>>,
    /// The version that our last write gave an object, and for which PAT it was, until the watch has brought it.
    echoes: Mutex<HashMap<(Kind, Key), (u64, Key)>>,
}

/// What is kept of one token between two runs.
#[derive(Default)]
struct Memory {
    uid: String,
    held: Option<HeldToken>,
    refusal: Option<Refusal>,
    refusals: u32,
    /// The outcome of the last request is unknown: look before planning.
    uncertain: bool,
    pat: Option<Written<StoredPat>>,
    secrets: HashMap<String, Written<SecretView>>,
    deleted: HashMap<String, String>,
}

struct HeldToken {
    token: Token,
    issued_at: Time,
    published_at: Option<Time>,
    published_over: Option<u64>,
}

/// What a write of ours answered, and how far the watch was then.
struct Written<T> {
    object: Arc<T>,
    version: u64,
    epoch: u64,
}

impl<T> Written<T> {
    fn new(object: T, resource_version: &str, progress: Progress) -> Self {
        Self { object: Arc::new(object), version: version(Some(resource_version)), epoch: progress.epoch }
    }

    /// Whether it is newer than what the watch has brought.
    fn is_ahead_of(&self, progress: Progress) -> bool {
        self.epoch == progress.epoch && progress.version < self.version
    }
}

/// What has been seen of the Secret in this run.
struct Sight {
    name: String,
    secret: Option<Arc<SecretView>>,
}

impl Reconciler {
    /// A reconciler over these caches.
    pub fn new(cluster: Cluster, cache: Arc<Cache>, settings: Settings, clock: Clock, metrics: Arc<Metrics>) -> Self {
        Self { cluster, cache, settings, clock, metrics, memories: Mutex::default(), echoes: Mutex::default() }
    }

    /// The present, as every decision here takes it.
    pub fn now(&self) -> Time {
        self.clock.now().into()
    }

    /// Runs one token to rest. `Ok` tells when to look again even if nothing happens.
    ///
    /// # Errors
    /// Failures that call for another try after a while; everything that has been done stays done.
    pub async fn reconcile(&self, key: &Key) -> Result<Option<Time>, Error> {
        let seen = self.cache.progress(Kind::Pat, key.namespace());
        let Some(cached) = self.cache.pat(key) else {
            self.memories().remove(key);
            return Ok(None);
        };
        let mut memory = self.memories().remove(key).filter(|memory| memory.uid == cached.uid()).unwrap_or_default();
        memory.uid = cached.uid().to_owned();
        let result = self.run(key, cached, seen, &mut memory).await;
        if matches!(result, Err(Error::Timeout { .. } | Error::Unavailable { .. } | Error::Conflict { .. })) {
            memory.uncertain = true;
        }
        self.tidy(key, &mut memory);
        if memory.is_worth_keeping() {
            self.memories().insert(key.clone(), memory);
        }
        result
    }

    /// Whether a new token of this one waits in memory for its place in the Secret.
    pub fn is_under_way(&self, key: &Key) -> bool {
        self.memories().get(key).is_some_and(|memory| memory.held.is_some())
    }

    /// Forgets everything that is held for tokens: another process leads now.
    pub fn forget(&self) {
        self.memories().clear();
        self.echoes().clear();
    }

    /// A watch has brought this version of an object. If that is what our own write answered, or older, there is nothing new in it
    /// for the PAT that it was written for, which is returned: every write of ours is decided on the version before it, and its
    /// answer has been planned on.
    pub fn heard(&self, kind: Kind, object: Key, version: u64) -> Option<Key> {
        let entry = (kind, object);
        let mut echoes = self.echoes();
        let (own, writer) = echoes.get(&entry)?.clone();
        if version < own {
            return Some(writer);
        }
        echoes.remove(&entry);
        drop(echoes);
        if version > own {
            return None;
        }
        let mut memories = self.memories();
        if let Some(memory) = memories.get_mut(&writer) {
            self.tidy(&writer, memory);
            if !memory.is_worth_keeping() {
                memories.remove(&writer);
            }
        }
        Some(writer)
    }

    fn expect_echo(&self, kind: Kind, object: Key, resource_version: &str, writer: &Key) {
        // Without a version to compare (it is opaque, by the book), every event is news.
        let version = version(Some(resource_version));
        // One that has come before the answer did is an echo no more.
        if version > self.cache.progress(kind, object.namespace()).version {
            self.echoes().insert((kind, object), (version, writer.clone()));
        }
    }

    fn echoes(&self) -> MutexGuard<'_, HashMap<(Kind, Key), (u64, Key)>> {
        self.echoes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(
        &self,
        key: &Key,
        cached: Arc<StoredPat>,
        seen: Progress,
        memory: &mut Memory,
    ) -> Result<Option<Time>, Error> {
        let (namespace, name) = (key.namespace(), key.name());
        let mut pat = match &memory.pat {
            Some(written) if written.is_ahead_of(seen) => written.object.clone(),
            _ => cached,
        };
        let mut sight: Option<Sight> = None;
        let mut rehearsed = false;
        let mut conflicts = 0;
        if memory.uncertain {
            let Some(found) = self.look(&pat, &mut sight).await? else { return Ok(None) };
            pat = found;
            memory.uncertain = false;
        }
        let former = self.former(&pat, memory).await?;
        for _ in 0..MOST_STEPS {
            let now = self.now();
            let wanted = pat.spec.as_ref().map_or("", |spec| secret_name(&pat, spec)).to_owned();
            let live = sight.as_ref().is_some_and(|sight| sight.name == wanted);
            let secret = match &sight {
                Some(sight) if sight.name == wanted => sight.secret.clone(),
                _ => self.remembered(namespace, &wanted, memory),
            };
            // For the case that only the answer was lost.
            memory.note_publication(&pat, now, live.then(|| version_of(secret.as_deref())));
            let former: Vec<_> = former
                .iter()
                .filter(|secret| *secret.name != *wanted && !memory.deleted.contains_key(&*secret.name))
                .map(|secret| SecretView::clone(secret))
                .collect();
            let rival = self.cache.rival(&pat, &wanted);
            let view = View {
                pat: &pat,
                secret: secret.as_deref(),
                live,
                former: &former,
                rival: rival.as_deref(),
                held: memory.held.as_ref().map(HeldToken::public),
                refusal: memory.refusal.as_ref(),
                rehearsed,
            };
            let plan = plan(&view, &self.settings, now);
            if !plan.keep_held {
                memory.held = None;
            }
            let outcome = match plan.step {
                Step::Rest => return Ok(plan.wake_at),
                Step::Look => {
                    let Some(found) = self.glance(&pat, &mut sight, memory).await? else { return Ok(None) };
                    pat = found;
                    Ok(())
                }
                Step::Mint(prefix) => {
                    let token = Token::mint(&prefix)?;
                    memory.held = Some(HeldToken { token, issued_at: now, published_at: None, published_over: None });
                    Ok(())
                }
                Step::Rehearse(write) => {
                    let answer = apply::write_secret(&self.cluster, &pat, None, &write, true).await;
                    rehearsed = answer.is_ok();
                    if rehearsed {
                        memory.refusal = None;
                    }
                    answer.map(drop)
                }
                Step::WriteStatus(status) => match self.cluster.write_status(&pat, *status).await {
                    Ok(written) => {
                        self.expect_echo(Kind::Pat, key.clone(), written.resource_version(), key);
                        let progress = self.cache.progress(Kind::Pat, namespace);
                        let written = Written::new(written.clone(), written.resource_version(), progress);
                        pat = written.object.clone();
                        memory.pat = Some(written);
                        memory.note_publication(&pat, now, Some(version_of(secret.as_deref())));
                        Ok(())
                    }
                    Err(Error::NotFound { .. }) => return Ok(None),
                    // A status is never refused for what the spec says: that is a failure, not a refusal.
                    Err(Error::Refused { message }) => {
                        let what = format!("patch status of PersonalAccessToken {namespace}/{name}");
                        return Err(Error::Unavailable { what, message, retry_after: None });
                    }
                    Err(error) => Err(error),
                },
                Step::WriteSecret(write) => {
                    let held = memory.held.as_ref().map(|held| &held.token);
                    match apply::write_secret(&self.cluster, &pat, held, &write, false).await {
                        Ok(written) => {
                            if matches!(&write.content, Content::Token { token: Source::Held { .. }, .. }) {
                                self.metrics.minted();
                            }
                            let object = Key::new(namespace, &written.name);
                            self.expect_echo(Kind::Secret, object, &written.resource_version, key);
                            memory.accepted(&written, self.cache.progress(Kind::Secret, namespace));
                            sight = Some(Sight { name: written.name.to_string(), secret: Some(Arc::new(written)) });
                            Ok(())
                        }
                        Err(error) => Err(error),
                    }
                }
                Step::DeleteSecret(target) => {
                    let answer = self.cluster.delete_secret(namespace, &target).await;
                    if answer.is_ok() {
                        memory.secrets.remove(&target.name);
                        sight = sight
                            .map(|seen| if seen.name == target.name { Sight { secret: None, ..seen } } else { seen });
                        memory.deleted.insert(target.name.clone(), target.uid.clone());
                    }
                    answer
                }
            };
            match outcome {
                Ok(()) => self.tell(&pat, &plan.events).await,
                Err(error) => match self.setback(error, memory, now)? {
                    Setback::Refused => {}
                    Setback::LookAgain(error) => {
                        conflicts += 1;
                        self.metrics.conflict(&error);
                        if conflicts > MOST_CONFLICTS {
                            return Err(error);
                        }
                        let Some(found) = self.look(&pat, &mut sight).await? else { return Ok(None) };
                        pat = found;
                    }
                },
            }
        }
        Err(Error::Restless { steps: MOST_STEPS })
    }

    async fn tell(&self, pat: &StoredPat, notices: &[Notice]) {
        for notice in notices {
            self.metrics.told(notice.reason);
            tracing::info!(
                namespace = pat.namespace(),
                name = pat.name(),
                reason = %notice.reason,
                "{}", notice.note
            );
            self.cluster.tell(pat, notice).await;
        }
    }

    /// Decides what a failed step means for this run; `Err` ends it.
    fn setback(&self, error: Error, memory: &mut Memory, now: Time) -> Result<Setback, Error> {
        let (kind, message) = match error {
            Error::Conflict { .. }
            | Error::AlreadyExists { .. }
            | Error::NotFound { .. }
            | Error::TokenMoved { .. } => return Ok(Setback::LookAgain(error)),
            Error::NamespaceTerminating { message } => (RefusalKind::NamespaceTerminating, message),
            Error::Refused { message } => (RefusalKind::Other, message),
            Error::Render(problem) => (RefusalKind::Other, problem.to_string()),
            other => return Err(other),
        };
        let rest = match kind {
            RefusalKind::NamespaceTerminating => REFUSAL_MOST,
            RefusalKind::Other => (REFUSAL_FIRST * 2u32.saturating_pow(memory.refusals)).min(REFUSAL_MOST),
        };
        memory.refusals = (memory.refusals + 1).min(16);
        let retry_at = now.plus(SignedDuration::try_from(rest).unwrap_or(SignedDuration::from_secs(300)));
        memory.refusal = Some(Refusal { kind, message, retry_at });
        self.metrics.refused();
        Ok(Setback::Refused)
    }

    /// Reads both from the API server: the Secret first, then the PAT. The other way round another leader's rotation could come
    /// in between, and what it put into the Secret would be taken for damage. `None`: the PAT is gone.
    async fn look(&self, pat: &StoredPat, sight: &mut Option<Sight>) -> Result<Option<Arc<StoredPat>>, Error> {
        *sight = match &pat.spec {
            Ok(spec) => Some(self.read_secret(pat.namespace(), secret_name(pat, spec)).await?),
            Err(_) => None,
        };
        self.read_pat(pat).await
    }

    /// The same, but spares the PAT where nothing in the Secret can be newer than it.
    async fn glance(
        &self,
        pat: &Arc<StoredPat>,
        sight: &mut Option<Sight>,
        memory: &Memory,
    ) -> Result<Option<Arc<StoredPat>>, Error> {
        let Ok(spec) = &pat.spec else { return Ok(Some(pat.clone())) };
        let seen = self.read_secret(pat.namespace(), secret_name(pat, spec)).await?;
        let is_ours = seen.secret.as_ref().is_some_and(|secret| secret.is_of(pat.uid()));
        let version = version_of(seen.secret.as_deref());
        let is_as_published = memory.held.as_ref().is_none_or(|held| held.published_over == Some(version));
        *sight = Some(seen);
        if is_ours || !is_as_published { self.read_pat(pat).await } else { Ok(Some(pat.clone())) }
    }

    async fn read_pat(&self, pat: &StoredPat) -> Result<Option<Arc<StoredPat>>, Error> {
        let found = self.cluster.pat(pat.namespace(), pat.name()).await?;
        Ok(found.filter(|found| found.uid() == pat.uid()).map(Arc::new))
    }

    async fn read_secret(&self, namespace: &str, name: &str) -> Result<Sight, Error> {
        let secret = self.cluster.secret(namespace, name).await?.map(|secret| Arc::new(SecretView::of(secret)));
        Ok(Sight { name: name.to_owned(), secret })
    }

    /// The Secret as the caches and our own last write tell it.
    fn remembered(&self, namespace: &str, name: &str, memory: &Memory) -> Option<Arc<SecretView>> {
        let progress = self.cache.progress(Kind::Secret, namespace);
        if let Some(written) = memory.secrets.get(name).filter(|written| written.is_ahead_of(progress)) {
            return Some(written.object.clone());
        }
        let cached = self.cache.secret(namespace, name);
        cached.filter(|secret| memory.deleted.get(name) != Some(&secret.uid))
    }

    /// Secrets of this PAT, of whatever name.
    async fn former(&self, pat: &StoredPat, memory: &Memory) -> Result<Vec<Arc<SecretView>>, Error> {
        let progress = self.cache.progress(Kind::Secret, pat.namespace());
        let mut former = self.cache.controlled_by(pat);
        for written in memory.secrets.values().filter(|written| written.is_ahead_of(progress)) {
            former.retain(|secret| secret.name != written.object.name);
            former.push(written.object.clone());
        }
        former.retain(|secret| memory.deleted.get(&*secret.name) != Some(&secret.uid));
        if let (Ok(spec), Ok(status)) = (&pat.spec, &pat.status)
            && let Some(last) = &status.secret_name
            && last != secret_name(pat, spec)
            && !former.iter().any(|secret| *secret.name == **last)
            && !memory.deleted.contains_key(last)
        {
            // Our label may have been taken off it, so that no watch shows it.
            let sight = self.read_secret(pat.namespace(), last).await?;
            former.extend(sight.secret.filter(|secret| secret.is_controlled_by(pat.uid())));
        }
        Ok(former)
    }

    /// Drops what the watches have caught up with.
    fn tidy(&self, key: &Key, memory: &mut Memory) {
        let pats = self.cache.progress(Kind::Pat, key.namespace());
        let secrets = self.cache.progress(Kind::Secret, key.namespace());
        memory.pat.take_if(|written| !written.is_ahead_of(pats));
        memory.secrets.retain(|_, written| written.is_ahead_of(secrets));
        memory
            .deleted
            .retain(|name, uid| self.cache.secret(key.namespace(), name).is_some_and(|secret| secret.uid == *uid));
    }

    fn memories(&self) -> MutexGuard<'_, HashMap<Key, Memory>> {
        self.memories.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn version_of(secret: Option<&SecretView>) -> u64 {
    secret.map_or(0, SecretView::version)
}

enum Setback {
    Refused,
    LookAgain(Error),
}

impl Memory {
    fn is_worth_keeping(&self) -> bool {
        self.held.is_some()
            || self.refusal.is_some()
            || self.uncertain
            || self.pat.is_some()
            || !self.secrets.is_empty()
            || !self.deleted.is_empty()
    }

    /// The API server took a write to the Secret.
    fn accepted(&mut self, written: &SecretView, progress: Progress) {
        self.refusal = None;
        self.refusals = 0;
        self.deleted.remove(&*written.name);
        let mut view = written.clone();
        view.last_editor = None;
        self.secrets.insert(written.name.to_string(), Written::new(view, &written.resource_version, progress));
    }

    /// The hash of the held token is in the status: remember since when, and what the Secret was before.
    fn note_publication(&mut self, pat: &StoredPat, now: Time, over: Option<u64>) {
        let (Some(held), Ok(status)) = (&mut self.held, &pat.status) else { return };
        let id = held.token.id();
        if held.published_at.is_none() && status.credentials.iter().any(|credential| credential.id == id) {
            held.published_at = Some(now);
            held.published_over = over;
        }
    }
}

impl HeldToken {
    fn public(&self) -> Held {
        Held {
            id: self.token.id(),
            hash: self.token.hash(),
            issued_at: self.issued_at,
            published_at: self.published_at,
            published_over: self.published_over,
        }
    }
}

/// The reasons that count as a rotation or a revocation in the metrics.
pub fn counts_as(reason: EventReason) -> Option<&'static str> {
    match reason {
        EventReason::Rotated => Some("rotation"),
        EventReason::CredentialRevoked
        | EventReason::Condition(crate::api::Reason::Revoked | crate::api::Reason::NotDelivered) => Some("revocation"),
        EventReason::Repaired => Some("repair"),
        _ => None,
    }
}
