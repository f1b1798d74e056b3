//! GitLab: access tokens of projects and groups (<https://docs.gitlab.com/api/project_access_tokens/>,
//! <https://docs.gitlab.com/api/group_access_tokens/>), and personal access tokens that an administrator creates
//! (<https://docs.gitlab.com/api/user_tokens/>).
//!
//! Tokens are never rotated in place: that revokes the old one at once, and a second rotation of the same token revokes all its successors
//! (<https://docs.gitlab.com/api/personal_access_tokens/#automatic-reuse-detection>).

use async_trait::async_trait;
use hyper::{Method, header::HeaderValue};
use serde::Deserialize;
use serde_json::json;

use super::{
    CallError, ConfigError, CreatedToken, Driver, Endpoint, GitLabAccessLevel, GitLabOwner, IssuerSystem, IssuerTarget,
    NewToken, PlainToken, RemoteToken, ServerInfo,
    client::{Answer, Call, IssuerClient, bearer, path, with_query},
    wire::{self, Collected, PageCount},
};
use crate::api::Time;

/// The number of tokens on a page: the maximum (<https://docs.gitlab.com/api/rest/#pagination>).
const PAGE: &str = "100";

/// The driver.
pub(super) struct GitLab {
    client: IssuerClient,
    authorization: HeaderValue,
}

#[derive(Deserialize)]
struct Version {
    version: String,
}

/// The token of the caller.
#[derive(Deserialize)]
struct Own {
    scopes: Vec<String>,
}

/// The answer to a create.
#[derive(Deserialize)]
struct Created {
    id: u64,
    token: PlainToken,
    #[serde(default, deserialize_with = "wire::time")]
    expires_at: Option<Time>,
}

/// A token in a list.
#[derive(Deserialize)]
struct Item {
    id: u64,
    name: String,
    active: bool,
    #[serde(default, deserialize_with = "wire::time")]
    expires_at: Option<Time>,
    #[serde(default, deserialize_with = "wire::time")]
    last_used_at: Option<Time>,
}

impl GitLab {
    pub(super) fn new(endpoint: &Endpoint) -> Result<Self, ConfigError> {
        let token = endpoint.token(IssuerSystem::GitLab)?;
        let authorization = bearer(token)?;
        Ok(Self { client: IssuerClient::new(endpoint, vec![token.clone()])?, authorization })
    }

    async fn send(&self, call: Call) -> Result<Answer, CallError> {
        self.client.send(call.authorized(&self.authorization)).await
    }

    /// Reads all pages. The next page is the one that the header `Link` names; its host is ignored.
    async fn pages(&self, owner: &GitLabOwner, waits: bool) -> Result<Vec<RemoteToken>, CallError> {
        let (list, user) = (list_path(owner)?, user_of(owner));
        let mut query = vec![("state", "active"), ("per_page", PAGE)];
        query.extend(user.as_deref().map(|user| ("user_id", user)));
        let (mut next, mut found) = (with_query(&list, &query), Collected::default());
        let (mut count, mut waits) = (PageCount::default(), waits);
        loop {
            let call = Call::get(&*next);
            let answer = self.send(if waits { call.waiting() } else { call }).await?;
            count.add(&answer)?;
            waits = true;
            // Absent above 10,000 tokens.
            let total = answer.header("x-total").and_then(|total| total.parse().ok());
            found.add(answer.json::<Vec<Item>>()?.into_iter().map(Item::shown), total)?;
            match next_query(answer.header("link").unwrap_or_default()) {
                Some(query) => next = format!("{list}?{query}"),
                None => return found.finish(),
            }
        }
    }
}

/// The path of an owner's tokens, for lists and deletes.
fn list_path(owner: &GitLabOwner) -> Result<String, CallError> {
    match owner {
        GitLabOwner::Project(project) => path(&["api", "v4", "projects", project, "access_tokens"]),
        GitLabOwner::Group(group) => path(&["api", "v4", "groups", group, "access_tokens"]),
        GitLabOwner::User(_) => path(&["api", "v4", "personal_access_tokens"]),
    }
}

fn user_of(owner: &GitLabOwner) -> Option<String> {
    match owner {
        GitLabOwner::User(user) => Some(user.to_string()),
        GitLabOwner::Project(_) | GitLabOwner::Group(_) => None,
    }
}

