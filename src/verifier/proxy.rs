//! Decisions for proxies, and the identity headers that they pass to services.
//!
//! Forward auth and both protocols of Envoy share this module, so that all of them refuse the same requests.

use super::{
    CheckResult, Protocol, ProtocolRejection, Verifier, reason::DecisionReason, requirements::ProxyRequirements,
    response::Challenge,
};
use crate::{
    auth::decision::Unavailable,
    index::{CredentialRef, OwnerProfile},
    service::authorization::Authorization,
};

/// The owner: `jane@example.com`, `va:<namespace>/<name>`.
pub const USER: &str = "x-auth-request-user";
/// The owner's email address from its `TokenOwner`, otherwise empty. A user name that looks like an address proves none.
pub const EMAIL: &str = "x-auth-request-email";
/// The owner's groups from its `TokenOwner`, separated by commas, otherwise empty.
pub const GROUPS: &str = "x-auth-request-groups";
/// The preferred user name. Always empty: no resource has one.
pub const PREFERRED_USERNAME: &str = "x-auth-request-preferred-username";
/// The access token. Always empty: the service learns who the caller is and never gets a secret.
pub const ACCESS_TOKEN: &str = "x-auth-request-access-token";
/// The scopes of the token, separated by spaces.
pub const SCOPES: &str = "x-auth-request-scopes";
/// The ID of the credential, which is public.
pub const TOKEN_ID: &str = "x-auth-request-token-id";

/// All identity headers: those of oauth2-proxy, which services already support, and two more.
///
/// The list includes headers of oauth2-proxy that are always empty here. A service that supports oauth2-proxy trusts them, and
/// what the verifier does not set comes from the client.
pub const IDENTITY_HEADERS: [&str; 7] = [USER, EMAIL, GROUPS, PREFERRED_USERNAME, ACCESS_TOKEN, SCOPES, TOKEN_ID];

/// The decision on a request that a proxy forwards.
#[expect(clippy::large_enum_variant, reason = "there is one at a time, and it is nearly always the large one")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyDecision {
    /// Let the request pass with these headers.
    Allow(IdentityHeaders),
    /// Refuse the request, because its token is not accepted.
    Challenge(Challenge),
    /// Refuse the request, because a service could mistake one of its headers for an identity header.
    AliasHeader,
    /// Refuse the request, because a header cannot hold the owner or the scopes of its token.
    Unprintable,
    /// The index is not current enough for a decision.
    Unavailable(Unavailable),
}

impl ProxyDecision {
    /// Decides on a client's request by all of its headers.
    pub fn on<'a>(
        verifier: &Verifier,
        protocol: Protocol,
        headers: impl IntoIterator<Item = (&'a str, &'a [u8])>,
        requirements: &ProxyRequirements<'_>,
    ) -> Self {
        let mut has_alias = false;
        let mut headers = headers.into_iter().inspect(|(name, _)| has_alias |= is_alias(name));
        let authorization = Authorization::read(&mut headers);
        // Reading may have stopped before the last header.
        headers.for_each(drop);
        if has_alias {
            return Self::AliasHeader;
        }
        let token = match authorization.token() {
            Ok(token) => token,
            Err(reason) => return Self::Challenge(reason.into()),
        };
        let admit = |record: &CredentialRef| IdentityHeaders::of(record, verifier.owner_of(record).as_deref());
        match requirements.with(|requirements| verifier.check_and_admit(protocol, token, requirements, admit)) {
            CheckResult::Allow(_, identity) => Self::Allow(identity),
            CheckResult::Reject(_, UnprintableIdentity) => Self::Unprintable,
            CheckResult::Deny(denial) => Self::Challenge(Challenge::of(&denial, || requirements.scope_text())),
            CheckResult::Unavailable(reason) => Self::Unavailable(reason),
        }
    }

    /// Returns the message in the body of a refusal: one line for people.
    pub fn message(&self) -> &'static str {
        match self {
            Self::Allow(_) => "",
            Self::Challenge(challenge) => challenge.message(),
            Self::AliasHeader => "the request has a header that could be mistaken for an identity header: remove it\n",
            Self::Unprintable => "a header cannot hold the owner or the scopes of this token\n",
            Self::Unavailable(_) => "tokens cannot be verified at the moment: try again\n",
        }
    }
}

/// Every identity header with its value, which is empty if there is none.
///
/// Each header is set on every allowed request: otherwise the one that the client sent would reach the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityHeaders([(&'static str, String); IDENTITY_HEADERS.len()]);

/// The error for an owner or scopes that a header cannot hold. Admission rejects them; if one is stored nevertheless, its token is
/// refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a header cannot hold the owner or the scopes of the token")]
pub struct UnprintableIdentity;

impl ProtocolRejection for UnprintableIdentity {
    fn reason(&self) -> DecisionReason {
        DecisionReason::Unprintable
    }
}

impl IdentityHeaders {
    /// Returns the headers for a token and the profile of its owner.
    ///
    /// An address or a group that a header cannot hold is left out, and so is a group with a comma, which would read as two.
    ///
    /// # Errors
    /// Returns an error if the owner's name or the scopes contain anything but visible ASCII characters.
    pub fn of(record: &CredentialRef, owner: Option<&OwnerProfile>) -> Result<Self, UnprintableIdentity> {
        let user = record.pat.subject();
        let scopes = record.pat.scopes().joined();
        let is_printable = |text: &str| text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        if user.is_empty() || user.contains(' ') || !is_printable(user) || !is_printable(scopes) {
            return Err(UnprintableIdentity);
        }
        let id = record.credential().id.to_string();
        let (user, scopes) = (user.to_owned(), scopes.to_owned());
        // Proxies trim spaces at the ends of a value, which would change the name of a group.
        let is_value = |text: &&str| !text.is_empty() && is_printable(text) && text.trim_ascii() == *text;
        let email = owner.and_then(|owner| owner.email.as_deref()).filter(is_value).unwrap_or_default().to_owned();
        let groups = owner.map_or(&[][..], |owner| &owner.groups).iter().map(|group| &**group);
        let groups: Vec<&str> = groups.filter(is_value).filter(|group| !group.contains(',')).collect();
        let groups = groups.join(",");
        Ok(Self([
            (USER, user),
            (EMAIL, email),
            (GROUPS, groups),
            (PREFERRED_USERNAME, String::new()),
            (ACCESS_TOKEN, String::new()),
            (SCOPES, scopes),
            (TOKEN_ID, id),
        ]))
    }

    /// Returns the headers: names in lower case, values of visible ASCII characters and spaces.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(name, value)| (*name, &**value))
    }
}

/// Reports whether a service could mistake this header for an identity header, because it has another character in place of `-`.
///
/// CGI and some servers treat `X_Auth_Request_User` like `X-Auth-Request-User`, some do so for every character that is neither a letter nor
/// a digit, and no proxy overwrites it. The identity header itself is not an alias, because the proxy overwrites it.
pub fn is_alias(name: &str) -> bool {
    let name = name.as_bytes();
    if !name.iter().any(is_separator) {
        return false;
    }
    IDENTITY_HEADERS.iter().any(|header| {
        header.len() == name.len()
            && header.bytes().zip(name).all(|(expected, byte)| match byte {
                byte if is_separator(byte) => expected == b'-',
                byte => expected == byte.to_ascii_lowercase(),
            })
    })
}

/// Whether a character separates the words of a name, apart from `-`.
fn is_separator(byte: &u8) -> bool {
    !byte.is_ascii_alphanumeric() && *byte != b'-'
}
