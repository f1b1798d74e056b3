//! Issues a new credential for a token and delivers it. The previous credential stays valid for a grace period, or is revoked.
//!
//! If the controller issues nothing in time, the request is undone. A credential that was issued but not delivered is revoked.

use k8s_openapi::jiff::SignedDuration;
use serde_json::{Map, Value, json};
use tokio::time::{Duration, Instant};
use tracing::warn;

use super::{
    CALL_TIMEOUT, RETRY_AFTER, Writer,
    change::{SpecPatch, expiry_patch},
    delivery::{TokenInSecret, UndeliveredToken},
};
use crate::{
    api::{CredentialState, Expiry, Time, duration},
    index::PatUid,
    rest::{
        caller::RestCaller,
        error::{Conflict, RestError},
        model::{IssuedToken, TokenItem},
        response::DeliveryReceipt,
    },
    token::TokenHash,
};

/// How long to wait for the controller, which writes a rotated token only after verifiers know its hash.
const MINT_TIMEOUT: Duration = Duration::from_secs(20);

/// The smallest difference between two times.
const TICK: SignedDuration = SignedDuration::from_micros(1);

const NOT_IN_TIME: RestError =
    RestError::Unavailable { problem: "no new token was issued in time: try again", retry_after: RETRY_AFTER };

impl Writer {
    /// Issues a new credential. It is revoked if the caller stops waiting. The token ends with the caller's PAT at the latest, and gets it
    /// as its parent if it has none.
    pub(in crate::rest) async fn regenerate(
        &self,
        item: &TokenItem,
        grace: Option<SignedDuration>,
        caller: &RestCaller,
        now: Time,
    ) -> Result<IssuedToken, RestError> {
        check_state(item, now)?;
        let mut patch = regenerate_patch(now, item, grace);
        let limited_to = limit(&mut patch, item, caller);
        let (this, item) = (self.clone(), item.clone());
        let issued = self.deliver(async move { this.issue(&item, &patch).await }).await?;
        Ok(IssuedToken { limited_to, ..issued })
    }

    async fn issue(&self, item: &TokenItem, patch: &SpecPatch) -> Result<IssuedToken, RestError> {
        let before = self.after_deliveries(item).await?;
        let key = before.data["spec"]["secret"]["key"].as_str().unwrap_or("token").to_owned();
        let known = self.credentials(item.id);
        self.patch(item, patch).await?;
        let deadline = Instant::now() + MINT_TIMEOUT;
        let issued = self.wait_until(deadline, || self.newly_active(item.id, &known)).await;
        let Some((hash, secret)) = issued else {
            warn!(name = item.name, "the controller did not issue a new token in time");
            self.undo(item, patch, &before.data["spec"]).await;
            return Err(NOT_IN_TIME);
        };
        let from = TokenInSecret { pat: item.id, name: &item.name, secret: &secret, key: &key, hash, once: item.once };
        let Ok(token) = self.take(&from, deadline + CALL_TIMEOUT).await else {
            // The Secret, and with it the only copy, may have been deleted.
            if item.once {
                self.revoke_untaken(item.id, &hash).await;
            }
            return Err(NOT_IN_TIME);
        };
        let item = self.store.item(item.id).ok_or(NOT_IN_TIME)?;
        let undelivered = UndeliveredToken { name: item.name.clone(), id: item.id, credential: Some(token.id()) };
        // A token that stays in its Secret cannot be lost.
        let receipt = if item.once { self.receipt(undelivered, token.id()) } else { DeliveryReceipt::none() };
        Ok(IssuedToken { item, token, receipt, limited_to: None })
    }

    fn credentials(&self, uid: PatUid) -> Vec<TokenHash> {
        self.index.pat(uid).map(|pat| pat.credentials.iter().map(|one| one.hash).collect()).unwrap_or_default()
    }

    /// Returns an active credential that is not among the known ones, and its Secret.
    fn newly_active(&self, uid: PatUid, known: &[TokenHash]) -> Option<(TokenHash, String)> {
        let secret = self.store.item(uid)?.secret.clone()?;
        let pat = self.index.pat(uid)?;
        let is_new = |hash: &TokenHash| !known.contains(hash);
        let active = pat.credentials.iter().find(|one| one.state == CredentialState::Active && is_new(&one.hash))?;
        Some((active.hash, secret))
    }

