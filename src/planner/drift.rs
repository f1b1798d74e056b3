//! Detects drift: differences between the Secret, the spec, and what the controller wrote last.

use std::collections::BTreeMap;

use super::{
    content,
    damage::{Damage, Differences},
    observed::{CREDENTIALS, OWNED, RENDER_HASH, SecretRecord, SecretView},
    situation::Situation,
};
use crate::{
    api::{Credential, CredentialState, MANAGED_BY, MANAGED_BY_LABEL},
    secret::{self, Digest, Layout},
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
    !metadata_differences(secret, layout, uid).is_empty()
}

fn metadata_differences(secret: &SecretView, layout: &Layout, uid: &str) -> Differences {
    let mut differences = Differences::default();
    differences.add_missing("label", [(MANAGED_BY_LABEL, MANAGED_BY)], &secret.labels);
    differences.add_missing("label", texts(&layout.labels), &secret.labels);
    differences.add_missing("annotation", texts(&layout.annotations), &secret.annotations);
    if !secret.is_controlled_by(uid) {
        differences.add("the owner reference is missing");
    }
    // A label that the spec no longer wants changes the render hash; this detects a forged annotation.
    let names_differ = secret.record.as_ref().is_some_and(|record| {
        record.owned.labels.iter().ne(layout.labels.keys())
            || record.owned.annotations.iter().ne(layout.annotations.keys())
    });
    if names_differ {
        differences.add(format!("annotation {OWNED:?} has another value"));
    }
    differences
}

fn texts(map: &BTreeMap<String, String>) -> impl Iterator<Item = (&str, &str)> {
    map.iter().map(|(key, value)| (key.as_str(), value.as_str()))
}

/// Returns what another client did to the Secret that holds the active token; `None` if only the spec has changed or credentials
/// have ended.
pub(super) fn damage(s: &Situation<'_>, secret: &SecretView, active: &Credential) -> Option<Damage> {
    let layout = s.intent.layout.as_ref().ok()?;
    let mut differences = Differences::default();
    match secret.record.as_ref().filter(|record| record.is_of(s.uid())) {
        None => differences.add("annotations under pat-operator.io/ are missing or have other values"),
        Some(record) => {
            let spec_is_processed = s.stored.observed_generation == s.observed.pat.metadata.generation;
            let render_hash = layout.render_hash(&content::facts_of_active(s, active).borrow());
            if spec_is_processed && record.render_hash != render_hash {
                differences.add(format!("annotation {RENDER_HASH:?} has another value"));
            }
            if ledger_is_forged(s, record, &s.live) {
                differences.add(format!("annotation {CREDENTIALS:?} has another value"));
            }
            if secret.data_hash() != record.data_hash {
                compare_data(&mut differences, layout, secret, record, active);
            }
        }
    }
    differences.append(metadata_differences(secret, layout, s.uid()));
    if differences.is_empty() {
        return None;
    }
    let message = format!(
        "another client keeps changing Secret {:?}{}: {differences}; the controller repairs it again after a delay: find out what changes it",
        s.secret_name,
        s.last_editor()
    );
    Some(Damage { message, lost_data: differences.lost_data })
}

/// Finds which keys differ from what was written. Of a value other than the token, only the hash of all data shows that it differs.
fn compare_data(
    differences: &mut Differences,
    layout: &Layout,
    secret: &SecretView,
    record: &SecretRecord,
    active: &Credential,
) {
    let keys = layout.keys();
    for key in keys.iter().filter(|key| Some(**key) != layout.previous_key.as_deref()) {
        let there = secret.data.get(key);
        let is_other_token = *key == layout.key && there.is_some_and(|there| active.sha256 != *there);
        if there.is_none() || is_other_token {
            differences.add_lost(key, is_other_token);
        }
    }
    let (ours, foreign): (Vec<_>, Vec<_>) = secret.data.iter().partition(|(key, _)| keys.contains(key));
    for (key, _) in foreign {
        differences.add_foreign(key);
    }
    let hash_of_ours = secret::data_hash(ours.into_iter().map(|(key, hash)| (key, *hash.as_bytes())));
    if !differences.lost_data && hash_of_ours != record.data_hash {
        differences.lost_data = true;
        differences.add("a value in data is another");
    }
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
