//! Why a certificate could not be looked after.

use crate::service::explain_api_error;

/// Why a certificate could not be looked after.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is an object of this name, and it is somebody else's.
    #[error(
        "{kind} {name} in namespace {namespace} is not a serving certificate of this operator: {problem}; it is not touched: delete it if nothing \
         else needs it, or choose another name with --serving-certificate"
    )]
    NotOurs {
        /// Its kind.
        kind: &'static str,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Somebody was quicker: look again.
    #[error("{what}: it has changed since it was read")]
    Conflict {
        /// The request.
        what: String,
    },
    /// The API server refuses, or cannot be reached.
    #[error("{what}: {}", explain_api_error(.error))]
    Api {
        /// The request.
        what: String,
        /// What kube said.
        error: Box<kube::Error>,
    },
    /// The API server does not answer.
    #[error("{what}: no answer within {seconds} s")]
    Timeout {
        /// The request.
        what: String,
        /// How long was waited.
        seconds: u64,
    },
    /// Nothing can be made.
    #[error("a certificate for {secret} could not be made: {error}")]
    Making {
        /// The Secret that it is for.
        secret: String,
        /// What rcgen said.
        error: rcgen::Error,
    },
}

impl Error {
    /// Every category.
    pub const CATEGORIES: [&'static str; 5] =
        ["CertificateNotOurs", "Conflict", "ApiError", "Timeout", "CertificateNotMade"];

    /// The one name of this error for metrics, events and logs.
    pub fn category(&self) -> &'static str {
        match self {
            Self::NotOurs { .. } => "CertificateNotOurs",
            Self::Conflict { .. } => "Conflict",
            Self::Api { .. } => "ApiError",
            Self::Timeout { .. } => "Timeout",
            Self::Making { .. } => "CertificateNotMade",
        }
    }

    /// What kube said to this request.
    pub(super) fn of(what: String, error: kube::Error) -> Self {
        match error {
            // It exists already, or is at another version.
            kube::Error::Api(status) if status.code == 409 => Self::Conflict { what },
            error => Self::Api { what, error: Box::new(error) },
        }
    }
}
