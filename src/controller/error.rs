//! What can go wrong on the way to the API server, sorted by what to do about it.
//!
//! Nothing in here may carry a request's body: it goes into logs, events and conditions.

use std::time::Duration;

use kube::core::Status;

/// A step that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object changed since it was read.
    #[error("{what} changed in the meantime")]
    Conflict {
        /// Which object.
        what: String,
    },
    /// An object of this name is there already.
    #[error("{what} is there already")]
    AlreadyExists {
        /// Which object.
        what: String,
    },
    /// The object is gone.
    #[error("{what} is gone")]
    NotFound {
        /// Which object.
        what: String,
    },
    /// The namespace is being deleted.
    #[error("{message}")]
    NamespaceTerminating {
        /// The API server's words.
        message: String,
    },
    /// The API server will not have it as it is: quota, admission, validation, permission.
    #[error("{message}")]
    Refused {
        /// The API server's words.
        message: String,
    },
    /// The API server is busy or failing; the request may or may not have taken effect.
    #[error("{what}: {message}")]
    Unavailable {
        /// Which request.
        what: String,
        /// The words.
        message: String,
        /// How long it asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// Nothing was heard in time; the request may or may not have taken effect.
    #[error("{what}: no answer within {} s", limit.as_secs())]
    Timeout {
        /// Which request.
        what: String,
        /// How long it was waited for.
        limit: Duration,
    },
    /// No token could be minted.
    #[error(transparent)]
    Mint(#[from] crate::token::MintError),
    /// A plain token is not where the plan saw it.
    #[error("the token is no longer in Secret {secret:?}")]
    TokenMoved {
        /// The Secret.
        secret: String,
    },
    /// A template that read well did not render.
    #[error(transparent)]
    Render(#[from] crate::api::InvalidField),
    /// A bug: the run panicked. Other tokens are not affected.
    #[error("the run panicked; this is a bug, please report it with the log above")]
    Panicked,
    /// The plan does not come to rest.
    #[error("no rest after {steps} steps")]
    Restless {
        /// How many were taken.
        steps: usize,
    },
}

impl Error {
    /// The one name of this error for metrics, events and logs.
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

    /// How long the API server asked to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Sorts an error of the client. `what` names the request, such as `patch Secret ns/name`.
    pub fn of(what: &str, error: kube::Error) -> Self {
        let what = what.to_owned();
        match error {
            kube::Error::Api(status) => Self::of_status(what, &status),
            // The error of a transport can quote what it was given; only its kind is told.
            kube::Error::SerdeError(_) => {
                Self::Unavailable { what, message: "the answer could not be read".into(), retry_after: None }
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
