//! The rules, in order: the first that applies decides what happens next. If none does, there is nothing to do but wait.
//!
//! Each rule is a function whose comment says what it does and when. The facts that rules use are found elsewhere:
//!
//! | question | answer |
//! | --- | --- |
//! | Is a token needed, and why? | `need` in `situation.rs`; for `delivery: Once`, `need` in `delivery.rs` |
//! | When is a rotation due, and when does a credential end? | `rotation_due` and `deadline` in `lifecycle.rs` |
//! | May the Secret be written, or is its name taken? | `find` in `ownership.rs` |
//! | Was the Secret edited? | `find` in `drift.rs` |
//! | What keeps a needed token from being issued? | `find` in `blocked.rs` |
//! | Was a one-time token taken? | `find` in `delivery.rs` |
//! | What do conditions and events say? | `conditions.rs`, `events.rs` |

use k8s_openapi::jiff::SignedDuration;

use super::{
    Plan, content,
    damage::{self, Damage},
    delivery::OneTimeDelivery,
    drift::{self, Drift},
    inputs::{MintReason, Need},
    lifecycle,
    observed::{SecretView, newest_version},
    ownership::SecretOwnership,
    remote,
    situation::Situation,
    step::{RemoteDeletion, RemoteRequest, SecretVersion, SecretWrite, Step},
};
use crate::{
    api::{ConditionType, Credential, CredentialState, MAX_LIVE_CREDENTIALS, Reason, Time},
    secret::Digest,
    token::TokenPrefix,
};

/// This many Secrets are deleted in one reconcile; the next one follows after [`BETWEEN_DELETIONS`].
const MAX_DELETIONS: usize = 8;
const BETWEEN_DELETIONS: SignedDuration = SignedDuration::from_secs(1);

