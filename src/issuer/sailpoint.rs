//! SailPoint Identity Security Cloud: `/v2025/personal-access-tokens`
//! (<https://developer.sailpoint.com/docs/api/v2025/personal-access-tokens>).
//!
//! A personal access token is a client id and a secret, which its user exchanges for access tokens. Both change with each token.

use async_trait::async_trait;
use hyper::{Method, header::HeaderValue};
use serde::Deserialize;
use serde_json::json;
use tokio::{
    sync::Mutex,
    time::{Duration, Instant},
};

use super::{
    CallError, ConfigError, CreatedToken, Driver, Endpoint, IssuerCredential, IssuerSystem, IssuerTarget, NewToken,
    PlainToken, RemoteToken, ServerInfo,
    client::{Answer, Call, IssuerClient, bearer, path, with_query},
    wire,
};
use crate::api::Time;

/// The path of the tokens.
const TOKENS: [&str; 2] = ["v2025", "personal-access-tokens"];

/// The path of the token endpoint (<https://developer.sailpoint.com/docs/api/authentication>).
const LOGIN: &str = "/oauth/token";

/// An access token is replaced so long before it ends.
const MARGIN: Duration = Duration::from_secs(60);

/// The driver.
pub(super) struct SailPoint {
    client: IssuerClient,
    id: String,
    secret: PlainToken,
    session: Mutex<Option<Session>>,
}

/// An access token.
#[derive(Clone)]
struct Session {
    authorization: HeaderValue,
    token: PlainToken,
    until: Instant,
}

/// The answer to a login.
#[derive(Deserialize)]
struct Login {
    access_token: PlainToken,
    expires_in: u64,
}

/// The answer to a create.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Created {
    id: String,
    secret: PlainToken,
    #[serde(default, deserialize_with = "wire::time")]
    expiration_date: Option<Time>,
}

/// A token in a list.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    id: String,
    name: String,
    #[serde(default, deserialize_with = "wire::time")]
    expiration_date: Option<Time>,
    #[serde(default, deserialize_with = "wire::time")]
    last_used: Option<Time>,
    #[serde(default)]
    owner: Option<Owner>,
}

#[derive(Deserialize)]
struct Owner {
    id: String,
}

impl SailPoint {
    pub(super) fn new(endpoint: &Endpoint) -> Result<Self, ConfigError> {
        let IssuerCredential::Client { id, secret } = &endpoint.credential else {
            return Err(ConfigError::credential(
                IssuerSystem::SailPoint,
                "a client id and its secret",
                &endpoint.credential,
            ));
        };
        let client = IssuerClient::new(endpoint, vec![secret.clone()])?;
        Ok(Self { client, id: id.clone(), secret: secret.clone(), session: Mutex::default() })
    }

    /// Reads the tokens of the account of the credential.
    async fn own_tokens(&self) -> Result<Vec<Item>, CallError> {
        let call = || Ok(Call::get(with_query(&path(&TOKENS)?, &[("owner-id", "me")])));
        self.send(call).await?.json()
    }

    /// Makes a call with an access token. One that the server no longer accepts is replaced once: 401 means that nothing was done.
    async fn send(&self, call: impl Fn() -> Result<Call, CallError> + Sync) -> Result<Answer, CallError> {
        let session = self.session(None).await?;
        match self.send_with(call()?, &session).await {
            Err(CallError::Unauthorized { .. }) => {
                let session = self.session(Some(&session)).await?;
                self.send_with(call()?, &session).await
            }
            other => other,
        }
    }

    async fn send_with(&self, call: Call, session: &Session) -> Result<Answer, CallError> {
        self.client.send(call.authorized(&session.authorization).hiding(&session.token)).await
    }

    /// Returns an access token other than the refused one. Only one login is under way at a time.
    async fn session(&self, refused: Option<&Session>) -> Result<Session, CallError> {
        let mut current = self.session.lock().await;
        let is_usable = |session: &&Session| {
            Instant::now() < session.until
                && refused.is_none_or(|refused| refused.authorization != session.authorization)
        };
        if let Some(session) = current.as_ref().filter(is_usable) {
            return Ok(session.clone());
        }
        let session = self.log_in().await.map_err(before_the_call)?;
        *current = Some(session.clone());
        Ok(session)
    }

    async fn log_in(&self) -> Result<Session, CallError> {
        let fields =
            [("grant_type", "client_credentials"), ("client_id", &*self.id), ("client_secret", self.secret.expose())];
        let answer = self.client.send(Call::new(Method::POST, LOGIN).form(&fields)).await?;
        let Login { access_token, expires_in } = answer.json()?;
        let authorization = bearer(&access_token)
            .map_err(|_| CallError::Malformed { problem: "the access token is not printable".to_owned() })?;
        let lifetime = Duration::from_secs(expires_in.min(24 * 60 * 60));
        Ok(Session { authorization, token: access_token, until: Instant::now() + lifetime.saturating_sub(MARGIN) })
    }
}

/// The error of a login: the call that needed it was not sent.
fn before_the_call(error: CallError) -> CallError {
    match error {
        // `invalid_client` may come with 400 (RFC 6749, 5.2).
        CallError::Refused { status: 400, message } => CallError::Unauthorized { message },
        error if error.is_outcome_unknown() => CallError::Unreachable { reason: format!("the log-in failed: {error}") },
        error => error,
    }
}

#[async_trait]
impl Driver for SailPoint {
    async fn check(&self) -> Result<ServerInfo, CallError> {
        // The credential itself is one of the tokens.
        let owner = self.own_tokens().await?.into_iter().find_map(|item| item.owner);
        Ok(ServerInfo { account: owner.map(|owner| owner.id), ..ServerInfo::default() })
    }

    async fn create(&self, target: &IssuerTarget, request: &NewToken) -> Result<CreatedToken, CallError> {
        target.require_account()?;
        // SailPoint gives a token without scopes all rights of its owner.
        if request.scopes.is_empty() {
            return Err(CallError::Unsupported("SailPoint needs scopes; sp:scopes:all stands for all"));
        }
        let body = json!({"name": request.name, "scope": request.scopes, "expirationDate": request.expires_at});
        let call = || Ok(Call::new(Method::POST, path(&TOKENS)?).json(&body));
        let Created { id, secret, expiration_date } = self.send(call).await?.json()?;
        Ok(CreatedToken { client_id: Some(id.clone()), id, token: secret, expires_at: expiration_date })
    }

    async fn delete(&self, target: &IssuerTarget, id: &str) -> Result<(), CallError> {
        target.require_account()?;
        let [version, tokens] = TOKENS;
        let call = || Ok(Call::new(Method::DELETE, path(&[version, tokens, id])?));
        match self.send(call).await {
            Ok(_) | Err(CallError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The list has no pages.
    async fn list(&self, target: &IssuerTarget) -> Result<Vec<RemoteToken>, CallError> {
        target.require_account()?;
        let (now, items) = (wire::now(), self.own_tokens().await?);
        let tokens = items.into_iter().map(|item| RemoteToken {
            live: item.expiration_date.is_none_or(|end| now < end),
            id: item.id,
            name: item.name,
            expires_at: item.expiration_date,
            last_used_at: item.last_used,
        });
        Ok(tokens.collect())
    }
}
