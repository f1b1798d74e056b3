//! Clients of the systems that issue tokens. One file for each system implements [`Driver`].
//!
//! ```text
//! driver(kind, endpoint) -> cryptlex | sailpoint | truefoundry | gitlab | gitea | argocd -> client -> the system
//! ```
//!
//! A driver keeps no state of tokens and decides nothing: it never retries a create, and does not know who asked for the token. What all have
//! in common is in [`client`]: TLS, proxies, timeouts, budgets and error messages. `docs/new-issuer.md` says how to add a system.

pub mod address;
mod argocd;
pub mod budget;
pub mod client;
mod cryptlex;
mod endpoint;
pub mod error;
mod gitea;
mod gitlab;
mod sailpoint;
mod token;
mod truefoundry;
mod wire;

use std::sync::Arc;

use async_trait::async_trait;

pub use self::{
    address::AddressPolicy,
    budget::CallBudget,
    endpoint::{ConfigError, Endpoint, IssuerCredential},
    error::CallError,
    token::PlainToken,
};
use crate::api::{GitLabAccessLevel, IssuerSystem, Permission, Time};

/// A system that issues tokens.
#[async_trait]
pub trait Driver: Send + Sync {
    /// Checks that the system answers, accepts the credential, and that the credential has the rights that do not depend on a target.
    ///
    /// # Errors
    /// It does not, or they are missing.
    async fn check(&self) -> Result<ServerInfo, CallError>;

    /// Creates a token. The request is sent once at most. [`CallError::is_outcome_unknown`] says whether the token may exist after an error.
    ///
    /// # Errors
    /// The system refused the request, or its answer was lost.
    async fn create(&self, target: &IssuerTarget, request: &NewToken) -> Result<CreatedToken, CallError>;

    /// Deletes a token. A token that does not exist is no error. Success is no proof that it is gone: some systems answer so for tokens that
    /// the credential may not see. A list that began afterwards is the proof.
    ///
    /// # Errors
    /// The system refused the request, or its answer was lost.
    async fn delete(&self, target: &IssuerTarget, id: &str) -> Result<(), CallError>;

    /// Lists all tokens of a target that may be accepted, from all pages.
    ///
    /// # Errors
    /// One page could not be read, or the list changed while its pages were read.
    async fn list(&self, target: &IssuerTarget) -> Result<Vec<RemoteToken>, CallError>;
}

/// What [`Driver::check`] learned of a system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerInfo {
    /// The version of the server, if it tells.
    pub version: Option<String>,
    /// The account of the credential, if lists show the tokens of this account only and the server tells which it is.
    pub account: Option<String>,
}

/// What a token is for in its system.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum IssuerTarget {
    /// The account of the credential: SailPoint, Cryptlex, Gitea, and personal access tokens of TrueFoundry.
    Account,
    /// A virtual account of TrueFoundry that has the name of the token and holds nothing but it.
    TrueFoundryVirtualAccount,
    /// A token of GitLab.
    GitLab {
        /// The owner of the token.
        owner: GitLabOwner,
        /// The role of a project's or group's token; GitLab's default is `Maintainer`.
        access_level: Option<GitLabAccessLevel>,
    },
    /// A token of a local account of Argo CD.
    ArgoCdAccount {
        /// The name of the account.
        account: String,
    },
    /// A token of a role of a project of Argo CD.
    ArgoCdRole {
        /// The name of the project.
        project: String,
        /// The name of the role.
        role: String,
    },
}

impl IssuerTarget {
    /// Rejects targets that only other systems have.
    fn require_account(&self) -> Result<(), CallError> {
        match self {
            Self::Account => Ok(()),
            _ => Err(CallError::Unsupported("this target belongs to another system")),
        }
    }
}

/// The owner of a token of GitLab.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum GitLabOwner {
    /// A project, by its number or its full path.
    Project(String),
    /// A group, by its number or its full path.
    Group(String),
    /// A user, by number. Only an administrator may create tokens of others.
    User(u64),
}

/// A token to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewToken {
    /// The name: 3 to 36 of `a-z`, `0-9` and `-`, with a letter in front. No other token has it.
    pub name: String,
    /// The scopes, in the words of the system.
    pub scopes: Vec<String>,
    /// Rights to single resources: TrueFoundry's virtual accounts.
    pub permissions: Vec<Permission>,
    /// The expiry, within the limits of the system ([`IssuerLimits`](crate::api::IssuerLimits)).
    pub expires_at: Option<Time>,
}

/// A token that was created.
#[derive(Debug)]
pub struct CreatedToken {
    /// The id by which it is deleted and listed.
    pub id: String,
    /// The token.
    pub token: PlainToken,
    /// What a client needs besides the token and changes with it, such as SailPoint's client id. It is not secret.
    pub client_id: Option<String>,
    /// The expiry, as the system says. `None`: it never expires, or the system does not say.
    pub expires_at: Option<Time>,
}

/// A token in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteToken {
    /// The id by which it is deleted.
    pub id: String,
    /// The name.
    pub name: String,
    /// Whether the system may accept it: it is neither revoked nor expired.
    pub live: bool,
    /// The expiry. `None`: it never expires, or the system does not say.
    pub expires_at: Option<Time>,
    /// The last use, if the system tells.
    pub last_used_at: Option<Time>,
}

/// The maximum length of the ID of a token, in characters: what the status of a PersonalAccessToken can hold.
const MAX_ID: usize = 256;

/// Checks that an ID of a token can be recorded.
///
/// # Errors
/// It is empty or too long.
pub fn check_id(id: &str) -> Result<(), CallError> {
    if id.is_empty() || id.chars().count() > MAX_ID {
        return Err(CallError::Malformed { problem: format!("the ID of a token must have 1 to {MAX_ID} characters") });
    }
    Ok(())
}

/// Makes the client of a system.
///
/// # Errors
/// The address, the certificates or the kind of credential do not fit, or the operator itself is the system.
pub fn driver(system: IssuerSystem, endpoint: &Endpoint) -> Result<Arc<dyn Driver>, ConfigError> {
    Ok(match system {
        IssuerSystem::Local => return Err(ConfigError::Local),
        IssuerSystem::SailPoint => Arc::new(sailpoint::SailPoint::new(endpoint)?),
        IssuerSystem::TrueFoundry => Arc::new(truefoundry::TrueFoundry::new(endpoint)?),
        IssuerSystem::Cryptlex => Arc::new(cryptlex::Cryptlex::new(endpoint)?),
        IssuerSystem::GitLab => Arc::new(gitlab::GitLab::new(endpoint)?),
        IssuerSystem::Gitea => Arc::new(gitea::Gitea::new(endpoint)?),
        IssuerSystem::ArgoCd => Arc::new(argocd::ArgoCd::new(endpoint)?),
    })
}
