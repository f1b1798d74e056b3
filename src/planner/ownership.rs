//! Whether the Secret is ours. It is never written unless this says so (invariant 5).

use super::{
    inputs::Inputs,
    intent::ControllerConfig,
    observed::{Observed, SecretController, SecretView},
};
use crate::api::{Credential, MAX_LIVE_CREDENTIALS, PersonalAccessTokenStatus, Time};

/// The ownership of the Secret with the name in the spec.
#[derive(Clone, Debug)]
pub(super) enum SecretOwnership<'a> {
    /// There is no such Secret, and the name is free.
    Absent,
    /// It belongs to this PAT.
    Ours(&'a SecretView),
    /// It does not belong to this PAT, or cannot be used. The message says what to do.
    Conflict(String),
}

impl<'a> SecretOwnership<'a> {
    /// Returns the Secret, if it belongs to this PAT.
    pub fn ours(&self) -> Option<&'a SecretView> {
        match self {
            Self::Ours(secret) => Some(secret),
            Self::Absent | Self::Conflict(_) => None,
        }
    }
}

pub(super) fn find<'a>(inputs: &Inputs<'a>, live: &[Credential]) -> SecretOwnership<'a> {
    let name = inputs.secret_name;
    let Some(secret) = inputs.observed.secret else {
        return match inputs.observed.conflicting_pat {
            Some(conflicting_pat) => SecretOwnership::Conflict(format!(
                "PersonalAccessToken {conflicting_pat:?} is older and uses the same Secret {name:?}: set another spec.secret.name in one of them"
            )),
            None => SecretOwnership::Absent,
        };
    };
    match conflict(inputs, secret, live) {
        Some(message) => SecretOwnership::Conflict(message),
        None => SecretOwnership::Ours(secret),
    }
}

fn conflict(inputs: &Inputs<'_>, secret: &SecretView, live: &[Credential]) -> Option<String> {
    let name = inputs.secret_name;
    if secret.deleting {
        return Some(format!(
            "Secret {name:?} is being deleted, but a finalizer blocks that: check its metadata.finalizers"
        ));
    }
    if secret.is_reserved() {
        return Some(format!(
            "Secret {name:?} has type {:?}, which is reserved for the operator: choose another spec.secret.name",
            secret.type_
        ));
    }
    if !secret.is_controlled_by(inputs.uid()) && !may_be_taken_over(inputs, secret, live) {
        return Some(foreign(inputs, secret));
    }
    let layout = inputs.intent.layout.as_ref().ok().filter(|layout| layout.type_ != secret.type_)?;
    Some(format!(
        "Secret {name:?} has type {:?}, but the spec asks for {:?}, and the type of a Secret cannot be changed: choose another spec.secret.name or delete the Secret",
        secret.type_, layout.type_
    ))
}

/// Whether a Secret without our owner reference may be taken over: it holds a live token of this PAT, and either the reference was
/// removed or the Secret comes from a backup.
fn may_be_taken_over(inputs: &Inputs<'_>, secret: &SecretView, live: &[Credential]) -> bool {
    let written_by_us = secret.record.as_ref().is_some_and(|record| record.is_of(inputs.uid()));
    let lost_its_owner = secret.controller == SecretController::Unowned && written_by_us;
    let line = inputs.config.restore_issued_before;
    let from_backup = || line.is_some_and(|line| is_from_backup(inputs.observed, secret, line));
    live.iter().any(|credential| secret.key_of(&credential.sha256, "token").is_some())
        && (lost_its_owner || from_backup())
}

/// Returns the message about a Secret that belongs to another owner.
fn foreign(inputs: &Inputs<'_>, secret: &SecretView) -> String {
    let name = inputs.secret_name;
    match &secret.controller {
        SecretController::Pat { name: owner, .. } if **owner == *inputs.observed.pat.name() => format!(
            "Secret {name:?} belongs to an earlier PersonalAccessToken of this name: wait until the garbage collector has removed it; if it comes from \
             a backup, run the controller with --restore-issued-before=<time> instead"
        ),
        SecretController::Pat { name: owner, .. } => {
            format!("Secret {name:?} belongs to PersonalAccessToken {owner:?}: choose another spec.secret.name")
        }
        SecretController::Other(owner) => {
            format!("Secret {name:?} belongs to {owner}: choose another spec.secret.name")
        }
        SecretController::Unowned if secret.record.is_some() => format!(
            "Secret {name:?} has annotations of this operator but no owner: delete it or choose another spec.secret.name; if it comes from a backup, \
             run the controller with --restore-issued-before=<time>"
        ),
        SecretController::Unowned => format!(
            "Secret {name:?} already exists and was not created by this operator: delete it or choose another spec.secret.name"
        ),
    }
}

/// Rebuilds a lost status from the annotations of the Secret; `None` if it was not lost or cannot be rebuilt.
///
/// The PAT's own uid in the annotations suffices. Annotations can be forged, so another uid (a restored backup) is accepted only with
/// `restore_issued_before`, and only for credentials issued before that time.
pub(super) fn restored_status(
    observed: &Observed<'_>,
    config: &ControllerConfig,
    stored: &PersonalAccessTokenStatus,
) -> Option<PersonalAccessTokenStatus> {
    if stored.revision.is_some() {
        return None;
    }
    // A lost status is completely empty. A token that waits for its first issue has conditions. Then annotations prove nothing:
    // every user who knows the uid and may write Secrets can write them.
    let lost = stored.conditions.is_empty() && stored.observed_generation.is_none();
    let own = |secret: &&SecretView| {
        let written_by_us = secret.record.as_ref().is_some_and(|record| record.is_of(observed.pat.uid()));
        lost && written_by_us && secret.is_controlled_by(observed.pat.uid())
    };
    let from_backup = |secret: &&SecretView| {
        let mut live = secret.record.iter().flat_map(|record| &record.ledger.live);
        live.any(|credential| secret.key_of(&credential.sha256, "token").is_some())
            && config.restore_issued_before.is_some_and(|line| is_from_backup(observed, secret, line))
    };
    let usable = |secret: &&SecretView| !secret.deleting && !secret.is_reserved();
    let present = observed.secret.filter(|secret| own(secret) || from_backup(secret));
    // After a change of the name, a former Secret may be the only one with the token.
    let secret = present.or_else(|| observed.former.iter().find(own)).filter(usable)?;
    let ledger = &secret.record.as_ref()?.ledger;
    let issued = || ledger.live.iter().map(|credential| credential.issued_at);
    Some(PersonalAccessTokenStatus {
        secret_name: Some(secret.name.to_string()),
        revision: Some(ledger.revision),
        first_issued_at: ledger.first_issued_at.or_else(|| issued().min()),
        default_expires_at: ledger.default_expires_at,
        last_issued_at: issued().max(),
        credentials: ledger.live.iter().take(MAX_LIVE_CREDENTIALS).cloned().collect(),
        ..stored.clone()
    })
}

/// Whether a Secret is a restored copy of one that another PAT of this name wrote, with no credential issued after `line`.
fn is_from_backup(observed: &Observed<'_>, secret: &SecretView, line: Time) -> bool {
    let same_name = match &secret.controller {
        SecretController::Unowned => true,
        SecretController::Pat { name, .. } => **name == *observed.pat.name(),
        SecretController::Other(_) => false,
    };
    same_name
        && secret.record.as_ref().is_some_and(|record| {
            !record.is_of(observed.pat.uid())
                && secret.data_hash() == record.data_hash
                && record.ledger.live.iter().all(|credential| credential.issued_at < line)
        })
}