/// The query of the URL that a header `Link` (RFC 8288) names as `next`: of pages by number and by key alike.
fn next_query(link: &str) -> Option<&str> {
    let next = link.split(',').find(|link| link.contains("rel=\"next\""))?;
    let (url, _) = next.trim().strip_prefix('<')?.split_once('>')?;
    url.split_once('?').map(|(_, query)| query).filter(|query| !query.contains(char::is_whitespace))
}

/// Returns the owner and the role of a target.
fn parts(target: &IssuerTarget) -> Result<(&GitLabOwner, Option<GitLabAccessLevel>), CallError> {
    match target {
        IssuerTarget::GitLab { owner, access_level } => Ok((owner, *access_level)),
        _ => Err(CallError::Unsupported("GitLab needs a project, a group or a user")),
    }
}

impl Item {
    fn shown(self) -> RemoteToken {
        RemoteToken {
            id: self.id.to_string(),
            name: self.name,
            live: self.active,
            expires_at: self.expires_at,
            last_used_at: self.last_used_at,
        }
    }
}

#[async_trait]
impl Driver for GitLab {
    async fn check(&self) -> Result<ServerInfo, CallError> {
        let Own { scopes } =
            self.send(Call::get(path(&["api", "v4", "personal_access_tokens", "self"])?)).await?.json()?;
        // A token with granular permissions does not tell which.
        if !scopes.iter().any(|scope| matches!(&**scope, "api" | "granular")) {
            return Err(CallError::MissingRight("the token needs the scope api"));
        }
        let call = Call::get(path(&["api", "v4", "version"])?).waiting();
        let Version { version } = self.send(call).await?.json()?;
        Ok(ServerInfo { version: Some(wire::version(&version)), account: None })
    }

    async fn create(&self, target: &IssuerTarget, request: &NewToken) -> Result<CreatedToken, CallError> {
        let (owner, access_level) = parts(target)?;
        let mut body = json!({"name": request.name, "scopes": request.scopes});
        if let Some(end) = request.expires_at {
            body["expires_at"] = json!(wire::date(end));
        }
        let create = match (owner, access_level) {
            (GitLabOwner::User(_), Some(_)) => {
                return Err(CallError::Unsupported("personal access tokens have no access level"));
            }
            (GitLabOwner::User(user), None) => {
                path(&["api", "v4", "users", &user.to_string(), "personal_access_tokens"])?
            }
            (GitLabOwner::Project(_) | GitLabOwner::Group(_), level) => {
                if let Some(level) = level {
                    body["access_level"] = json!(level.number());
                }
                list_path(owner)?
            }
        };
        let answer = self.send(Call::new(Method::POST, create).json(&body)).await?;
        let Created { id, token, expires_at } = answer.json()?;
        Ok(CreatedToken { id: id.to_string(), token, client_id: None, expires_at })
    }

    async fn delete(&self, target: &IssuerTarget, id: &str) -> Result<(), CallError> {
        let (owner, _) = parts(target)?;
        // The path takes `self` too, which would revoke the credential of the issuer.
        if id.parse::<u64>().is_err() {
            return Err(CallError::Unsupported("the id of a token of GitLab is a number"));
        }
        let call = Call::new(Method::DELETE, format!("{}/{id}", list_path(owner)?));
        self.client.delete(call.authorized(&self.authorization)).await
    }

    async fn list(&self, target: &IssuerTarget) -> Result<Vec<RemoteToken>, CallError> {
        let (owner, _) = parts(target)?;
        wire::read_again(|attempt| self.pages(owner, attempt > 0)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_read_from_the_link() {
        let first = "<https://gitlab.example.com/api/v4/x?page=1&per_page=2>; rel=\"first\"";
        let next = "<https://evil.example.com/api/v4/x?id_after=42&pagination=keyset>; rel=\"next\"";
        assert_eq!(next_query(&format!("{first}, {next}")), Some("id_after=42&pagination=keyset"));
        for link in ["", first, "rel=\"next\"", "<https://x>; rel=\"next\"", "<https://x?a b>; rel=\"next\""] {
            assert_eq!(next_query(link), None, "{link}");
        }
    }
}
