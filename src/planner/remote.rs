//! Tokens of other systems: what is requested from the issuer, what is known of it, and what happens to tokens that have ended.
//!
//! Their credentials go through the same lifecycle as the operator's own. This file has what differs: a token gets its name before the
//! issuer creates it, and a token that has ended is first revoked at the issuer and then forgotten, once a list of the issuer's tokens
//! shows that it is gone. Nothing here sends a request.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use k8s_openapi::jiff::SignedDuration;
use sha2::{Digest as _, Sha256};

use super::{
    inputs::Inputs,
    observed::{HeldCredential, Observed},
    situation::Situation,
    step::{RemoteDeletion, RemoteRequest},
};
use crate::{
    api::{
        Credential, CredentialState, DeletionPolicy, GitLabAccessLevel, InvalidField, IssuerPolicy, IssuerSystem,
        LengthOfTime, Parsed, Permission, PersonalAccessTokenSpec, PersonalAccessTokenStatus, PolicyRule, Reason,
        RemoteFacts, RemoteTarget, StoredPat, Time,
    },
    token::TokenHash,
};

/// A request to create a token is not sent, and has no effect, later than this after its name was chosen. It is longer than the timeout of
/// a request, and allows for clocks that differ.
pub const CREATE_DEADLINE: SignedDuration = SignedDuration::from_mins(2);

/// A request is sent at most this long after its name was chosen. The rest of [`CREATE_DEADLINE`] is for the request itself.
pub const LATEST_REQUEST: SignedDuration = SignedDuration::from_mins(1);

/// When an object is deleted and its issuer cannot be used, its tokens are left at the issuer after this time.
pub const RELEASE_AFTER: SignedDuration = SignedDuration::from_mins(10);

/// The minimum time between two updates of a token's last use in the status.
const LAST_USE_PERIOD: SignedDuration = SignedDuration::from_hours(24);

/// How long after its expiry a token certainly no longer works, even if the issuer's clock differs from ours.
const EXPIRED_FOR: SignedDuration = SignedDuration::from_hours(1);

/// A token that is revoked at the issuer a second time within this time is not replaced again.
const REMOTE_REVOCATION_WINDOW: SignedDuration = SignedDuration::from_hours(24);

/// What is known of an issuer of another system.
#[derive(Clone, Debug, PartialEq)]
pub struct IssuerView {
    /// Its kind and name, for messages.
    pub title: String,
    /// Its UID.
    pub uid: String,
    /// The system.
    pub system: IssuerSystem,
    /// The 8 characters that tell the tokens of this issuer from those of others at the same system.
    pub mark: String,
    /// Which tokens it issues; `None` issues all of them.
    pub policy: Option<IssuerPolicy>,
    /// Whether the issuer is being deleted, so that it issues no more tokens. It still revokes them.
    pub deleting: bool,
    /// Why it cannot be used now.
    pub problem: Option<IssuerProblem>,
}

/// Why an issuer cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerProblem {
    /// The reason of the conditions: `IssuerNotReady` if a person must act, `IssuerUnavailable` if it may work again.
    pub reason: Reason,
    /// What is wrong and what to do.
    pub message: String,
    /// Since when the reason has been the same.
    pub since: Time,
}

impl IssuerProblem {
    /// Returns the problem with the time since when its reason has been the same.
    #[must_use]
    pub fn following(self, before: Option<&Self>) -> Self {
        let same = before.filter(|before| before.reason == self.reason);
        Self { since: same.map_or(self.since, |before| before.since), ..self }
    }
}

/// A complete list of the tokens of one target, by name.
#[derive(Clone, Debug, PartialEq)]
pub struct RemoteList {
    /// What the tokens are for.
    pub target: RemoteTarget,
    /// When the first request of the list was sent.
    pub begun_at: Time,
    /// The tokens that can still be used.
    pub live: BTreeMap<String, ListedToken>,
}

/// A token in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedToken {
    /// Its ID at the issuer.
    pub id: String,
    /// When it was last used, if the issuer reports it.
    pub last_used_at: Option<Time>,
}

/// Why the tokens of a target cannot be listed.
#[derive(Clone, Debug, PartialEq)]
pub struct ListProblem {
    /// What the tokens are for.
    pub target: RemoteTarget,
    /// Why.
    pub problem: IssuerProblem,
}

