//! The service behind all dialects: authenticates callers, checks what they may do, and reads and changes tokens.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use axum::http::HeaderMap;
use k8s_openapi::jiff::SignedDuration;

use super::{
    access_token::{AccessTokenGrant, AccessTokenSigner},
    caller::{Permissions, RestCaller, includes_scope},
    error::RestError,
    model::{ChangeToken, CreateToken, IssuedToken, TokenItem},
    query::{TokenPage, TokenQuery},
    rate_limit::{RateLimit, RateLimiter},
    request::record_caller,
    store::{OwnerEntry, TokenStore},
    write::Writer,
};
use crate::{
    api::{Expiry, Owner, Time},
    auth::decision::{Audience, Decision, Freshness, Requirements, decide, decide_known},
    index::{CredentialRef, Index, PatUid},
    service::{Clock, authorization::Authorization, http::plain},
    token::{Presented, TokenId},
};

/// The rate at which failed authentications are answered with 401, for all clients together.
const FAILED_AUTHENTICATIONS: RateLimit =
    RateLimit { per_second: NonZeroU32::new(200).unwrap(), burst: NonZeroU32::new(1000).unwrap() };

/// The default and maximum lifetime of access tokens.
const MAX_VALIDITY: SignedDuration = SignedDuration::from_hours(12);
/// The minimum lifetime of access tokens.
const MIN_VALIDITY: SignedDuration = SignedDuration::from_secs(15);

/// When to retry while tokens cannot be verified.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// The configuration of the service.
#[derive(Clone, Debug)]
pub struct RestConfig {
    /// The tenant that dialects with tenants show.
    pub tenant: String,
    /// The audience of this server. A token must have no audience or this one.
    pub audience: Option<String>,
    /// Whether changes are refused.
    pub read_only: bool,
    /// The rate limit of each owner.
    pub rate: RateLimit,
}

/// The service behind all dialects.
pub struct TokenService {
    index: Arc<Index>,
    store: Arc<TokenStore>,
    freshness: Box<dyn Fn() -> Freshness + Send + Sync>,
    clock: Clock,
    config: RestConfig,
    /// `None`: access tokens are not supported.
    signer: Option<AccessTokenSigner>,
    /// `None`: changes are not supported.
    writer: Option<Writer>,
    requests: RateLimiter<String>,
    failures: RateLimiter<()>,
}

impl TokenService {
    /// Creates a service that can only read and knows no access tokens. `freshness` returns the freshness of the index.
    pub fn new(
        index: Arc<Index>,
        store: Arc<TokenStore>,
        freshness: impl Fn() -> Freshness + Send + Sync + 'static,
        clock: Clock,
        config: RestConfig,
    ) -> Self {
        Self {
            index,
            store,
            freshness: Box::new(freshness),
            clock,
            requests: RateLimiter::new(config.rate),
            failures: RateLimiter::new(FAILED_AUTHENTICATIONS),
            config,
            signer: None,
            writer: None,
        }
    }

    /// Enables access tokens.
    #[must_use]
    pub fn with_signer(mut self, signer: AccessTokenSigner) -> Self {
        self.signer = Some(signer);
        self
    }

    /// Enables changes.
    #[must_use]
    pub fn with_writer(mut self, writer: Writer) -> Self {
        self.writer = Some(writer);
        self
    }

    /// Authenticates the caller, then counts the request against the owner's rate limit.
    pub async fn caller(&self, headers: &HeaderMap) -> Result<RestCaller, RestError> {
        let Authorization::Bearer(token) = Authorization::read(plain(headers)) else {
            return Err(self.unauthenticated());
        };
        let now = self.now();
        let (record, narrowed) = if Presented::parse(token).is_ok() {
            (self.allowed(self.decide(token, now))?, None)
        } else {
            let grant = self.signer.as_ref().and_then(|signer| signer.verify(token, now).ok());
            let grant = grant.ok_or_else(|| self.unauthenticated())?;
            let record = self.record_of(grant.pat, &grant.credential).ok_or_else(|| self.unauthenticated())?;
            (self.allowed(decide_known(&*self.index, (self.freshness)(), record, &ANY, now))?, Some(grant.scopes))
        };
        self.index.mark_used(&record, now);
        self.check_rate(&record)?;
        Ok(self.caller_of(&record, narrowed))
    }

