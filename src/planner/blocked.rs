//! Reasons that prevent a needed change of the token, temporarily or until a person acts.

use k8s_openapi::jiff::SignedDuration;

use super::{
    BREAKER_MINTS, BREAKER_WINDOW, MAX_CLOCK_SKEW, damage,
    inputs::{Inputs, MintReason, Need},
    lifecycle,
    minting::MintProgress,
    observed::{SecretView, WriteRefusal, WriteRefusalKind},
    ownership::SecretOwnership,
};
use crate::api::{Credential, CredentialState, MAX_LIVE_CREDENTIALS, Reason, Time};

/// When the clocks are compared again.
const CLOCK_CHECK: SignedDuration = SignedDuration::from_mins(1);

/// A reason that prevents a needed change.
#[derive(Clone, Debug)]
pub(super) struct Blocked {
    /// The reason of the conditions.
    pub reason: Reason,
    /// What is wrong and what to do.
    pub message: String,
    /// When to try again without a change.
    pub until: Option<Time>,
}

/// Finds what blocks `need`. The most important reason comes first: one that only a person can remove.
pub(super) fn find(
    inputs: &Inputs<'_>,
    ownership: &SecretOwnership<'_>,
    need: Need,
    minting: &MintProgress,
    live: &[Credential],
) -> Option<Blocked> {
    secret_conflict(inputs, ownership, need)
        .or_else(|| invalid_layout(inputs))
        .or_else(|| immutable_secret(inputs, ownership, need, live))
        .or_else(|| clock_skew(inputs, need))
        .or_else(|| refused_write(inputs, ownership))
        .or_else(|| mint_loop(inputs, ownership, need, minting, live))
        .or_else(|| too_many_live(need, minting, live))
}

fn secret_conflict(inputs: &Inputs<'_>, ownership: &SecretOwnership<'_>, need: Need) -> Option<Blocked> {
    let SecretOwnership::Conflict(message) = ownership else { return None };
    // A one-time delivery needs the Secret's name only while a token is being issued.
    let name_is_needed = !inputs.intent.once || matches!(need, Need::Mint(_));
    name_is_needed.then(|| Blocked {
        reason: Reason::SecretConflict,
        message: message.clone(),
        until: Some(lifecycle::conflict_retry(inputs.uid(), inputs.now)),
    })
}

fn invalid_layout(inputs: &Inputs<'_>) -> Option<Blocked> {
    let problem = inputs.intent.layout.as_ref().err()?;
    Some(Blocked { reason: Reason::InvalidSpec, message: problem.to_string(), until: None })
}

/// An immutable Secret with a token in use is not deleted for a new token: its readers would find no Secret for a moment.
fn immutable_secret(
    inputs: &Inputs<'_>,
    ownership: &SecretOwnership<'_>,
    need: Need,
    live: &[Credential],
) -> Option<Blocked> {
    let secret = ownership.ours().filter(|secret| secret.immutable && !inputs.intent.once)?;
    let active = live.iter().find(|one| one.state == CredentialState::Active)?;
    let Need::Mint(reason) = need else { return None };
    let what = if reason == MintReason::Repair {
        "the token, which it does not hold, cannot be written to it".to_owned()
    } else {
        let until = active.expires_at.map_or_else(String::new, |end| format!(" until {end}"));
        format!("the token in it, which works{until}, cannot be rotated")
    };
    let until = Some(lifecycle::conflict_retry(inputs.uid(), inputs.now));
    Some(Blocked { reason: Reason::SecretImmutable, message: immutable_message(secret, &what), until })
}

/// Returns the message about an immutable Secret, with what cannot be done because of that.
pub(super) fn immutable_message(secret: &SecretView, what: &str) -> String {
    format!(
        "Secret {:?} is immutable, so Kubernetes refuses every change of its data, and {what}: delete the Secret, and the controller creates it \
         again with a new token",
        secret.name
    )
}

