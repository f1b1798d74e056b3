//! The state of a PAT between two reconciles. A restarted process works correctly without it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use k8s_openapi::jiff::SignedDuration;

use super::{
    issuers::{FinishedCall, FinishedResult},
    namespaced_name::NamespacedName,
    stores::{Stores, WatchProgress, WatchedKind, version},
};
use crate::{
    api::{PersonalAccessTokenStatus, StoredPat, Time},
    issuer::{CallError, PlainToken},
    planner::{
        SecretWrite,
        damage::Damage,
        observed::{HeldCredential, SecretView, WriteRefusal, WriteRefusalKind},
        remote::{CreatedFacts, FailedCall, IssuerCalls},
        repairs::Repairs,
    },
    token::{Token, TokenHash, TokenId},
};

/// The delay before a refused write, or a call at the issuer that failed, is tried again. It doubles with each refusal, up to [`MAX_REFUSAL_WAIT`].
const FIRST_REFUSAL_WAIT: Duration = Duration::from_secs(10);
const MAX_REFUSAL_WAIT: Duration = Duration::from_secs(300);

/// The state of one PAT between two reconciles.
#[derive(Default)]
pub(super) struct ReconcileState {
    /// The uid of the PAT. A recreated PAT starts without state.
    pub uid: String,
    /// The token that is held in memory until the Secret holds it.
    pub held: Option<HeldToken>,
    /// For each Secret, the last refusal of a write, if none was accepted since.
    pub refusals: Vec<WriteRefusal>,
    /// How many writes to a Secret were refused in a row, by name.
    refused: HashMap<String, u32>,
    /// The repairs in a row of the Secret, until the last one is long ago.
    pub repairs: Option<Repairs>,
    /// Whether the outcome of the last request is unknown, so that the next reconcile reads from the API server first.
    pub uncertain: bool,
    /// The response to the last write of the status.
    pub pat: Option<LastWrite<StoredPat>>,
    /// The responses to the last writes of Secrets, by name.
    secrets: HashMap<String, LastWrite<SecretView>>,
    /// The calls at the issuer of another system.
    pub calls: IssuerCalls,
    /// How many creations have failed in a row.
    failed_creations: u32,
    /// How many revocations have failed in a row.
    failed_deletions: u32,
    /// The uids of the Secrets that were deleted, by name.
    deleted: HashMap<String, String>,
}

/// A minted token, and when and over which version of the Secret its hash was published.
pub(super) struct HeldToken {
    pub text: HeldText,
    issued_at: Time,
    published_at: Option<Time>,
    pub published_over: Option<u64>,
}

/// The token itself, if it exists yet.
pub(super) enum HeldText {
    /// The operator minted it.
    Minted(Token),
    /// An issuer of another system is to create it.
    Reserved(TokenId),
    /// An issuer of another system created it.
    Created {
        /// The ID of its credential.
        id: TokenId,
        /// The token.
        token: PlainToken,
        /// Its SHA-256.
        hash: TokenHash,
        /// What the issuer answered.
        facts: CreatedFacts,
    },
}

impl HeldText {
    /// Returns the ID of the credential.
    pub fn id(&self) -> TokenId {
        match self {
            Self::Minted(token) => token.id(),
            Self::Reserved(id) | Self::Created { id, .. } => *id,
        }
    }

    /// Returns the token and its hash, if it exists.
    pub fn token(&self) -> Option<(&str, TokenHash)> {
        match self {
            Self::Minted(token) => Some((token.expose(), token.hash())),
            Self::Created { token, hash, .. } => Some((token.expose(), *hash)),
            Self::Reserved(_) => None,
        }
    }

    /// Returns what the issuer answered.
    pub fn facts(&self) -> Option<&CreatedFacts> {
        match self {
            Self::Created { facts, .. } => Some(facts),
            Self::Minted(_) | Self::Reserved(_) => None,
        }
    }
}

/// The response to a write, and the epoch of the watch at that time.
pub(super) struct LastWrite<T> {
    pub object: Arc<T>,
    version: u64,
    epoch: u64,
}

impl<T> LastWrite<T> {
    pub fn new(object: T, resource_version: &str, progress: WatchProgress) -> Self {
        Self { object: Arc::new(object), version: version(Some(resource_version)), epoch: progress.epoch }
    }

    /// Whether it is newer than everything that the watch has delivered.
    pub fn is_ahead_of(&self, progress: WatchProgress) -> bool {
        self.epoch == progress.epoch && progress.version < self.version
    }
}

impl ReconcileState {
    /// Creates an empty state for the PAT with this uid.
    pub fn of(uid: &str) -> Self {
        Self { uid: uid.to_owned(), ..Self::default() }
    }

