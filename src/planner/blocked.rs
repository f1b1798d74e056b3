//! Reasons that prevent a needed change of the token, temporarily or until a person acts.

use k8s_openapi::jiff::SignedDuration;

use super::{
    BREAKER_MINTS, BREAKER_WINDOW, MAX_CLOCK_SKEW, damage,
    inputs::{Inputs, MintReason, Need},
    lifecycle,
    minting::MintProgress,
    observed::{SecretView, WriteRefusal, WriteRefusalKind},
    ownership::SecretOwnership,
    remote,
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
        .or_else(|| issuer(inputs, need, minting))
        .or_else(|| clock_skew(inputs, need))
        .or_else(|| refused_write(inputs, ownership))
        .or_else(|| mint_loop(inputs, ownership, need, minting, live))
        .or_else(|| too_many_live(need, minting, live, inputs.revoking()))
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

/// Finds why the issuer of another system issues no token, or why the policy of a local one permits none.
fn issuer(inputs: &Inputs<'_>, need: Need, minting: &MintProgress) -> Option<Blocked> {
    let reference = inputs.spec.issuer_ref.as_deref()?;
    let blocked = |reason, message| Some(Blocked { reason, message, until: None });
    if let Some(invalid) = inputs.remote.as_ref().and_then(|remote| remote.invalid.as_ref()) {
        return blocked(Reason::InvalidSpec, invalid.to_string());
    }
    if !matches!(need, Need::Mint(_)) {
        return None;
    }
    let Some(issuer) = inputs.observed.issuer else {
        let message = format!(
            "{} does not exist, or the controller does not serve its kind: create it, or enable its kind with the controller's flag --issuers",
            reference.title()
        );
        return blocked(Reason::IssuerNotReady, message);
    };
    if let Some(message) = remote::refused_by_policy(inputs, issuer) {
        return blocked(Reason::IssuerPolicy, message);
    }
    if issuer.deleting {
        let message = format!("{} is being deleted, so it issues no more tokens: use another issuer", issuer.title);
        return blocked(Reason::IssuerNotReady, message);
    }
    if let Some(problem) = &issuer.problem {
        return blocked(problem.reason, problem.message.clone());
    }
    if inputs.remote.is_some() && inputs.remote_intent().is_none() {
        let message = format!("{} is no longer an issuer of another system: restore its former spec", issuer.title);
        return blocked(Reason::IssuerNotReady, message);
    }
    if remote::is_unwanted(inputs) {
        let until = remote::unwanted_until(inputs);
        let when = until.map_or_else(String::new, |until| format!(" until {}", until.ceil_second()));
        let message = format!(
            "the token was revoked at {} twice within a day, so no other is issued{when}: find out who revokes it; to issue one now, set \
             spec.rotateIfIssuedBefore to the current time",
            issuer.title
        );
        return Some(Blocked { reason: Reason::RevokedRemotely, message, until });
    }
    if let Some(failed) = inputs.observed.calls.failed.as_ref().filter(|failed| inputs.now < failed.retry_at) {
        let message = format!("{}: {}; the controller tries again", issuer.title, failed.message);
        return Some(Blocked { reason: Reason::IssuerUnavailable, message, until: Some(failed.retry_at) });
    }
    let is_unknown = |one: &Credential| one.remote.as_ref().is_some_and(|remote| remote.id.is_none());
    if !minting.published && inputs.revoking().iter().any(is_unknown) {
        let message = format!(
            "{} did not confirm whether it created the last token: the controller lists the issuer's tokens, revokes that token if it exists, and \
             then requests another",
            issuer.title
        );
        return blocked(Reason::IssuerUnavailable, message);
    }
    None
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

fn too_many_live(need: Need, minting: &MintProgress, live: &[Credential], revoking: &[Credential]) -> Option<Blocked> {
    let count = live.len() + revoking.len();
    let full = !minting.published && !minting.abandoned && count >= MAX_LIVE_CREDENTIALS;
    if !full || !matches!(need, Need::Mint(_)) {
        return None;
    }
    let next = live.iter().filter_map(|credential| credential.expires_at).min();
    let when = next.map_or_else(String::new, |end| format!(", at {}", end.ceil_second()));
    let at_issuer = match revoking.len() {
        0 => String::new(),
        count => format!(" ({count} of them until the issuer confirms that they are revoked)"),
    };
    let message = format!(
        "{count} credentials are live{at_issuer}, which is the maximum: the next token is issued when one of them expires{when}; to revoke one now, list it \
         in spec.revokedCredentials; to avoid this, set a longer spec.rotation.interval or a shorter spec.gracePeriod"
    );
    Some(Blocked { reason: Reason::TooManyLive, message, until: next })
}
