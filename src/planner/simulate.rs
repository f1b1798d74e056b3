//! A simulator that performs plans in memory, as the controller and the API server would. `kubectl pat plan`, the planner's tests and
//! the documentation use it.
//!
//! It sends no requests. The caller sets the time and passes the function that mints tokens.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta, jiff::SignedDuration,
};
use zeroize::{Zeroize, Zeroizing};

use super::{
    Plan, SecretContent, SecretWrite, Step, TokenSource,
    damage::{self, Damage},
    intent::{ControllerConfig, secret_name},
    observed::{
        HeldCredential, Observed, OwnedMetadata, SecretRecord, SecretView, WriteRefusal, WriteRefusalKind, hash,
        newest_version, owner_reference, version,
    },
    plan,
    remote::{CreatedFacts, FailedCall, IssuerCalls, IssuerView, ListProblem, ListedToken, RemoteList},
    repairs::Repairs,
    step::{RemoteDeletion, RemoteRequest},
};
use crate::{
    api::{InvalidField, MANAGED_BY, MANAGED_BY_LABEL, REMOTE_TOKENS, RemoteTarget, StoredPat, Time},
    secret::{Digest, Layout, Rendered, cleared_data},
    token::{MintError, Token, TokenHash, TokenPrefix},
};

/// Mints the tokens of a simulation.
pub type Minter = Box<dyn FnMut(&TokenPrefix) -> Result<Token, MintError>>;

/// Changes a Secret before it is stored; the second one is the present Secret, if there is one.
pub type Admission = Box<dyn Fn(&mut Secret, Option<&Secret>)>;

/// The wait after a write that the API server refused, or that admission defeated.
const REFUSED_WAIT: SignedDuration = SignedDuration::from_secs(10);

/// The wait after a call at the issuer that failed.
const CALL_WAIT: SignedDuration = SignedDuration::from_secs(10);

/// When a creation whose answer was lost takes effect, if it is late.
const CREATED_LATE: SignedDuration = SignedDuration::from_secs(60);

/// One PAT, its Secrets, and what a controller process keeps in memory.
pub struct Simulator {
    /// The current time.
    pub now: Time,
    /// The object.
    pub pat: StoredPat,
    /// The Secrets of its namespace, by name. Their values are zeroized when the simulator is dropped.
    pub secrets: BTreeMap<String, Secret>,
    /// The configuration of the controller.
    pub config: ControllerConfig,
    /// The older PAT that asks for the same Secret, if there is one.
    pub conflicting_pat: Option<String>,
    /// The name of a TokenOwner that disables the owner of the PAT, if there is one.
    pub disabled_by: Option<String>,
    /// How far the controller's clock is ahead of the API server's, or behind if negative. `now` is already corrected.
    pub clock_skew: SignedDuration,
    /// The token that the controller holds in memory.
    pub held: Option<SimulatedToken>,
    /// For each Secret, the last write that the API server refused, or that admission defeated.
    pub refusals: Vec<WriteRefusal>,
    /// The repairs in a row of the Secret.
    pub repairs: Option<Repairs>,
    /// The issuer of another system.
    pub issuer: Option<SimulatedIssuer>,
    /// Whether the finalizer was removed from an object that is being deleted: it no longer exists.
    pub released: bool,
    /// Changes each write to a Secret, as a mutating admission policy does.
    pub admission: Option<Admission>,
    mint: Minter,
    uncached: bool,
    dry_run_accepted: bool,
    deletions: usize,
    version: u64,
}

/// A token in memory.
pub struct SimulatedToken {
    /// The token.
    pub token: Token,
    /// When it was minted.
    pub issued_at: Time,
    /// When its hash was published in the status, and the version of the Secret at that time.
    pub published: Option<(Time, u64)>,
    /// Whether it exists: an issuer of another system creates it after it was published.
    pub exists: bool,
}