/// What the process knows of its calls at the issuer for one PAT.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IssuerCalls {
    /// Whether a call is under way.
    pub running: bool,
    /// The last creation that failed, if none has succeeded since.
    pub failed: Option<FailedCall>,
    /// The last revocation that failed, if none has succeeded since. Neither waits for the other.
    pub failed_deletion: Option<FailedCall>,
    /// When the issuer accepted the revocation of a token, by the token's name.
    pub revoked: BTreeMap<String, Time>,
}

/// A call that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedCall {
    /// What the issuer answered.
    pub message: String,
    /// When to try again.
    pub retry_at: Time,
}

/// What the issuer answered to the creation of the held token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedFacts {
    /// The ID of the token at the issuer.
    pub id: String,
    /// When it ends there.
    pub expires_at: Option<Time>,
}

/// The part of a spec that only tokens of other systems have, parsed.
pub(super) struct RemoteIntent<'a> {
    issuer: &'a IssuerView,
    spec: &'a PersonalAccessTokenSpec,
    pub target: RemoteTarget,
    /// The hash of all parameters.
    pub parameters: String,
}

/// The facts of a PAT whose tokens another system issues.
pub(super) struct Remote<'a> {
    /// The parsed spec; `None` if the issuer does not exist or the spec does not fit it, or if the object is being deleted.
    pub intent: Option<RemoteIntent<'a>>,
    /// Why the spec does not fit the issuer. Tokens can be revoked all the same.
    pub invalid: Option<InvalidField>,
    /// The credentials that have ended and are not yet confirmed to be gone.
    pub revoking: Vec<Credential>,
}

/// What to do about a token that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Revocation {
    /// A list shows that it is gone.
    Confirmed,
    /// Delete it at the issuer.
    Delete(RemoteDeletion),
    /// Wait for the next list.
    AwaitList,
}

impl<'a> RemoteIntent<'a> {
    /// Reads the spec of a PAT for its issuer.
    ///
    /// # Errors
    /// The first field that does not fit the issuer.
    pub fn read(spec: &'a PersonalAccessTokenSpec, issuer: &'a IssuerView) -> Result<Self, InvalidField> {
        let only_local = [
            ("spec.tokenPrefix", spec.token_prefix.is_some()),
            ("spec.audiences", !spec.audiences.is_empty()),
            ("spec.accessTokenValidity", spec.access_token_validity.is_some()),
            ("spec.secret.delivery", spec.secret.as_ref().is_some_and(|secret| secret.delivery.is_some())),
            ("spec.permissions", !spec.permissions.is_empty() && issuer.system != IssuerSystem::TrueFoundry),
        ];
        let is_for = |system: IssuerSystem, set: bool| set && issuer.system != system;
        let of_others = [
            ("spec.gitLab", is_for(IssuerSystem::GitLab, spec.git_lab.is_some())),
            ("spec.argoCD", is_for(IssuerSystem::ArgoCd, spec.argo_cd.is_some())),
            ("spec.trueFoundry", is_for(IssuerSystem::TrueFoundry, spec.true_foundry.is_some())),
        ];
        if let Some((field, _)) = only_local.into_iter().chain(of_others).find(|(_, is_set)| *is_set) {
            let problem = format!("not supported for tokens of {} ({}): remove it", system(issuer), issuer.title);
            return Err(InvalidField::new(field, problem));
        }
        let missing = match issuer.system {
            IssuerSystem::GitLab if spec.git_lab.is_none() => Some("spec.gitLab"),
            IssuerSystem::ArgoCd if spec.argo_cd.is_none() => Some("spec.argoCD"),
            _ => None,
        };
        if let Some(field) = missing {
            let problem = format!("required for tokens of {} ({})", system(issuer), issuer.title);
            return Err(InvalidField::new(field, problem));
        }
        let target = RemoteTarget::of(spec);
        check_limits(spec, issuer, &target)?;
        Ok(Self { parameters: parameters(&target, &spec.scopes, &spec.permissions), issuer, spec, target })
    }

