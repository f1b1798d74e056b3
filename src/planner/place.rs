//! Whose is the Secret? What may be done with it follows from this alone.
//!
//! It must not change anything, and it must never call a Secret ours that is not: invariant 5.

use std::collections::BTreeMap;

use crate::api::{Credential, PersonalAccessTokenStatus, Time};
use crate::{
    planner::{
        intent::{Intent, Settings},
        table::Table,
        view::{Controller, SecretView, View},
    },
    secret::Layout,
};

/// The Secret of the name that the spec asks for, as far as this PAT is concerned.
#[derive(Clone, Debug)]
pub enum Place<'a> {
    /// There is none, and the name is free.
    Absent,
    /// It is ours.
    Ours(&'a SecretView),
    /// It is not ours, or it cannot be used; the words say what a person can do.
    Conflict(String),
}

/// Finds out whose the Secret is.
pub fn find<'a>(view: &View<'a>, settings: &Settings, intent: &Intent, name: &str, live: &[Credential]) -> Place<'a> {
    let Some(secret) = view.secret else {
        return match view.rival {
            Some(rival) => Place::Conflict(format!(
                "PersonalAccessToken {rival:?} is older and asks for Secret {name:?} too: give one of them another spec.secret.name"
            )),
            None => Place::Absent,
        };
    };
    if secret.deleting {
        return Place::Conflict(format!(
            "Secret {name:?} is being deleted and something holds it up: look at its metadata.finalizers"
        ));
    }
    if let Err(problem) = ownership(view, settings, secret, name, live) {
        return Place::Conflict(problem);
    }
    if let Ok(layout) = &intent.layout
        && layout.type_ != secret.type_
    {
        return Place::Conflict(format!(
            "Secret {name:?} has type {:?}, the spec asks for {:?}, and the type of a Secret cannot be changed: choose a new spec.secret.name, or delete the Secret",
            secret.type_, layout.type_
        ));
    }
    Place::Ours(secret)
}

fn ownership(
    view: &View<'_>,
    settings: &Settings,
    secret: &SecretView,
    name: &str,
    live: &[Credential],
) -> Result<(), String> {
    if secret.is_reserved() {
        return Err(format!(
            "Secret {name:?} has type {:?}, which is the operator's own: it is never touched; choose another spec.secret.name",
            secret.type_
        ));
    }
    if secret.is_controlled_by(view.pat.uid()) {
        return Ok(());
    }
    let written_by_us = secret.record.as_ref().is_some_and(|record| record.is_of(view.pat.uid()));
    let holds_ours = live.iter().any(|credential| secret.key_of(&credential.sha256, "token").is_some());
    match &secret.controller {
        // Somebody took our reference off, and what is inside proves that it was ours.
        Controller::Nobody if written_by_us && holds_ours => Ok(()),
        // A restored backup, once its credentials are ours by `restore`.
        _ if holds_ours && settings.restore_issued_before.is_some_and(|line| from_backup(view, secret, line)) => Ok(()),
        Controller::Pat { name: owner, .. } if **owner == *view.pat.name() => Err(format!(
            "Secret {name:?} belongs to an earlier PersonalAccessToken of this name: it is waited for until the garbage collector has removed it; \
             to take over a restored backup instead, run the controller with --restore-issued-before=<time>"
        )),
        Controller::Pat { name: owner, .. } => {
            Err(format!("Secret {name:?} belongs to PersonalAccessToken {owner:?}: choose another spec.secret.name"))
        }
        Controller::Other(owner) => Err(format!("Secret {name:?} belongs to {owner}: choose another spec.secret.name")),
        Controller::Nobody if secret.record.is_some() => Err(format!(
            "Secret {name:?} carries annotations of this operator but belongs to nobody: delete it, choose another spec.secret.name or, if it comes \
             from a backup, run the controller with --restore-issued-before=<time>"
        )),
        Controller::Nobody => Err(format!(
            "Secret {name:?} was there before and is not this object's: it is never touched; delete it or choose another spec.secret.name"
        )),
    }
}

/// Rebuilds a lost status from what the Secret's annotations tell; says whether it did.
///
/// The Secret's own uid of the PAT is proof enough. Another uid (a backup restored elsewhere) counts only where the
/// installation says so, and only for what was issued before a time that it names: annotations can be forged.
pub fn restore(view: &View<'_>, settings: &Settings, base: &mut PersonalAccessTokenStatus) -> bool {
    if base.revision.is_some() {
        return false;
    }
    // Lost means that nothing at all is left. A token that merely waits for its first issue has conditions, and then
    // annotations prove nothing: whoever knows the uid and may write Secrets can write them.
    let lost = base.conditions.is_empty() && base.observed_generation.is_none();
    let own = |secret: &&SecretView| {
        let written_by_us = secret.record.as_ref().is_some_and(|record| record.is_of(view.pat.uid()));
        lost && written_by_us && secret.is_controlled_by(view.pat.uid())
    };
    let adopted = |secret: &&SecretView| {
        let live = secret.record.iter().flat_map(|record| &record.ledger.live);
        let holds = live.into_iter().any(|credential| secret.key_of(&credential.sha256, "token").is_some());
        holds && settings.restore_issued_before.is_some_and(|line| from_backup(view, secret, line))
    };
    // What a rename left counts as well: it may be the only place where the token still is.
    let known = view.secret.filter(|secret| own(secret) || adopted(secret));
    let usable = |secret: &&SecretView| !secret.deleting && !secret.is_reserved();
    let Some(secret) = known.or_else(|| view.former.iter().find(own)).filter(usable) else {
        return false;
    };
    let Some(record) = &secret.record else { return false };
    base.secret_name = Some(secret.name.to_string());
    base.revision = Some(record.ledger.revision);
    base.first_issued_at = record
        .ledger
        .first_issued_at
        .or_else(|| record.ledger.live.iter().map(|credential| credential.issued_at).min());
    base.default_expires_at = record.ledger.default_expires_at;
    base.last_issued_at = record.ledger.live.iter().map(|credential| credential.issued_at).max();
    base.credentials = record.ledger.live.iter().take(crate::api::MAX_LIVE_CREDENTIALS).cloned().collect();
    true
}

fn from_backup(view: &View<'_>, secret: &SecretView, line: Time) -> bool {
    let from_here = match &secret.controller {
        Controller::Nobody => true,
        Controller::Pat { name, .. } => **name == *view.pat.name(),
        Controller::Other(_) => false,
    };
    from_here
        && secret.record.as_ref().is_some_and(|record| {
            !record.is_of(view.pat.uid())
                && secret.data_hash() == record.data_hash
                && record.ledger.live.iter().all(|credential| credential.issued_at < line)
        })
}

/// Whether labels, annotations or the owner are not as they should be.
pub fn metadata_drifted(secret: &SecretView, layout: &Layout, uid: &str) -> bool {
    let lacks = |there: &Table<Box<str>>, wanted: &BTreeMap<String, String>| {
        wanted.iter().any(|(key, value)| there.get(key).is_none_or(|there| **there != **value))
    };
    // What a changed spec leaves behind shows in the render hash before it comes to this.
    let misnamed = secret.record.as_ref().is_some_and(|record| {
        record.owned.labels.iter().ne(layout.labels.keys())
            || record.owned.annotations.iter().ne(layout.annotations.keys())
    });
    misnamed
        || !secret.is_labelled()
        || !secret.is_controlled_by(uid)
        || lacks(&secret.labels, &layout.labels)
        || lacks(&secret.annotations, &layout.annotations)
}