/// An issuer of another system, and what the controller process knows of it.
pub struct SimulatedIssuer {
    /// The issuer as the planner sees it.
    pub view: IssuerView,
    /// The tokens that exist there, by name.
    pub tokens: BTreeMap<String, SimulatedRemoteToken>,
    /// The target of all tokens.
    pub target: RemoteTarget,
    /// The newest two lists, newest first.
    pub lists: Vec<Arc<RemoteList>>,
    /// The targets that cannot be listed.
    pub list_problems: Vec<ListProblem>,
    /// The names of tokens that another PAT records, too.
    pub shared_names: Vec<String>,
    /// The calls.
    pub calls: IssuerCalls,
    /// What it answered to the creation of the held token.
    pub created: Option<CreatedFacts>,
    /// How it answers the next call; afterwards calls succeed again.
    pub next_answer: RemoteAnswer,
    /// Tokens that will exist later: when, and under which name.
    late: Vec<(Time, String, SimulatedRemoteToken)>,
    next_id: u64,
}

/// A token at a simulated issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimulatedRemoteToken {
    /// Its ID there.
    pub id: String,
    /// Its hash.
    pub sha256: TokenHash,
    /// When it ends.
    pub expires_at: Option<Time>,
    /// When it was last used.
    pub last_used_at: Option<Time>,
}

/// How a simulated issuer answers a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RemoteAnswer {
    /// It does what was asked.
    #[default]
    Success,
    /// It refuses, and nothing has changed.
    Refusal,
    /// It does what was asked, but the answer is lost.
    LostAfter,
    /// The call is lost before it takes effect.
    LostBefore,
    /// The answer is lost, and the call takes effect after a minute.
    LostLate,
}

impl SimulatedIssuer {
    /// Creates an issuer without any token.
    pub fn new(view: IssuerView) -> Self {
        Self {
            view,
            tokens: BTreeMap::new(),
            target: RemoteTarget::default(),
            lists: Vec::new(),
            list_problems: Vec::new(),
            shared_names: Vec::new(),
            calls: IssuerCalls::default(),
            created: None,
            next_answer: RemoteAnswer::Success,
            late: Vec::new(),
            next_id: 0,
        }
    }

    /// Lists the tokens, as the controller does at regular intervals.
    pub fn poll(&mut self, now: Time) {
        let (due, late) = std::mem::take(&mut self.late).into_iter().partition(|(at, ..)| *at <= now);
        self.late = late;
        let due: Vec<(Time, String, SimulatedRemoteToken)> = due;
        self.tokens.extend(due.into_iter().map(|(_, name, token)| (name, token)));
        let is_live = |token: &SimulatedRemoteToken| token.expires_at.is_none_or(|end| now < end);
        let live = self.tokens.iter().filter(|(_, token)| is_live(token));
        let live = live
            .map(|(name, token)| (name.clone(), ListedToken { id: token.id.clone(), last_used_at: token.last_used_at }))
            .collect();
        self.lists.insert(0, Arc::new(RemoteList { target: self.target.clone(), begun_at: now, live }));
        self.lists.truncate(2);
    }

    /// Creates a token; `None` if the answer is lost.
    fn create(&mut self, request: &RemoteRequest, sha256: TokenHash, now: Time) -> Option<CreatedFacts> {
        let answer = std::mem::take(&mut self.next_answer);
        self.next_id += 1;
        let id = self.next_id.to_string();
        let token = SimulatedRemoteToken { id: id.clone(), sha256, expires_at: request.expires_at, last_used_at: None };
        if answer == RemoteAnswer::LostLate {
            self.late.push((now.plus(CREATED_LATE), request.name.clone(), token));
        } else if matches!(answer, RemoteAnswer::Success | RemoteAnswer::LostAfter) {
            self.tokens.insert(request.name.clone(), token);
            if answer == RemoteAnswer::Success {
                self.calls.failed = None;
                return Some(CreatedFacts { id, expires_at: request.expires_at });
            }
        }
        self.calls.failed = Some(failed(now));
        None
    }

