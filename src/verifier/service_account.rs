//! Whether a ServiceAccount may introspect, according to the API server.
//!
//! TokenReview authenticates the token, and SubjectAccessReview checks the permission of its account. The result is cached for a
//! short time under a hash of the token. Callers must not pass PATs to this module.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use k8s_openapi::{
    api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo},
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use zeroize::Zeroize;

use crate::{
    api::{GROUP, crd},
    service::{clock::uptime, preflight::AccessCheck},
};

/// The audience that a ServiceAccount token must have.
pub const AUDIENCE: &str = "pat-operator";

/// The verb that the account needs on `personalaccesstokens.pat-operator.io`, in all namespaces.
pub const VERB: &str = "introspect";

/// How long a permission is cached, and so how long it may outlive its removal.
const POSITIVE_TTL: Duration = Duration::from_secs(60);

/// How long a refusal is cached: shorter, because a permission may just have been granted.
const NEGATIVE_TTL: Duration = Duration::from_secs(10);

/// Maximum number of cached permissions, and of cached refusals. They are separate, so that junk does not evict permissions.
const CACHE_SIZE: usize = 1024;

/// Maximum number of concurrent reviews.
const MAX_CONCURRENT: usize = 8;

/// Timeout for both reviews together.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum length of a token; real ones have about 1,200 characters.
const MAX_TOKEN: usize = 8 * 1024;

/// Why the permission could not be checked.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// The API server rejected the review.
    #[error("the API server rejected the review: {0}")]
    Api(#[from] Box<kube::Error>),
    /// The API server did not answer in time.
    #[error("the API server did not answer the review within {} s", REVIEW_TIMEOUT.as_secs())]
    Timeout,
}

impl ReviewError {
    /// Returns the name of this error in metrics, events and logs.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Api(_) => "ReviewFailed",
            Self::Timeout => "ReviewTimeout",
        }
    }
}

/// The permission of the holder of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountPermission {
    /// The token is not a valid ServiceAccount token for the audience of the verifier.
    NotAuthenticated,
    /// The token belongs to a ServiceAccount without the permission.
    Forbidden,
    /// The token belongs to a ServiceAccount with the permission.
    Permitted,
}

/// Checks the permissions of ServiceAccounts at the API server.
pub struct ServiceAccountReviewer {
    client: Client,
    permits: Semaphore,
    cache: Mutex<ReviewCache>,
}

impl ServiceAccountReviewer {
    /// Creates a reviewer. The client must be permitted to create TokenReviews and SubjectAccessReviews.
    pub fn new(client: Client) -> Self {
        Self { client, permits: Semaphore::new(MAX_CONCURRENT), cache: Mutex::default() }
    }

    /// Returns whether the holder of this token may introspect. `expires` is that of [`plausible_expiry`].
    ///
    /// # Errors
    /// Returns an error if the API server does not answer.
    pub async fn permission(&self, token: &str, expires: Timestamp) -> Result<AccountPermission, ReviewError> {
        let left = Duration::try_from(expires.duration_since(Timestamp::now())).unwrap_or_default();
        let key = Sha256::digest(token).into();
        if let Some(known) = self.cached(&key) {
            return Ok(known);
        }
        let reviewing = async {
            // The semaphore is never closed.
            let _permit = self.permits.acquire().await;
            // Another request may have cached the answer in the meantime.
            if let Some(known) = self.cached(&key) {
                return Ok(known);
            }
            let permission = self.review(token).await?;
            self.lock().insert(key, permission, left, uptime());
            Ok(permission)
        };
        tokio::time::timeout(REVIEW_TIMEOUT, reviewing).await.unwrap_or(Err(ReviewError::Timeout))
    }

    async fn review(&self, token: &str) -> Result<AccountPermission, ReviewError> {
        let Some(user) = self.authenticate(token).await? else { return Ok(AccountPermission::NotAuthenticated) };
        Ok(if self.is_permitted(user).await? { AccountPermission::Permitted } else { AccountPermission::Forbidden })
    }