/// A clock that is this wrong gives tokens the wrong times, and no one knows which of the two clocks it is.
fn clock_skew(inputs: &Inputs<'_>, need: Need) -> Option<Blocked> {
    let skew = inputs.observed.clock_skew;
    if !matches!(need, Need::Mint(_)) || skew.abs() <= MAX_CLOCK_SKEW {
        return None;
    }
    Some(Blocked {
        reason: Reason::ClockSkew,
        message: skew_message(inputs),
        until: Some(inputs.now.plus(CLOCK_CHECK)),
    })
}

/// Returns what is wrong with the clocks and what to do, when the skew is too large.
pub(super) fn skew_message(inputs: &Inputs<'_>) -> String {
    let side = if inputs.observed.clock_skew.is_negative() { "behind" } else { "ahead of" };
    format!(
        "the clock of the controller is more than 5 minutes {side} the API server's, so no token is issued: synchronise the clocks of their nodes with NTP"
    )
}

fn refused_write(inputs: &Inputs<'_>, ownership: &SecretOwnership<'_>) -> Option<Blocked> {
    let blocked = inputs.refusal().filter(|_| inputs.is_refused()).map(of_refusal)?;
    let is_immutable = |secret: &&SecretView| secret.immutable && !inputs.intent.once;
    let Some(secret) = ownership.ours().filter(is_immutable) else { return Some(blocked) };
    let message = immutable_message(secret, &format!("it cannot be updated ({})", blocked.message));
    Some(Blocked { reason: Reason::SecretImmutable, message, ..blocked })
}

/// Returns the block by a refused write.
pub(super) fn of_refusal(refusal: &WriteRefusal) -> Blocked {
    let reason = match refusal.kind {
        WriteRefusalKind::NamespaceTerminating => Reason::NamespaceTerminating,
        WriteRefusalKind::Altered => Reason::SecretAltered,
        WriteRefusalKind::Other => Reason::ApiError,
    };
    Blocked { reason, message: refusal.message.clone(), until: Some(refusal.retry_at) }
}

fn mint_loop(
    inputs: &Inputs<'_>,
    ownership: &SecretOwnership<'_>,
    need: Need,
    minting: &MintProgress,
    live: &[Credential],
) -> Option<Blocked> {
    let under_way = inputs.observed.held.is_some_and(|held| lifecycle::is_pending(live, &held));
    let Need::Mint(reason) = need else { return None };
    if under_way || (reason != MintReason::Repair && !minting.lost) {
        return None;
    }
    let recent = lifecycle::recent(&inputs.base.unplanned_mints, inputs.now);
    let first_that_counts = recent.len().checked_sub(BREAKER_MINTS).map(|index| recent[index])?;
    let until = first_that_counts.plus(BREAKER_WINDOW);
    let message = format!(
        "another client or an admission policy keeps changing Secret {:?}{}: it {}, and {BREAKER_MINTS} tokens were issued within an hour to repair it; \
         find out what changes it; no new token is issued until {}",
        inputs.secret_name,
        inputs.last_editor(),
        damage::of_lost_token(inputs, ownership.ours()),
        until.ceil_second(),
    );
    Some(Blocked { reason: Reason::MintLoop, message, until: Some(until) })
}

fn too_many_live(need: Need, minting: &MintProgress, live: &[Credential]) -> Option<Blocked> {
    let full = !minting.published && !minting.abandoned && live.len() >= MAX_LIVE_CREDENTIALS;
    if !full || !matches!(need, Need::Mint(_)) {
        return None;
    }
    let next = live.iter().filter_map(|credential| credential.expires_at).min();
    let when = next.map_or_else(String::new, |end| format!(", at {}", end.ceil_second()));
    let message = format!(
        "{} credentials are live, which is the maximum: the next token is issued when one of them expires{when}; to revoke one now, list it \
         in spec.revokedCredentials; to avoid this, set a longer spec.rotation.interval or a shorter spec.gracePeriod",
        live.len()
    );
    Some(Blocked { reason: Reason::TooManyLive, message, until: next })
}