    fn delete(&mut self, deletion: &RemoteDeletion, now: Time) {
        let answer = std::mem::take(&mut self.next_answer);
        if matches!(answer, RemoteAnswer::Success | RemoteAnswer::LostAfter) {
            self.tokens.retain(|_, token| token.id != deletion.id);
        }
        if answer == RemoteAnswer::Success {
            self.calls.failed_deletion = None;
            self.calls.revoked.insert(deletion.name.clone(), now);
        } else {
            self.calls.failed_deletion = Some(failed(now));
        }
    }
}

fn failed(now: Time) -> FailedCall {
    FailedCall { message: "the issuer did not answer".to_owned(), retry_at: now.plus(CALL_WAIT) }
}

/// How the API server answered a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Performed {
    /// The step is done.
    Done,
    /// The Secret is not in the version that the step was decided on. The next plan reads from the API server.
    Conflict,
}

/// A step that cannot be performed.
#[derive(Debug, thiserror::Error)]
pub enum SimulationError {
    /// No token can be minted.
    #[error(transparent)]
    Mint(#[from] MintError),
    /// The Secret cannot be rendered.
    #[error("{0}")]
    Render(InvalidField),
    /// A token is not where the step says.
    #[error("the token is no longer in {0}")]
    TokenMoved(String),
}

impl Simulator {
    /// Creates a simulation of this object, without any Secret.
    pub fn new(pat: StoredPat, config: ControllerConfig, now: Time, mint: Minter) -> Self {
        Self {
            now,
            pat,
            secrets: BTreeMap::new(),
            config,
            conflicting_pat: None,
            disabled_by: None,
            clock_skew: SignedDuration::ZERO,
            held: None,
            refusals: Vec::new(),
            repairs: None,
            issuer: None,
            released: false,
            admission: None,
            mint,
            uncached: false,
            dry_run_accepted: false,
            deletions: 0,
            version: 0,
        }
    }

    /// Begins a reconcile, which sees Secrets as the cache does: without those that lack the label.
    pub fn begin_reconcile(&mut self) {
        let now = self.now;
        self.repairs.take_if(|repairs| repairs.is_over(now));
        (self.uncached, self.dry_run_accepted, self.deletions) = (false, false, 0);
    }

    /// Returns the name of the Secret according to the spec.
    pub fn secret_name(&self) -> &str {
        self.pat.spec.as_ref().map_or("", |spec| secret_name(&self.pat, spec))
    }

    /// Plans the next step.
    pub fn plan(&mut self) -> Plan {
        let name = self.secret_name().to_owned();
        let views: Vec<_> = self.secrets.values().cloned().map(SecretView::of).collect();
        let secret = views.iter().find(|secret| *secret.name == *name && (self.uncached || secret.is_labelled()));
        let is_former = |secret: &&SecretView| *secret.name != *name && secret.is_controlled_by(self.pat.uid());
        let former: Vec<_> = views.iter().filter(is_former).cloned().collect();
        self.note_publication(newest_version(secret, &former));
        let no_calls = IssuerCalls::default();
        let observed = Observed {
            pat: &self.pat,
            secret,
            uncached: self.uncached,
            former: &former,
            conflicting_pat: self.conflicting_pat.as_deref(),
            disabled_by: self.disabled_by.as_deref(),
            clock_skew: self.clock_skew,
            held: self.held.as_ref().map(SimulatedToken::public),
            issuer: self.issuer.as_ref().map(|issuer| &issuer.view),
            remote_lists: self.issuer.as_ref().map_or(&[], |issuer| &issuer.lists),
            list_problems: self.issuer.as_ref().map_or(&[], |issuer| &issuer.list_problems),
            shared_names: self.issuer.as_ref().map_or(&[], |issuer| &issuer.shared_names),
            calls: self.issuer.as_ref().map_or(&no_calls, |issuer| &issuer.calls),
            created: self.issuer.as_ref().and_then(|issuer| issuer.created.as_ref()),
            refusals: &self.refusals,
            deletions: self.deletions,
            repairs: self.repairs.as_ref(),
            dry_run_accepted: self.dry_run_accepted,
        };
        plan(&observed, &self.config, self.now)
    }