    async fn authenticate(&self, token: &str) -> Result<Option<UserInfo>, ReviewError> {
        let spec = TokenReviewSpec { audiences: Some(vec![AUDIENCE.to_owned()]), token: token.to_owned() };
        let mut review = TokenReview { spec, ..TokenReview::default() };
        let answer = Api::all(self.client.clone()).create(&PostParams::default(), &review).await;
        review.spec.token.zeroize();
        let mut answer = answer.map_err(Box::new)?;
        answer.spec.token.zeroize();
        let status = answer.status.unwrap_or_default();
        // An authenticator that does not support audiences returns none, and would accept any token.
        let has_audience = status.audiences.iter().flatten().any(|audience| audience == AUDIENCE);
        let is_account =
            |user: &UserInfo| user.username.as_ref().is_some_and(|name| name.starts_with("system:serviceaccount:"));
        Ok(status.user.filter(|user| status.authenticated == Some(true) && has_audience && is_account(user)))
    }

    async fn is_permitted(&self, user: UserInfo) -> Result<bool, ReviewError> {
        let (resource, verb) = (crd::PLURAL, VERB);
        let access = AccessCheck { namespace: "", group: GROUP, resource, subresource: "", verb, name: "" };
        Ok(access.is_allowed_to(&self.client, user).await.map_err(Box::new)?)
    }