    /// Returns the caller with this credential. `narrowed` are the scopes of an access token.
    fn caller_of(&self, record: &CredentialRef, narrowed: Option<Vec<String>>) -> RestCaller {
        let present = record.pat.scopes();
        let scopes: Vec<String> = match narrowed {
            None => present.iter().map(str::to_owned).collect(),
            Some(granted) => granted.into_iter().filter(|scope| includes_scope(present.iter(), scope)).collect(),
        };
        let item = self.store.item(record.pat.uid);
        let name = record.pat.name();
        RestCaller {
            owner: record.pat.owner(),
            id: record.pat.uid,
            pat_name: name.to_owned(),
            token_name: item.as_ref().map_or(name, |item| &item.display_name).to_owned(),
            credential: record.credential().id,
            audiences: record.pat.audiences().iter().map(str::to_owned).collect(),
            permissions: Permissions::of(scopes.iter().map(String::as_str)),
            scopes,
            resource_permissions: item.map(|item| item.permissions.clone()).unwrap_or_default(),
            ends_at: record.pat.terms.end(),
        }
    }

    /// Exchanges a PAT's id and its token for an access token. `wanted` narrows the scopes; one that the PAT lacks is `Forbidden`.
    pub fn exchange(&self, client: &[u8], secret: &[u8], wanted: Option<&[&str]>) -> Result<ExchangedToken, RestError> {
        let now = self.now();
        let record = self.allowed(self.decide(secret, now))?;
        let named: Option<PatUid> = str::from_utf8(client).ok().and_then(|client| client.parse().ok());
        if named != Some(record.pat.uid) {
            return Err(self.unauthenticated());
        }
        self.index.mark_used(&record, now);
        self.check_rate(&record)?;
        let present = record.pat.scopes();
        if wanted.is_some_and(|wanted| wanted.iter().any(|scope| !includes_scope(present.iter(), scope))) {
            // The scope is not quoted: OAuth restricts the characters of descriptions.
            return Err(RestError::Forbidden("the token lacks a requested scope".into()));
        }
        let scopes: Vec<String> = match wanted {
            None => present.iter().map(str::to_owned).collect(),
            Some(wanted) => wanted.iter().copied().map(str::to_owned).collect(),
        };
        let signer = self.signer.as_ref().ok_or(RestError::Internal)?;
        let item = self.store.item(record.pat.uid);
        let validity = item.and_then(|item| item.access_token_validity).unwrap_or(MAX_VALIDITY);
        let validity = validity.clamp(MIN_VALIDITY, MAX_VALIDITY);
        let ends = [record.credential().expires_at, record.pat.terms.end()];
        let end = ends.into_iter().flatten().chain([now.plus(validity)]).min().unwrap_or(now).floor_second();
        let expires_in = end.since(now).as_secs();
        if expires_in < 1 {
            return Err(self.unauthenticated());
        }
        let grant = AccessTokenGrant {
            subject: record.pat.subject().to_owned(),
            pat: record.pat.uid,
            credential: record.credential().id,
            scopes,
            issued_at: now,
            expires_at: end,
        };
        let token = signer.sign(&grant);
        Ok(ExchangedToken { token, expires_in, scopes: grant.scopes })
    }

    /// Returns the current time.
    pub fn now(&self) -> Time {
        self.clock.now().into()
    }

    /// Returns the tenant that dialects with tenants show.
    pub fn tenant(&self) -> &str {
        &self.config.tenant
    }

    /// Runs a query.
    pub fn list(&self, query: &TokenQuery) -> TokenPage {
        self.store.list(query)
    }

    /// Returns the token with this id.
    pub fn item(&self, id: PatUid) -> Option<Arc<TokenItem>> {
        self.store.item(id)
    }

    /// Returns the owner's token with this display name.
    pub fn named(&self, owner: &Owner, display_name: &str) -> Option<Arc<TokenItem>> {
        self.store.named(owner, display_name)
    }

    /// Returns what is known of an owner.
    pub fn owner(&self, owner: &Owner) -> OwnerEntry {
        self.store.owner(owner)
    }

    /// Returns the owner with this id: of a TokenOwner, or, without one, of some token.
    pub fn owner_by_id(&self, id: &str) -> Option<OwnerEntry> {
        self.store.owner_by_id(id)
    }

