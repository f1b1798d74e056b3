//! Implements the lookups that authorization decisions need.

use super::{CredentialRef, Index};
use crate::{
    api::Time,
    auth::{
        decision::{CredentialLookup, KnownCredential},
        verdict::Verdict,
    },
    token::TokenHash,
};

impl CredentialLookup for Index {
    type Credential = CredentialRef;

    fn find(&self, hash: &TokenHash) -> Option<CredentialRef> {
        self.get(hash)
    }

    fn conflicting(&self, hash: &TokenHash) -> Vec<CredentialRef> {
        self.conflicting(hash)
    }

    fn was_removed(&self, hash: &TokenHash) -> bool {
        self.was_removed(hash)
    }

    fn is_owner_disabled(&self, credential: &CredentialRef) -> bool {
        self.owners().is_disabled(credential.pat.subject())
    }
}

impl KnownCredential for CredentialRef {
    fn hash(&self) -> &TokenHash {
        &self.credential().hash
    }

    fn verdict(&self, now: Time) -> Verdict {
        let credential = self.credential();
        self.pat.terms.judge_fields(credential.id.as_str(), credential.issued_at, credential.expires_at, now)
    }

    fn audiences(&self) -> impl Iterator<Item = &str> {
        self.pat.audiences().iter()
    }

    fn has_scope(&self, scope: &str) -> bool {
        self.pat.scopes().contains(scope)
    }
}
