//! Argo CD: tokens of local accounts, and of the roles of projects (<https://argo-cd.readthedocs.io/en/stable/developer-guide/api-docs/>).
//!
//! The paths are those of `server/account/account.proto` and `server/project/project.proto`. The id of a token is chosen by its creator: it
//! is the name here.

use std::collections::BTreeMap;

use async_trait::async_trait;
use hyper::{Method, header::HeaderValue};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::{Value, json};

use super::{
    CallError, ConfigError, CreatedToken, Driver, Endpoint, IssuerSystem, IssuerTarget, NewToken, PlainToken,
    RemoteToken, ServerInfo,
    client::{Answer, Call, IssuerClient, bearer, path, with_query},
    wire,
};
use crate::api::Time;

/// A time of issue that no token has. With it, a token of a role is deleted by its id only: `GetJWTToken` in
/// `pkg/apis/application/v1alpha1/app_project_types.go` would otherwise take another token that was issued in the same second.
const NO_TIME: &str = "-1";

/// The driver.
pub(super) struct ArgoCd {
    client: IssuerClient,
    authorization: HeaderValue,
}

#[derive(Deserialize)]
struct Version {
    #[serde(rename = "Version")]
    version: String,
}

/// The caller.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct UserInfo {
    #[serde(default)]
    logged_in: bool,
}

/// The answer to a create.
#[derive(Deserialize)]
struct Created {
    token: PlainToken,
}

#[derive(Deserialize)]
struct Account {
    tokens: Option<Vec<AccountToken>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AccountToken {
    id: String,
    #[serde(default, deserialize_with = "unix_time")]
    expires_at: Option<Time>,
}

/// A project. Tokens are in the status since Argo CD 1.6.
#[derive(Deserialize)]
struct Project {
    #[serde(default)]
    status: ProjectStatus,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProjectStatus {
    #[serde(default)]
    jwt_tokens_by_role: BTreeMap<String, RoleTokens>,
}

#[derive(Deserialize)]
struct RoleTokens {
    items: Option<Vec<RoleToken>>,
}

/// A token of a role. Those of old versions have no id.
#[derive(Deserialize)]
struct RoleToken {
    #[serde(default)]
    id: String,
    #[serde(default, deserialize_with = "unix_time")]
    exp: Option<Time>,
}

/// Reads seconds since 1970, as a number or as text (protobuf's JSON). 0 means never.
fn unix_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Time>, D::Error> {
    let seconds = match Value::deserialize(deserializer)? {
        Value::Null => Some(0),
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    let seconds = seconds.ok_or_else(|| D::Error::custom("not a number of seconds"))?;
    Ok((seconds > 0).then(|| Time::from_micros(seconds.saturating_mul(1_000_000))))
}

impl ArgoCd {
    pub(super) fn new(endpoint: &Endpoint) -> Result<Self, ConfigError> {
        let token = endpoint.token(IssuerSystem::ArgoCd)?;
        let authorization = bearer(token)?;
        Ok(Self { client: IssuerClient::new(endpoint, vec![token.clone()])?, authorization })
    }

    async fn send(&self, call: Call) -> Result<Answer, CallError> {
        self.client.send(call.authorized(&self.authorization)).await
    }
}

/// The path to create a token of a target; an id at its end deletes one.
fn tokens_of(target: &IssuerTarget) -> Result<String, CallError> {
    match target {
        IssuerTarget::ArgoCdAccount { account } => path(&["api", "v1", "account", account, "token"]),
        IssuerTarget::ArgoCdRole { project, role } => path(&["api", "v1", "projects", project, "roles", role, "token"]),
        _ => Err(CallError::Unsupported("Argo CD needs an account, or a project and a role")),
    }
}

#[async_trait]
impl Driver for ArgoCd {
    async fn check(&self) -> Result<ServerInfo, CallError> {
        let UserInfo { logged_in } =
            self.send(Call::get(path(&["api", "v1", "session", "userinfo"])?)).await?.json()?;
        // Argo CD answers 200 to everybody, also where anonymous access is off.
        if !logged_in {
            return Err(CallError::Unauthorized { message: String::new() });
        }
        let Version { version } = self.send(Call::get(path(&["api", "version"])?).waiting()).await?.json()?;
        Ok(ServerInfo { version: Some(wire::version(&version)), account: None })
    }

    async fn create(&self, target: &IssuerTarget, request: &NewToken) -> Result<CreatedToken, CallError> {
        // The rights of a token are those of its account or role.
        if !request.scopes.is_empty() {
            return Err(CallError::Unsupported("tokens of Argo CD have no scopes"));
        }
        // 0 means never.
        let lifetime = request.expires_at.map_or(0, |end| end.since(wire::now()).as_secs());
        if request.expires_at.is_some() && lifetime < 1 {
            return Err(CallError::Unsupported("the expiry has passed"));
        }
        let call =
            Call::new(Method::POST, tokens_of(target)?).json(&json!({"id": request.name, "expiresIn": lifetime}));
        let Created { token } = self.send(call).await?.json()?;
        Ok(CreatedToken { id: request.name.clone(), token, client_id: None, expires_at: request.expires_at })
    }

    async fn delete(&self, target: &IssuerTarget, id: &str) -> Result<(), CallError> {
        let tokens = tokens_of(target)?;
        // Checks the id.
        let last = path(&[id])?;
        let path = match target {
            IssuerTarget::ArgoCdRole { .. } => with_query(&format!("{tokens}/{NO_TIME}"), &[("id", id)]),
            _ => tokens + &last,
        };
        self.client.delete(Call::new(Method::DELETE, path).authorized(&self.authorization)).await
    }

    /// The lists have no pages.
    async fn list(&self, target: &IssuerTarget) -> Result<Vec<RemoteToken>, CallError> {
        let ends: Vec<(String, Option<Time>)> = match target {
            IssuerTarget::ArgoCdRole { project, role } => {
                let call = Call::get(path(&["api", "v1", "projects", project])?);
                let Project { mut status } = self.send(call).await?.json()?;
                let tokens = status.jwt_tokens_by_role.remove(role).and_then(|tokens| tokens.items);
                tokens.unwrap_or_default().into_iter().map(|token| (token.id, token.exp)).collect()
            }
            IssuerTarget::ArgoCdAccount { account } => {
                let Account { tokens } =
                    self.send(Call::get(path(&["api", "v1", "account", account])?)).await?.json()?;
                tokens.unwrap_or_default().into_iter().map(|token| (token.id, token.expires_at)).collect()
            }
            _ => return Err(CallError::Unsupported("Argo CD needs an account, or a project and a role")),
        };
        let now = wire::now();
        let tokens = ends.into_iter().filter(|(id, _)| !id.is_empty()).map(|(id, expires_at)| RemoteToken {
            name: id.clone(),
            id,
            live: expires_at.is_none_or(|end| now < end),
            expires_at,
            last_used_at: None,
        });
        Ok(tokens.collect())
    }
}