    /// Whether the state holds anything.
    pub fn is_worth_keeping(&self) -> bool {
        self.held.is_some()
            || !self.refusals.is_empty()
            || self.repairs.is_some()
            || self.uncertain
            || self.pat.is_some()
            || !self.secrets.is_empty()
            || !self.deleted.is_empty()
            || self.calls != IssuerCalls::default()
    }

    /// Whether a rotation is half done: a new token is published, and its write to the Secret only waits for verifiers.
    pub fn is_rotation_begun(&self) -> bool {
        self.refusals.is_empty() && self.held.as_ref().is_some_and(|held| held.published_at.is_some())
    }

    /// Records that the API server accepted a write to the Secret.
    pub fn secret_written(&mut self, written: &SecretView, progress: WatchProgress) {
        self.deleted.remove(&*written.name);
        let mut view = written.clone();
        view.last_editor = None;
        self.secrets.insert(written.name.to_string(), LastWrite::new(view, &written.resource_version, progress));
    }

    /// Records whether admission changed a write to the Secret that the API server accepted, and when to try again.
    pub fn note_alteration(&mut self, write: &SecretWrite, alteration: Result<Option<Damage>, Damage>, now: Time) {
        match alteration {
            Err(damage) => self.write_refused(&write.name, WriteRefusalKind::Altered, damage.message, now),
            Ok(damage) => {
                self.write_accepted(&write.name);
                self.refused.remove(&write.name);
                self.repairs = Repairs::after(self.repairs.take(), write, damage.as_ref(), now);
            }
        }
    }

    /// Records that a call at the issuer has begun, or that the issuer cannot be called.
    pub fn note_call_begun(&mut self, began: bool, now: Time) {
        if began {
            self.calls.running = true;
        } else {
            let message = "the controller cannot call the issuer yet".to_owned();
            let failed = Some(FailedCall { message, retry_at: after(now, FIRST_REFUSAL_WAIT) });
            (self.calls.failed, self.calls.failed_deletion) = (failed.clone(), failed);
        }
    }

    /// Records the result of a call at the issuer.
    pub fn note_call(&mut self, call: FinishedCall) {
        if call.uid != self.uid {
            return;
        }
        self.calls.running = false;
        match call.result {
            FinishedResult::Created(id, Ok(created)) => {
                (self.calls.failed, self.failed_creations) = (None, 0);
                if let Some(held) = self.held.as_mut().filter(|held| held.text.id() == id) {
                    let facts = CreatedFacts { id: created.id, expires_at: created.expires_at };
                    let hash = created.token.hash();
                    held.text = HeldText::Created { id, token: created.token, hash, facts };
                }
            }
            FinishedResult::Created(_, Err(error)) => {
                // If the token exists all the same, nobody has it.
                if error.is_outcome_unknown() {
                    self.held = None;
                }
                self.calls.failed = Some(failed(&error, &mut self.failed_creations, call.ended_at));
            }
            FinishedResult::Deleted(name, Ok(())) => {
                (self.calls.failed_deletion, self.failed_deletions) = (None, 0);
                self.calls.revoked.insert(name, call.ended_at);
            }
            FinishedResult::Deleted(_, Err(error)) => {
                self.calls.failed_deletion = Some(failed(&error, &mut self.failed_deletions, call.ended_at));
            }
        }
    }

    /// Records that a Secret was deleted.
    pub fn secret_deleted(&mut self, name: &str, uid: &str) {
        self.secrets.remove(name);
        self.write_accepted(name);
        self.deleted.insert(name.to_owned(), uid.to_owned());
    }

    /// Whether the controller deleted the Secret with this name.
    pub fn has_deleted(&self, name: &str) -> bool {
        self.deleted.contains_key(name)
    }

    /// Records that the API server refused a write to the Secret, or that admission defeated it, and when to try again.
    pub fn write_refused(&mut self, secret: &str, kind: WriteRefusalKind, message: String, now: Time) {
        let before = self.refused.entry(secret.to_owned()).or_default();
        let wait = match kind {
            WriteRefusalKind::NamespaceTerminating => MAX_REFUSAL_WAIT,
            WriteRefusalKind::Altered | WriteRefusalKind::Other => delay(*before),
        };
        *before = (*before + 1).min(16);
        let retry_at = after(now, wait);
        self.write_accepted(secret);
        self.refusals.push(WriteRefusal { secret: secret.to_owned(), kind, message, retry_at });
    }

    /// Records that the API server accepts writes to this Secret, as far as a dry run shows. If the next one is refused, the delay grows on.
    pub fn write_accepted(&mut self, secret: &str) {
        self.refusals.retain(|refusal| refusal.secret != secret);
    }