    /// Returns when a token that is issued now is to end at the issuer: after two intervals, so that the operator may be down for one, and
    /// never after the end of the whole token, except for what the system rounds up. `None`: it does not end.
    pub fn end(&self, issued_at: Time, rotation: Option<SignedDuration>, token_end: Option<Time>) -> Option<Time> {
        let by_rotation = rotation.map(|interval| issued_at.plus(interval.saturating_mul(2)));
        let wanted = by_rotation.into_iter().chain(token_end).min();
        self.issuer.system.limits(&self.target).expiry(wanted, issued_at)
    }

    /// Returns the record of a token that the issuer is about to create.
    pub fn record(&self, uid: &str, revision: i64, id: &str) -> RemoteFacts {
        RemoteFacts {
            name: remote_name(&self.issuer.mark, uid, revision, id),
            id: None,
            expires_at: None,
            last_used_at: None,
            issuer_uid: self.issuer.uid.clone(),
            target: self.target.clone(),
            parameters: self.parameters.clone(),
        }
    }

    /// Returns the request for a published token.
    pub fn request(&self, credential: &Credential) -> Option<RemoteRequest> {
        let remote = credential.remote.as_deref()?;
        Some(RemoteRequest {
            name: remote.name.clone(),
            target: remote.target.clone(),
            scopes: self.spec.scopes.clone(),
            permissions: self.spec.permissions.clone(),
            expires_at: credential.expires_at,
            latest: credential.issued_at.plus(LATEST_REQUEST),
        })
    }
}

fn system(issuer: &IssuerView) -> &'static str {
    issuer.system.as_str()
}

/// Checks that the lifetime in a spec is possible in the issuer's system.
fn check_limits(
    spec: &PersonalAccessTokenSpec,
    issuer: &IssuerView,
    target: &RemoteTarget,
) -> Result<(), InvalidField> {
    let Some(max) = issuer.system.limits(target).max_lifetime else { return Ok(()) };
    let (system, days) = (system(issuer), max.as_hours() / 24);
    let parse = |field: &'static str, text: &LengthOfTime| {
        text.parse().map_err(|error| InvalidField::new(field, error.to_string()))
    };
    let Some(rotation) = &spec.rotation else {
        let expiry = spec.expiry.as_ref();
        let after = expiry.and_then(|expiry| expiry.after.as_ref());
        let after = after.map(|after| parse("spec.expiry.after", after)).transpose()?;
        if expiry.is_some_and(|expiry| expiry.never.is_some()) || after.is_some_and(|after| after > max) {
            let what = format!("tokens of {system} live for at most {days} days: set spec.rotation");
            return Err(InvalidField::new("spec.expiry", what));
        }
        return Ok(());
    };
    if parse("spec.rotation.interval", &rotation.interval)? > max / 2 {
        let what = format!(
            "tokens of {system} live for at most {days} days, and a token is requested for two intervals: set at most {}d",
            days / 2
        );
        return Err(InvalidField::new("spec.rotation.interval", what));
    }
    Ok(())
}

/// Returns the name of a token at the issuer: 32 lower-case letters, digits and `-`, which every system accepts. It has the mark of the issuer
/// and a hash of the PAT, the revision and the ID.
pub fn remote_name(mark: &str, uid: &str, revision: i64, id: &str) -> String {
    let digest = Sha256::new()
        .chain_update(uid)
        .chain_update([0])
        .chain_update(revision.to_be_bytes())
        .chain_update(id)
        .finalize();
    format!("{}{}", name_prefix(mark), &base32(&digest)[..20])
}

/// Returns how the names of all tokens of an issuer begin.
pub(super) fn name_prefix(mark: &str) -> String {
    format!("po-{mark}-")
}

/// Returns the mark in the names of an issuer's tokens: 8 characters. `cluster` is the UID of the namespace kube-system, `lease` names the
/// lease of the controller, and `issuer` is the UID of the issuer. So an issuer that is created again never claims tokens of the former one,
/// which may have been left on purpose.
pub fn issuer_mark(cluster: &str, lease: &str, issuer: &str) -> String {
    let parts = [cluster, "\0", lease, "\0", issuer];
    let digest = parts.into_iter().fold(Sha256::new(), |digest, part| digest.chain_update(part)).finalize();
    base32(&digest)[..8].to_owned()
}

