//! The one-time delivery of a token: it is taken out of its Secret, marked as in flight, and acknowledged when the response is sent.
//!
//! Only the server that deletes the Secret holds the token. An undelivered token is taken back, with retries until this
//! succeeds or the server stops. If the server dies with a token in flight, the controller revokes the token after 10
//! minutes.

use std::{pin::pin, time::Duration};

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    ResourceExt,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions},
};
use serde_json::json;
use tokio::{
    runtime::Handle,
    sync::oneshot,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span, error, info, warn};
use zeroize::Zeroize;

use super::{ApiServerError, FIELD_MANAGER, Writer, call};
use crate::{
    api::UNACKNOWLEDGED,
    index::PatUid,
    rest::{
        error::RestError,
        metrics::PendingTakeBack,
        model::{ChangeToken, IssuedToken, TokenItem},
        response::DeliveryReceipt,
    },
    token::{Token, TokenHash, TokenId},
};

/// The pause between attempts to take a token out of its Secret.
const TAKE_INTERVAL: Duration = Duration::from_millis(100);

/// How long a regeneration waits for earlier tokens to be acknowledged.
const ACKNOWLEDGE_WAIT: Duration = Duration::from_secs(2);
/// How often it checks.
const ACKNOWLEDGE_INTERVAL: Duration = Duration::from_millis(20);

/// The pause before the second attempt to take a token back; it doubles.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// The longest pause.
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// A token in its Secret, which is to be taken.
pub(super) struct TokenInSecret<'a> {
    /// The PAT that must own the Secret.
    pub(super) pat: PatUid,
    /// The PAT's name.
    pub(super) name: &'a str,
    /// The Secret's name.
    pub(super) secret: &'a str,
    /// The key of the token in the Secret.
    pub(super) key: &'a str,
    pub(super) hash: TokenHash,
    /// Whether the Secret is deleted with the delivery.
    pub(super) once: bool,
}

/// A token that was taken out of its Secret and has not been delivered yet.
#[derive(Clone, Debug)]
struct InFlightToken {
    /// The PAT's name.
    name: String,
    pat: PatUid,
    credential: TokenId,
}

/// A live token that was not delivered.
#[derive(Clone, Debug)]
pub(super) struct UndeliveredToken {
    /// The PAT's name.
    pub(super) name: String,
    pub(super) id: PatUid,
    /// The credential to revoke; `None` to delete the whole PAT.
    pub(super) credential: Option<TokenId>,
}