    /// Plans the next step, and forgets the held token if the plan does not need it.
    pub fn next_plan(&mut self) -> Plan {
        let plan = self.plan();
        if !plan.keep_held {
            self.held = None;
        }
        plan
    }

    /// Performs one step.
    ///
    /// # Errors
    /// The step cannot be performed; nothing has changed.
    pub fn perform(&mut self, step: Step) -> Result<Performed, SimulationError> {
        match step {
            Step::Rest => {}
            Step::ReadUncached => self.uncached = true,
            Step::Mint(prefix) => {
                let token = (self.mint)(&prefix)?;
                self.held = Some(SimulatedToken { token, issued_at: self.now, published: None, exists: true });
            }
            Step::Reserve => {
                if let Some(issuer) = &mut self.issuer {
                    issuer.created = None;
                }
                let token = (self.mint)(&TokenPrefix::default())?;
                self.held = Some(SimulatedToken { token, issued_at: self.now, published: None, exists: false });
            }
            Step::AddFinalizer => {
                self.pat.metadata.resource_version = Some(self.next_version());
                self.pat.metadata.finalizers.get_or_insert_default().push(REMOTE_TOKENS.into());
            }
            Step::RemoveFinalizer(_) => {
                self.pat.metadata.resource_version = Some(self.next_version());
                self.pat.metadata.finalizers = None;
                self.released = true;
            }
            Step::CreateRemote(request) => {
                if let (Some(issuer), Some(held)) = (&mut self.issuer, &mut self.held) {
                    let was_refusal = issuer.next_answer == RemoteAnswer::Refusal;
                    issuer.created = issuer.create(&request, held.token.hash(), self.now);
                    held.exists = issuer.created.is_some();
                    // After a refusal the same request can be sent again. Otherwise the token may exist, and nobody has it.
                    if !held.exists && !was_refusal {
                        self.held = None;
                    }
                }
            }
            Step::DeleteRemote(deletion) => {
                if let Some(issuer) = &mut self.issuer {
                    issuer.delete(&deletion, self.now);
                }
            }
            Step::DryRun(write) => {
                if !self.is_current(&write) {
                    self.uncached = true;
                    return Ok(Performed::Conflict);
                }
                let sent = self.secret_after(&write)?;
                let stored = self.admit(sent.clone());
                let refused = self.refuse_data_of_immutable(&stored);
                let defeated = refused.or_else(|| self.defeat(&write, sent, stored).err());
                self.dry_run_accepted = defeated.is_none();
                self.refuse(&write.name, defeated);
            }
            Step::WriteStatus(status) => {
                self.pat.metadata.resource_version = Some(self.next_version());
                self.pat.status = Ok(*status);
            }
            Step::WriteSecret(write) => {
                self.uncached = true;
                if !self.is_current(&write) {
                    return Ok(Performed::Conflict);
                }
                let sent = self.secret_after(&write)?;
                let stored = self.admit(sent.clone());
                if let Some(refusal) = self.refuse_data_of_immutable(&stored) {
                    self.refuse(&write.name, Some(refusal));
                    return Ok(Performed::Done);
                }
                match self.defeat(&write, sent, stored.clone()) {
                    Err(refusal) => self.refuse(&write.name, Some(refusal)),
                    Ok(damage) => {
                        self.refuse(&write.name, None);
                        self.repairs = Repairs::after(self.repairs.take(), &write, damage.as_ref(), self.now);
                    }
                }
                self.secrets.insert(write.name, stored);
            }
            Step::DeleteSecret(target) => {
                if self.version_of(&target.name) != Some(&target.resource_version) {
                    self.uncached = true;
                    return Ok(Performed::Conflict);
                }
                self.secrets.remove(&target.name);
                self.deletions += 1;
            }
        }
        Ok(Performed::Done)
    }

    /// Replaces the last refusal of writes to a Secret.
    pub fn refuse(&mut self, secret: &str, refusal: Option<WriteRefusal>) {
        self.refusals.retain(|refusal| refusal.secret != secret);
        self.refusals.extend(refusal);
    }