/// Returns bytes as lower-case base32 (RFC 4648), without padding. No crate in the tree has it.
fn base32(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut text = String::with_capacity(bytes.len() * 8 / 5 + 1);
    let (mut buffer, mut bits) = (0u32, 0);
    for byte in bytes {
        buffer = (buffer << 8) | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(char::from(ALPHABET[(buffer >> bits) as usize & 31]));
        }
    }
    if bits > 0 {
        text.push(char::from(ALPHABET[(buffer << (5 - bits)) as usize & 31]));
    }
    text
}

/// Returns the hash of everything that a token is requested with, except for its end.
fn parameters(target: &RemoteTarget, scopes: &[String], permissions: &[Permission]) -> String {
    let mut scopes = scopes.to_vec();
    scopes.sort();
    let text = serde_json::to_string(&(target, scopes, permissions)).expect("plain data is always JSON");
    Sha256::digest(text).iter().take(8).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl<'a> Remote<'a> {
    /// Reads what concerns the issuer; `None` if the operator itself issues the tokens. The credentials of `base` are then those at the issuer
    /// that have not ended. A PAT with tokens of another system keeps them if its issuer changes or is deleted.
    pub fn read(
        observed: &Observed<'a>,
        spec: &'a PersonalAccessTokenSpec,
        base: &mut PersonalAccessTokenStatus,
    ) -> Option<Self> {
        let pat = observed.pat;
        let has_remote_tokens = pat.has_finalizer()
            || !base.remote_credentials.is_empty()
            || base.credentials.iter().any(|credential| credential.remote.is_some());
        let of_other_system = observed.issuer.filter(|issuer| issuer.system != IssuerSystem::Local);
        if of_other_system.is_none() && !has_remote_tokens {
            return None;
        }
        // A status that was rebuilt from the Secret has them among its credentials.
        let rebuilt =
            std::mem::take(&mut base.credentials).into_iter().filter(|credential| credential.remote.is_some());
        let all = std::mem::take(&mut base.remote_credentials).into_iter().chain(rebuilt);
        let (revoking, live) = all.partition(|credential| credential.state == CredentialState::Revoking);
        base.credentials = live;
        let issuer = of_other_system.filter(|_| pat.metadata.deletion_timestamp.is_none());
        let (intent, invalid) = match issuer.map(|issuer| RemoteIntent::read(spec, issuer)) {
            Some(Ok(intent)) => (Some(intent), None),
            Some(Err(invalid)) => (None, Some(invalid)),
            None => (None, None),
        };
        Some(Self { intent, invalid, revoking })
    }
}

/// Removes the tokens that are not at the issuer although they have not ended, and returns them. Two complete lists must show it, because
/// a list can be wrong.
pub(super) fn take_gone(observed: &Observed<'_>, live: &mut Vec<Credential>) -> Vec<Credential> {
    let is_gone = |credential: &Credential| {
        let Some(remote) = credential.remote.as_deref().filter(|_| credential.state != CredentialState::Pending) else {
            return false;
        };
        let lists: Vec<_> = lists_of(observed, remote).take(2).collect();
        lists.len() == 2
            && lists.iter().all(|list| {
                list.begun_at > credential.issued_at.plus(CREATE_DEADLINE) && !list.live.contains_key(&remote.name)
            })
    };
    let (gone, rest) = std::mem::take(live).into_iter().partition(is_gone);
    *live = rest;
    gone
}

/// Returns the lists of the tokens of a token's target, newest first. Those of another issuer prove nothing.
fn lists_of<'a>(observed: &Observed<'a>, remote: &RemoteFacts) -> impl Iterator<Item = &'a RemoteList> {
    let is_issuer = observed.issuer.is_some_and(|issuer| issuer.uid == remote.issuer_uid);
    observed.remote_lists.iter().map(Arc::as_ref).filter(move |list| is_issuer && list.target == remote.target)
}

