//! Issues a new credential of a token and hands it out; the present one goes on for its grace, or not at all.
//!
//! If nothing comes of it, the order is taken back. What was issued and reached nobody is revoked.

use k8s_openapi::jiff::SignedDuration;
use serde_json::{Map, Value, json};
use tokio::time::{Duration, Instant};
use tracing::warn;

use super::{Writer, fields::Fields, handover::Handover, trouble::COME_BACK, unwanted::Unwanted};
use crate::{
    api::{CredentialState, Time, duration},
    index::PatUid,
    rest::{
        failure::{Conflict, Failure},
        item::Item,
        order::Created,
        receipt::Receipt,
    },
    token::TokenHash,
};

/// How long the controller may take: it waits a little before a rotated token goes out, until verifiers know it.
const MINTED: Duration = Duration::from_secs(20);

/// The smallest time that differs from another.
const A_MOMENT: SignedDuration = SignedDuration::from_micros(1);

const NOT_IN_TIME: Failure =
    Failure::Unavailable { problem: "no new token was issued in time: try again", retry_after: COME_BACK };

impl Writer {
    /// Issues it, and goes on to a good end if the caller goes away meanwhile.
    pub(in crate::rest) async fn regenerate(
        &self,
        item: &Item,
        grace: Option<SignedDuration>,
        now: Time,
    ) -> Result<Created, Failure> {
        let (this, item) = (self.clone(), item.clone());
        self.hand_out(async move { this.issue(&item, grace, now).await }).await
    }

    async fn issue(&self, item: &Item, grace: Option<SignedDuration>, now: Time) -> Result<Created, Failure> {
        let state = |words: &str| Err(Failure::Conflict(Conflict::State(words.into())));
        if item.revoked {
            return state("the token is revoked: no new one is issued for it");
        }
        if item.suspended {
            return state("the token is suspended: no new one is issued for it");
        }
        if item.is_expired(now) {
            return state("the token has expired: no new one is issued for it");
        }
        let before = self.after_arrivals(item).await?;
        let key = before.data["spec"]["secret"]["key"].as_str().unwrap_or("token").to_owned();
        let known = self.credentials(item.id);
        let line = line(now, item);
        let fields = order(line, grace);
        self.patch(item, &fields).await?;
        let deadline = Instant::now() + MINTED;
        let issued = self.until(deadline, || self.newly_active(item.id, &known)).await;
        let Some((hash, secret)) = issued else {
            warn!(name = item.name, "the controller has not issued a new token in time");
            self.cancel(item, &fields, &before.data["spec"]).await;
            return Err(NOT_IN_TIME);
        };
        let from = Handover { pat: item.id, name: &item.name, secret: &secret, key: &key, hash, once: item.once };
        let Ok(token) = self.take(&from, deadline + super::CALL).await else {
            // Its Secret may be gone all the same, and with it the only copy.
            if item.once {
                self.revoke_untaken(item.id, &hash).await;
            }
            return Err(NOT_IN_TIME);
        };
        let item = self.store.item(item.id).ok_or(NOT_IN_TIME)?;
        // Where the Secret stays, so does the token.
        let unwanted = Unwanted { name: item.name.clone(), id: item.id, credential: Some(token.id()) };
        let receipt = if item.once { self.receipt(unwanted, token.id()) } else { Receipt::none() };
        Ok(Created { item, token, receipt })
    }

    fn credentials(&self, uid: PatUid) -> Vec<TokenHash> {
        self.index.pat(uid).map(|pat| pat.credentials.iter().map(|one| one.hash).collect()).unwrap_or_default()
    }

    /// An active credential that was not there before, and the Secret that its token is in.
    fn newly_active(&self, uid: PatUid, known: &[TokenHash]) -> Option<(TokenHash, String)> {
        let secret = self.store.item(uid)?.secret.clone()?;
        let pat = self.index.pat(uid)?;
        let is_new = |hash: &TokenHash| !known.contains(hash);
        let active = pat.credentials.iter().find(|one| one.state == CredentialState::Active && is_new(&one.hash))?;
        Some((active.hash, secret))
    }

    /// Puts back what the order has set, so that nothing is issued later that nobody waits for.
    async fn cancel(&self, item: &Item, fields: &Fields, before: &Value) {
        let restored: Map<String, Value> =
            // A revocation stands, whatever becomes of what was to follow it.
            fields.0.keys().filter(|field| *field != "revokeIfIssuedBefore").map(|field| (field.clone(), before[field.as_str()].clone())).collect();
        let Some(present) = self.store.item(item.id) else { return };
        if let Err(failure) = self.patch(&present, &Fields(restored)).await {
            warn!(name = item.name, why = %failure, "the order of a new token cannot be taken back");
        }
    }

    async fn revoke_untaken(&self, uid: PatUid, hash: &TokenHash) {
        let id = self.index.pat(uid).and_then(|pat| Some(pat.credentials.iter().find(|one| one.hash == *hash)?.id));
        if let (Some(id), Some(item)) = (id, self.store.item(uid)) {
            self.take_back(Unwanted { name: item.name.clone(), id: uid, credential: Some(id) }).await;
        }
    }
}

/// Everything issued before this is to be replaced: now, or a moment after the newest, should clocks differ.
fn line(now: Time, item: &Item) -> Time {
    let newest = item.credentials.iter().map(|one| one.issued_at).max();
    newest.map_or(now, |newest| now.max(newest.plus(A_MOMENT)))
}

/// No grace at all is a revocation: the resource knows none of zero.
fn order(line: Time, grace: Option<SignedDuration>) -> Fields {
    let mut fields = Map::new();
    match grace {
        Some(grace) if grace.is_zero() => {
            fields.insert("revokeIfIssuedBefore".into(), json!(line));
        }
        Some(grace) => {
            fields.insert("rotateIfIssuedBefore".into(), json!(line));
            fields.insert("gracePeriod".into(), json!(duration::format(grace)));
        }
        None => {
            fields.insert("rotateIfIssuedBefore".into(), json!(line));
        }
    }
    Fields(fields)
}