    /// Returns a Secret as admission lets it through.
    fn admit(&self, mut secret: Secret) -> Secret {
        if let Some(admission) = &self.admission {
            let present = secret.metadata.name.as_ref().and_then(|name| self.secrets.get(name));
            admission(&mut secret, present);
        }
        secret
    }

    /// Returns how the API server refuses to store a Secret because the present one is immutable and has other data; `None` if it does not.
    fn refuse_data_of_immutable(&self, stored: &Secret) -> Option<WriteRefusal> {
        let name = stored.metadata.name.as_ref()?;
        let present = self.secrets.get(name).filter(|present| present.immutable == Some(true))?;
        (present.immutable != stored.immutable || present.data != stored.data).then(|| WriteRefusal {
            secret: name.clone(),
            kind: WriteRefusalKind::Other,
            message: format!("Secret {name:?} is invalid: data: Forbidden: field is immutable when `immutable` is set"),
            retry_at: self.now.plus(REFUSED_WAIT),
        })
    }

    /// Returns what admission changed in a write; `Err` if the write has failed because of that.
    fn defeat(&self, write: &SecretWrite, sent: Secret, stored: Secret) -> Result<Option<Damage>, WriteRefusal> {
        let (sent, stored) = (SecretView::of(sent), SecretView::of(stored));
        damage::alteration(write, self.pat.uid(), &sent, &stored).map_err(|damage| WriteRefusal {
            secret: write.name.clone(),
            kind: WriteRefusalKind::Altered,
            message: damage.message,
            retry_at: self.now.plus(REFUSED_WAIT),
        })
    }

    /// Returns the Secret that the API server would hold after a write, without admission.
    ///
    /// # Errors
    /// A token is not where the write says, or the Secret cannot be rendered.
    pub fn secret_after(&mut self, write: &SecretWrite) -> Result<Secret, SimulationError> {
        let old = self.secrets.get(&write.name).cloned().unwrap_or_default();
        let content = self.content_after(&write.content, old.data)?;
        let layout = content.layout;
        let record = SecretRecord {
            pat_uid: self.pat.uid().into(),
            ledger: write.ledger.clone(),
            data_hash: content.data_hash,
            render_hash: content.render_hash,
            owned: layout.map_or_else(|| write.previously_owned.clone(), OwnedMetadata::of),
        };
        let mut labels = old.metadata.labels.unwrap_or_default();
        let mut annotations = old.metadata.annotations.unwrap_or_default();
        if let Some(layout) = layout {
            labels.retain(|key, _| !write.previously_owned.labels.contains(key));
            labels.extend(layout.labels.clone());
            annotations.retain(|key, _| !write.previously_owned.annotations.contains(key));
            annotations.extend(layout.annotations.clone());
        }
        labels.insert(MANAGED_BY_LABEL.into(), MANAGED_BY.into());
        annotations.extend(record.annotations());
        let version = self.next_version();
        let metadata = ObjectMeta {
            name: Some(write.name.clone()),
            namespace: Some(self.pat.namespace().to_owned()),
            uid: old.metadata.uid.or_else(|| Some(format!("secret-{version}"))),
            resource_version: Some(version),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: if write.set_owner {
                Some(vec![owner_reference(&self.pat)])
            } else {
                old.metadata.owner_references
            },
            ..Default::default()
        };
        let (type_, immutable) = (old.type_.or(content.type_), old.immutable);
        Ok(Secret { metadata, type_, immutable, data: Some(content.data), ..Default::default() })
    }

