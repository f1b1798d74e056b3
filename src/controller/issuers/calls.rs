//! Calls at an issuer for one PAT, each in a task of its own. The result waits until the PAT is reconciled again.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{Arc, PoisonError},
    time::Duration,
};

use futures::FutureExt;
use k8s_openapi::jiff::SignedDuration;
use tokio::time::timeout;

use super::{super::namespaced_name::NamespacedName, Issuer, IssuerKey, Issuers, issuer_target};
use crate::{
    api::{StoredPat, Time},
    issuer::{CallError, CreatedToken, Driver, NewToken, check_id},
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

/// The results of calls that no reconcile has read yet.
#[derive(Default)]
pub(super) struct FinishedCalls {
    /// How many terms of leadership have ended. Calls of earlier terms are ignored.
    term: u64,
    by_pat: HashMap<NamespacedName, Vec<FinishedCall>>,
}

/// The PAT that a call is for, and the term in which it began.
struct Caller {
    pat: NamespacedName,
    uid: String,
    term: u64,
}

/// The time that a creation may take.
const CREATE_LIMIT: Duration = Duration::from_secs(30);

/// The maximum length of a token, in bytes. A Secret could not hold a much larger one.
const MAX_TOKEN: usize = 64 * 1024;

/// A token that ends within this time is of no use, unless that was requested.
const SHORT_LIFE: SignedDuration = SignedDuration::from_mins(10);

impl Issuers {
    /// Begins to create a token for a PAT; `false` if its issuer cannot be called.
    pub fn create(self: &Arc<Self>, pat: &StoredPat, id: TokenId, request: RemoteRequest) -> bool {
        let Some((issuer, driver)) = self.driver_of(pat) else { return false };
        let (issuers, caller) = (self.clone(), self.caller(pat));
        self.calls.spawn(async move {
            let result = isolated(issuers.create_in_time(&*driver, request)).await;
            let result = result.map_err(|error| issuer.shown(error));
            issuers.finish(caller, FinishedResult::Created(id, result));
        });
        true
    }

    /// Begins to revoke a token of a PAT; `false` if its issuer cannot be called.
    pub fn delete(self: &Arc<Self>, pat: &StoredPat, deletion: RemoteDeletion) -> bool {
        let Some((issuer, driver)) = self.driver_of(pat) else { return false };
        let (issuers, caller) = (self.clone(), self.caller(pat));
        self.calls.spawn(async move {
            let result = isolated(driver.delete(&issuer_target(&deletion.target), &deletion.id)).await;
            let result = result.map_err(|error| issuer.shown(error));
            issuers.finish(caller, FinishedResult::Deleted(deletion.name, result));
        });
        true
    }

    /// Takes the calls for a PAT that have ended.
    pub fn take_finished(&self, pat: &NamespacedName) -> Vec<FinishedCall> {
        self.finished().by_pat.remove(pat).unwrap_or_default()
    }

    /// Forgets the results of calls that nobody waits for, because another process may lead now. Those that are still under way will be
    /// forgotten, too: in the next term, the end of such a call would look like the end of another one.
    pub fn forget_finished(&self) {
        let mut finished = self.finished();
        *finished = FinishedCalls { term: finished.term + 1, ..FinishedCalls::default() };
    }

    /// Returns how many calls are under way.
    pub fn calls_under_way(&self) -> usize {
        self.calls.len()
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
        usable(created.unwrap_or(Err(CallError::TimedOut))?, token.expires_at, self.clock.now().into())
    }

    fn caller(&self, pat: &StoredPat) -> Caller {
        Caller { pat: self.stores.key_of(pat), uid: pat.uid().to_owned(), term: self.finished().term }
    }

    fn finish(&self, caller: Caller, result: FinishedResult) {
        let Caller { pat, uid, term } = caller;
        let call = FinishedCall { uid, result, ended_at: self.clock.now().into() };
        let mut finished = self.finished();
        if finished.term == term {
            finished.by_pat.entry(pat.clone()).or_default().push(call);
            drop(finished);
            self.gate.trigger(pat);
        }
    }

    fn finished(&self) -> std::sync::MutexGuard<'_, FinishedCalls> {
        self.finished.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn driver_of(&self, pat: &StoredPat) -> Option<(Arc<Issuer>, Arc<dyn Driver>)> {
        let issuer = self.get(&IssuerKey::of(pat)?)?;
        let driver = issuer.state().driver.clone()?;
        Some((issuer, driver))
    }
}

/// Checks that a token that was created can be used. `wanted` is the requested end.
fn usable(created: CreatedToken, wanted: Option<Time>, now: Time) -> Result<CreatedToken, CallError> {
    check_id(&created.id)?;
    if !(1..=MAX_TOKEN).contains(&created.token.expose().len()) {
        return Err(CallError::Malformed { problem: format!("a token must have 1 to {MAX_TOKEN} bytes") });
    }
    let Some(ends_at) = created.expires_at else { return Ok(created) };
    let left = ends_at.since(now);
    let is_shorter = wanted.is_none_or(|wanted| left.saturating_mul(2) < wanted.since(now));
    if left < SHORT_LIFE && is_shorter { Err(CallError::ShortLived { ends_at }) } else { Ok(created) }
}

/// Turns a panic during a call into an error with an unknown outcome.
async fn isolated<T>(call: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
    // The panic hook has logged the panic.
    AssertUnwindSafe(call).catch_unwind().await.unwrap_or_else(|_| {
        let reason = "the controller failed during the call; this is a bug, please report it with the log".to_owned();
        Err(CallError::Unavailable { reason, message: String::new() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        controller::{gate::ReconcileGate, issuers::IssuerSettings, stores::Stores},
        issuer::PlainToken,
        service::Clock,
    };

    #[tokio::test]
    async fn call_that_panics_ends_with_an_unknown_outcome() {
        let call = async { if Time::MIN < Time::from_micros(0) { panic!("a test's panic") } else { Ok(()) } };
        let error = isolated(call).await.unwrap_err();
        assert!(error.is_outcome_unknown() && error.to_string().contains("this is a bug"), "{error}");
    }

    #[test]
    fn token_that_cannot_be_used_is_an_error() {
        let now = Time::from_micros(1_000_000_000);
        let minutes = |count| now.plus(SignedDuration::from_mins(count));
        let check = |id: &str, token: &str, end: Option<i64>, wanted: Option<i64>| {
            let token = PlainToken::new(token.into());
            let created = CreatedToken { id: id.into(), token, client_id: None, expires_at: end.map(minutes) };
            usable(created, wanted.map(minutes), now).err().map_or("", |error| error.category())
        };
        assert_eq!(check("1", "t", None, Some(100)), "");
        assert_eq!(check("1", "t", Some(20), Some(100)), "");
        assert_eq!(check("1", "t", Some(5), Some(6)), "");
        assert_eq!(check("1", "t", Some(-3), Some(100)), "ShortLived");
        assert_eq!(check("1", "t", Some(9), Some(100)), "ShortLived");
        assert_eq!(check("1", "t", Some(9), None), "ShortLived");
        assert_eq!(check("", "t", None, None), "Malformed");
        assert_eq!(check(&"1".repeat(257), "t", None, None), "Malformed");
        assert_eq!(check("1", "", None, None), "Malformed");
        assert_eq!(check("1", &"t".repeat(MAX_TOKEN + 1), None, None), "Malformed");
    }

    #[tokio::test]
    async fn result_of_a_former_term_is_forgotten() {
        let client = kube::Client::try_from(kube::Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();
        let (stores, gate) = (Arc::new(Stores::default()), Arc::new(ReconcileGate::new(1)));
        let issuers = Issuers::new(client, stores, gate, Clock::system(), IssuerSettings::default());
        let pat = NamespacedName::new("a", "b");
        let caller = || Caller { pat: pat.clone(), uid: "uid".into(), term: issuers.finished().term };
        let deleted = || FinishedResult::Deleted("po-x".into(), Ok(()));
        let of_former_term = caller();
        issuers.finish(caller(), deleted());
        issuers.forget_finished();
        issuers.finish(of_former_term, deleted());
        assert_eq!(issuers.take_finished(&pat).len(), 0);
        issuers.finish(caller(), deleted());
        assert_eq!(issuers.take_finished(&pat).len(), 1);
    }
}
