//! The headers by which a proxy tells the upstream who sent a request, and the names that pass for them.
//!
//! Works on names and text, so that HTTP and gRPC share it. It must not know how a proxy is answered.

use crate::index::{CredentialRef, OwnerProfile};

/// The owner: `jane@example.com`, `va:<namespace>/<name>`.
pub const USER: &str = "x-auth-request-user";
/// The owner's address, as a `TokenOwner` has it; else empty: a name that looks like an address proves none.
pub const EMAIL: &str = "x-auth-request-email";
/// The owner's groups, separated by commas, as a `TokenOwner` has them; else empty.
pub const GROUPS: &str = "x-auth-request-groups";
/// What the owner would like to be called. Nobody has said, so it is empty.
pub const PREFERRED_USERNAME: &str = "x-auth-request-preferred-username";
/// What the owner would get in with elsewhere. Always empty: the upstream is told who somebody is, never by which secret.
pub const ACCESS_TOKEN: &str = "x-auth-request-access-token";
/// The token's scopes, separated by spaces.
pub const SCOPES: &str = "x-auth-request-scopes";
/// The id of the credential, which may be told to anybody.
pub const TOKEN_ID: &str = "x-auth-request-token-id";

/// All identity headers: the names are oauth2-proxy's, which people already wire up, and two of our own.
///
/// All of oauth2-proxy's, also those for which a PAT never has a value: an upstream that was set up for oauth2-proxy believes them,
/// and what we do not set comes from the client.
pub const NAMES: [&str; 7] = [USER, EMAIL, GROUPS, PREFERRED_USERNAME, ACCESS_TOKEN, SCOPES, TOKEN_ID];

/// Every identity header with its value, empty where there is none.
///
/// Each of them goes with every allow: one that is left out survives as the client sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity([(&'static str, String); NAMES.len()]);

/// Something about the owner cannot stand in a header. Admission keeps it out; should it get in, nobody is let in by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the token's owner or scopes cannot stand in a header")]
pub struct Unprintable;

impl Identity {
    /// The identity that a token stands for, with what is known of its owner. An address or a group that cannot stand in a header
    /// is left out, as is a group with a comma, which would be read as two.
    ///
    /// # Errors
    /// If anything but visible ASCII is in the owner's name or in the scopes.
    pub fn of(record: &CredentialRef, owner: Option<&OwnerProfile>) -> Result<Self, Unprintable> {
        let user = record.pat.subject();
        let scopes = record.pat.scopes().joined();
        let fits = |text: &str| text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        if user.is_empty() || user.contains(' ') || !fits(user) || !fits(scopes) {
            return Err(Unprintable);
        }
        let id = record.credential().id.to_string();
        let (user, scopes) = (user.to_owned(), scopes.to_owned());
        // A space at an end would be cut off on the way, and so make another group of it.
        let is_value = |text: &&str| !text.is_empty() && fits(text) && text.trim_ascii() == *text;
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

    /// The headers: names in lower case, values of visible ASCII and spaces.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(name, value)| (*name, &**value))
    }
}

/// Whether this header would pass for an identity header: equal to one but for `_` or `.` in place of `-`, in any case.
///
/// CGI-like upstreams and some servers take `X_Auth_Request_User` for `X-Auth-Request-User`, and no proxy overwrites it. The
/// header itself is no alias: that one is overwritten.
pub fn is_alias(name: &str) -> bool {
    let name = name.as_bytes();
    if !name.iter().any(|byte| matches!(byte, b'_' | b'.')) {
        return false;
    }
    NAMES.iter().any(|ours| {
        ours.len() == name.len()
            && ours.bytes().zip(name).all(|(our, byte)| match byte {
                b'_' | b'.' => our == b'-',
                byte => our == byte.to_ascii_lowercase(),
            })
    })
}
