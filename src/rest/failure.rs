//! What can go wrong with a request, before a dialect says it its own way.
//!
//! Nothing in it tells more than the caller may know: an object of somebody else is `NotFound`, as if it were not there.

use std::time::Duration;

use axum::http::StatusCode;

/// Why a request is not done. The texts are for the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No credential, or one that is not accepted: always the same words, whatever the reason.
    #[error("authenticate with a personal access token that is live: Authorization: Bearer <token>")]
    Unauthenticated,
    /// The caller lacks a right; the words name it.
    #[error("{0}")]
    Forbidden(String),
    /// There is nothing of that id that the caller may know of.
    #[error("there is no such token")]
    NotFound,
    /// A parameter or a field is wrong.
    #[error("{field}: {problem}")]
    Invalid {
        /// Which: its name as the caller wrote it, such as `limit` or `expirationDate`.
        field: String,
        /// What is wrong with it, and what would be right.
        problem: String,
    },
    /// It cannot be done as things stand: a name is taken, somebody else has changed the token, or another manager owns the field.
    #[error("{0}")]
    Conflict(Conflict),
    /// Too many requests by this owner.
    #[error("too many requests: wait {} s", .retry_after.as_secs())]
    TooMany {
        /// When to come back; at least a second.
        retry_after: Duration,
    },
    /// It cannot be done at the moment; trying again later may help, and does no harm.
    #[error("{problem}")]
    Unavailable {
        /// What is missing.
        problem: &'static str,
        /// When to come back.
        retry_after: Duration,
    },
    /// Its time is over. It may have had its effect all the same.
    #[error("this took too long: look what has come of it before you repeat it")]
    TooLong,
    /// Only reading is allowed on this server.
    #[error("this server is read-only")]
    ReadOnly,
    /// Something broke that is nobody's fault who calls. What exactly stands in the log, under the request's id.
    #[error("something went wrong here; the log has more under the id of this request")]
    Internal,
}

/// Why something cannot be done as things stand.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// The owner has a token of this name.
    #[error("a token with the name {0:?} exists already: choose another name")]
    NameTaken(String),
    /// It was changed meanwhile.
    #[error("the token was changed by somebody else meanwhile: read it again, then repeat")]
    Changed,
    /// The field belongs to somebody else, such as a GitOps tool.
    #[error("{field} is managed by {manager:?}: change it there")]
    Managed {
        /// The field, by the resource's name for it, such as `spec.scopes`.
        field: String,
        /// The field manager.
        manager: String,
    },
    /// The token cannot take this operation; the words say why.
    #[error("{0}")]
    State(String),
}

impl Failure {
    /// A parameter or field that is wrong.
    pub fn invalid(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), problem: problem.into() }
    }

    /// The one name of this failure for metrics and logs.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Unauthenticated => "Unauthenticated",
            Self::Forbidden(_) => "Forbidden",
            Self::NotFound => "NotFound",
            Self::Invalid { .. } => "Invalid",
            Self::Conflict(_) => "Conflict",
            Self::TooMany { .. } => "TooMany",
            Self::Unavailable { .. } => "Unavailable",
            Self::TooLong => "TooLong",
            Self::ReadOnly => "ReadOnly",
            Self::Internal => "Internal",
        }
    }

    /// The status that says so, for whoever knows all of them.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) | Self::ReadOnly => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Invalid { .. } => StatusCode::BAD_REQUEST,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooLong => StatusCode::REQUEST_TIMEOUT,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// When to come back, if that would help.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooMany { retry_after } | Self::Unavailable { retry_after, .. } => Some(*retry_after),
            _ => None,
        }
    }

    /// The same with the resource's fields called as a dialect calls them.
    #[must_use]
    pub fn with_fields_named(self, named: impl Fn(&str) -> String) -> Self {
        match self {
            Self::Invalid { field, problem } => Self::Invalid { field: named(&field), problem },
            Self::Conflict(Conflict::Managed { field, manager }) => {
                Self::Conflict(Conflict::Managed { field: named(&field), manager })
            }
            other => other,
        }
    }
}
