//! TrueFoundry: personal access tokens and virtual accounts (<https://www.truefoundry.com/docs/api-reference>).
//!
//! A virtual account has several tokens without names. So each token that is created here gets a virtual account of its own, which has the
//! token's name and permissions.

use async_trait::async_trait;
use hyper::{Method, header::HeaderValue};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    CallError, ConfigError, CreatedToken, Driver, Endpoint, IssuerSystem, IssuerTarget, NewToken, PlainToken,
    RemoteToken, ServerInfo,
    client::{Answer, Call, IssuerClient, bearer, path, with_query},
    wire::{self, PageCount},
};
use crate::api::{Permission, Time};

/// The paths of personal access tokens and of virtual accounts.
const TOKENS: [&str; 4] = ["api", "svc", "v1", "personal-access-tokens"];
const ACCOUNTS: [&str; 4] = ["api", "svc", "v1", "virtual-accounts"];

/// The number of items on a page. Up to 1,000 are allowed, which would exceed the maximum size of a response.
const PAGE: usize = 100;

/// The driver.
pub(super) struct TrueFoundry {
    client: IssuerClient,
    authorization: HeaderValue,
}

/// The answer to a create of a personal access token, which has no id, and the token of a virtual account.
#[derive(Deserialize)]
struct Created {
    token: PlainToken,
}

/// The answer to a create of a virtual account.
#[derive(Deserialize)]
struct CreatedAccount {
    data: Item,
}

#[derive(Deserialize)]
struct Page {
    data: Vec<Item>,
}

/// A personal access token or a virtual account: both have the same form.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    id: String,
    manifest: Manifest,
    is_expired: Option<bool>,
    #[serde(default, deserialize_with = "wire::lenient_time")]
    last_accessed_at: Option<Time>,
}

#[derive(Deserialize)]
struct Manifest {
    name: String,
    #[serde(default, deserialize_with = "wire::lenient_time")]
    expiration_date: Option<Time>,
}

impl TrueFoundry {
    pub(super) fn new(endpoint: &Endpoint) -> Result<Self, ConfigError> {
        let token = endpoint.token(IssuerSystem::TrueFoundry)?;
        let authorization = bearer(token)?;
        Ok(Self { client: IssuerClient::new(endpoint, vec![token.clone()])?, authorization })
    }

    async fn create_token(&self, request: &NewToken) -> Result<CreatedToken, CallError> {
        if !request.scopes.is_empty() || !request.permissions.is_empty() {
            return Err(CallError::Unsupported(
                "personal access tokens of TrueFoundry have neither scopes nor permissions of their own",
            ));
        }
        let mut body = json!({"name": request.name});
        if let Some(end) = request.expires_at {
            body["expirationDate"] = json!(end);
        }
        let call = Call::new(Method::POST, path(&TOKENS)?).authorized(&self.authorization).json(&body);
        let Created { token } = self.client.send(call).await?.json()?;
        let listed = self.pages(&TOKENS, Some(&request.name), true).await;
        let found = wire::created(&request.name, &listed)?;
        Ok(CreatedToken { id: found.id.clone(), token, client_id: None, expires_at: found.expires_at })
    }

    /// Creates a virtual account, and reads its token. `PUT` changes an account with the same name, but nobody else has this name.
    async fn create_account(&self, request: &NewToken) -> Result<CreatedToken, CallError> {
        if !request.scopes.is_empty() {
            return Err(CallError::Unsupported("virtual accounts of TrueFoundry have permissions, not scopes"));
        }
        let mut manifest = json!({
            "name": request.name,
            "type": "virtual-account",
            "permissions": request.permissions.iter().map(permission).collect::<Vec<_>>(),
        });
        if let Some(end) = request.expires_at {
            manifest["expiration_date"] = json!(wire::date(end));
        }
        let call = Call::new(Method::PUT, path(&ACCOUNTS)?)
            .authorized(&self.authorization)
            .json(&json!({"manifest": manifest}));
        let CreatedAccount { data } = self.client.send(call).await?.json()?;
        let [api, svc, version, accounts] = ACCOUNTS;
        let unknown = |error: CallError| CallError::Unavailable {
            reason: format!("the virtual account was created, but its token cannot be read: {error}"),
            message: String::new(),
        };
        let call = Call::get(path(&[api, svc, version, accounts, &data.id, "token"])?);
        let answer = self.client.send(call.authorized(&self.authorization).waiting()).await.map_err(unknown)?;
        let Created { token } = answer.json()?;
        Ok(CreatedToken { id: data.id, token, client_id: None, expires_at: data.manifest.expiration_date })
    }