    /// Forgets refusals of writes to Secrets that no longer concern the PAT, and those that the clock showed a wrong time for: no delay is
    /// longer than [`MAX_REFUSAL_WAIT`].
    pub fn retain_refusals(&mut self, now: Time, concerns: impl Fn(&str) -> bool) {
        let longest = SignedDuration::try_from(MAX_REFUSAL_WAIT).unwrap_or(SignedDuration::MAX);
        self.refusals.retain(|refusal| concerns(&refusal.secret) && refusal.retry_at.since(now) <= longest);
        self.refused.retain(|secret, _| concerns(secret));
    }

    /// Forgets revocations of tokens that the status no longer lists.
    pub fn retain_revoked(&mut self, status: &PersonalAccessTokenStatus) {
        let names: Vec<_> = status.remote_credentials.iter().filter_map(|one| one.remote.as_ref()).collect();
        self.calls.revoked.retain(|name, _| names.iter().any(|remote| remote.name == *name));
    }

    /// Records when the status first shows the hash of the held token, and which version the Secret had before.
    pub fn note_publication(&mut self, pat: &StoredPat, now: Time, over: Option<u64>) {
        let (Some(held), Ok(status)) = (&mut self.held, &pat.status) else { return };
        let id = held.text.id();
        if held.published_at.is_none() && status.all_credentials().any(|credential| credential.id == id) {
            held.published_at = Some(now);
            held.published_over = over;
        }
    }

    /// Returns a Secret according to the store and the controller's own last write, whichever is newer.
    pub fn known_secret(&self, stores: &Stores, namespace: &str, name: &str) -> Option<Arc<SecretView>> {
        // The progress is read before the Secret, so that the stored Secret is at least as new.
        let progress = stores.progress(WatchedKind::Secret, namespace);
        if let Some(written) = self.secrets.get(name).filter(|written| written.is_ahead_of(progress)) {
            return Some(written.object.clone());
        }
        let stored = stores.secret(namespace, name);
        stored.filter(|secret| self.deleted.get(name) != Some(&secret.uid))
    }

    /// Returns the Secrets that a PAT controls, according to the store and the controller's own last writes.
    pub fn known_controlled_secrets(&self, stores: &Stores, pat: &StoredPat) -> Vec<Arc<SecretView>> {
        let progress = stores.progress(WatchedKind::Secret, pat.namespace());
        let mut secrets = stores.controlled_by(pat);
        for written in self.secrets.values().filter(|written| written.is_ahead_of(progress)) {
            secrets.retain(|secret| secret.name != written.object.name);
            secrets.push(written.object.clone());
        }
        secrets.retain(|secret| self.deleted.get(&*secret.name) != Some(&secret.uid));
        secrets
    }

    /// Drops the entries that the watches have delivered.
    pub fn drop_delivered(&mut self, stores: &Stores, key: &NamespacedName) {
        let pats = stores.progress(WatchedKind::Pat, key.namespace());
        let secrets = stores.progress(WatchedKind::Secret, key.namespace());
        self.pat.take_if(|written| !written.is_ahead_of(pats));
        self.secrets.retain(|_, written| written.is_ahead_of(secrets));
        self.deleted.retain(|name, uid| stores.secret(key.namespace(), name).is_some_and(|secret| secret.uid == *uid));
    }
}

/// Returns the delay before the next try, after so many earlier failures in a row.
fn delay(failures: u32) -> Duration {
    (FIRST_REFUSAL_WAIT * 2u32.saturating_pow(failures)).min(MAX_REFUSAL_WAIT)
}

/// Returns the record of a call that failed, and counts it.
fn failed(error: &CallError, before: &mut u32, now: Time) -> FailedCall {
    let wait = delay(*before).max(error.retry_after().unwrap_or_default());
    *before = (*before + 1).min(16);
    FailedCall { message: error.to_string(), retry_at: after(now, wait) }
}

fn after(now: Time, wait: Duration) -> Time {
    now.plus(SignedDuration::try_from(wait).unwrap_or(SignedDuration::from_secs(300)))
}

impl HeldToken {
    /// Creates the entry of a token that was minted, or whose ID was drawn, at `issued_at`.
    pub fn new(text: HeldText, issued_at: Time) -> Self {
        Self { text, issued_at, published_at: None, published_over: None }
    }

    /// Returns the part that the planner may see.
    pub fn public(&self) -> HeldCredential {
        HeldCredential {
            id: self.text.id(),
            hash: self.text.token().map(|(_, hash)| hash),
            issued_at: self.issued_at,
            published_at: self.published_at,
            published_over: self.published_over,
        }
    }
}
