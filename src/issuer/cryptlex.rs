//! Cryptlex: `/v3/personal-access-tokens` of its Web API (<https://api.cryptlex.com/v3/docs>).

use std::collections::BTreeMap;

use async_trait::async_trait;
use hyper::{Method, header::HeaderValue};
use serde::Deserialize;
use serde_json::json;

use super::{
    CallError, ConfigError, CreatedToken, Driver, Endpoint, IssuerSystem, IssuerTarget, NewToken, PlainToken,
    RemoteToken, ServerInfo,
    client::{Answer, Call, IssuerClient, bearer, path, with_query},
    wire::{self, PageCount},
};
use crate::api::Time;

/// The path of the tokens of the caller.
const TOKENS: [&str; 2] = ["v3", "personal-access-tokens"];

/// The number of tokens on a page: the maximum of `limit`.
const PAGE: usize = 100;

/// The driver.
pub(super) struct Cryptlex {
    client: IssuerClient,
    authorization: HeaderValue,
}

/// The answer to a create. It has no id.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Created {
    access_token: PlainToken,
}

/// A token in a list, which has revoked ones too.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    id: String,
    name: String,
    created_at: String,
    #[serde(default, deserialize_with = "wire::time")]
    expires_at: Option<Time>,
    revoked: bool,
    #[serde(default, deserialize_with = "wire::time")]
    last_used_at: Option<Time>,
}

impl Cryptlex {
    pub(super) fn new(endpoint: &Endpoint) -> Result<Self, ConfigError> {
        let token = endpoint.token(IssuerSystem::Cryptlex)?;
        let authorization = bearer(token)?;
        Ok(Self { client: IssuerClient::new(endpoint, vec![token.clone()])?, authorization })
    }

    /// Reads all pages, the oldest token first. Each page begins at the last time of creation of the one before, so that no token is missed
    /// if others are deleted meanwhile.
    async fn pages(&self, search: Option<&str>, mut waits: bool) -> Result<Vec<RemoteToken>, CallError> {
        let (now, mut tokens, mut from) = (wire::now(), BTreeMap::new(), None::<String>);
        let mut count = PageCount::default();
        loop {
            let page = self.page(PAGE, from.as_deref(), search, waits).await?;
            count.add(&page)?;
            let page: Vec<Item> = page.json()?;
            let (is_last, known) = (page.len() < PAGE, tokens.len());
            from = page.last().map(|item| item.created_at.clone());
            tokens.extend(page.into_iter().map(|item| (item.id.clone(), item)));
            if is_last {
                return Ok(tokens.into_values().map(|item| item.shown(now)).collect());
            }
            if tokens.len() == known {
                return Err(CallError::Malformed { problem: "the pages of the list do not end".to_owned() });
            }
            waits = true;
        }
    }

    async fn page(
        &self,
        limit: usize,
        from: Option<&str>,
        search: Option<&str>,
        waits: bool,
    ) -> Result<Answer, CallError> {
        let limit = limit.to_string();
        let mut query = vec![("limit", &*limit), ("sort", "createdAt")];
        query.extend(from.map(|from| ("createdAt[gte]", from)));
        query.extend(search.map(|text| ("search", text)));
        let call = Call::get(with_query(&path(&TOKENS)?, &query)).authorized(&self.authorization);
        self.client.send(if waits { call.waiting() } else { call }).await
    }
}

impl Item {
    fn shown(self, now: Time) -> RemoteToken {
        RemoteToken {
            live: !self.revoked && self.expires_at.is_none_or(|end| now < end),
            id: self.id,
            name: self.name,
            expires_at: self.expires_at,
            last_used_at: self.last_used_at,
        }
    }
}

#[async_trait]
impl Driver for Cryptlex {
    async fn check(&self) -> Result<ServerInfo, CallError> {
        self.page(1, None, None, false).await?.json::<Vec<Item>>()?;
        Ok(ServerInfo::default())
    }

    async fn create(&self, target: &IssuerTarget, request: &NewToken) -> Result<CreatedToken, CallError> {
        target.require_account()?;
        let body = json!({"name": request.name, "scopes": request.scopes, "expiresAt": request.expires_at});
        let call = Call::new(Method::POST, path(&TOKENS)?).authorized(&self.authorization).json(&body);
        let Created { access_token } = self.client.send(call).await?.json()?;
        let mut listed = self.pages(Some(&request.name), true).await;
        // What the search looks at is not documented.
        if wire::created(&request.name, &listed).is_err() {
            listed = self.pages(None, true).await;
        }
        let token = wire::created(&request.name, &listed)?;
        Ok(CreatedToken { id: token.id.clone(), token: access_token, client_id: None, expires_at: token.expires_at })
    }

    async fn delete(&self, target: &IssuerTarget, id: &str) -> Result<(), CallError> {
        target.require_account()?;
        let [version, tokens] = TOKENS;
        let call = Call::new(Method::DELETE, path(&[version, tokens, id])?).authorized(&self.authorization);
        self.client.delete(call).await
    }

    async fn list(&self, target: &IssuerTarget) -> Result<Vec<RemoteToken>, CallError> {
        target.require_account()?;
        self.pages(None, false).await
    }
}
