//! Corrects a status with values that the controller never writes. Another client with the permission to write the status left them, or
//! they come from forged annotations of the Secret.

use std::collections::HashSet;

use super::observed::{Observed, SecretView};
use crate::api::{Credential, CredentialState, Parsed, PersonalAccessTokenStatus};

/// No object is ever issued more tokens. JSON readers keep integers up to this one.
const MAX_REVISION: i64 = 1 << 53;

/// Corrects the revision, and removes every credential that no verifier accepts or that the controller cannot have written. Returns whether
/// anything was wrong.
pub(super) fn correct(status: &mut PersonalAccessTokenStatus, observed: &Observed<'_>) -> bool {
    let revision = status.revision;
    status.revision = revision.map(|revision| credible_revision(revision, &status.credentials, observed));
    let max = status.revision.unwrap_or(MAX_REVISION);
    let before = status.credentials.len();
    let (mut ids, mut hashes) = (HashSet::new(), HashSet::new());
    let active = active(&status.credentials, observed);
    status.credentials.retain(|one| {
        let Some(id) = one.id.value() else { return false };
        // An issuer of another system has not created a pending token yet.
        let has_no_hash = matches!(&one.sha256, Parsed::Text(text) if text.is_empty());
        let is_to_be_created = one.remote.is_some() && one.state == CredentialState::Pending && has_no_hash;
        let hash = one.sha256.value();
        if hash.is_none() && !is_to_be_created {
            return false;
        }
        let is_the_active = active.as_ref() == Some(one);
        let is_possible = match one.state {
            CredentialState::Pending => true,
            CredentialState::Active => is_the_active,
            CredentialState::Grace => one.expires_at.is_some(),
            CredentialState::Revoking => false,
        };
        is_possible && ids.insert(*id) && hash.is_none_or(|hash| hashes.insert(*hash))
    });
    let mut wrong = status.revision != revision || status.credentials.len() != before;
    for credential in &mut status.credentials {
        let credible = credential.revision.clamp(0, max);
        wrong |= credible != credential.revision;
        credential.revision = credible;
    }
    wrong
}

/// Returns the active credential: if the status lists several, the one that a Secret of this object holds, or else the first.
fn active(credentials: &[Credential], observed: &Observed<'_>) -> Option<Credential> {
    let ours = |secret: &&SecretView| secret.is_of(observed.pat.uid());
    let secrets: Vec<_> = observed.secret.into_iter().chain(observed.former).filter(ours).collect();
    let is_held = |one: &&Credential| secrets.iter().any(|secret| secret.key_of(&one.sha256, "token").is_some());
    let actives = || credentials.iter().filter(|one| one.state == CredentialState::Active);
    actives().find(is_held).or_else(|| actives().next()).cloned()
}

/// Returns a revision that can be counted on: the given one or, if it is out of range, the newest that the credentials and the Secrets record.
fn credible_revision(revision: i64, credentials: &[Credential], observed: &Observed<'_>) -> i64 {
    let is_credible = |revision: &i64| (0..=MAX_REVISION).contains(revision);
    if is_credible(&revision) {
        return revision;
    }
    let records = observed.secret.into_iter().chain(observed.former).filter_map(|secret| secret.record.as_ref());
    let recorded = records.filter(|record| record.is_of(observed.pat.uid())).map(|record| record.ledger.revision);
    let listed = credentials.iter().map(|one| one.revision);
    recorded.chain(listed).filter(is_credible).max().unwrap_or(0)
}