/// Why a token could not be taken out of its Secret.
#[derive(Debug, thiserror::Error)]
pub(super) enum DeliveryError {
    /// The Secret does not exist, and this server did not delete it.
    #[error("the Secret does not exist")]
    SecretGone,
    /// The Secret does not hold the token.
    #[error("the Secret does not hold the token: {0}")]
    UnexpectedSecret(&'static str),
    /// A request to the API server failed.
    #[error("{0}")]
    ApiServer(#[from] ApiServerError),
}

/// Exponential backoff between attempts.
#[derive(Debug)]
pub(super) struct DeliveryBackoff(Duration);

impl Default for DeliveryBackoff {
    fn default() -> Self {
        Self(FIRST_BACKOFF)
    }
}

impl DeliveryBackoff {
    /// Returns the next pause, which doubles each time. While the server stops, pauses are short.
    pub(super) fn next(&mut self, stopping: &CancellationToken) -> Duration {
        let pause = if stopping.is_cancelled() { FIRST_BACKOFF } else { self.0 };
        self.0 = MAX_BACKOFF.min(2 * pause);
        pause
    }
}

impl Writer {
    /// Issues a token, even if the caller stops waiting: then the dropped receipt takes the token back.
    pub(super) async fn deliver(
        &self,
        issuing: impl Future<Output = Result<IssuedToken, RestError>> + Send + 'static,
    ) -> Result<IssuedToken, RestError> {
        let (sender, receiver) = oneshot::channel();
        let issuing = async move {
            let _dropped_without_a_receiver = sender.send(issuing.await);
        };
        self.tasks.spawn(issuing.in_current_span());
        receiver.await.unwrap_or(Err(RestError::Internal))
    }

    pub(super) async fn take(&self, from: &TokenInSecret<'_>, deadline: Instant) -> Result<Token, DeliveryError> {
        // The token, if the response to the deletion of its Secret was lost: the deletion may have taken effect.
        let mut in_hand = None;
        let mut marked = false;
        loop {
            let last = match self.try_to_take(from, &mut marked, &mut in_hand).await {
                Err(error @ (DeliveryError::ApiServer(_) | DeliveryError::UnexpectedSecret(_))) => error,
                done => return done,
            };
            if Instant::now() + TAKE_INTERVAL >= deadline {
                warn!(error = %last, secret = from.secret, "cannot take a token out of its Secret");
                return Err(last);
            }
            sleep(TAKE_INTERVAL).await;
        }
    }

    async fn try_to_take(
        &self,
        from: &TokenInSecret<'_>,
        marked: &mut bool,
        in_hand: &mut Option<Token>,
    ) -> Result<Token, DeliveryError> {
        let secret = match call(self.secrets().get(from.secret)).await {
            Ok(secret) => secret,
            Err(error) if error.code() == Some(404) => return in_hand.take().ok_or(DeliveryError::SecretGone),
            Err(error) => return Err(error.into()),
        };
        let preconditions = Preconditions {
            uid: secret.metadata.uid.clone(),
            resource_version: secret.metadata.resource_version.clone(),
        };
        // The Secret exists, so no earlier deletion took effect.
        *in_hand = None;
        let token = read(secret, from).map_err(DeliveryError::UnexpectedSecret)?;
        if !from.once {
            return Ok(token);
        }
        if !*marked {
            let in_flight = InFlightToken { name: from.name.to_owned(), pat: from.pat, credential: token.id() };
            self.mark_in_flight(&in_flight).await?;
            *marked = true;
        }
        let params = DeleteParams::default().preconditions(preconditions);
        match call(self.secrets().delete(from.secret, &params)).await {
            Ok(_) => Ok(token),
            Err(error) if error.code() == Some(404) => Err(DeliveryError::SecretGone),
            Err(error) => {
                if error.is_ambiguous() {
                    *in_hand = Some(token);
                }
                Err(error.into())
            }
        }
    }

    /// Annotates the PAT before its Secret is deleted. Otherwise a live token would be lost if this server died.
    async fn mark_in_flight(&self, token: &InFlightToken) -> Result<(), ApiServerError> {
        let patch = json!({"metadata": {
            "uid": token.pat.hyphenated(),
            "annotations": {UNACKNOWLEDGED: token.credential.as_str()},
        }});
        call(self.pats().patch(&token.name, &params(), &Patch::Merge(patch))).await.map(drop)
    }

    /// Removes the annotation after the delivery. Retries until this succeeds or the server stops.
    async fn acknowledge(&self, token: &InFlightToken) {
        let trying = async {
            let mut backoff = DeliveryBackoff::default();
            while !self.try_to_acknowledge(token).await {
                self.pause(backoff.next(&self.stopping)).await;
            }
        };
        if self.given_up.run_until_cancelled(Box::pin(trying)).await.is_none() {
            let (name, credential) = (&token.name, token.credential.as_str());
            warn!(
                name,
                credential,
                "the delivery of a token was not acknowledged before shutdown: the token is revoked 10 minutes after its issue"
            );
        }
    }

    /// Returns whether nothing is left to do.
    async fn try_to_acknowledge(&self, token: &InFlightToken) -> bool {
        // The annotation of a newer token stays.
        let path = format!("/metadata/annotations/{}", UNACKNOWLEDGED.replace('/', "~1"));
        let patch = json!([
            {"op": "test", "path": "/metadata/uid", "value": token.pat.hyphenated()},
            {"op": "test", "path": path, "value": token.credential.as_str()},
            {"op": "remove", "path": path},
        ]);
        let patch = serde_json::from_value(patch).expect("it is a JSON patch");
        let Err(error) = call(self.pats().patch(&token.name, &params(), &Patch::<()>::Json(patch))).await else {
            return true;
        };
        // A failed test and a refusal by admission have the same status code.
        match call(self.pats().get(&token.name)).await {
            Ok(object) => {
                let in_flight = object.annotations().get(UNACKNOWLEDGED).map(String::as_str);
                let is_marked =
                    object.metadata.uid == Some(token.pat.hyphenated()) && in_flight == Some(token.credential.as_str());
                if is_marked {
                    warn!(name = token.name, %error, "cannot acknowledge the delivery of a token yet");
                }
                !is_marked
            }
            Err(error) => error.code() == Some(404),
        }
    }

    /// Waits until the tokens in flight are acknowledged, at most for [`ACKNOWLEDGE_WAIT`], and reads the object. A client may request
    /// another token as soon as it has received one, and a token that is not acknowledged gets no grace period.
    pub(super) async fn after_deliveries(&self, item: &TokenItem) -> Result<DynamicObject, RestError> {
        let deadline = Instant::now() + ACKNOWLEDGE_WAIT;
        loop {
            let object = self.present(item).await?;
            let in_flight = object.annotations().get(UNACKNOWLEDGED);
            let waits = in_flight.is_some_and(|id| item.credentials.iter().any(|live| live.id.as_str() == id));
            if !waits || Instant::now() >= deadline {
                return Ok(object);
            }
            sleep(ACKNOWLEDGE_INTERVAL).await;
        }
    }

    /// Creates a receipt that acknowledges the delivery of this credential, or takes the token back.
    pub(super) fn receipt(&self, undelivered: UndeliveredToken, credential: TokenId) -> DeliveryReceipt {
        let (this, span, runtime) = (self.clone(), Span::current(), Handle::current());
        DeliveryReceipt::new(move |delivered| {
            let tasks = this.tasks.clone();
            let settling = async move {
                if delivered {
                    let UndeliveredToken { name, id: pat, .. } = undelivered;
                    return this.acknowledge(&InFlightToken { name, pat, credential }).await;
                }
                info!(name = undelivered.name, "a token was not delivered and is taken back");
                this.take_back(undelivered).await;
            };
            tasks.spawn_on(settling.instrument(span), &runtime);
        })
    }

    /// Takes a token back. Returns after the first attempt; further ones run in the background.
    pub(super) async fn take_back(&self, undelivered: UndeliveredToken) {
        let pending = self.counters.pending();
        if self.try_to_take_back(&undelivered).await {
            return pending.succeeded();
        }
        let this = self.clone();
        self.tasks.spawn(async move { this.keep_trying(undelivered, pending).await }.in_current_span());
    }

    async fn keep_trying(&self, undelivered: UndeliveredToken, pending: PendingTakeBack) {
        let trying = async {
            let mut backoff = DeliveryBackoff::default();
            loop {
                self.pause(backoff.next(&self.stopping)).await;
                if self.try_to_take_back(&undelivered).await {
                    break;
                }
            }
        };
        if self.given_up.run_until_cancelled(pin!(trying)).await.is_some() {
            return pending.succeeded();
        }
        let (name, credential) = (undelivered.name, undelivered.credential.map(|id| id.to_string()));
        error!(name, credential, "an undelivered token is still live at shutdown: revoke or delete it");
        pending.given_up();
    }

    /// Sleeps, but only briefly once the server begins to stop.
    pub(super) async fn pause(&self, pause: Duration) {
        if self.stopping.is_cancelled() {
            return sleep(pause.min(FIRST_BACKOFF)).await;
        }
        let _cut_short = self.stopping.run_until_cancelled(sleep(pause)).await;
    }

    /// Returns whether nothing is left to do.
    async fn try_to_take_back(&self, undelivered: &UndeliveredToken) -> bool {
        let error = match undelivered.credential {
            // No version is required, because no client holds its token.
            None => match self.delete_pat(&undelivered.name, undelivered.id, None).await {
                Ok(()) => return true,
                // The PAT is gone, or another object has its name.
                Err(error) if matches!(error.code(), Some(404 | 409)) => return true,
                Err(error) => error.to_string(),
            },
            Some(credential) => {
                // A deleted PAT has no live credentials.
                let Some(item) = self.store.item(undelivered.id) else { return true };
                let change = ChangeToken { revoke_credential: Some(credential), ..ChangeToken::default() };
                match self.change(&item, &change).await {
                    Ok(_) | Err(RestError::NotFound) => return true,
                    Err(error) => error.to_string(),
                }
            }
        };
        warn!(name = undelivered.name, error, "cannot take an undelivered token back yet");
        false
    }
}

fn params() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() }
}

