//! All that a dialect may call: who asks, what there is, and what is to be done.
//!
//! It must not know any dialect.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use axum::http::HeaderMap;
use k8s_openapi::jiff::SignedDuration;

use super::{
    access_token::{Grant, Signer},
    caller::Caller,
    context,
    failure::Failure,
    item::Item,
    order::{Change, Create, Created},
    query::{Page, Query},
    rate::{Limiter, Rate},
    rights::Rights,
    store::Store,
    write::Writer,
};
use crate::{
    api::{Expiry, Owner, Time},
    auth::decision::{Audience, Decision, Freshness, Requirements, decide, decide_known},
    index::{CredentialRef, Index, PatUid},
    service::{Clock, authorization::Authorization, http::plain},
    token::{Presented, TokenId},
};

pub use super::owners::OwnerEntry;

/// How many failed log-ins are answered as such, by all clients together.
const FAILURES: Rate = Rate { per_second: NonZeroU32::new(200).unwrap(), burst: NonZeroU32::new(1000).unwrap() };

/// How long access tokens live unless the token says otherwise, and the shortest and longest that it may say.
const VALIDITY: SignedDuration = SignedDuration::from_hours(12);
const SHORTEST_VALIDITY: SignedDuration = SignedDuration::from_secs(15);

/// When to come back while nobody can tell whether a token is good.
const COME_BACK: Duration = Duration::from_secs(2);

/// How a service behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The namespace that is served, as dialects name it that know tenants.
    pub tenant: String,
    /// Beside tokens that name no audience, those are taken that name this one.
    pub audience: Option<String>,
    /// Only reading is allowed.
    pub read_only: bool,
    /// How much each owner may ask.
    pub rate: Rate,
}

/// See the module. Cheap to share.
pub struct Service {
    index: Arc<Index>,
    store: Arc<Store>,
    freshness: Box<dyn Fn() -> Freshness + Send + Sync>,
    clock: Clock,
    settings: Settings,
    /// `None`: there are no access tokens.
    signer: Option<Signer>,
    /// `None`: there is nowhere to write to.
    writer: Option<Writer>,
    requests: Limiter<String>,
    failures: Limiter<()>,
}

impl Service {
    /// A service over what these hold; `freshness` tells how far to trust it. It can read, and knows no access tokens.
    pub fn new(
        index: Arc<Index>,
        store: Arc<Store>,
        freshness: impl Fn() -> Freshness + Send + Sync + 'static,
        clock: Clock,
        settings: Settings,
    ) -> Self {
        Self {
            index,
            store,
            freshness: Box::new(freshness),
            clock,
            requests: Limiter::new(settings.rate),
            failures: Limiter::new(FAILURES),
            settings,
            signer: None,
            writer: None,
        }
    }

    /// The same, with access tokens by this signer.
    #[must_use]
    pub fn with_signer(mut self, signer: Signer) -> Self {
        self.signer = Some(signer);
        self
    }

    /// The same, and it can write.
    #[must_use]
    pub fn with_writer(mut self, writer: Writer) -> Self {
        self.writer = Some(writer);
        self
    }

    /// Who calls: checks the credential by the one decision, then the owner's rate.
    ///
    /// # Errors
    /// `Unauthenticated`, `TooMany`, or `Unavailable` while nobody can tell.
    pub async fn caller(&self, headers: &HeaderMap) -> Result<Caller, Failure> {
        let Authorization::Bearer(token) = Authorization::read(plain(headers)) else { return Err(self.failed()) };
        let now = self.now();
        let (record, narrowed) = if Presented::parse(token).is_ok() {
            (self.allowed(self.decide(token, now))?, None)
        } else {
            let grant =
                self.signer.as_ref().and_then(|signer| signer.check(token, now).ok()).ok_or_else(|| self.failed())?;
            let record = self.record_of(grant.pat, &grant.credential).ok_or_else(|| self.failed())?;
            (self.allowed(decide_known(&*self.index, (self.freshness)(), record, &ANY, now))?, Some(grant.scopes))
        };
        self.index.mark_used(&record, now);
        let present = record.pat.scopes();
        let scopes: Vec<String> = match narrowed {
            None => present.iter().map(str::to_owned).collect(),
            Some(granted) => granted.into_iter().filter(|scope| present.contains(scope)).collect(),
        };
        self.admit(&record)?;
        let token_name = self.store.item(record.pat.uid).map(|item| item.display_name.clone());
        Ok(Caller {
            owner: record.pat.owner(),
            id: record.pat.uid,
            token_name: token_name.unwrap_or_else(|| record.pat.name().to_owned()),
            credential: record.credential().id,
            audiences: record.pat.audiences().iter().map(str::to_owned).collect(),
            rights: Rights::of(scopes.iter().map(String::as_str)),
            scopes,
        })
    }