/// Decides what to do about a token that has ended. It is deleted by the ID that a list shows for its name, because the status could name
/// any ID. It is gone once a list that began after its revocation does not show it; without a revocation, once two lists that began after
/// the last moment of its creation do not, or one if the issuer has not answered to the creation.
pub(super) fn revocation(credential: &Credential, observed: &Observed<'_>) -> Revocation {
    let Some(remote) = credential.remote.as_deref() else { return Revocation::Confirmed };
    let revoked_at = observed.calls.revoked.get(&remote.name);
    let conclusive_from = conclusive_from(credential, remote, observed.calls);
    let is_conclusive = |list: &RemoteList| list.begun_at > conclusive_from;
    let newest = lists_of(observed, remote).next();
    if let Some((list, listed)) = newest.and_then(|list| Some((list, list.live.get(&remote.name)?))) {
        let is_due = is_conclusive(list) || revoked_at.is_none();
        return if is_due { Revocation::Delete(deletion(remote, &listed.id)) } else { Revocation::AwaitList };
    }
    let absent = lists_of(observed, remote).take(2);
    let absent = absent.take_while(|list| is_conclusive(list) && !list.live.contains_key(&remote.name)).count();
    let needed = if revoked_at.is_some() || remote.id.is_none() { 1 } else { 2 };
    if absent >= needed { Revocation::Confirmed } else { Revocation::AwaitList }
}

fn deletion(remote: &RemoteFacts, id: &str) -> RemoteDeletion {
    RemoteDeletion { name: remote.name.clone(), id: id.to_owned(), target: remote.target.clone() }
}

/// Whether the issuer has revoked tokens of this PAT twice within a day, and no later statement in the spec asks for another.
pub(super) fn is_unwanted(inputs: &Inputs<'_>) -> bool {
    let newest = inputs.base.revoked_remotely_at.iter().max();
    let requested = [inputs.intent.rotate_if_issued_before, inputs.intent.revoke_if_issued_before];
    unwanted_until(inputs).is_some_and(|until| inputs.now < until) && requested.iter().flatten().max() <= newest
}

/// Returns when a PAT that [`is_unwanted`] gets a token again.
pub(super) fn unwanted_until(inputs: &Inputs<'_>) -> Option<Time> {
    let mut times = inputs.base.revoked_remotely_at.clone();
    times.sort_unstable();
    times.iter().rev().nth(1).map(|second| second.plus(REMOTE_REVOCATION_WINDOW))
}

/// Returns the recent times at which a token was found revoked, with those that were found now.
pub(super) fn revoked_remotely_at(inputs: &Inputs<'_>, gone: &[Credential]) -> Vec<Time> {
    let window = |at: &Time| inputs.now.since(*at) < REMOTE_REVOCATION_WINDOW;
    let mut times: Vec<_> = inputs.base.revoked_remotely_at.iter().copied().filter(window).collect();
    let was_revoked =
        |credential: &Credential| credential.state == CredentialState::Active && !has_ended(credential, inputs.now);
    if gone.iter().any(was_revoked) {
        times.push(inputs.now);
    }
    times
}

fn has_ended(credential: &Credential, now: Time) -> bool {
    credential.expires_at.is_some_and(|end| end <= now)
}

/// Whether the tokens of a PAT that is being deleted stay at the issuer.
pub(super) fn leaves_tokens(spec: &PersonalAccessTokenSpec) -> bool {
    spec.deletion_policy == Some(DeletionPolicy::Orphan)
}

/// Returns why the issuer's policy does not permit the token; `None` if it does.
pub(super) fn refused_by_policy(inputs: &Inputs<'_>, issuer: &IssuerView) -> Option<String> {
    let policy = issuer.policy.as_ref()?;
    let target = inputs.remote_intent().map(|intent| intent.target.clone()).unwrap_or_default();
    let by_rotation = inputs.intent.rotation.map(|interval| interval.saturating_mul(2));
    // Before the first issue, a lifetime that counts from it is not known as a time.
    let after = inputs.spec.expiry.as_ref().and_then(|expiry| expiry.after.as_ref()?.parse().ok());
    let lifetime = by_rotation.or(after).or(inputs.intent.terms.end().map(|end| end.since(inputs.now)));
    let problems: Vec<_> = policy.rules.iter().map(|rule| refused_by_rule(rule, inputs, &target, lifetime)).collect();
    if problems.iter().any(Option::is_none) {
        return None;
    }
    let why = match <[_; 1]>::try_from(problems) {
        Ok([Some(problem)]) => problem,
        _ => "no rule of its policy permits the namespace, target, scopes and lifetime together".into(),
    };
    Some(format!("{} does not issue this token: {why}; change the spec, or ask the owner of the issuer", issuer.title))
}

