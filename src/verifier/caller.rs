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
use k8s_openapi::jiff::Timestamp;
use tracing::warn;
use zeroize::Zeroizing;

use super::{
    CheckResult, Protocol, ProtocolRejection, Verifier,
    reason::DecisionReason,
    response::{self, Challenge},
    service_account::{AccountPermission, ServiceAccountReviewer, plausible_expiry},
};
use crate::{
    auth::decision::{Audience, Requirements},
    index::{CredentialRef, PatUid},
    service::{
        authorization::{Authorization, Basic, percent_decoded},
        http::{BudgetExhausted, MemoryReservation},
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

/// A caller, as far as it can be authenticated without the API server.
pub enum AuthenticatedCaller {
    /// Its PAT is valid and has the permission.
    Pat(IntrospectionCaller),
    /// It may be a ServiceAccount, which must be reviewed.
    Account(AccountToken),
}

/// The token of a caller that may be a ServiceAccount.
pub struct AccountToken {
    token: Zeroizing<String>,
    expires: Timestamp,
    _share: MemoryReservation,
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

    /// Authenticates a caller with a PAT. The token of a ServiceAccount must be reviewed.
    ///
    /// # Errors
    /// Returns an error if the caller may not introspect or cannot be authenticated at the moment.
    pub fn authenticate(&self, headers: &HeaderMap) -> Result<AuthenticatedCaller, CallerRejection> {
        match Authorization::read(response::plain(headers)) {
            Authorization::Missing => Err(CallerRejection::Challenge(Challenge::Missing)),
            Authorization::Malformed => Err(CallerRejection::Challenge(Challenge::InvalidRequest)),
            Authorization::Basic(basic) => self.authenticate_basic(&basic).map(AuthenticatedCaller::Pat),
            Authorization::Bearer(token) => {
                if let Ok(token) = Presented::parse(token) {
                    return self.authenticate_pat(token, |_| Ok(())).map(AuthenticatedCaller::Pat);
                }
                let token = str::from_utf8(token).ok().filter(|_| self.accounts.is_some());
                let plausible = token.and_then(|token| Some((token, plausible_expiry(token)?)));
                let (token, expires) = plausible.ok_or(CallerRejection::Challenge(Challenge::InvalidToken))?;
                let mut share = self.verifier.memory().reservation();
                share.grow(token.len()).map_err(|BudgetExhausted| CallerRejection::Unavailable)?;
                let token = Zeroizing::new(token.to_owned());
                Ok(AuthenticatedCaller::Account(AccountToken { token, expires, _share: share }))
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

    /// Asks the API server whether a ServiceAccount may introspect.
    ///
    /// # Errors
    /// Returns an error if the caller may not introspect or cannot be authenticated at the moment.
    pub async fn review(&self, account: AccountToken) -> Result<IntrospectionCaller, CallerRejection> {
        let Some(accounts) = &self.accounts else {
            return Err(CallerRejection::Challenge(Challenge::InvalidToken));
        };
        match accounts.permission(&account.token, account.expires).await {
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
