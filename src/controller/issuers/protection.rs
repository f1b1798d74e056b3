//! The finalizer of issuers: an issuer that is deleted stays until no PAT has tokens of it, because without it they cannot be revoked.

use std::sync::Arc;

use kube::api::{Patch, PatchParams};

use super::{super::cluster::finalizer_patch, Issuer, Issuers};
use crate::api::{
    Credential, FIELD_MANAGER, ISSUER_PROTECTION, IssuerSystem, StoredIssuer, StoredPat, TokenIssuerSpec,
};

/// Whether an issuer still has the finalizer that it needs.
pub(super) enum Protection {
    /// It has it, or needs none.
    Kept,
    /// It was removed, so that the issuer can go.
    Removed,
}

/// Returns how many PATs have tokens of their issuer, or may get one at any moment.
pub(super) fn users(pats: &[Arc<StoredPat>]) -> usize {
    pats.iter().filter(|pat| has_tokens(pat)).count()
}

fn has_tokens(pat: &StoredPat) -> bool {
    pat.has_finalizer() || pat.status.as_ref().map_or(true, |status| !status.remote_credentials.is_empty())
}

/// Whether a PAT, also one that the controller does not select or whose spec does not decode, has tokens of an issuer.
fn has_tokens_of(pat: &StoredPat, issuer: &Issuer) -> bool {
    let recorded = pat.status.iter().flat_map(|status| &status.remote_credentials);
    let is_of_issuer = |one: &Credential| one.remote.as_ref().is_some_and(|remote| remote.issuer_uid == issuer.uid);
    issuer.key.is_named_by(pat) && has_tokens(pat) || recorded.into_iter().any(is_of_issuer)
}

impl Issuers {
    /// Adds the finalizer to an issuer of another system before it issues a token, and removes it when the issuer is being deleted and no PAT
    /// needs it.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) async fn protect(
        &self,
        issuer: &Issuer,
        object: &StoredIssuer,
        pats: &[Arc<StoredPat>],
    ) -> Result<Protection, String> {
        let is_protected = object.metadata.finalizers.iter().flatten().any(|one| one == ISSUER_PROTECTION);
        let system = object.spec.as_ref().ok().and_then(TokenIssuerSpec::system);
        let is_remote = system.is_some_and(|(system, _)| system != IssuerSystem::Local);
        if object.is_deleting() && is_protected && users(pats) == 0 {
            let all = self.read_pats().await.map_err(|error| {
                let why = crate::service::explain_api_error(&error);
                format!("the PersonalAccessTokens cannot be read: {why}; the controller tries again")
            })?;
            if all.iter().any(|pat| has_tokens_of(pat, issuer)) {
                return Ok(Protection::Kept);
            }
            return self.set_protection(issuer, object, false).await.map(|()| Protection::Removed);
        }
        if !object.is_deleting() && !is_protected && is_remote {
            self.set_protection(issuer, object, true).await?;
        }
        Ok(Protection::Kept)
    }

    async fn set_protection(&self, issuer: &Issuer, object: &StoredIssuer, present: bool) -> Result<(), String> {
        let body = finalizer_patch(&object.metadata, ISSUER_PROTECTION, present);
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..Default::default() };
        let written = self.api(&issuer.key).patch(&issuer.key.name, &params, &Patch::Merge(&body)).await;
        if matches!(&written, Err(kube::Error::Api(status)) if status.code == 409) {
            // The next poll has the newer version.
            issuer.poll_soon.notify_one();
            return Ok(());
        }
        written.map(drop).map_err(|error| {
            let why = crate::service::explain_api_error(&error);
            format!("the finalizer of the issuer cannot be changed: {why}; the controller tries again")
        })
    }
}