fn refused_by_rule(
    rule: &PolicyRule,
    inputs: &Inputs<'_>,
    target: &RemoteTarget,
    lifetime: Option<SignedDuration>,
) -> Option<String> {
    let (spec, namespace) = (inputs.spec, inputs.observed.pat.namespace());
    let permits =
        |patterns: &[String], text: &str| patterns.is_empty() || patterns.iter().any(|pattern| matches(pattern, text));
    if !permits(&rule.namespaces, namespace) {
        return Some(format!("its policy does not permit the namespace {namespace:?}"));
    }
    let text = target.text();
    if !permits(&rule.targets, &text) {
        return Some(if text.is_empty() {
            "its policy does not permit tokens of the account of the issuer's credential: that needs the target \"*\", or no targets".into()
        } else {
            format!("its policy does not permit the target {text:?}")
        });
    }
    let is_user = target.git_lab.as_ref().is_some_and(|git_lab| git_lab.user.is_some());
    if is_user && rule.max_access_level.is_some() && rule.targets.is_empty() {
        return Some(
            "its policy has maxAccessLevel, and so permits tokens of users only if its targets name them".into(),
        );
    }
    let level = target.git_lab.as_ref().filter(|git_lab| git_lab.user.is_none());
    let level = level.map(|git_lab| git_lab.access_level.unwrap_or(GitLabAccessLevel::Developer));
    if let (Some(level), Some(max)) = (level, rule.max_access_level)
        && level > max
    {
        return Some(format!("its policy permits no higher accessLevel than {max:?}"));
    }
    if !spec.permissions.is_empty() && rule.permissions != Some(true) {
        return Some("its policy does not permit spec.permissions".into());
    }
    if spec.scopes.is_empty() && !rule.scopes.is_empty() {
        return Some(
            "its policy permits certain scopes, and the token has none, which can mean all: set spec.scopes".into(),
        );
    }
    if let Some(scope) = spec.scopes.iter().find(|scope| !permits(&rule.scopes, scope)) {
        return Some(format!("its policy does not permit the scope {scope:?}"));
    }
    if rule.require_rotation == Some(true) && spec.rotation.is_none() {
        return Some("its policy requires spec.rotation".into());
    }
    if let Some(max) = &rule.max_lifetime {
        let within = max.parse().is_ok_and(|max| lifetime.is_some_and(|lifetime| lifetime <= max));
        if !within {
            return Some(format!(
                "its policy permits a lifetime of at most {max}; with rotation, the lifetime is 2 × spec.rotation.interval"
            ));
        }
    }
    None
}

/// Whether a text matches a pattern in which `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// Returns the credentials at the issuer for the next status: those that are live, and those that have ended and are not confirmed to be gone.
pub(super) fn next_credentials(s: &Situation<'_>, live: Vec<Credential>) -> Vec<Credential> {
    let is_confirmed = |one: &Credential| revocation(one, s.observed) == Revocation::Confirmed;
    let is_over = |one: &Credential| !s.observed.calls.running && (is_confirmed(one) || has_expired_there(one, s));
    let revoking = s.revoking().iter().filter(|one| !is_over(one)).cloned();
    let has_ended = |one: &&Credential| !live.iter().any(|other| other.id == one.id);
    let ended = s.base.credentials.iter().filter(has_ended);
    let ended = ended.map(|one| Credential { state: CredentialState::Revoking, ..one.clone() });
    let mut all: Vec<_> = revoking.chain(ended).collect();
    all.extend(live.into_iter().map(|one| with_last_use(one, s.observed)));
    all.sort_by_key(|credential| std::cmp::Reverse(credential.revision));
    all
}

/// Records when a token was last used.
fn with_last_use(credential: Credential, observed: &Observed<'_>) -> Credential {
    let of_remote = |remote: &RemoteFacts| {
        let used_at = last_use(remote, lists_of(observed, remote).next()?)?;
        Some(Box::new(RemoteFacts { last_used_at: Some(used_at), ..remote.clone() }))
    };
    let remote = credential.remote.as_deref().and_then(of_remote).or(credential.remote);
    Credential { remote, ..credential }
}

/// Returns the last use of a token in a list, if the status has none, or one that is at least a day older.
pub fn last_use(remote: &RemoteFacts, list: &RemoteList) -> Option<Time> {
    let used_at = list.live.get(&remote.name)?.last_used_at?.min(list.begun_at);
    remote.last_used_at.is_none_or(|told| used_at.since(told) >= LAST_USE_PERIOD).then_some(used_at)
}

