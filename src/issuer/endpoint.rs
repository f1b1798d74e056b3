//! Where a system is, and how its client authenticates.

use std::{fmt, sync::Arc};

use super::{AddressPolicy, CallBudget, PlainToken};
use crate::{api::IssuerSystem, service::client::Proxy};

/// An address with all that a client of it needs.
#[derive(Clone)]
pub struct Endpoint {
    /// The base URL, such as `https://gitlab.example.com`. The path of a reverse proxy is kept.
    pub url: String,
    /// The certificate authorities in PEM. `None`: those of the system.
    pub ca_bundle: Option<String>,
    /// How the client authenticates.
    pub credential: IssuerCredential,
    /// The account of the tokens, for systems that name it in their paths (Gitea). Default: the user of the credential.
    pub account: Option<String>,
    /// Hosts that may be reached by HTTP, without the port. All others need HTTPS.
    pub http_hosts: Vec<String>,
    /// The addresses that the host may have. It does not apply to a connection through a proxy, which resolves the name itself.
    pub addresses: AddressPolicy,
    /// The proxy. The variables of the environment count only if the caller reads them.
    pub proxy: Option<Proxy>,
    /// The budget of the issuer.
    pub budget: Arc<CallBudget>,
}

/// The credential with which tokens are created and deleted.
#[derive(Clone, Debug)]
pub enum IssuerCredential {
    /// A token: TrueFoundry, Cryptlex, GitLab, Argo CD.
    Token(PlainToken),
    /// Client id and secret, exchanged for an access token: SailPoint.
    Client {
        /// The client id.
        id: String,
        /// The client secret.
        secret: PlainToken,
    },
    /// User and password, or a token in its place: Gitea.
    Basic {
        /// The user.
        user: String,
        /// The password.
        password: PlainToken,
    },
}

impl IssuerCredential {
    fn name(&self) -> &'static str {
        match self {
            Self::Token(_) => "a token",
            Self::Client { .. } => "a client id and its secret",
            Self::Basic { .. } => "a user and a password",
        }
    }
}

impl Endpoint {
    /// Returns the token of a system that authenticates by one.
    pub(super) fn token(&self, system: IssuerSystem) -> Result<&PlainToken, ConfigError> {
        match &self.credential {
            IssuerCredential::Token(token) => Ok(token),
            other => Err(ConfigError::credential(system, "a token", other)),
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("url", &self.url).field("account", &self.account).finish_non_exhaustive()
    }
}

/// Why no client can be made. No message has a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The URL cannot be used.
    #[error("url: must be such as https://host or https://host:8443/path, without user, query and fragment")]
    Url,
    /// The URL has the scheme `http`, and its host is not excepted.
    #[error("url: must start with https://; only hosts that the operator's configuration names may be reached by HTTP")]
    Http,
    /// The address in the URL is not allowed.
    #[error("url: this address is not allowed for this issuer")]
    Address,
    /// The certificate authorities cannot be used.
    #[error("caBundle: must hold certificates in PEM (-----BEGIN CERTIFICATE-----)")]
    CaBundle,
    /// No trust store could be loaded.
    #[error("the certificate authorities of the system cannot be loaded")]
    TrustStore,
    /// The credential is of another kind than the system needs.
    #[error("auth: {system} needs {needed}, not {given}")]
    Credential {
        /// The system.
        system: &'static str,
        /// What it needs.
        needed: &'static str,
        /// What it got.
        given: &'static str,
    },
    /// The credential cannot be sent in a header.
    #[error("auth: the {0} must be printable ASCII characters, and not empty")]
    CredentialText(&'static str),
    /// The operator itself issues the tokens.
    #[error("the operator itself issues these tokens, so there is no other system to call")]
    Local,
}

impl ConfigError {
    /// The credential is of another kind than the system needs.
    pub(super) fn credential(system: IssuerSystem, needed: &'static str, given: &IssuerCredential) -> Self {
        Self::Credential { system: system.as_str(), needed, given: given.name() }
    }

    /// Returns the name of this error in metrics, events and logs.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Url | Self::Http | Self::Address => "InvalidUrl",
            Self::CaBundle | Self::TrustStore => "InvalidCaBundle",
            Self::Credential { .. } | Self::CredentialText(_) => "InvalidCredential",
            Self::Local => "Local",
        }
    }
}
