//! The errors of a reconcile, grouped by what to do about them.
//!
//! No error contains the body of a request, because errors appear in logs, events and conditions.

use std::time::Duration;

use kube::core::Status;

/// A failed step of a reconcile.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object changed after it was read.
    #[error("{what}: the object changed after it was read")]
    Conflict {
        /// The request.
        what: String,
    },
    /// An object with this name already exists.
    #[error("{what}: the object already exists")]
    AlreadyExists {
        /// The request.
        what: String,
    },
    /// The object does not exist.
    #[error("{what}: the object no longer exists")]
    NotFound {
        /// The request.
        what: String,
    },
    /// The namespace is being deleted.
    #[error("{message}")]
    NamespaceTerminating {
        /// The API server's message.
        message: String,
    },
    /// The API server refuses the request: quota, admission, validation, permission.
    #[error("{message}")]
    Refused {
        /// The API server's message.
        message: String,
    },
    /// The API server is busy or fails. The request may have taken effect.
    #[error("{what}: {message}")]
    Unavailable {
        /// The request.
        what: String,
        /// The API server's message, or that of the connection.
        message: String,
        /// How long the API server asks to wait.
        retry_after: Option<Duration>,
    },
    /// The API server did not answer in time. The request may have taken effect.
    #[error("{what}: no answer within {} s", limit.as_secs())]
    Timeout {
        /// The request.
        what: String,
        /// The time limit.
        limit: Duration,
    },
    /// No token could be minted.
    #[error(transparent)]
    Mint(#[from] crate::token::MintError),
    /// A token is not where the plan expects it.
    #[error("the token is no longer in {place}")]
    TokenMoved {
        /// Where the plan expects it.
        place: String,
    },
    /// A valid template did not render.
    #[error(transparent)]
    Render(#[from] crate::api::InvalidField),
    /// A bug: the reconcile panicked. Other PATs are not affected.
    #[error("the reconcile panicked; this is a bug, please report it with the log above")]
    Panicked,
    /// A bug: planning does not converge.
    #[error("the plan did not converge after {steps} steps; this is a bug, please report it with the log above")]
    Restless {
        /// The number of steps.
        steps: usize,
    },
}

impl Error {
    /// Returns the name of this error in metrics and logs.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Conflict { .. } => "Conflict",
            Self::AlreadyExists { .. } => "AlreadyExists",
            Self::NotFound { .. } => "NotFound",
            Self::NamespaceTerminating { .. } => "NamespaceTerminating",
            Self::Refused { .. } => "Refused",
            Self::Unavailable { .. } => "Unavailable",
            Self::Timeout { .. } => "Timeout",
            Self::Mint(error) => error.category(),
            Self::TokenMoved { .. } => "TokenMoved",
            Self::Render(_) => "Render",
            Self::Panicked => "Panicked",
            Self::Restless { .. } => "Restless",
        }
    }

    /// Every category, for metrics that start at zero.
    pub const CATEGORIES: &'static [&'static str] = &[
        "Conflict",
        "AlreadyExists",
        "NotFound",
        "NamespaceTerminating",
        "Refused",
        "Unavailable",
        "Timeout",
        "RandomnessFailed",
        "RandomnessStuck",
        "TokenMoved",
        "Render",
        "Panicked",
        "Restless",
    ];

    /// Returns how long the API server asks to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Converts an error of the client. `what` names the request, such as `patch Secret ns/name`.
    pub fn of(what: &str, error: kube::Error) -> Self {
        let what = what.to_owned();
        match error {
            kube::Error::Api(status) => Self::of_status(what, &status),
            // The text of the error can quote the response.
            kube::Error::SerdeError(_) => {
                Self::Unavailable { what, message: "the response could not be decoded".into(), retry_after: None }
            }
            other => Self::Unavailable { what, message: root_cause(&other), retry_after: None },
        }
    }

    fn of_status(what: String, status: &Status) -> Self {
        let message = status.message.clone();
        let has_cause = |reason: &str| {
            status.details.as_ref().is_some_and(|details| details.causes.iter().any(|cause| cause.reason == reason))
        };
        match (status.code, status.reason.as_str()) {
            (409, "AlreadyExists") => Self::AlreadyExists { what },
            (409, _) => Self::Conflict { what },
            (404, _) => Self::NotFound { what },
            (403, _) if has_cause("NamespaceTerminating") => Self::NamespaceTerminating { message },
            (400 | 401 | 403 | 405 | 413 | 415 | 422, _) => Self::Refused { message },
            _ => {
                let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
                let retry_after = (seconds > 0).then(|| Duration::from_secs(u64::from(seconds)));
                Self::Unavailable { what, message, retry_after }
            }
        }
    }
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