    /// Exchanges a PAT's id and its token for an access token; `wanted` narrows its scopes.
    ///
    /// # Errors
    /// As [`caller`](Self::caller); `Forbidden` for a scope that the PAT lacks.
    pub fn exchange(&self, client: &[u8], secret: &[u8], wanted: Option<&[&str]>) -> Result<Exchanged, Failure> {
        let now = self.now();
        let record = self.allowed(self.decide(secret, now))?;
        let named: Option<PatUid> = str::from_utf8(client).ok().and_then(|client| client.parse().ok());
        if named != Some(record.pat.uid) {
            return Err(self.failed());
        }
        self.index.mark_used(&record, now);
        self.admit(&record)?;
        let present = record.pat.scopes();
        if wanted.is_some_and(|wanted| wanted.iter().any(|scope| !present.contains(scope))) {
            // Without the client's own text: OAuth's descriptions have an alphabet of their own.
            return Err(Failure::Forbidden("this token does not have every scope that is asked for".into()));
        }
        let scopes: Vec<String> = present
            .iter()
            .filter(|scope| wanted.is_none_or(|wanted| wanted.contains(scope)))
            .map(str::to_owned)
            .collect();
        let signer = self.signer.as_ref().ok_or(Failure::Internal)?;
        let item = self.store.item(record.pat.uid);
        let validity = item.and_then(|item| item.access_token_validity).unwrap_or(VALIDITY);
        let validity = validity.clamp(SHORTEST_VALIDITY, VALIDITY);
        let ends = [record.credential().expires_at, record.pat.terms.end()];
        let end = ends.into_iter().flatten().chain([now.plus(validity)]).min().unwrap_or(now).floor_second();
        let lives = end.since(now).as_secs();
        if lives < 1 {
            return Err(self.failed());
        }
        let grant = Grant {
            subject: record.pat.subject().to_owned(),
            pat: record.pat.uid,
            credential: record.credential().id,
            scopes,
            issued_at: now,
            expires_at: end,
        };
        let token = signer.sign(&grant);
        Ok(Exchanged { token, expires_in: lives, scopes: grant.scopes })
    }

    /// The time.
    pub fn now(&self) -> Time {
        self.clock.now().into()
    }

    /// The namespace that is served, as dialects name it that know tenants.
    pub fn tenant(&self) -> &str {
        &self.settings.tenant
    }

    /// Answers a query from the store.
    pub fn list(&self, query: &Query) -> Page {
        self.store.list(query)
    }

    /// The token of this id.
    pub fn item(&self, id: PatUid) -> Option<Arc<Item>> {
        self.store.item(id)
    }

    /// What is known of an owner; every owner has an entry.
    pub fn owner(&self, owner: &Owner) -> OwnerEntry {
        self.store.owner(owner)
    }

    /// The owner of this id, if one is known by it: a TokenOwner's, or an owner of some token.
    pub fn owner_by_id(&self, id: &str) -> Option<OwnerEntry> {
        self.store.owner_by_id(id)
    }

    /// The one owner with this email, in any case; `None` if there are none or several.
    pub fn owner_by_email(&self, email: &str) -> Option<OwnerEntry> {
        self.store.owner_by_email(email)
    }

    /// Makes a token, waits until it is there, takes it out of its Secret, and hands it out: once.
    ///
    /// # Errors
    /// `Invalid` with the resource's field name, `Forbidden` for scopes that the caller lacks, `Conflict`, `Unavailable`,
    /// `ReadOnly`.
    pub async fn create(&self, caller: &Caller, order: Create) -> Result<Created, Failure> {
        let writer = self.writer()?;
        let caller = self.still(caller)?;
        has_all(&caller, &order.scopes)?;
        self.lies_ahead(&order.expiry)?;
        // A token for these alone must not be a way to one for everybody.
        let created = writer.create(order, caller.audiences.clone()).await?;
        may_have(&self.still(&caller)?, &created.item)?;
        Ok(created)
    }