    fn cached(&self, key: &TokenDigest) -> Option<AccountPermission> {
        self.lock().get(key, uptime())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, ReviewCache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns when the token expires; `None` if no review can succeed, because the text is not a JWT for our audience, or has expired.
/// Nothing else is verified.
pub fn plausible_expiry(token: &str) -> Option<Timestamp> {
    let claims = claims(token).filter(|claims| claims.are_plausible(Timestamp::now().as_second()))?;
    // A time beyond the calendar never comes.
    Some(Timestamp::from_second(claims.exp).unwrap_or(Timestamp::MAX))
}

/// Unverified claims of a JWT. They only spare the API server reviews of tokens that cannot be valid.
#[derive(Deserialize)]
struct AccountTokenClaims {
    aud: AudienceClaim,
    /// Seconds since the Unix epoch.
    exp: i64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum AudienceClaim {
    One(String),
    Several(Vec<String>),
}

impl AccountTokenClaims {
    fn are_plausible(&self, now: i64) -> bool {
        let has_audience = match &self.aud {
            AudienceClaim::One(one) => one == AUDIENCE,
            AudienceClaim::Several(several) => several.iter().any(|one| one == AUDIENCE),
        };
        has_audience && now < self.exp
    }
}

/// Reads the claims of text in the form of a JWT (RFC 7519, RFC 7515): three parts in base64url, the second of which is JSON. Other
/// text is not sent to the API server, in particular no mistyped PAT.
fn claims(token: &str) -> Option<AccountTokenClaims> {
    let is_part = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    if token.len() > MAX_TOKEN || token.split('.').count() != 3 || !token.split('.').all(is_part) {
        return None;
    }
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice(&claims).ok()
}

type TokenDigest = [u8; 32];

/// Cached permissions and refusals, each with the uptime until which it holds.
#[derive(Default)]
struct ReviewCache {
    positive: HashMap<TokenDigest, (AccountPermission, Duration)>,
    negative: HashMap<TokenDigest, (AccountPermission, Duration)>,
}

impl ReviewCache {
    fn get(&self, key: &TokenDigest, now: Duration) -> Option<AccountPermission> {
        let (permission, until) = self.positive.get(key).or_else(|| self.negative.get(key))?;
        (now < *until).then_some(*permission)
    }

    /// Caches a result for a token that expires in `left`.
    fn insert(&mut self, key: TokenDigest, permission: AccountPermission, left: Duration, now: Duration) {
        self.positive.remove(&key);
        self.negative.remove(&key);
        let (cache, ttl) = match permission {
            AccountPermission::Permitted => (&mut self.positive, POSITIVE_TTL),
            AccountPermission::Forbidden | AccountPermission::NotAuthenticated => (&mut self.negative, NEGATIVE_TTL),
        };
        if cache.len() >= CACHE_SIZE {
            cache.retain(|_, (_, until)| now < *until);
        }
        if cache.len() >= CACHE_SIZE
            && let Some(oldest) = cache.iter().min_by_key(|(_, (_, until))| *until).map(|(key, _)| *key)
        {
            cache.remove(&oldest);
        }
        cache.insert(key, (permission, now + ttl.min(left)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE_HOUR: Duration = Duration::from_secs(3600);

    fn token(claims: &str) -> String {
        format!("a-_.{}.c9", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn only_live_jwts_for_our_audience_are_sent_to_the_api_server() {
        let is_plausible = |token: &str| claims(token).is_some_and(|claims| claims.are_plausible(1_000));
        for (text, yes) in [
            (token(r#"{"aud":["x","pat-operator"],"exp":1001}"#), true),
            (token(r#"{"aud":"pat-operator","exp":2000,"iss":"y"}"#), true),
            (token(r#"{"aud":["x"],"exp":2000}"#), false),
            (token(r#"{"aud":["pat-operator"],"exp":1000}"#), false),
            (token(r#"{"aud":["pat-operator"]}"#), false),
            (token(r#"{"exp":2000}"#), false),
            (token("junk"), false),
            (token(r#"{"aud":"pat-operator","exp":2000}"#) + ".d", false),
            (token(r#"{"aud":"pat-operator","exp":2000}"#).replace("a-_.", "."), false),
            (token(r#"{"aud":"pat-operator","exp":2000}"#).replace("c9", "c="), false),
            (token(r#"{"aud":"pat-operator","exp":2000}"#) + &"c".repeat(MAX_TOKEN), false),
            ("aaa.bbb.ccc".into(), false),
            ("kpat_abc".into(), false),
            (String::new(), false),
        ] {
            assert_eq!(is_plausible(&text), yes, "{text}");
        }
    }

    #[test]
    fn a_permission_is_cached_for_a_minute_and_a_refusal_for_less() {
        let mut cache = ReviewCache::default();
        let at = Duration::from_secs;
        cache.insert([1; 32], AccountPermission::Permitted, ONE_HOUR, at(100));
        cache.insert([2; 32], AccountPermission::Forbidden, ONE_HOUR, at(100));
        cache.insert([3; 32], AccountPermission::NotAuthenticated, ONE_HOUR, at(100));
        assert_eq!(cache.get(&[1; 32], at(159)), Some(AccountPermission::Permitted));
        assert_eq!(cache.get(&[1; 32], at(160)), None);
        assert_eq!(cache.get(&[2; 32], at(109)), Some(AccountPermission::Forbidden));
        assert_eq!(cache.get(&[3; 32], at(110)), None);
        cache.insert([4; 32], AccountPermission::Permitted, at(7), at(100));
        assert_eq!(cache.get(&[4; 32], at(106)), Some(AccountPermission::Permitted));
        assert_eq!(cache.get(&[4; 32], at(107)), None, "it is not cached beyond the expiry of the token");
        cache.insert([1; 32], AccountPermission::Forbidden, ONE_HOUR, at(101));
        assert_eq!(cache.get(&[1; 32], at(102)), Some(AccountPermission::Forbidden));
    }

    #[test]
    fn the_cache_is_bounded_and_junk_does_not_evict_permissions() {
        let mut cache = ReviewCache::default();
        cache.insert([255; 32], AccountPermission::Permitted, ONE_HOUR, Duration::ZERO);
        for number in 0..3 * CACHE_SIZE {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_be_bytes());
            cache.insert(key, AccountPermission::NotAuthenticated, ONE_HOUR, Duration::from_millis(number as u64));
        }
        assert_eq!(cache.negative.len(), CACHE_SIZE);
        assert_eq!(cache.get(&[255; 32], Duration::from_secs(5)), Some(AccountPermission::Permitted));
    }
}