type Rule = fn(&Situation<'_>) -> Option<Action>;

const RULES: &[Rule] = &[
    // What only the Secret shows
    record_a_lost_token,
    // Tokens of other systems that have ended
    leave_tokens_at_the_issuer,
    revoke_at_the_issuer,
    // What the cache does not show
    read_uncached_to_judge_delivery,
    read_uncached_if_secret_is_newer,
    read_uncached_before_repair,
    read_uncached_if_secret_seems_absent,
    // What the API server refuses
    wait_while_writes_are_refused,
    delete_an_immutable_secret,
    // A new token
    add_the_finalizer,
    end_abandoned_tokens,
    make_room_for_a_token,
    dry_run_before_minting_again,
    mint_a_token,
    publish_the_hash,
    create_at_the_issuer,
    record_what_the_issuer_created,
    read_uncached_if_secret_has_changed,
    write_the_new_token,
    // The Secret as it should be
    move_the_token,
    repair_drift,
    clear_the_secret,
    delete_former_secrets,
    delete_a_secret_that_delivers_nothing,
    remove_the_finalizer,
    // Nothing to do yet
    wait_for_verifiers,
];

/// What a rule decides.
#[derive(Debug)]
pub(super) enum Action {
    /// Read the Secret and the PAT from the API server, then plan again.
    ReadUncached {
        /// Whether to keep the token that is held in memory.
        keep_held: bool,
    },
    /// Ask the API server whether it would accept this write, then plan again.
    DryRun(Box<SecretWrite>),
    /// Mint a token into memory, then plan again.
    Mint(TokenPrefix),
    /// Give the Secret a new resourceVersion, so that no write that was decided earlier can take effect.
    BumpResourceVersion(Box<SecretWrite>),
    /// Publish the hash of the held token in the status.
    Publish(MintReason, Credential),
    /// Write the Secret.
    WriteSecret(Box<SecretWrite>),
    /// Remove the token from the Secret.
    ClearSecret(Box<SecretWrite>),
    /// Delete a Secret.
    DeleteSecret(SecretVersion),
    /// Draw the ID of a token of another system.
    Reserve,
    /// Add the finalizer that holds the object until its tokens are revoked at their issuer.
    AddFinalizer,
    /// Remove it, after the status shows that the tokens are gone.
    RemoveFinalizer,
    /// Remove it, and leave these tokens at the issuer.
    LeaveTokens(Vec<String>),
    /// Create the held token at its issuer.
    CreateRemote(Box<RemoteRequest>),
    /// Record in the status what the issuer has created.
    Record(Credential),
    /// Revoke a token at its issuer.
    DeleteRemote(Box<RemoteDeletion>),
    /// Delete the Secret of a one-time delivery, after the status shows how the delivery ended.
    DeleteDeliveredSecret(SecretVersion),
    /// Delete an immutable Secret, after the status shows that its token has ended.
    DeleteImmutableSecret(SecretVersion),
    /// Wait until this time.
    Wait(Time),
    /// Wait until something changes.
    Rest,
}

impl Action {
    /// Returns the plan of an action that needs no status; `Err` with the action itself for all others.
    pub fn into_preparation(self, keep_held: bool) -> Result<Plan, Self> {
        let (step, keep_held) = match self {
            Self::ReadUncached { keep_held } => (Step::ReadUncached, keep_held),
            Self::DryRun(write) => (Step::DryRun(write), keep_held),
            Self::Mint(prefix) => (Step::Mint(prefix), keep_held),
            Self::BumpResourceVersion(write) => (Step::WriteSecret(write), keep_held),
            Self::Reserve => (Step::Reserve, keep_held),
            Self::AddFinalizer => (Step::AddFinalizer, keep_held),
            Self::LeaveTokens(names) => (Step::RemoveFinalizer(names), keep_held),
            Self::CreateRemote(request) => (Step::CreateRemote(request), keep_held),
            Self::DeleteRemote(deletion) => (Step::DeleteRemote(deletion), keep_held),
            action => return Err(action),
        };
        Ok(Plan { keep_held, ..Plan::new(step) })
    }

    /// Returns the time until which it waits.
    pub fn wait_until(&self) -> Option<Time> {
        if let Self::Wait(until) = self { Some(*until) } else { None }
    }
}

/// Returns the action of the first rule that applies.
pub(super) fn first_that_applies(situation: &Situation<'_>) -> Action {
    RULES.iter().find_map(|rule| rule(situation)).unwrap_or(Action::Rest)
}

/// Records that a token was written and the Secret does not hold it, before a further write changes the annotations that show this; or that
/// the issuer of another system no longer has a token, before another is requested.
fn record_a_lost_token(s: &Situation<'_>) -> Option<Action> {
    (s.has_lost_token || !s.gone.is_empty()).then_some(Action::Rest)
}

/// Lets a PAT go that is being deleted with `deletionPolicy: Orphan`. Tokens that have ended are not left on purpose: the controller revokes
/// them later, as tokens that no PAT knows.
fn leave_tokens_at_the_issuer(s: &Situation<'_>) -> Option<Action> {
    let leaves = s.intent.deleting && remote::leaves_tokens(s.spec) && !s.observed.calls.running;
    let names = |one: &Credential| one.remote.as_ref().map(|remote| remote.name.clone());
    let is_in_use = |one: &&Credential| matches!(one.state, CredentialState::Active | CredentialState::Grace);
    leaves.then(|| Action::LeaveTokens(s.base.credentials.iter().filter(is_in_use).filter_map(names).collect()))
}

/// Revokes a token at its issuer, after the status shows that it has ended.
fn revoke_at_the_issuer(s: &Situation<'_>) -> Option<Action> {
    remote::next_deletion(s).map(|deletion| Action::DeleteRemote(Box::new(deletion)))
}

/// Reads from the API server if the Secret that held a one-time token is not in the cache or does not hold it: it may have been taken.
fn read_uncached_to_judge_delivery(s: &Situation<'_>) -> Option<Action> {
    (s.delivery == OneTimeDelivery::Unknown).then_some(Action::ReadUncached { keep_held: true })
}

/// Reads from the API server if the Secret records a mint that the cached PAT does not.
fn read_uncached_if_secret_is_newer(s: &Situation<'_>) -> Option<Action> {
    let secrets = s.observed.secret.into_iter().chain(s.ownership.ours());
    let newer = !s.observed.uncached && secrets.into_iter().any(|secret| s.is_ahead(secret));
    newer.then_some(Action::ReadUncached { keep_held: true })
}

/// Reads from the API server before a token is replaced because the Secret lost it: the cache may be behind.
fn read_uncached_before_repair(s: &Situation<'_>) -> Option<Action> {
    let repair = s.need == Need::Mint(MintReason::Repair) || (s.needs_mint() && s.minting.lost && !s.is_refused());
    (repair && !s.observed.uncached).then_some(Action::ReadUncached { keep_held: true })
}

/// Reads from the API server if the cache shows no Secret although one may exist: after a conflict or a refused write, and before a token's end is
/// recorded, or if the status says that a token remains in it. A Secret that lost its label is not watched, but must still be cleared.
fn read_uncached_if_secret_seems_absent(s: &Situation<'_>) -> Option<Action> {
    if s.observed.uncached || !matches!(s.ownership, SecretOwnership::Absent) {
        return None;
    }
    let ready = s.stored.conditions.iter().find(|condition| condition.type_ == ConditionType::Ready.as_str());
    let was_blocked = ready.is_some_and(|ready| {
        [Reason::SecretConflict, Reason::ApiError, Reason::NamespaceTerminating]
            .iter()
            .any(|reason| ready.reason == reason.as_str())
    });
    let is_marked =
        s.stored.conditions.iter().any(|condition| condition.type_ == ConditionType::SecretNotCleared.as_str());
    // A one-time token in its grace period never goes back into a Secret.
    let taken = |credential: &Credential| s.intent.once && credential.state == CredentialState::Grace;
    let ending = s.need == Need::Nothing
        && s.active.is_none()
        && (s.stored.conditions.is_empty() || !s.stored.live().all(taken));
    (was_blocked || ending || is_marked).then_some(Action::ReadUncached { keep_held: true })
}

/// Writes no Secret until it is time to try a refused write again.
fn wait_while_writes_are_refused(s: &Situation<'_>) -> Option<Action> {
    s.is_refused().then_some(Action::Rest)
}

/// Deletes an immutable Secret once its token has ended, because the token cannot be removed from it, or if a new token needs its name.
/// While the token in it is in use, a person decides when its readers can do without it (`immutable_secret` in `blocked.rs`).
fn delete_an_immutable_secret(s: &Situation<'_>) -> Option<Action> {
    let is_in_use = if s.intent.once { s.delivery == OneTimeDelivery::Waiting } else { s.active.is_some() };
    let secret = s.ownership.ours().filter(|secret| secret.immutable && !is_in_use)?;
    if s.mint_reason().is_none() && content::cleared(s).is_none() {
        return None;
    }
    Some(if s.observed.uncached {
        Action::DeleteImmutableSecret(SecretVersion::of(secret))
    } else {
        Action::ReadUncached { keep_held: s.needs_held_token() }
    })
}

/// Adds the finalizer before the first token of another system is requested: Kubernetes accepts no new finalizer on an object that is being
/// deleted.
fn add_the_finalizer(s: &Situation<'_>) -> Option<Action> {
    s.mint_reason()?;
    (s.remote.is_some() && !s.observed.pat.has_finalizer()).then_some(Action::AddFinalizer)
}

/// Bumps the Secret's resourceVersion, or creates the Secret without a token, if the issuer may have created a token that no process holds:
/// then the token can be dropped and revoked, and no process that was paused can write it to the Secret.
fn end_abandoned_tokens(s: &Situation<'_>) -> Option<Action> {
    (s.remote.is_some() && s.minting.abandoned).then(|| Action::BumpResourceVersion(content::bumped(s)))
}

/// Bumps the Secret's resourceVersion if abandoned pending tokens leave no room for a new one: then they can be dropped.
fn make_room_for_a_token(s: &Situation<'_>) -> Option<Action> {
    s.mint_reason()?;
    let full = !s.minting.published && s.live.len() >= MAX_LIVE_CREDENTIALS;
    (full && s.minting.abandoned).then(|| Action::BumpResourceVersion(content::bumped(s)))
}

/// Checks by a dry run whether the Secret can be written and keeps what is written, before another token is minted, if an earlier one
/// never reached the Secret.
fn dry_run_before_minting_again(s: &Situation<'_>) -> Option<Action> {
    s.mint_reason()?;
    let failed_before = s.minting.abandoned || s.minting.lost || s.refusal().is_some();
    let ask = s.minting.held.is_none() && failed_before && !s.observed.dry_run_accepted;
    ask.then(|| content::with_throwaway_token(s)).flatten().map(Action::DryRun)
}

/// Mints a token into memory if one is needed and none is held.
fn mint_a_token(s: &Situation<'_>) -> Option<Action> {
    s.mint_reason()?;
    s.minting.held.is_none().then(|| match s.remote {
        Some(_) => Action::Reserve,
        None => Action::Mint(s.intent.prefix.clone()),
    })
}

/// Publishes the hash of the held token before the token is written.
fn publish_the_hash(s: &Situation<'_>) -> Option<Action> {
    let reason = s.mint_reason()?;
    let held = s.minting.held.filter(|_| !s.minting.published)?;
    let revision = s.base.revision.unwrap_or_default() + 1;
    Some(Action::Publish(reason, lifecycle::credential(s, &held, revision)))
}

/// Asks the issuer to create the published token.
fn create_at_the_issuer(s: &Situation<'_>) -> Option<Action> {
    s.mint_reason()?;
    let held = s.minting.held.filter(|_| s.minting.published && s.minting.to_be_created)?;
    let credential = s.live.iter().find(|credential| credential.id == held.id)?;
    let may_call = !s.observed.calls.running && remote::may_retry(s.observed.calls.failed.as_ref(), s.now);
    let request = s.remote_intent()?.request(credential).filter(|_| may_call)?;
    Some(Action::CreateRemote(Box::new(request)))
}

/// Records the ID and the hash of a token that the issuer has created, before it is written to the Secret.
fn record_what_the_issuer_created(s: &Situation<'_>) -> Option<Action> {
    let held = s.minting.held.filter(|_| s.minting.unrecorded)?;
    let credential = s.live.iter().find(|credential| credential.id == held.id)?;
    Some(Action::Record(remote::created(credential, held.hash?, s.observed.created?)))
}

/// Reads from the API server before the new token is written, if the Secret has changed since its hash was published: another leader may have ended
/// this token.
fn read_uncached_if_secret_has_changed(s: &Situation<'_>) -> Option<Action> {
    let held = s.token_to_write()?;
    let changed = held.published_over != Some(newest_version(s.observed.secret, s.observed.former));
    (changed && !s.observed.uncached).then_some(Action::ReadUncached { keep_held: true })
}

/// Writes the published token to the Secret.
fn write_the_new_token(s: &Situation<'_>) -> Option<Action> {
    content::with_new_token(s, &s.token_to_write()?).map(Action::WriteSecret)
}

/// Copies the active token from a former Secret after `spec.secret.name` has changed. If something removes it each time, this waits.
fn move_the_token(s: &Situation<'_>) -> Option<Action> {
    if s.need != Need::Move || s.blocked.is_some() {
        return None;
    }
    let write = content::with_active_token(s, s.active.as_ref()?)?;
    let damage = damage::of_move(s, s.ownership.ours());
    Some(wait_for_repair(s, write.render_hash()).unwrap_or_else(|| write_repairing(*write, Some(damage))))
}

/// Repairs drift of data, labels, annotations and the owner, and applies a changed spec. Repairs that something undoes each time wait.
/// A Secret that the spec no longer names stays as it is, because its readers expect the former layout.
fn repair_drift(s: &Situation<'_>) -> Option<Action> {
    if s.need != Need::Nothing || s.blocked.is_some() || s.rename_blocked.is_some() || !s.secret_holds_active {
        return None;
    }
    let (secret, active) = (s.ownership.ours()?, s.active.as_ref()?);
    let drift = drift::find(s, secret, active)?;
    let intended = s.intent.layout.as_ref().ok()?.render_hash(&content::facts_of_active(s, active).borrow());
    if let Some(wait) = wait_for_repair(s, intended) {
        return Some(wait);
    }
    let write = match drift {
        Drift::Unconfirmed => return Some(Action::ReadUncached { keep_held: false }),
        Drift::Data => content::with_active_token(s, active),
        Drift::Metadata { data_hash, render_hash } => content::with_metadata_only(s, data_hash, render_hash),
    };
    Some(write_repairing(*write?, drift::damage(s, secret, active)))
}

/// Removes the token from the Secret once no credential is active. If another client writes to the Secret each time, this waits.
fn clear_the_secret(s: &Situation<'_>) -> Option<Action> {
    if s.active.is_some() {
        return None;
    }
    let write = content::cleared(s)?;
    Some(wait_for_repair(s, write.render_hash()).unwrap_or(Action::ClearSecret(write)))
}

/// Waits if something has undone the repairs to this content each time.
fn wait_for_repair(s: &Situation<'_>, intended: Digest) -> Option<Action> {
    s.observed.repairs?.wait_until(intended, s.now).map(Action::Wait)
}

fn write_repairing(write: SecretWrite, repairs: Option<Damage>) -> Action {
    Action::WriteSecret(Box::new(SecretWrite { repairs, ..write }))
}

/// Deletes a Secret with a former name, or a copy, once the active token is in its new place, or if that Secret holds no live token. Only
/// some are deleted in one reconcile, so that many copies do not hold up other PATs.
fn delete_former_secrets(s: &Situation<'_>) -> Option<Action> {
    let moved = s.active.is_none() || s.secret_holds_active || s.delivery.is_delivered();
    let useless = |secret: &SecretView| {
        !s.live.iter().any(|credential| s.key_of(secret, credential).is_some()) && !s.is_ahead(secret)
    };
    let is_former = |secret: &&SecretView| {
        *secret.name != *s.secret_name && !secret.deleting && !s.refuses(&secret.name) && (moved || useless(secret))
    };
    let former = s.observed.former.iter().find(is_former)?;
    if s.observed.deletions >= MAX_DELETIONS {
        return Some(Action::Wait(s.now.plus(BETWEEN_DELETIONS)));
    }
    Some(Action::DeleteSecret(SecretVersion::of(former)))
}

/// Deletes the Secret of a one-time delivery if no token waits in it: a late write or an ended delivery left it.
fn delete_a_secret_that_delivers_nothing(s: &Situation<'_>) -> Option<Action> {
    if !s.intent.once || s.delivery == OneTimeDelivery::Waiting || s.needs_mint() {
        return None;
    }
    let secret = s.ownership.ours()?;
    Some(if s.observed.uncached {
        Action::DeleteDeliveredSecret(SecretVersion::of(secret))
    } else {
        Action::ReadUncached { keep_held: false }
    })
}

/// Lets a PAT go that is being deleted, once all of its tokens are gone. If the issuer cannot be used, it goes after 10 minutes.
fn remove_the_finalizer(s: &Situation<'_>) -> Option<Action> {
    if !s.intent.deleting || s.observed.calls.running {
        return None;
    }
    let is_empty = s.stored.remote_credentials.is_empty() && s.base.credentials.is_empty() && s.revoking().is_empty();
    (is_empty || remote::may_give_up(s)).then_some(Action::RemoveFinalizer)
}

/// Waits until verifiers have seen the published hash, if a valid token is being rotated.
fn wait_for_verifiers(s: &Situation<'_>) -> Option<Action> {
    s.verifiers_ready_at().map(Action::Wait)
}