    /// Returns the content of a Secret after a write; `present` is its data before.
    fn content_after<'c>(
        &mut self,
        content: &'c SecretContent,
        present: Option<BTreeMap<String, ByteString>>,
    ) -> Result<ContentAfter<'c>, SimulationError> {
        Ok(match content {
            SecretContent::Token { token, previous, facts, layout } => {
                let token = self.fetch(token)?;
                let previous = previous.as_ref().map(|source| self.fetch(source)).transpose()?;
                let previous = previous.as_deref().map(String::as_str);
                let rendered = layout.render(&token, previous, &facts.borrow()).map_err(SimulationError::Render)?;
                ContentAfter {
                    data: data(&rendered),
                    data_hash: rendered.hash(),
                    render_hash: layout.render_hash(&facts.borrow()),
                    layout: Some(layout),
                    type_: Some(layout.type_.clone()),
                }
            }
            SecretContent::MetadataOnly { data_hash, render_hash, layout } => ContentAfter {
                data: present.unwrap_or_default(),
                data_hash: *data_hash,
                render_hash: *render_hash,
                layout: layout.as_ref(),
                type_: None,
            },
            SecretContent::Cleared { type_ } => {
                let rendered = cleared_data(type_);
                ContentAfter {
                    data: data(&rendered),
                    data_hash: rendered.hash(),
                    render_hash: Digest::default(),
                    layout: None,
                    type_: Some(type_.clone()),
                }
            }
        })
    }

    /// Returns a new resourceVersion.
    pub fn next_version(&mut self) -> String {
        let versions = self.secrets.values().map(|secret| version(secret.metadata.resource_version.as_deref()));
        let newest = versions.chain([self.version, version(Some(self.pat.resource_version()))]).max();
        self.version = newest.unwrap_or_default() + 1;
        self.version.to_string()
    }

    /// Whether the Secret has the version that a write was decided on.
    fn is_current(&self, write: &SecretWrite) -> bool {
        write.base.as_ref().map(|base| base.resource_version.as_str()) == self.version_of(&write.name)
    }

    fn version_of(&self, secret: &str) -> Option<&str> {
        self.secrets.get(secret)?.metadata.resource_version.as_deref()
    }

    /// Records when the hash of the held token was published in the status, and the version of the Secret at that time.
    fn note_publication(&mut self, over: u64) {
        let (Some(held), Ok(status)) = (&mut self.held, &self.pat.status) else { return };
        if held.published.is_none() && status.all_credentials().any(|credential| credential.id == held.token.id()) {
            held.published = Some((self.now, over));
        }
    }

    /// Reads a plain token from its source.
    fn fetch(&mut self, source: &TokenSource) -> Result<Zeroizing<String>, SimulationError> {
        let moved = |place: &str| SimulationError::TokenMoved(place.to_owned());
        match source {
            TokenSource::Held { sha256 } => {
                let held = self.held.as_ref().filter(|held| held.token.hash() == *sha256);
                Ok(held.ok_or_else(|| moved("memory"))?.token.expose().to_owned().into())
            }
            TokenSource::Secret { target, key, sha256 } => {
                let data = self.secrets.get(&target.name).and_then(|secret| secret.data.as_ref());
                let value = data.and_then(|data| data.get(key)).filter(|value| *sha256 == hash(&value.0));
                let text = value.and_then(|value| str::from_utf8(&value.0).ok());
                Ok(text.ok_or_else(|| moved(&target.name))?.to_owned().into())
            }
            TokenSource::Throwaway => Ok((self.mint)(&TokenPrefix::default())?.expose().to_owned().into()),
        }
    }
}

/// The content of a Secret after a write.
struct ContentAfter<'c> {
    data: BTreeMap<String, ByteString>,
    data_hash: Digest,
    render_hash: Digest,
    layout: Option<&'c Layout>,
    type_: Option<String>,
}

fn data(rendered: &Rendered) -> BTreeMap<String, ByteString> {
    rendered.iter().map(|(key, value)| (key.to_owned(), ByteString(value.to_vec()))).collect()
}

impl SimulatedToken {
    fn public(&self) -> HeldCredential {
        HeldCredential {
            id: self.token.id(),
            hash: self.exists.then(|| self.token.hash()),
            issued_at: self.issued_at,
            published_at: self.published.map(|(at, _)| at),
            published_over: self.published.map(|(_, over)| over),
        }
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        let values = self.secrets.values_mut().flat_map(|secret| secret.data.iter_mut().flatten());
        values.for_each(|(_, value)| value.0.zeroize());
    }
}
