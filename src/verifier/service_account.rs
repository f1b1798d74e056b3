//! Whether a ServiceAccount may introspect, as the API server has it.
//!
//! TokenReview says whose a token is, SubjectAccessReview whether that account may; both answers together are kept for a
//! short while, under a hash of the token. It must not know PATs: the caller keeps those away.

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

/// The audience that a ServiceAccount's token must be made for.
pub const AUDIENCE: &str = "pat-operator";

/// The verb that it needs on `personalaccesstokens.pat-operator.io`, in all namespaces.
pub const VERB: &str = "introspect";

/// How long a permission is remembered, and so lives on at most after it was taken away.
const REMEMBER_YES: Duration = Duration::from_secs(60);

/// How long a refusal is: shorter, for somebody may be waiting for a permission just given.
const REMEMBER_NO: Duration = Duration::from_secs(10);

/// How many of each are remembered. Apart, so that a flood of junk does not push out those who may.
const REMEMBERED: usize = 1024;

/// How many reviews are under way at a time.
const AT_A_TIME: usize = 8;

/// How long the API server may take for both reviews.
const WITHIN: Duration = Duration::from_secs(5);

/// The longest token that is looked at; real ones have about 1,200 characters.
const MAX_TOKEN: usize = 8 * 1024;

/// Why nobody can tell.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// The API server did not do as asked.
    #[error("the API server does not review: {0}")]
    Api(#[from] Box<kube::Error>),
    /// It did not answer in time.
    #[error("the API server did not review within {} s", WITHIN.as_secs())]
    Timeout,
}

impl ReviewError {
    /// The one name of this error for metrics, events and logs.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Api(_) => "ReviewFailed",
            Self::Timeout => "ReviewTimeout",
        }
    }
}

/// What the API server says of a token's holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// No ServiceAccount's good token, made for us.
    Stranger,
    /// A ServiceAccount without the permission.
    Forbidden,
    /// A ServiceAccount that may.
    Permitted,
}

/// Asks the API server about ServiceAccounts.
pub struct ServiceAccounts {
    client: Client,
    places: Semaphore,
    remembered: Mutex<Memory>,
}

impl ServiceAccounts {
    /// With this client, which must be allowed to create TokenReviews and SubjectAccessReviews.
    pub fn new(client: Client) -> Self {
        Self { client, places: Semaphore::new(AT_A_TIME), remembered: Mutex::default() }
    }

    /// Whether the holder of this token may introspect.
    ///
    /// # Errors
    /// When the API server cannot say.
    pub async fn standing(&self, token: &str) -> Result<Standing, ReviewError> {
        let now = Timestamp::now().as_second();
        let Some(claims) = claims(token).filter(|claims| claims.are_worth_a_request(now)) else {
            return Ok(Standing::Stranger);
        };
        let left = Duration::from_secs(u64::try_from(claims.exp.saturating_sub(now)).unwrap_or(0));
        let key = Sha256::digest(token).into();
        if let Some(known) = self.recall(&key) {
            return Ok(known);
        }
        let asking = async {
            // Never closed.
            let _place = self.places.acquire().await;
            // Whoever waited for a place may have waited for this very answer.
            if let Some(known) = self.recall(&key) {
                return Ok(known);
            }
            let standing = self.ask(token).await?;
            self.lock().note(key, standing, left, uptime());
            Ok(standing)
        };
        tokio::time::timeout(WITHIN, asking).await.unwrap_or(Err(ReviewError::Timeout))
    }

    async fn ask(&self, token: &str) -> Result<Standing, ReviewError> {
        let Some(user) = self.review(token).await? else { return Ok(Standing::Stranger) };
        Ok(if self.is_permitted(user).await? { Standing::Permitted } else { Standing::Forbidden })
    }

    async fn review(&self, token: &str) -> Result<Option<UserInfo>, ReviewError> {
        let spec = TokenReviewSpec { audiences: Some(vec![AUDIENCE.to_owned()]), token: token.to_owned() };
        let mut review = TokenReview { spec, ..TokenReview::default() };
        let answer = Api::all(self.client.clone()).create(&PostParams::default(), &review).await;
        review.spec.token.zeroize();
        let mut answer = answer.map_err(Box::new)?;
        answer.spec.token.zeroize();
        let status = answer.status.unwrap_or_default();
        // An authenticator that knows no audiences leaves them out, and would let any token in.
        let for_us = status.audiences.iter().flatten().any(|audience| audience == AUDIENCE);
        let is_account =
            |user: &UserInfo| user.username.as_ref().is_some_and(|name| name.starts_with("system:serviceaccount:"));
        Ok(status.user.filter(|user| status.authenticated == Some(true) && for_us && is_account(user)))
    }