    /// Changes a token, based on the version that `item` is, and waits until the store shows it.
    ///
    /// # Errors
    /// As `create`; `Conflict` if it was changed meanwhile or another manager owns the field.
    pub async fn change(&self, caller: &Caller, item: &Item, change: Change) -> Result<Arc<Item>, Failure> {
        let writer = self.writer()?;
        let caller = self.still(caller)?;
        if let Some(scopes) = &change.scopes {
            has_all(&caller, scopes)?;
        }
        if let Some(expiry) = &change.expiry {
            self.lies_ahead(expiry)?;
        }
        writer.change(item, &change).await
    }

    /// Issues a new credential and hands it out; the present one goes on for `grace`, or, if that is zero, is dead at once.
    ///
    /// # Errors
    /// As `change`; `Forbidden` if the token has scopes or audiences that the caller's lacks, who would get them by this.
    pub async fn regenerate(
        &self,
        caller: &Caller,
        item: &Item,
        grace: Option<SignedDuration>,
    ) -> Result<Created, Failure> {
        let writer = self.writer()?;
        let caller = self.still(caller)?;
        may_have(&caller, item)?;
        let created = writer.regenerate(item, grace, self.now()).await?;
        let replaced = item.id == caller.id && grace.is_some_and(|grace| grace.is_zero());
        let caller = if replaced {
            // By its own order the caller's credential is dead, unless somebody else has it so: the new one stands for it.
            if created.item.revoked_credentials.iter().any(|id| *id == caller.credential.as_str()) {
                return Err(self.failed());
            }
            self.still(&Caller { credential: created.token.id(), ..caller })?
        } else {
            self.still(&caller)?
        };
        may_have(&caller, &created.item)?;
        Ok(created)
    }

    /// Deletes a token, and waits until the store shows it. `allowed` says who may delete which: it is asked of the token as it is deleted.
    ///
    /// # Errors
    /// What `allowed` says; `NotFound`, `Conflict` if it does not stop changing, `Unavailable`, `ReadOnly`.
    pub async fn delete(
        &self,
        caller: &Caller,
        item: &Item,
        allowed: impl Fn(&Caller, &Item) -> Result<(), Failure> + Send + Sync,
    ) -> Result<(), Failure> {
        let writer = self.writer()?;
        self.still(caller)?;
        writer.delete(item, |present| allowed(&self.still(caller)?, present)).await
    }

    /// Revokes a token. Whoever has begun to revoke many goes on, though the caller's own may be among them: nobody is asked again.
    ///
    /// # Errors
    /// As `change`.
    pub async fn revoke(&self, item: &Item) -> Result<Arc<Item>, Failure> {
        self.writer()?.change(item, &Change { revoked: Some(true), ..Change::default() }).await
    }

    /// Does this to its end, even if the client goes away: what changes many tokens must not stop half-way.
    ///
    /// # Errors
    /// `Internal` if it panics.
    pub async fn to_the_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Failure> {
        match &self.writer {
            Some(writer) => writer.to_the_end(work).await,
            // Nothing can be changed half-way.
            None => Ok(work.await),
        }
    }

    /// Waits until every change that has begun is at its end, and no longer than this; false if one is not.
    pub async fn finish(&self, within: Duration) -> bool {
        match &self.writer {
            Some(writer) => writer.finish(within).await,
            None => true,
        }
    }

    /// The caller as it is now: what takes its time must not outlive the right to it.
    fn still(&self, caller: &Caller) -> Result<Caller, Failure> {
        let now = self.now();
        let record = self.record_of(caller.id, &caller.credential).ok_or_else(|| self.failed())?;
        let record = self.allowed(decide_known(&*self.index, (self.freshness)(), record, &ANY, now))?;
        let present = record.pat.scopes();
        let mut caller = caller.clone();
        caller.scopes.retain(|scope| present.contains(scope));
        caller.audiences = record.pat.audiences().iter().map(str::to_owned).collect();
        let rights = Rights::of(caller.scopes.iter().map(String::as_str));
        if rights != caller.rights {
            return Err(Failure::Forbidden("your own token has lost scopes meanwhile".into()));
        }
        Ok(caller)
    }

    fn decide(&self, token: &[u8], now: Time) -> Decision<CredentialRef> {
        decide(&*self.index, (self.freshness)(), token, &ANY, now)
    }