    /// Restores the fields of the patch, so that nothing is issued later without a recipient. A revocation is not
    /// undone, and a parent is immutable.
    async fn undo(&self, item: &TokenItem, patch: &SpecPatch, before: &Value) {
        const KEPT: [&str; 3] = ["revokeIfIssuedBefore", "revokedCredentials", "parent"];
        let fields = patch.0.keys().filter(|field| !KEPT.contains(&field.as_str()));
        let restored = fields.map(|field| (field.clone(), restored(field, before))).collect();
        let Some(present) = self.store.item(item.id) else { return };
        if let Err(error) = self.patch(&present, &SpecPatch(restored)).await {
            warn!(name = item.name, %error, "cannot undo the request for a new token");
        }
    }

    async fn revoke_untaken(&self, uid: PatUid, hash: &TokenHash) {
        let id = self.index.pat(uid).and_then(|pat| Some(pat.credentials.iter().find(|one| one.hash == *hash)?.id));
        if let (Some(id), Some(item)) = (id, self.store.item(uid)) {
            self.take_back(UndeliveredToken { name: item.name.clone(), id: uid, credential: Some(id) }).await;
        }
    }
}

fn check_state(item: &TokenItem, now: Time) -> Result<(), RestError> {
    let state = if item.revoked {
        "the token is revoked"
    } else if item.suspended {
        "the token is suspended"
    } else if item.is_expired(now) {
        "the token has expired"
    } else {
        return Ok(());
    };
    Err(RestError::Conflict(Conflict::State(format!("{state}: it cannot be regenerated"))))
}

/// Returns the time before which credentials are replaced: now, or just after the newest one, if clocks differ.
fn cutoff(now: Time, item: &TokenItem) -> Time {
    let newest = item.credentials.iter().map(|one| one.issued_at).max();
    newest.map_or(now, |newest| now.max(newest.plus(TICK)))
}

/// Limits the token to the end of the caller's PAT, and records this PAT as its parent. Returns this end if the token ends later.
fn limit(patch: &mut SpecPatch, item: &TokenItem, caller: &RestCaller) -> Option<Time> {
    if item.id == caller.id {
        return None;
    }
    if item.parent.is_none() {
        patch.0.insert("parent".into(), json!(caller.as_parent()));
    }
    let limited_to = caller.end_before(item.expires_at());
    if limited_to.is_some() {
        patch.0.insert("expiry".into(), expiry_patch(&Expiry { at: limited_to, ..Expiry::default() }));
    }
    limited_to
}

/// Returns the value of a merge patch that restores a field.
fn restored(field: &str, before: &Value) -> Value {
    match &before[field] {
        Value::Object(expiry) if field == "expiry" => {
            // A merge patch keeps the fields that it does not name, and only one of these may be set.
            ["at", "after", "never"].into_iter().map(|one| (one.to_owned(), json!(expiry.get(one)))).collect()
        }
        value => value.clone(),
    }
}

/// A grace period of zero is a revocation: the resource does not allow zero. It names credentials that were issued by a clock that is ahead
/// of this one: a time in the future would spare them until then, and would end their successors.
fn regenerate_patch(now: Time, item: &TokenItem, grace: Option<SignedDuration>) -> SpecPatch {
    let cutoff = cutoff(now, item);
    let mut fields = Map::new();
    match grace {
        Some(grace) if grace.is_zero() => {
            fields.insert("revokeIfIssuedBefore".into(), json!(now));
            let future = item.credentials.iter().filter(|one| one.issued_at >= now).map(|one| one.id.as_str());
            let future: Vec<_> = future.collect();
            if !future.is_empty() {
                fields.insert("revokedCredentials".into(), json!(item.with_revoked(&future)));
            }
        }
        Some(grace) => {
            fields.insert("rotateIfIssuedBefore".into(), json!(cutoff));
            fields.insert("gracePeriod".into(), json!(duration::format(grace)));
        }
        None => {
            fields.insert("rotateIfIssuedBefore".into(), json!(cutoff));
        }
    }
    SpecPatch(fields)
}