    async fn is_permitted(&self, user: UserInfo) -> Result<bool, ReviewError> {
        let (resource, verb) = (crd::PLURAL, VERB);
        let question = AccessCheck { namespace: "", group: GROUP, resource, subresource: "", verb, name: "" };
        Ok(question.is_allowed_to(&self.client, user).await.map_err(Box::new)?)
    }

    fn recall(&self, key: &Key) -> Option<Standing> {
        self.lock().recall(key, uptime())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a ServiceAccount's token says of itself. Nothing of it is believed; it only spares the API server what cannot be good.
#[derive(Deserialize)]
struct Claims {
    aud: Audience,
    /// Seconds since the epoch.
    exp: i64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Claims {
    fn are_worth_a_request(&self, now: i64) -> bool {
        let is_for_us = match &self.aud {
            Audience::One(one) => one == AUDIENCE,
            Audience::Several(several) => several.iter().any(|one| one == AUDIENCE),
        };
        is_for_us && now < self.exp
    }
}

/// Reads the claims of a text that has the form of a JWT (RFC 7519, RFC 7515): three parts in base64url, the second of them JSON.
/// Nothing else is worth a request, and a mistyped PAT is nobody's business.
fn claims(token: &str) -> Option<Claims> {
    let is_part = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    if token.len() > MAX_TOKEN || token.split('.').count() != 3 || !token.split('.').all(is_part) {
        return None;
    }
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice(&claims).ok()
}

/// SHA-256 of a token.
type Key = [u8; 32];

/// What was said, until when.
#[derive(Default)]
struct Memory {
    yes: HashMap<Key, (Standing, Duration)>,
    no: HashMap<Key, (Standing, Duration)>,
}

impl Memory {
    fn recall(&self, key: &Key, now: Duration) -> Option<Standing> {
        let (standing, until) = self.yes.get(key).or_else(|| self.no.get(key))?;
        (now < *until).then_some(*standing)
    }

    /// `left` is how long the token will still live.
    fn note(&mut self, key: Key, standing: Standing, left: Duration, now: Duration) {
        self.yes.remove(&key);
        self.no.remove(&key);
        let (memory, remember) = match standing {
            Standing::Permitted => (&mut self.yes, REMEMBER_YES),
            Standing::Forbidden | Standing::Stranger => (&mut self.no, REMEMBER_NO),
        };
        if memory.len() >= REMEMBERED {
            memory.retain(|_, (_, until)| now < *until);
        }
        if memory.len() >= REMEMBERED
            && let Some(oldest) = memory.iter().min_by_key(|(_, (_, until))| *until).map(|(key, _)| *key)
        {
            memory.remove(&oldest);
        }
        memory.insert(key, (standing, now + remember.min(left)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn token(claims: &str) -> String {
        format!("a-_.{}.c9", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn only_what_says_that_it_is_for_us_and_alive_is_worth_a_request() {
        let is_worth = |token: &str| claims(token).is_some_and(|claims| claims.are_worth_a_request(1_000));
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
            assert_eq!(is_worth(&text), yes, "{text}");
        }
    }

    #[test]
    fn a_permission_is_remembered_for_a_minute_and_a_refusal_for_less() {
        let mut memory = Memory::default();
        let at = Duration::from_secs;
        memory.note([1; 32], Standing::Permitted, LONG, at(100));
        memory.note([2; 32], Standing::Forbidden, LONG, at(100));
        memory.note([3; 32], Standing::Stranger, LONG, at(100));
        assert_eq!(memory.recall(&[1; 32], at(159)), Some(Standing::Permitted));
        assert_eq!(memory.recall(&[1; 32], at(160)), None);
        assert_eq!(memory.recall(&[2; 32], at(109)), Some(Standing::Forbidden));
        assert_eq!(memory.recall(&[3; 32], at(110)), None);
        memory.note([4; 32], Standing::Permitted, at(7), at(100));
        assert_eq!(memory.recall(&[4; 32], at(106)), Some(Standing::Permitted));
        assert_eq!(memory.recall(&[4; 32], at(107)), None, "it is not remembered beyond its own life");
        memory.note([1; 32], Standing::Forbidden, LONG, at(101));
        assert_eq!(memory.recall(&[1; 32], at(102)), Some(Standing::Forbidden));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_junk_does_not_push_out_who_may() {
        let mut memory = Memory::default();
        memory.note([255; 32], Standing::Permitted, LONG, Duration::ZERO);
        for number in 0..3 * REMEMBERED {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_be_bytes());
            memory.note(key, Standing::Stranger, LONG, Duration::from_millis(number as u64));
        }
        assert_eq!(memory.no.len(), REMEMBERED);
        assert_eq!(memory.recall(&[255; 32], Duration::from_secs(5)), Some(Standing::Permitted));
    }
}
