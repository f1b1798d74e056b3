//! Who may introspect, and which tokens they are told about.
//!
//! Introspection tells whose a token is and what it may do, so being somebody is not enough. Three ways in:
//!
//! - Bearer with a PAT that has the scope `introspect`;
//! - Basic with that PAT's uid (32 hex digits, dashes or not) and the token, as OAuth's `client_secret_basic` has it;
//! - Bearer with a ServiceAccount's token for the audience `pat-operator`, whose account may `introspect`
//!   `personalaccesstokens.pat-operator.io`.
//!
//! A caller's PAT may have any audiences: they do not say where it may call, but what it is told about. If it lists some, only
//! tokens that list one of them, and all others are not active to it. A PAT without audiences, and a ServiceAccount, are told
//! about every token, with its `aud`, which they have to judge themselves.
//!
//! A text that is a PAT by its grammar never goes to TokenReview: with our own webhook on, it would vouch for itself.

use std::sync::Arc;

use axum::http::HeaderMap;
use percent_encoding::percent_decode;
use tracing::warn;
use zeroize::Zeroizing;

use super::{
    Checked, Protocol, Refusal, Verifier,
    challenge::Challenge,
    reason::Reason,
    reply,
    service_account::{ServiceAccounts, Standing},
};
use crate::{
    auth::decision::{Audience, Demand},
    index::{CredentialRef, PatUid},
    service::{
        authorization::{Authorization, Basic},
        http::NoRoom,
    },
    token::{ParseError, Presented},
};

/// The scope that a PAT needs.
pub const SCOPE: &str = "introspect";

/// Somebody who may introspect.
pub enum Caller {
    /// Is told about every token.
    Unlimited,
    /// Is told about tokens that list an audience of its own PAT.
    Limited(CredentialRef),
}

/// Somebody who may not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// What is missing or wrong.
    Challenge(Challenge),
    /// Nobody can tell at the moment.
    Unavailable,
}

/// Tells callers apart.
pub struct Callers {
    verifier: Arc<Verifier>,
    accounts: Option<ServiceAccounts>,
}

impl Callers {
    /// Without a client, only PATs are taken.
    pub fn new(verifier: Arc<Verifier>, client: Option<kube::Client>) -> Self {
        Self { verifier, accounts: client.map(ServiceAccounts::new) }
    }

    /// Who calls.
    ///
    /// # Errors
    /// When it is nobody who may, or nobody can tell.
    pub async fn identify(&self, headers: &HeaderMap) -> Result<Caller, Rejected> {
        match Authorization::read(reply::plain(headers)) {
            Authorization::Missing => Err(Rejected::Challenge(Challenge::Missing)),
            Authorization::Malformed => Err(Rejected::Challenge(Challenge::InvalidRequest)),
            Authorization::Basic(basic) => self.basic(&basic),
            Authorization::Bearer(token) => {
                if let Ok(token) = Presented::parse(token) {
                    return self.pat(token, |_| Ok(()));
                }
                // The API server is asked, and meanwhile all of the header is kept.
                let mut share = self.verifier.memory().share();
                let head = reply::plain(headers).map(|(name, value)| name.len() + value.len()).sum();
                share.take(head).map_err(|NoRoom| Rejected::Unavailable)?;
                self.account(token).await
            }
        }
    }

    fn basic(&self, basic: &Basic) -> Result<Caller, Rejected> {
        // OAuth has both form-encoded first (RFC 6749, 2.3.1): strict libraries write `%5F` for `_`, most leave it as it is.
        let user = decoded(basic.user());
        let uid: Option<PatUid> = str::from_utf8(&user).ok().and_then(|user| user.parse().ok());
        let token = decoded(basic.password());
        self.pat(token.as_slice(), |record| if uid == Some(record.pat.uid) { Ok(()) } else { Err(Another) })
    }

    fn pat<'t>(
        &self,
        token: impl TryInto<Presented<'t>, Error: Into<ParseError>>,
        is_its: impl FnOnce(&CredentialRef) -> Result<(), Another>,
    ) -> Result<Caller, Rejected> {
        let demand = Demand { scopes: &[SCOPE], audience: Audience::Any };
        match self.verifier.check_for(Protocol::Introspection, token, &demand, is_its) {
            Checked::Allow(record, ()) => Ok(told(record)),
            Checked::Refused(_, Another) => Err(Rejected::Challenge(Challenge::InvalidToken)),
            Checked::Deny(denial) => Err(Rejected::Challenge(Challenge::to(&denial, || SCOPE.to_owned()))),
            Checked::Unavailable(_) => Err(Rejected::Unavailable),
        }
    }

    async fn account(&self, token: &[u8]) -> Result<Caller, Rejected> {
        let (Some(accounts), Ok(token)) = (&self.accounts, str::from_utf8(token)) else {
            return Err(Rejected::Challenge(Challenge::InvalidToken));
        };
        match accounts.standing(token).await {
            Ok(Standing::Permitted) => Ok(Caller::Unlimited),
            Ok(Standing::Forbidden) => {
                Err(Rejected::Challenge(Challenge::InsufficientScope { scope: SCOPE.to_owned() }))
            }
            Ok(Standing::Stranger) => Err(Rejected::Challenge(Challenge::InvalidToken)),
            Err(error) => {
                warn!(%error, category = error.category(), "cannot tell whether a ServiceAccount may introspect");
                Err(Rejected::Unavailable)
            }
        }
    }
}

/// The token is another client's.
struct Another;

impl Refusal for Another {
    fn reason(&self) -> Reason {
        Reason::Client
    }
}

fn told(record: CredentialRef) -> Caller {
    if record.pat.audiences().is_empty() { Caller::Unlimited } else { Caller::Limited(record) }
}

fn decoded(text: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut decoded = Zeroizing::new(Vec::with_capacity(text.len()));
    decoded.extend(percent_decode(text));
    decoded
}