/// Returns the token in a Secret; all values of the Secret are zeroed.
fn read(mut secret: Secret, from: &TokenInSecret<'_>) -> Result<Token, &'static str> {
    let mut data = secret.data.take().unwrap_or_default();
    let owner = from.pat.hyphenated();
    let is_ours = secret.metadata.owner_references.iter().flatten().any(|reference| reference.uid == owner);
    let found = match data.get(from.key) {
        _ if !is_ours => Err("it has another owner"),
        None => Err("the key is missing"),
        Some(ByteString(bytes)) => Token::parse(bytes).map_err(|_| "the value is not a token"),
    };
    data.values_mut().for_each(|value| value.0.zeroize());
    found.and_then(|token| if token.hash() == from.hash { Ok(token) } else { Err("it holds another token") })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

    use super::*;

    fn token() -> Token {
        Token::mint(&"kpat".parse().unwrap()).unwrap()
    }

    fn secret(owner: u128, key: &str, value: &str) -> Secret {
        let mut secret = Secret {
            data: Some(BTreeMap::from([(key.to_owned(), ByteString(value.as_bytes().to_vec()))])),
            ..Secret::default()
        };
        let uid = PatUid::from(owner).hyphenated();
        secret.metadata.owner_references = Some(vec![OwnerReference { uid, ..OwnerReference::default() }]);
        secret
    }

    #[test]
    fn only_the_token_of_the_expected_credential_is_delivered() {
        let (right, wrong) = (token(), token());
        let (hash, name) = (right.hash(), "app");
        let from = TokenInSecret { pat: 7.into(), name, secret: name, key: "token", hash, once: true };
        assert_eq!(read(secret(7, "token", right.expose()), &from).unwrap().expose(), right.expose());
        for (secret, problem) in [
            (secret(8, "token", right.expose()), "it has another owner"),
            (secret(7, "other", right.expose()), "the key is missing"),
            (secret(7, "token", wrong.expose()), "it holds another token"),
            (secret(7, "token", &right.expose()[1..]), "the value is not a token"),
            (Secret::default(), "it has another owner"),
        ] {
            assert_eq!(read(secret, &from).unwrap_err(), problem);
        }
    }
}
