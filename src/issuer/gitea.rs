//! Gitea and Forgejo: `/api/v1/users/{user}/tokens` (<https://docs.gitea.com/api/1.26/>).
//!
//! The API accepts Basic authentication only (`reqBasicOrRevProxyAuth` in `routers/api/v1/api.go`): with a password, or with a token of the
//! scope `write:user` in its place. Such a token can create one with all rights of its user. A user may manage its own tokens, and a site
//! administrator those of all users. Tokens never expire.

use async_trait::async_trait;
use hyper::{Method, header::HeaderValue};
use serde::Deserialize;
use serde_json::json;

use super::{
    CallError, ConfigError, CreatedToken, Driver, Endpoint, IssuerCredential, IssuerSystem, IssuerTarget, NewToken,
    PlainToken, RemoteToken, ServerInfo,
    client::{Answer, Call, IssuerClient, basic, path, with_query},
    wire::{self, Collected, PageCount},
};
use crate::api::Time;

/// The number of tokens on a page: the default maximum (`MAX_RESPONSE_ITEMS`). A server may send fewer.
const PAGE: usize = 50;

/// The driver.
pub(super) struct Gitea {
    client: IssuerClient,
    authorization: HeaderValue,
    /// The user whose tokens these are.
    account: String,
}

#[derive(Deserialize)]
struct Version {
    version: String,
}

/// The answer to a create. The token is in `sha1`, for historical reasons.
#[derive(Deserialize)]
struct Created {
    id: i64,
    sha1: PlainToken,
}

/// A token in a list. `last_used_at` is the time of creation for a token that was never used.
#[derive(Deserialize)]
struct Item {
    id: i64,
    name: String,
    #[serde(default, deserialize_with = "wire::time")]
    created_at: Option<Time>,
    #[serde(default, deserialize_with = "wire::time")]
    last_used_at: Option<Time>,
}

impl Gitea {
    pub(super) fn new(endpoint: &Endpoint) -> Result<Self, ConfigError> {
        let IssuerCredential::Basic { user, password } = &endpoint.credential else {
            return Err(ConfigError::credential(IssuerSystem::Gitea, "a user and a password", &endpoint.credential));
        };
        let (authorization, encoded) = basic(user, password)?;
        let client = IssuerClient::new(endpoint, vec![password.clone(), encoded])?;
        Ok(Self { client, authorization, account: endpoint.account.as_ref().unwrap_or(user).clone() })
    }

    fn tokens(&self) -> [&str; 5] {
        ["api", "v1", "users", &self.account, "tokens"]
    }

    async fn page(&self, number: usize, limit: usize, waits: bool) -> Result<Answer, CallError> {
        let (number, limit) = (number.to_string(), limit.to_string());
        let query = [("page", &*number), ("limit", &*limit)];
        let call = Call::get(with_query(&path(&self.tokens())?, &query)).authorized(&self.authorization);
        self.client.send(if waits { call.waiting() } else { call }).await
    }

    /// Reads all pages. They are in the order of creation by whole seconds, so that tokens may be on two pages or on none.
    async fn pages(&self, waits: bool) -> Result<Vec<RemoteToken>, CallError> {
        let (mut found, mut count) = (Collected::default(), PageCount::default());
        for number in 1.. {
            let page = self.page(number, PAGE, waits || number > 1).await?;
            count.add(&page)?;
            let total = page.header("x-total-count").and_then(|total| total.parse().ok());
            let has_new = found.add(page.json::<Vec<Item>>()?.into_iter().map(Item::shown), total)?;
            if !has_new || found.is_complete() {
                break;
            }
        }
        found.finish()
    }
}

impl Item {
    fn shown(self) -> RemoteToken {
        RemoteToken {
            id: self.id.to_string(),
            name: self.name,
            live: true,
            expires_at: None,
            last_used_at: self.last_used_at.filter(|used| Some(*used) > self.created_at),
        }
    }
}

#[async_trait]
impl Driver for Gitea {
    async fn check(&self) -> Result<ServerInfo, CallError> {
        let call = Call::get(path(&["api", "v1", "version"])?).authorized(&self.authorization);
        let Version { version } = self.client.send(call).await?.json()?;
        self.page(1, 1, true).await?.json::<Vec<Item>>()?;
        Ok(ServerInfo { version: Some(wire::version(&version)), account: Some(self.account.clone()) })
    }

    async fn create(&self, target: &IssuerTarget, request: &NewToken) -> Result<CreatedToken, CallError> {
        target.require_account()?;
        let body = json!({"name": request.name, "scopes": request.scopes});
        let call = Call::new(Method::POST, path(&self.tokens())?).authorized(&self.authorization).json(&body);
        let Created { id, sha1 } = self.client.send(call).await?.json()?;
        Ok(CreatedToken { id: id.to_string(), token: sha1, client_id: None, expires_at: None })
    }

    async fn delete(&self, target: &IssuerTarget, id: &str) -> Result<(), CallError> {
        target.require_account()?;
        // The path takes names too.
        if id.parse::<i64>().is_err() {
            return Err(CallError::Unsupported("the id of a token of Gitea is a number"));
        }
        let [api, version, users, account, tokens] = self.tokens();
        let call = Call::new(Method::DELETE, path(&[api, version, users, account, tokens, id])?);
        self.client.delete(call.authorized(&self.authorization)).await
    }

    async fn list(&self, target: &IssuerTarget) -> Result<Vec<RemoteToken>, CallError> {
        target.require_account()?;
        wire::read_again(|attempt| self.pages(attempt > 0)).await
    }
}
