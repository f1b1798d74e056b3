//! RFC 8414: where the OAuth endpoints are, for clients that look for themselves.
//!
//! It must not know what the endpoints answer.

use std::{fmt, str::FromStr};

use axum::{
    http::{Method, StatusCode, Uri},
    response::Response,
};
use serde::Serialize;

use super::{introspection, reply};

/// Where the metadata is; an issuer with a path has that path appended.
pub const PATH: &str = "/.well-known/oauth-authorization-server";

/// The methods that are answered.
const ALLOWED: &str = "GET, HEAD";

/// The name of this installation in OAuth: the https URL under which clients reach the verifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer(String);

/// Text that is no issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an issuer is an https URL without user, query and fragment, such as https://tokens.example.com")]
pub struct InvalidIssuer;

impl Issuer {
    /// The URL, letter by letter as it was given: clients compare it so.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn endpoint(&self, path: &str) -> String {
        format!("{}{path}", self.0.trim_end_matches('/'))
    }

    /// The URL's path without slashes around it.
    fn path(&self) -> &str {
        let after = self.0.get("https://".len()..).unwrap_or_default();
        after.split_once('/').map_or("", |(_, path)| path.trim_matches('/'))
    }
}

impl FromStr for Issuer {
    type Err = InvalidIssuer;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = text.starts_with("https://") && !text.contains(['?', '#', '@', '\\', '"']);
        match text.parse::<Uri>() {
            Ok(uri) if plain && uri.host().is_some_and(|host| !host.is_empty()) => Ok(Self(text.to_owned())),
            _ => Err(InvalidIssuer),
        }
    }
}

impl fmt::Display for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Serialize)]
struct Metadata<'a> {
    issuer: &'a str,
    // Required, and may not be empty: this server hands out nothing by redirection.
    response_types_supported: [&'static str; 1],
    introspection_endpoint: String,
    introspection_endpoint_auth_methods_supported: [&'static str; 2],
}

/// Answers a client that looks for the endpoints; `None` if it looks for another issuer's.
pub fn answer(issuer: &Issuer, method: &Method, uri: &Uri) -> Option<Response> {
    let wanted = uri.path().strip_prefix(PATH)?;
    if !wanted.is_empty() && wanted.strip_prefix('/') != Some(issuer.path()) {
        return None;
    }
    if !reply::is_allowed(method, ALLOWED) {
        return Some(reply::wrong_method(ALLOWED));
    }
    let metadata = Metadata {
        issuer: issuer.as_str(),
        response_types_supported: ["none"],
        introspection_endpoint: issuer.endpoint(introspection::PATH),
        // The second is a registered name too: RFC 8414 lets access token types stand here.
        introspection_endpoint_auth_methods_supported: ["client_secret_basic", "Bearer"],
    };
    Some(reply::json(StatusCode::OK, &metadata))
}