    /// What a decision lets in, if it is for this server as well.
    fn allowed(&self, decision: Decision<CredentialRef>) -> Result<CredentialRef, Failure> {
        let record = match decision {
            Decision::Allow(record) => record,
            Decision::Deny(_) => return Err(self.failed()),
            Decision::Unavailable(_) => {
                let problem = "tokens cannot be verified at the moment: try again";
                return Err(Failure::Unavailable { problem, retry_after: COME_BACK });
            }
        };
        let (audiences, own) = (record.pat.audiences(), self.settings.audience.as_deref());
        let for_us = audiences.is_empty() || own.is_some_and(|own| audiences.contains(own));
        if for_us { Ok(record) } else { Err(self.failed()) }
    }

    /// A credential of a PAT, if it is still there.
    fn record_of(&self, pat: PatUid, credential: &TokenId) -> Option<CredentialRef> {
        let known = self.index.pat(pat)?;
        let credential = known.credentials.iter().find(|one| one.id == *credential)?;
        self.index.get(&credential.hash).filter(|record| record.pat.uid == pat)
    }

    /// Takes a request of the owner's budget.
    fn admit(&self, record: &CredentialRef) -> Result<(), Failure> {
        let owner = record.pat.subject();
        context::note_caller(owner, record.credential().id);
        self.requests.take(owner.to_owned()).map_err(too_many)
    }

    /// The same words whatever the reason; and not without end.
    fn failed(&self) -> Failure {
        match self.failures.take(()) {
            Ok(()) => Failure::Unauthenticated,
            Err(wait) => too_many(wait),
        }
    }

    fn writer(&self) -> Result<&Writer, Failure> {
        if self.settings.read_only {
            return Err(Failure::ReadOnly);
        }
        let problem = "there is nowhere to write to";
        self.writer.as_ref().ok_or(Failure::Unavailable { problem, retry_after: COME_BACK })
    }

    fn lies_ahead(&self, expiry: &Expiry) -> Result<(), Failure> {
        match expiry.at {
            Some(at) if at <= self.now() => Err(Failure::invalid("spec.expiry.at", "must be in the future")),
            _ => Ok(()),
        }
    }
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// An access token, and what is said beside it.
pub struct Exchanged {
    /// The token.
    pub token: zeroize::Zeroizing<String>,
    /// How many seconds it lives.
    pub expires_in: i64,
    /// What it may do.
    pub scopes: Vec<String>,
}

/// Who asks here is judged by rights, not by scopes that are demanded; audiences are looked at apart.
const ANY: Requirements<'static> = Requirements { scopes: &[], audience: Audience::Any };

fn too_many(wait: Duration) -> Failure {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    Failure::TooMany { retry_after: Duration::from_secs(seconds.max(1)) }
}

/// Refuses a token that may do, or is accepted for, what the caller's own is not.
fn may_have(caller: &Caller, item: &Item) -> Result<(), Failure> {
    has_all(caller, &item.scopes)?;
    is_for_no_others(caller, item)
}

/// Refuses a token that is accepted where the caller's own is not.
fn is_for_no_others(caller: &Caller, item: &Item) -> Result<(), Failure> {
    if item.id == caller.id || is_within(&item.audiences, &caller.audiences) {
        return Ok(());
    }
    Err(Failure::Forbidden("your token lacks an audience of this one".into()))
}

/// Whether whoever has a token for these audiences gains nothing by one for those. None at all is an audience of its own.
fn is_within(those: &[String], these: &[String]) -> bool {
    those.is_empty() == these.is_empty() && those.iter().all(|one| these.contains(one))
}

/// Nobody gives what he does not have.
fn has_all(caller: &Caller, scopes: &[String]) -> Result<(), Failure> {
    match scopes.iter().find(|scope| !caller.scopes.contains(scope)) {
        None => Ok(()),
        Some(lacking) => Err(Failure::Forbidden(format!("your own token lacks the scope {lacking}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::is_within;

    #[test]
    fn nobody_gains_an_audience_and_none_at_all_is_one_of_its_own() {
        for (those, these, within) in [
            (&[][..], &[][..], true),
            (&["a"], &["a", "b"], true),
            (&["a", "b"], &["a"], false),
            (&["a"], &[], false),
            (&[], &["a"], false),
        ] {
            let owned = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
            assert_eq!(is_within(&owned(those), &owned(these)), within, "{those:?} {these:?}");
        }
    }
}
