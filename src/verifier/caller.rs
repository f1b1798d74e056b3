//! Authentication and authorization of callers of introspection.
//!
//! Introspection reveals the owner and the scopes of a token, so a caller needs a permission. There are three ways to call:
//!
//! - Bearer with a PAT that has the scope `introspect`;
//! - Basic with the uid of that PAT (32 hexadecimal digits, with or without dashes) and its token, as in OAuth's
//!   `client_secret_basic`;
//! - Bearer with a ServiceAccount token for the audience `pat-operator`, whose account has the verb `introspect` on
//!   `personalaccesstokens.pat-operator.io`.
//!
//! The audiences of a caller's PAT limit which tokens it may introspect: if it lists any, tokens that list none of them are
//! inactive to it. A PAT without audiences and a ServiceAccount may introspect every token, and must check its `aud` themselves.
//!
//! Text with the grammar of a PAT is never sent to TokenReview: if the verifier is the API server's webhook, the review would
//! come back to the verifier.

use std::sync::Arc;

use axum::http::HeaderMap;
use tracing::warn;

use super::{
    CheckResult, Protocol, ProtocolRejection, Verifier,
    reason::DecisionReason,
    response::{self, Challenge},
    service_account::{AccountPermission, ServiceAccountReviewer},
};
use crate::{
    auth::decision::{Audience, Requirements},
    index::{CredentialRef, PatUid},
    service::{
        authorization::{Authorization, Basic, percent_decoded},
        http::BudgetExhausted,
    },
    token::{ParseError, Presented},
};

/// The scope that the PAT of a caller needs.
pub const SCOPE: &str = "introspect";

/// A caller that may introspect.
pub enum IntrospectionCaller {
    /// It may introspect every token.
    Unrestricted,
    /// It may introspect tokens that list an audience of its own PAT.
    Restricted(CredentialRef),
}

/// Why a caller may not introspect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallerRejection {
    /// The credentials are missing, invalid or lack the permission.
    Challenge(Challenge),
    /// The caller cannot be authenticated at the moment.
    Unavailable,
}

/// Authenticates callers.
pub struct CallerAuthenticator {
    verifier: Arc<Verifier>,
    accounts: Option<ServiceAccountReviewer>,
}

impl CallerAuthenticator {
    /// Creates an authenticator. Without a client, only PATs are accepted.
    pub fn new(verifier: Arc<Verifier>, client: Option<kube::Client>) -> Self {
        Self { verifier, accounts: client.map(ServiceAccountReviewer::new) }
    }

    /// Authenticates the caller and checks its permission.
    ///
    /// # Errors
    /// Returns an error if the caller may not introspect or cannot be authenticated at the moment.
    pub async fn authenticate(&self, headers: &HeaderMap) -> Result<IntrospectionCaller, CallerRejection> {
        match Authorization::read(response::plain(headers)) {
            Authorization::Missing => Err(CallerRejection::Challenge(Challenge::Missing)),
            Authorization::Malformed => Err(CallerRejection::Challenge(Challenge::InvalidRequest)),
            Authorization::Basic(basic) => self.authenticate_basic(&basic),
            Authorization::Bearer(token) => {
                if let Ok(token) = Presented::parse(token) {
                    return self.authenticate_pat(token, |_| Ok(()));
                }
                // The header stays in memory while the API server is asked.
                let mut share = self.verifier.memory().reservation();
                let head = response::plain(headers).map(|(name, value)| name.len() + value.len()).sum();
                share.grow(head).map_err(|BudgetExhausted| CallerRejection::Unavailable)?;
                self.authenticate_account(token).await
            }
        }
    }

    fn authenticate_basic(&self, basic: &Basic) -> Result<IntrospectionCaller, CallerRejection> {
        // OAuth form-encodes both values (RFC 6749, 2.3.1): strict libraries write `%5F` for `_`, most do not.
        let user = percent_decoded(basic.user());
        let uid: Option<PatUid> = str::from_utf8(&user).ok().and_then(|user| user.parse().ok());
        let token = percent_decoded(basic.password());
        self.authenticate_pat(
            token.as_slice(),
            |record| if uid == Some(record.pat.uid) { Ok(()) } else { Err(ClientMismatch) },
        )
    }

    fn authenticate_pat<'t>(
        &self,
        token: impl TryInto<Presented<'t>, Error: Into<ParseError>>,
        admit: impl FnOnce(&CredentialRef) -> Result<(), ClientMismatch>,
    ) -> Result<IntrospectionCaller, CallerRejection> {
        let requirements = Requirements { scopes: &[SCOPE], audience: Audience::Any };
        match self.verifier.check_and_admit(Protocol::Introspection, token, &requirements, admit) {
            CheckResult::Allow(record, ()) => Ok(caller(record)),
            CheckResult::Reject(_, ClientMismatch) => Err(CallerRejection::Challenge(Challenge::InvalidToken)),
            CheckResult::Deny(denial) => Err(CallerRejection::Challenge(Challenge::of(&denial, || SCOPE.to_owned()))),
            CheckResult::Unavailable(_) => Err(CallerRejection::Unavailable),
        }
    }

    async fn authenticate_account(&self, token: &[u8]) -> Result<IntrospectionCaller, CallerRejection> {
        let (Some(accounts), Ok(token)) = (&self.accounts, str::from_utf8(token)) else {
            return Err(CallerRejection::Challenge(Challenge::InvalidToken));
        };
        match accounts.permission(token).await {
            Ok(AccountPermission::Permitted) => Ok(IntrospectionCaller::Unrestricted),
            Ok(AccountPermission::Forbidden) => {
                Err(CallerRejection::Challenge(Challenge::InsufficientScope { scope: SCOPE.to_owned() }))
            }
            Ok(AccountPermission::NotAuthenticated) => Err(CallerRejection::Challenge(Challenge::InvalidToken)),
            Err(error) => {
                warn!(%error, category = error.category(), "cannot check whether a ServiceAccount may introspect");
                Err(CallerRejection::Unavailable)
            }
        }
    }
}

/// The token does not belong to the client ID in the request.
struct ClientMismatch;

impl ProtocolRejection for ClientMismatch {
    fn reason(&self) -> DecisionReason {
        DecisionReason::Client
    }
}

fn caller(record: CredentialRef) -> IntrospectionCaller {
    if record.pat.audiences().is_empty() {
        IntrospectionCaller::Unrestricted
    } else {
        IntrospectionCaller::Restricted(record)
    }
}
