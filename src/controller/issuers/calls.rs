//! Calls at an issuer for one PAT, each in a task of its own. The result waits until the PAT is reconciled again.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use tokio::time::timeout;

use super::{super::namespaced_name::NamespacedName, Issuer, IssuerKey, Issuers, issuer_target};
use crate::{
    api::{StoredPat, Time},
    issuer::{CallError, CreatedToken, Driver, NewToken},
    planner::{RemoteDeletion, RemoteRequest},
    token::TokenId,
};

/// A call that has ended.
pub struct FinishedCall {
    /// The UID of the PAT.
    pub uid: String,
    /// What was called.
    pub result: FinishedResult,
    /// When it ended.
    pub ended_at: Time,
}

/// The result of a call.
pub enum FinishedResult {
    /// The creation of the token with this ID of a credential.
    Created(TokenId, Result<CreatedToken, CallError>),
    /// The revocation of the token with this name.
    Deleted(String, Result<(), CallError>),
}

/// The time that a creation may take.
const CREATE_LIMIT: Duration = Duration::from_secs(30);

impl Issuers {
    /// Begins to create a token for a PAT; `false` if its issuer cannot be called.
    pub fn create(self: &Arc<Self>, pat: &StoredPat, id: TokenId, request: RemoteRequest) -> bool {
        let Some((issuer, driver)) = self.driver_of(pat) else { return false };
        let (issuers, key, uid) = (self.clone(), self.stores.key_of(pat), pat.uid().to_owned());
        tokio::spawn(async move {
            let result = issuers.create_in_time(&*driver, request).await.map_err(|error| issuer.shown(error));
            issuers.finish(key, uid, FinishedResult::Created(id, result));
        });
        true
    }

    /// Begins to revoke a token of a PAT; `false` if its issuer cannot be called.
    pub fn delete(self: &Arc<Self>, pat: &StoredPat, deletion: RemoteDeletion) -> bool {
        let Some((issuer, driver)) = self.driver_of(pat) else { return false };
        let (issuers, key, uid) = (self.clone(), self.stores.key_of(pat), pat.uid().to_owned());
        tokio::spawn(async move {
            let result = driver.delete(&issuer_target(&deletion.target), &deletion.id).await;
            let result = result.map_err(|error| issuer.shown(error));
            issuers.finish(key, uid, FinishedResult::Deleted(deletion.name, result));
        });
        true
    }

    /// Takes the calls for a PAT that have ended.
    pub fn take_finished(&self, pat: &NamespacedName) -> Vec<FinishedCall> {
        self.finished.lock().unwrap_or_else(PoisonError::into_inner).remove(pat).unwrap_or_default()
    }

    /// Forgets the results of calls that nobody waits for, because another process may lead now.
    pub fn forget_finished(&self) {
        self.finished.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    async fn create_in_time(&self, driver: &dyn Driver, request: RemoteRequest) -> Result<CreatedToken, CallError> {
        if Time::from(self.clock.now()) > request.latest {
            return Err(CallError::Unsupported("the request was planned too long ago"));
        }
        let token = NewToken {
            name: request.name,
            scopes: request.scopes,
            permissions: request.permissions,
            expires_at: request.expires_at,
        };
        // Otherwise it could wait for other calls, and take effect after a list has shown that there is no such token.
        let created = timeout(CREATE_LIMIT, driver.create(&issuer_target(&request.target), &token)).await;
        created.unwrap_or(Err(CallError::TimedOut))
    }

    fn finish(&self, pat: NamespacedName, uid: String, result: FinishedResult) {
        let call = FinishedCall { uid, result, ended_at: self.clock.now().into() };
        self.finished.lock().unwrap_or_else(PoisonError::into_inner).entry(pat.clone()).or_default().push(call);
        self.gate.trigger(pat);
    }

    fn driver_of(&self, pat: &StoredPat) -> Option<(Arc<Issuer>, Arc<dyn Driver>)> {
        let issuer = self.get(&IssuerKey::of(pat)?)?;
        let driver = issuer.state().driver.clone()?;
        Some((issuer, driver))
    }
}
