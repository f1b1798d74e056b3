//! Takes a token out of its Secret: whoever deletes the Secret holds the token, and nobody else does; and hands it to whoever waits.
//!
//! It must not hand out anything that is not the token of the very credential that was waited for.

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::api::{DeleteParams, Preconditions};
use tokio::{
    sync::oneshot,
    time::{Duration, Instant, sleep},
};
use tracing::{Instrument, warn};
use zeroize::Zeroize;

use super::{Writer, acknowledge::OnItsWay, call, trouble::Trouble};
use crate::{
    index::PatUid,
    rest::{failure::Failure, order::Created},
    token::{Token, TokenHash, TokenId},
};

/// How long to wait before the API server is asked again.
const AGAIN: Duration = Duration::from_millis(100);

/// Which token, and where it is.
pub(super) struct Handover<'a> {
    /// The PAT that the Secret must belong to.
    pub(super) pat: PatUid,
    /// The PAT's name.
    pub(super) name: &'a str,
    /// The Secret's name.
    pub(super) secret: &'a str,
    /// The key in it.
    pub(super) key: &'a str,
    /// The token's hash.
    pub(super) hash: TokenHash,
    /// Whether the Secret goes with it.
    pub(super) once: bool,
}

impl Handover<'_> {
    /// What is said of its token on the object.
    fn on_its_way(&self, credential: TokenId) -> OnItsWay {
        OnItsWay { name: self.name.to_owned(), pat: self.pat, credential }
    }
}

/// Why a token could not be taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotTaken {
    /// The Secret is not there, and it was not this server that took it.
    #[error("the Secret is gone")]
    Gone,
    /// It is there and is not what it should be.
    #[error("the Secret does not hold the token: {0}")]
    Other(&'static str),
    /// The API server did not do its part in time.
    #[error("{0}")]
    Trouble(#[from] Trouble),
}

impl Writer {
    /// Makes something to hand out, to a good end even if the caller goes away meanwhile: then its receipt takes it back.
    pub(super) async fn hand_out(
        &self,
        making: impl Future<Output = Result<Created, Failure>> + Send + 'static,
    ) -> Result<Created, Failure> {
        let (tell, hear) = oneshot::channel();
        let making = async move {
            let _dropped_if_nobody_hears = tell.send(making.await);
        };
        self.tasks.spawn(making.in_current_span());
        hear.await.unwrap_or(Err(Failure::Internal))
    }

    /// Takes it.
    pub(super) async fn take(&self, from: &Handover<'_>, deadline: Instant) -> Result<Token, NotTaken> {
        // What a deletion of ours without an answer may have taken.
        let mut in_hand = None;
        let mut announced = false;
        loop {
            let last = match self.try_to_take(from, &mut announced, &mut in_hand).await {
                Ok(token) => return Ok(token),
                Err(last @ NotTaken::Trouble(_)) => last,
                Err(NotTaken::Other(why)) => NotTaken::Other(why),
                Err(gone @ NotTaken::Gone) => return Err(gone),
            };
            if Instant::now() + AGAIN >= deadline {
                warn!(why = %last, secret = from.secret, "a token cannot be taken out of its Secret");
                return Err(last);
            }
            sleep(AGAIN).await;
        }
    }

    async fn try_to_take(
        &self,
        from: &Handover<'_>,
        announced: &mut bool,
        in_hand: &mut Option<Token>,
    ) -> Result<Token, NotTaken> {
        let secret = match call(self.secrets().get(from.secret)).await {
            Ok(secret) => secret,
            Err(trouble) if trouble.code() == Some(404) => return in_hand.take().ok_or(NotTaken::Gone),
            Err(trouble) => return Err(trouble.into()),
        };
        let preconditions = Preconditions {
            uid: secret.metadata.uid.clone(),
            resource_version: secret.metadata.resource_version.clone(),
        };
        // It is there: no deletion of ours has taken it.
        *in_hand = None;
        let token = read(secret, from).map_err(NotTaken::Other)?;
        if !from.once {
            return Ok(token);
        }
        if !*announced {
            self.announce(&from.on_its_way(token.id())).await?;
            *announced = true;
        }
        let params = DeleteParams::default().preconditions(preconditions);
        match call(self.secrets().delete(from.secret, &params)).await {
            Ok(_) => Ok(token),
            Err(trouble) if trouble.code() == Some(404) => Err(NotTaken::Gone),
            Err(trouble) => {
                if trouble.is_ambiguous() {
                    *in_hand = Some(token);
                }
                Err(trouble.into())
            }
        }
    }
}

/// The token that a Secret holds; all of its values are wiped.
fn read(mut secret: Secret, from: &Handover<'_>) -> Result<Token, &'static str> {
    let mut data = secret.data.take().unwrap_or_default();
    let owner = from.pat.hyphenated();
    let is_ours = secret.metadata.owner_references.iter().flatten().any(|reference| reference.uid == owner);
    let found = match data.get(from.key) {
        _ if !is_ours => Err("it belongs to something else"),
        None => Err("the key is missing"),
        Some(ByteString(bytes)) => Token::parse(bytes).map_err(|_| "it is no token"),
    };
    data.values_mut().for_each(|value| value.0.zeroize());
    found.and_then(|token| if token.hash() == from.hash { Ok(token) } else { Err("it is another token") })
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
    fn only_the_token_of_the_credential_that_was_waited_for_is_handed_out() {
        let (right, wrong) = (token(), token());
        let from = Handover { pat: 7.into(), name: "app", secret: "app", key: "token", hash: right.hash(), once: true };
        assert_eq!(read(secret(7, "token", right.expose()), &from).unwrap().expose(), right.expose());
        for (secret, words) in [
            (secret(8, "token", right.expose()), "it belongs to something else"),
            (secret(7, "other", right.expose()), "the key is missing"),
            (secret(7, "token", wrong.expose()), "it is another token"),
            (secret(7, "token", &right.expose()[1..]), "it is no token"),
            (Secret::default(), "it belongs to something else"),
        ] {
            assert_eq!(read(secret, &from).unwrap_err(), words);
        }
    }
}