    /// Returns the only owner with this email, ignoring case; `None` if there are none or several.
    pub fn owner_by_email(&self, email: &str) -> Option<OwnerEntry> {
        self.store.owner_by_email(email)
    }

    /// Creates a token, waits until the controller has issued it, and takes it out of its Secret. The caller must have its scopes and
    /// permissions. The token ends with the caller's PAT at the latest.
    pub async fn create(&self, caller: &RestCaller, mut request: CreateToken) -> Result<IssuedToken, RestError> {
        let writer = self.writer()?;
        let caller = self.recheck(caller)?;
        caller.check_scopes(&request.scopes)?;
        caller.check_resource_permissions(&request.permissions)?;
        self.check_expiry(&request.expiry)?;
        let limited_to = caller.limit_expiry(&mut request.expiry, self.now());
        let issued = writer.create(request, &caller).await?;
        self.recheck(&caller)?.check_issued(&issued.item)?;
        Ok(IssuedToken { limited_to, ..issued })
    }

    /// Checks whether the caller may change a token in this way.
    pub fn check_change(&self, caller: &RestCaller, item: &TokenItem, change: &ChangeToken) -> Result<(), RestError> {
        if let Some(scopes) = &change.scopes {
            caller.check_scopes(scopes)?;
        }
        let Some(expiry) = &change.expiry else { return Ok(()) };
        self.check_expiry(expiry)?;
        let extends = item.expires_at().is_some_and(|end| expiry.at.is_none_or(|at| at > end));
        match caller.end_before(expiry.at) {
            Some(own) if extends => {
                Err(RestError::Forbidden(format!("your token ends at {own}: it cannot extend a token beyond that")))
            }
            _ => Ok(()),
        }
    }

    /// Changes a token of this version, and waits until the store shows the change.
    pub async fn change(
        &self,
        caller: &RestCaller,
        item: &TokenItem,
        change: ChangeToken,
    ) -> Result<Arc<TokenItem>, RestError> {
        let writer = self.writer()?;
        self.check_change(&self.recheck(caller)?, item, &change)?;
        writer.change(item, &change).await
    }

    /// Issues a new credential for a token. The previous one stays valid for `grace`; with zero it is revoked at once. The caller must
    /// have the token's scopes, permissions and audiences, which it would obtain. From now on, the token ends with the caller's PAT at the
    /// latest.
    pub async fn regenerate(
        &self,
        caller: &RestCaller,
        item: &TokenItem,
        grace: Option<SignedDuration>,
    ) -> Result<IssuedToken, RestError> {
        let writer = self.writer()?;
        let caller = self.recheck(caller)?;
        caller.check_rights(item)?;
        let issued = writer.regenerate(item, grace, &caller, self.now()).await?;
        let replaced = item.id == caller.id && grace.is_some_and(|grace| grace.is_zero());
        let caller = if replaced {
            // The request itself has revoked the caller's credential, so the new one is checked instead. A revocation by another
            // client still counts.
            if issued.item.revoked_credentials.iter().any(|id| *id == caller.credential.as_str()) {
                return Err(self.unauthenticated());
            }
            self.recheck(&RestCaller { credential: issued.token.id(), ..caller })?
        } else {
            self.recheck(&caller)?
        };
        caller.check_issued(&issued.item)?;
        Ok(issued)
    }

    /// Deletes a token, and waits until the store shows it. `allowed` is asked about the token in the version that is deleted.
    pub async fn delete(
        &self,
        caller: &RestCaller,
        item: &TokenItem,
        allowed: impl Fn(&RestCaller, &TokenItem) -> Result<(), RestError> + Send + Sync,
    ) -> Result<(), RestError> {
        let writer = self.writer()?;
        self.recheck(caller)?;
        writer.delete(item, |present| allowed(&self.recheck(caller)?, present)).await
    }

    /// Revokes a token without checking the caller again: a bulk revocation may include the caller's own token.
    pub async fn revoke(&self, item: &TokenItem) -> Result<Arc<TokenItem>, RestError> {
        self.writer()?.change(item, &ChangeToken { revoked: Some(true), ..ChangeToken::default() }).await
    }

    /// Revokes the tokens whose parent is revoked, now and later. Never ends, unless changes are not supported.
    pub async fn cascade_revocations(&self) {
        if let Ok(writer) = self.writer() {
            writer.cascade_revocations().await;
        }
    }

