//! Detects drift: differences between the Secret, the spec, and what the controller wrote last.

use std::collections::BTreeMap;

use super::{
    content,
    observed::{SecretRecord, SecretView},
    situation::Situation,
    sorted_map::SortedMap,
};
use crate::{
    api::{Credential, CredentialState},
    secret::{Digest, Layout},
};

/// The kind of drift.
pub(super) enum Drift {
    /// The cache shows a difference that no write of the controller explains: an uncached read must confirm it.
    Unconfirmed,
    /// The data differs, or the spec requires other data.
    Data,
    /// Only labels, annotations or the owner differ.
    Metadata {
        /// The hash of the data that is there.
        data_hash: Digest,
        /// The hash of what it was rendered from.
        render_hash: Digest,
    },
}

/// Compares the Secret that holds the active token; `None` if nothing differs.
pub(super) fn find(s: &Situation<'_>, secret: &SecretView, active: &Credential) -> Option<Drift> {
    let layout = s.intent.layout.as_ref().ok()?;
    let confirmed = |drift| if s.observed.uncached { drift } else { Drift::Unconfirmed };
    let Some(record) = secret.record.as_ref().filter(|record| record.is_of(s.uid())) else {
        return Some(confirmed(Drift::Data));
    };
    let render_hash = layout.render_hash(&content::facts_of_active(s, active).borrow());
    if record.render_hash != render_hash {
        return Some(Drift::Data);
    }
    let data_hash = record.data_hash;
    if secret.data_hash() != data_hash {
        return Some(confirmed(Drift::Data));
    }
    let metadata = Drift::Metadata { data_hash, render_hash };
    if metadata_differs(secret, layout, s.uid()) || ledger_is_forged(s, record, &s.live) {
        return Some(confirmed(metadata));
    }
    ledger_is_behind(s, record).then_some(metadata)
}

/// Whether labels, annotations or the owner differ from the layout.
pub(super) fn metadata_differs(secret: &SecretView, layout: &Layout, uid: &str) -> bool {
    let lacks = |there: &SortedMap<Box<str>>, wanted: &BTreeMap<String, String>| {
        wanted.iter().any(|(key, value)| there.get(key).is_none_or(|there| **there != **value))
    };
    // A label that the spec no longer wants changes the render hash; this detects a forged annotation.
    let names_differ = secret.record.as_ref().is_some_and(|record| {
        record.owned.labels.iter().ne(layout.labels.keys())
            || record.owned.annotations.iter().ne(layout.annotations.keys())
    });
    names_differ
        || !secret.is_labelled()
        || !secret.is_controlled_by(uid)
        || lacks(&secret.labels, &layout.labels)
        || lacks(&secret.annotations, &layout.annotations)
}

/// Whether the annotations are older than the status, apart from credentials that have expired.
fn ledger_is_behind(s: &Situation<'_>, record: &SecretRecord) -> bool {
    let ended_early = |old: &Credential| {
        let is_live = s.live.iter().any(|credential| credential.id == old.id);
        !is_live && old.expires_at.is_none_or(|end| end > s.now)
    };
    // Nothing is being minted, so no process holds a pending token. Recording its revision ends it.
    let abandoned = |credential: &Credential| {
        credential.state == CredentialState::Pending && credential.revision > record.ledger.revision
    };
    record.ledger.live.iter().any(ended_early)
        || s.live.iter().any(abandoned)
        || record.ledger.default_expires_at != s.base.default_expires_at
}

/// Whether another client changed what the annotations say about live credentials. A lost status would be rebuilt from them.
pub(super) fn ledger_is_forged(s: &Situation<'_>, record: &SecretRecord, live: &[Credential]) -> bool {
    let is_recorded = |credential: &Credential| {
        let same = |old: &Credential| {
            (&old.id, &old.sha256, old.revision, old.issued_at)
                == (&credential.id, &credential.sha256, credential.revision, credential.issued_at)
        };
        credential.state == CredentialState::Pending || record.ledger.live.iter().any(same)
    };
    record.ledger.revision > s.base.revision.unwrap_or_default()
        || record.ledger.first_issued_at != s.base.first_issued_at
        || !live.iter().all(is_recorded)
}