/// Returns the token to revoke at the issuer now.
pub(super) fn next_deletion(s: &Situation<'_>) -> Option<RemoteDeletion> {
    let is_usable = s.observed.issuer.is_some_and(|issuer| issuer.problem.is_none());
    let may_call = !s.observed.calls.running && may_retry(s.observed.calls.failed_deletion.as_ref(), s.now);
    if !is_usable || !may_call {
        return None;
    }
    let may_revoke = |one: &&Credential| blocked_revocation(one, s.observed).is_none();
    s.revoking().iter().filter(may_revoke).find_map(|one| match revocation(one, s.observed) {
        Revocation::Delete(deletion) => Some(deletion),
        Revocation::Confirmed | Revocation::AwaitList => None,
    })
}

/// Whether the issuer has ended a token by itself, and no later list says otherwise.
fn has_expired_there(one: &Credential, s: &Situation<'_>) -> bool {
    let Some((remote, end)) = one.remote.as_deref().and_then(|remote| Some((remote, remote.expires_at?))) else {
        return false;
    };
    let still_lives = |list: &RemoteList| list.begun_at > end && list.live.contains_key(&remote.name);
    s.now.since(end) >= EXPIRED_FOR && !lists_of(s.observed, remote).next().is_some_and(still_lives)
}

/// Whether the name of a token has the hash of this UID. It does not if the object was restored from a backup.
fn is_named_for(one: &Credential, remote: &RemoteFacts, uid: &str) -> bool {
    remote.name.ends_with(&remote_name("", uid, one.revision, one.id.as_str())["po-".len()..])
}

/// Returns the names of a PAT's tokens that have ended and were issued to a PAT with another UID: this one was restored from a backup.
pub fn names_of_another(pat: &StoredPat) -> impl Iterator<Item = &str> {
    let tokens = pat.status.iter().flat_map(|status| status.all_credentials());
    let tokens = tokens.filter(|one| one.state == CredentialState::Revoking);
    let remote = tokens.filter_map(|one| Some((one, one.remote.as_deref()?)));
    remote.filter(|(one, remote)| !is_named_for(one, remote, pat.uid())).map(|(_, remote)| remote.name.as_str())
}

/// Why the controller must not revoke a token that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlockedRevocation {
    /// Another controller issued it, or it was issued for a deleted issuer of the same name.
    IssuedElsewhere,
    /// It was issued to a different PAT, and another PAT still records it.
    Shared,
}

/// Returns why the controller must not revoke a token; `None` if it may.
pub(super) fn blocked_revocation(one: &Credential, observed: &Observed<'_>) -> Option<BlockedRevocation> {
    let (remote, issuer) = (one.remote.as_deref()?, observed.issuer?);
    let is_ours = remote.issuer_uid == issuer.uid && remote.name.starts_with(&name_prefix(&issuer.mark));
    let is_shared = !is_named_for(one, remote, observed.pat.uid()) && observed.shared_names.contains(&remote.name);
    if is_ours { is_shared.then_some(BlockedRevocation::Shared) } else { Some(BlockedRevocation::IssuedElsewhere) }
}

/// Whether a PAT that is being deleted may go although its tokens are not confirmed to be gone: its issuer cannot be used, and that will not
/// change by itself.
pub(super) fn may_give_up(s: &Situation<'_>) -> bool {
    release_at(s).is_some_and(|at| at <= s.now)
}

/// Returns when a PAT that is being deleted may go although its issuer cannot be used: some time after the deletion, and after the problem
/// began.
pub(super) fn release_at(inputs: &Inputs<'_>) -> Option<Time> {
    let deleted_at = Time::from(inputs.observed.pat.metadata.deletion_timestamp.as_ref()?.0);
    let unusable_since = unusable_since(inputs.observed, inputs.revoking())?;
    Some(deleted_at.max(unusable_since).plus(RELEASE_AFTER))
}

