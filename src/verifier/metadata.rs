//! RFC 8414 authorization server metadata, by which OAuth clients discover the endpoints.

use std::{fmt, str::FromStr};

use axum::{
    http::{Method, StatusCode, Uri},
    response::Response,
};
use serde::Serialize;

use super::{introspection, response};

/// Path of the metadata. An issuer with a path has its metadata under that path too.
pub const PATH: &str = "/.well-known/oauth-authorization-server";

const ALLOWED: &str = "GET, HEAD";

/// The issuer identifier of this installation: the https URL at which clients reach the verifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer(String);

/// The error for text that is not an issuer identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be an https URL without user, query and fragment, such as https://tokens.example.com")]
pub struct InvalidIssuer;

impl Issuer {
    /// Returns the URL exactly as configured, because clients compare it character by character.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn endpoint(&self, path: &str) -> String {
        format!("{}{path}", self.0.trim_end_matches('/'))
    }

    /// Returns the path of the URL without slashes around it.
    fn path(&self) -> &str {
        let after = self.0.get("https://".len()..).unwrap_or_default();
        after.split_once('/').map_or("", |(_, path)| path.trim_matches('/'))
    }
}

impl FromStr for Issuer {
    type Err = InvalidIssuer;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_plain = text.starts_with("https://") && !text.contains(['?', '#', '@', '\\', '"']);
        match text.parse::<Uri>() {
            Ok(uri) if is_plain && uri.host().is_some_and(|host| !host.is_empty()) => Ok(Self(text.to_owned())),
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
struct ServerMetadata<'a> {
    issuer: &'a str,
    // Required and not empty, although this server issues nothing by redirection.
    response_types_supported: [&'static str; 1],
    introspection_endpoint: String,
    introspection_endpoint_auth_methods_supported: [&'static str; 2],
}

/// Answers a request for the metadata; returns `None` if it asks for another issuer.
pub fn answer(issuer: &Issuer, method: &Method, uri: &Uri) -> Option<Response> {
    let suffix = uri.path().strip_prefix(PATH)?;
    if !suffix.is_empty() && suffix.strip_prefix('/') != Some(issuer.path()) {
        return None;
    }
    if !response::is_allowed(method, ALLOWED) {
        return Some(response::method_not_allowed(ALLOWED));
    }
    let metadata = ServerMetadata {
        issuer: issuer.as_str(),
        response_types_supported: ["none"],
        introspection_endpoint: issuer.endpoint(introspection::PATH),
        // RFC 8414 also allows access token types here, such as Bearer.
        introspection_endpoint_auth_methods_supported: ["client_secret_basic", "Bearer"],
    };
    Some(response::json(StatusCode::OK, &metadata))
}
