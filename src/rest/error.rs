//! Errors of requests, before a dialect writes them in its own format.
//!
//! An error reveals nothing that the caller may not know: another owner's token is `NotFound`, as if it did not exist.

use std::time::Duration;

use axum::http::StatusCode;

/// Why a request failed. The messages are for the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestError {
    /// There is no credential, or it is not accepted. The message is the same for every reason.
    #[error("authentication failed: send the header Authorization: Bearer <token> with a valid personal access token")]
    Unauthenticated,
    /// The caller lacks a permission; the message names it.
    #[error("{0}")]
    Forbidden(String),
    /// No token with this id exists, or the caller may not know of it.
    #[error("token not found")]
    NotFound,
    /// No single user has this email address, or the caller may not know of the user.
    #[error("no such user")]
    NoSuchUser,
    /// A parameter or field is invalid.
    #[error("{field}: {problem}")]
    Invalid {
        /// Its name as the caller wrote it, such as `limit` or `expirationDate`.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The request conflicts with the current state.
    #[error("{0}")]
    Conflict(Conflict),
    /// The owner sends too many requests.
    #[error("too many requests: retry after {} s", .retry_after.as_secs())]
    TooMany {
        /// The time to wait; at least a second.
        retry_after: Duration,
    },
    /// The request cannot be served at the moment. It is safe to retry.
    #[error("{problem}")]
    Unavailable {
        /// The reason.
        problem: &'static str,
        /// The time to wait.
        retry_after: Duration,
    },
    /// The request timed out. It may have had an effect.
    #[error("the request timed out and may have taken effect: check before you retry")]
    Timeout,
    /// The server is read-only.
    #[error("this server is read-only")]
    ReadOnly,
    /// The server failed. The log has details under the request's id.
    #[error("internal error: see the server's log for the id of this request")]
    Internal,
}

/// Why a request conflicts with the current state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// The owner has a token with this name.
    #[error("a token with the name {0:?} already exists: choose another name")]
    NameTaken(String),
    /// The token was changed since it was read.
    #[error("the token was changed by another request: read it again, then retry")]
    Changed,
    /// The field is managed by another field manager, such as a GitOps tool.
    #[error("{field} is managed by {manager:?}: change it there")]
    Managed {
        /// The field's name in the resource, such as `spec.scopes`.
        field: String,
        /// The field manager.
        manager: String,
    },
    /// The token's state does not allow the operation; the message says why.
    #[error("{0}")]
    State(String),
}

impl RestError {
    /// Creates an error about a parameter or field.
    pub fn invalid(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), problem: problem.into() }
    }

    /// Returns the name of this error in metrics, logs and error codes.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Unauthenticated => "Unauthenticated",
            Self::Forbidden(_) => "Forbidden",
            Self::NotFound | Self::NoSuchUser => "NotFound",
            Self::Invalid { .. } => "Invalid",
            Self::Conflict(_) => "Conflict",
            Self::TooMany { .. } => "TooMany",
            Self::Unavailable { .. } => "Unavailable",
            Self::Timeout => "TooLong",
            Self::ReadOnly => "ReadOnly",
            Self::Internal => "Internal",
        }
    }

    /// Returns the HTTP status, for clients that know all of them.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) | Self::ReadOnly => StatusCode::FORBIDDEN,
            Self::NotFound | Self::NoSuchUser => StatusCode::NOT_FOUND,
            Self::Invalid { .. } => StatusCode::BAD_REQUEST,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Timeout => StatusCode::REQUEST_TIMEOUT,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Returns when to retry, if that may help.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooMany { retry_after } | Self::Unavailable { retry_after, .. } => Some(*retry_after),
            _ => None,
        }
    }

    /// Replaces the resource's field names by those of a dialect: pairs of `spec.displayName` and `name`.
    #[must_use]
    pub fn with_field_names(self, names: &[(&str, &str)]) -> Self {
        match self {
            Self::Invalid { field, problem } => Self::Invalid { field: renamed(&field, names), problem },
            Self::Conflict(Conflict::Managed { field, manager }) => {
                Self::Conflict(Conflict::Managed { field: renamed(&field, names), manager })
            }
            // A guard rail's message begins with the field, such as `spec.scopes: …`.
            Self::Forbidden(message) => match message.split_once(": ") {
                Some((field, rest)) if field.starts_with("spec.") => {
                    Self::Forbidden(format!("{}: {rest}", renamed(field, names)))
                }
                _ => Self::Forbidden(message),
            },
            other => other,
        }
    }
}

fn renamed(field: &str, names: &[(&str, &str)]) -> String {
    // An index such as `[2]` is kept. The part of `spec.expiry.at` means nothing to a dialect.
    let renamed = |theirs: &str, ours: &str| {
        let rest = field.strip_prefix(theirs).filter(|rest| rest.is_empty() || rest.starts_with(['.', '[']))?;
        Some(format!("{ours}{}", if rest.starts_with('[') { rest } else { "" }))
    };
    names.iter().find_map(|(theirs, ours)| renamed(theirs, ours)).unwrap_or_else(|| field.to_owned())
}