/// Returns since when a person has had to act before these tokens can be revoked; `None` if the controller can revoke them, or will be able
/// to.
fn unusable_since(observed: &Observed<'_>, revoking: &[Credential]) -> Option<Time> {
    let Some(issuer) = observed.issuer else { return Some(Time::MIN) };
    let needs_a_person = |problem: &&IssuerProblem| problem.reason == Reason::IssuerNotReady;
    let since = |one: &Credential| {
        if blocked_revocation(one, observed).is_some() {
            return Some(Time::MIN);
        }
        let of_list = || list_problem(observed, &one.remote.as_ref()?.target).filter(needs_a_person);
        issuer.problem.as_ref().filter(needs_a_person).or_else(of_list).map(|problem| problem.since)
    };
    let all: Option<Vec<_>> = revoking.iter().map(since).collect();
    all?.into_iter().max()
}

/// Returns why the tokens of a target cannot be listed.
pub(super) fn list_problem<'a>(observed: &Observed<'a>, target: &RemoteTarget) -> Option<&'a IssuerProblem> {
    observed.list_problems.iter().find(|one| one.target == *target).map(|one| &one.problem)
}

/// Whether a token that has ended waits for a list that is newer than those that are known.
pub fn awaits_list(
    credential: &Credential,
    lists: &[Arc<RemoteList>],
    problems: &[ListProblem],
    calls: &IssuerCalls,
) -> bool {
    let Some(remote) = credential.remote.as_ref().filter(|_| credential.state == CredentialState::Revoking) else {
        return false;
    };
    let conclusive_from = conclusive_from(credential, remote, calls);
    let has_newer = lists.iter().any(|list| list.target == remote.target && list.begun_at > conclusive_from);
    !has_newer && !problems.iter().any(|one| one.target == remote.target)
}

/// Returns the time after which a list must begin to be conclusive. Such a list shows the token if it exists.
fn conclusive_from(credential: &Credential, remote: &RemoteFacts, calls: &IssuerCalls) -> Time {
    let revoked_at = calls.revoked.get(&remote.name).copied();
    revoked_at.unwrap_or(credential.issued_at.plus(CREATE_DEADLINE))
}

/// Whether a call may be made: the last one did not fail, or that is long enough ago.
pub(super) fn may_retry(failed: Option<&FailedCall>, now: Time) -> bool {
    failed.is_none_or(|failed| failed.retry_at <= now)
}

/// Returns the credential of a held token that the issuer has created.
pub(super) fn created(credential: &Credential, hash: TokenHash, facts: &CreatedFacts) -> Credential {
    let remote = credential
        .remote
        .clone()
        .map(|remote| Box::new(RemoteFacts { id: Some(facts.id.clone()), expires_at: facts.expires_at, ..*remote }));
    let ends = facts.expires_at.into_iter().chain(credential.expires_at).min();
    Credential { sha256: Parsed::Value(hash), expires_at: ends, remote, ..credential.clone() }
}

/// Whether the issuer has created a held token, and the status does not yet show it.
pub(super) fn is_unrecorded(live: &[Credential], held: &HeldCredential) -> bool {
    live.iter().any(|credential| credential.id == held.id && held.hash.is_some_and(|hash| credential.sha256 != hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_32_characters_that_every_system_accepts() {
        let mark = issuer_mark("uid", "ns/lease", "issuer");
        let name = remote_name(&mark, "pat", 7, "0123456789Ab");
        assert_eq!(name.len(), 32, "{name}");
        assert!(name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-'), "{name}");
        let others = [("other", 7, "0123456789Ab"), ("pat", 8, "0123456789Ab"), ("pat", 7, "0123456789AB")];
        for (uid, revision, id) in others {
            assert_ne!(remote_name(&mark, uid, revision, id), name);
        }
        assert_ne!(issuer_mark("uid", "ns/other", "issuer"), mark);
        assert_ne!(issuer_mark("uid", "ns/lease", "other"), mark);
        assert_eq!(base32(b"foobar"), "mzxw6ytboi", "RFC 4648, section 10");
    }

    #[test]
    fn star_stands_for_any_text() {
        let cases = [
            ("*", "", true),
            ("*", "shop", true),
            ("project/shop/*", "project/shop/web", true),
            ("project/shop/*", "project/shopping", false),
            ("*/web", "project/shop/web", true),
            ("a*a", "a", false),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "acb", false),
            ("team-a", "team-a", true),
            ("team-a", "team-ab", false),
            ("", "", true),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