    /// Reads all pages, again if the list changed meanwhile.
    async fn pages(&self, of: &[&str], name: Option<&str>, waits: bool) -> Result<Vec<RemoteToken>, CallError> {
        wire::read_again(|attempt| self.pages_once(of, name, waits || attempt > 0)).await
    }

    /// Reads all pages once. Each page begins with the last item of the one before: if that moved, an item may have been missed.
    async fn pages_once(
        &self,
        of: &[&str],
        name: Option<&str>,
        mut waits: bool,
    ) -> Result<Vec<RemoteToken>, CallError> {
        let (now, mut items, mut count) = (wire::now(), Vec::<Item>::new(), PageCount::default());
        loop {
            let offset = items.len().saturating_sub(1);
            let page = self.page(of, name, offset, waits).await?;
            count.add(&page)?;
            let Page { data: page } = page.json()?;
            let is_last = page.len() < PAGE;
            match items.pop() {
                Some(last) if page.first().is_none_or(|first| first.id != last.id) => {
                    return Err(CallError::ListChanged);
                }
                _ => items.extend(page),
            }
            if is_last {
                return Ok(items.into_iter().map(|item| item.shown(now)).collect());
            }
            waits = true;
        }
    }

    async fn page(&self, of: &[&str], name: Option<&str>, offset: usize, waits: bool) -> Result<Answer, CallError> {
        let (limit, offset) = (PAGE.to_string(), offset.to_string());
        let mut query = vec![("limit", &*limit), ("offset", &*offset)];
        query.extend(name.map(|name| ("nameSearchQuery", name)));
        let call = Call::get(with_query(&path(of)?, &query)).authorized(&self.authorization);
        self.client.send(if waits { call.waiting() } else { call }).await
    }
}

fn permission(permission: &Permission) -> Value {
    let Permission { resource_fqn, resource_type, role_id } = permission;
    json!({"resource_fqn": resource_fqn, "resource_type": resource_type, "role_id": role_id})
}

/// The path of the tokens of a target.
fn tokens_of(target: &IssuerTarget) -> Result<[&'static str; 4], CallError> {
    match target {
        IssuerTarget::Account => Ok(TOKENS),
        IssuerTarget::TrueFoundryVirtualAccount => Ok(ACCOUNTS),
        _ => Err(CallError::Unsupported("this target belongs to another system")),
    }
}

impl Item {
    fn shown(self, now: Time) -> RemoteToken {
        let Manifest { name, expiration_date: expires_at } = self.manifest;
        RemoteToken {
            live: self.is_expired.map_or_else(|| expires_at.is_none_or(|end| now < end), |expired| !expired),
            id: self.id,
            name,
            expires_at,
            last_used_at: self.last_accessed_at,
        }
    }
}

#[async_trait]
impl Driver for TrueFoundry {
    async fn check(&self) -> Result<ServerInfo, CallError> {
        self.page(&TOKENS, None, 0, false).await?.json::<Page>()?;
        Ok(ServerInfo::default())
    }

    async fn create(&self, target: &IssuerTarget, request: &NewToken) -> Result<CreatedToken, CallError> {
        match target {
            IssuerTarget::TrueFoundryVirtualAccount => self.create_account(request).await,
            other => {
                other.require_account()?;
                self.create_token(request).await
            }
        }
    }

    async fn delete(&self, target: &IssuerTarget, id: &str) -> Result<(), CallError> {
        let [api, svc, version, tokens] = tokens_of(target)?;
        let call = Call::new(Method::DELETE, path(&[api, svc, version, tokens, id])?);
        self.client.delete(call.authorized(&self.authorization)).await
    }

    async fn list(&self, target: &IssuerTarget) -> Result<Vec<RemoteToken>, CallError> {
        self.pages(&tokens_of(target)?, None, false).await
    }
}