    /// Runs a change of several tokens to its end, even if the client disconnects.
    pub async fn run_to_completion<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, RestError> {
        match &self.writer {
            Some(writer) => writer.run_to_completion(work).await,
            None => Ok(work.await),
        }
    }

    /// Waits for all changes in progress. Returns false if one does not end in time.
    pub async fn finish(&self, limit: Duration) -> bool {
        match &self.writer {
            Some(writer) => writer.finish(limit).await,
            None => true,
        }
    }

    /// Authenticates the caller again: a request that takes time must not outlive the caller's permissions.
    fn recheck(&self, caller: &RestCaller) -> Result<RestCaller, RestError> {
        let now = self.now();
        let record = self.record_of(caller.id, &caller.credential).ok_or_else(|| self.unauthenticated())?;
        let record = self.allowed(decide_known(&*self.index, (self.freshness)(), record, &ANY, now))?;
        let present = self.caller_of(&record, Some(caller.scopes.clone()));
        if present.permissions != caller.permissions {
            return Err(RestError::Forbidden("your token has lost scopes since the request began".into()));
        }
        Ok(present)
    }

    fn decide(&self, token: &[u8], now: Time) -> Decision<CredentialRef> {
        decide(&*self.index, (self.freshness)(), token, &ANY, now)
    }

    /// Returns the record of an accepted token whose audiences include this server.
    fn allowed(&self, decision: Decision<CredentialRef>) -> Result<CredentialRef, RestError> {
        let record = match decision {
            Decision::Allow(record) => record,
            Decision::Deny(_) => return Err(self.unauthenticated()),
            Decision::Unavailable(_) => {
                let problem = "tokens cannot be verified at the moment: try again";
                return Err(RestError::Unavailable { problem, retry_after: RETRY_AFTER });
            }
        };
        let (audiences, own) = (record.pat.audiences(), self.config.audience.as_deref());
        let for_us = audiences.is_empty() || own.is_some_and(|own| audiences.contains(own));
        if for_us { Ok(record) } else { Err(self.unauthenticated()) }
    }

    /// Returns a PAT's credential, if it still exists.
    fn record_of(&self, pat: PatUid, credential: &TokenId) -> Option<CredentialRef> {
        let known = self.index.pat(pat)?;
        let credential = known.credentials.iter().find(|one| one.id == *credential)?;
        self.index.get(&credential.hash).filter(|record| record.pat.uid == pat)
    }

    fn check_rate(&self, record: &CredentialRef) -> Result<(), RestError> {
        let owner = record.pat.subject();
        record_caller(owner, record.credential().id);
        self.requests.take(owner.to_owned()).map_err(too_many)
    }

    /// Returns the same error for every reason, at a limited rate.
    fn unauthenticated(&self) -> RestError {
        match self.failures.take(()) {
            Ok(()) => RestError::Unauthenticated,
            Err(wait) => too_many(wait),
        }
    }

    fn writer(&self) -> Result<&Writer, RestError> {
        if self.config.read_only {
            return Err(RestError::ReadOnly);
        }
        let problem = "this server cannot change tokens";
        self.writer.as_ref().ok_or(RestError::Unavailable { problem, retry_after: RETRY_AFTER })
    }

    fn check_expiry(&self, expiry: &Expiry) -> Result<(), RestError> {
        match expiry.at {
            Some(at) if at <= self.now() => Err(RestError::invalid("spec.expiry.at", "must be in the future")),
            _ => Ok(()),
        }
    }
}

impl std::fmt::Debug for TokenService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenService").field("config", &self.config).finish_non_exhaustive()
    }
}

/// An access token with its lifetime and scopes.
pub struct ExchangedToken {
    /// The access token.
    pub token: zeroize::Zeroizing<String>,
    /// The lifetime in seconds.
    pub expires_in: i64,
    /// The granted scopes.
    pub scopes: Vec<String>,
}

/// No required scopes: this API checks permissions and audiences itself.
const ANY: Requirements<'static> = Requirements { scopes: &[], audience: Audience::Any };

fn too_many(wait: Duration) -> RestError {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    RestError::TooMany { retry_after: Duration::from_secs(seconds.max(1)) }
}
