//! The error of a command: what is wrong, where, and what to do next.

use super::output::Exit;
use crate::service::{ClientError, explain_api_error};

/// An error that ends a command. Its text ends with what to do next.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubeconfig gives no client.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The API server refused the request, or the request failed.
    #[error("{}", explain_api_error(.0))]
    Api(#[from] kube::Error),
    /// The API server did not respond in time.
    #[error(
        "the API server did not respond within {0:?}: check its address in the kubeconfig and your network connection, or run `kubectl pat doctor`"
    )]
    Timeout(std::time::Duration),
    /// The object does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The command refuses the request.
    #[error("{0}")]
    Refused(String),
    /// The command line, or a file that it names, is invalid.
    #[error("{0}")]
    Usage(String),
    /// The token is not valid.
    #[error("{0}")]
    NotValid(String),
    /// The expected change did not happen in time.
    #[error("{0}")]
    TimedOut(String),
    /// A file or the terminal cannot be read or written.
    #[error("{what}: {error}")]
    Io {
        /// The file or device.
        what: String,
        /// The cause.
        error: std::io::Error,
    },
}

impl Error {
    /// The exit code of the command.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Usage,
            Self::NotValid(_) => Exit::NotValid,
            Self::TimedOut(_) => Exit::TimedOut,
            _ => Exit::Failed,
        }
    }

    /// Whether the API server answered with this HTTP status.
    pub fn is_api_status(&self, code: u16) -> bool {
        matches!(self, Self::Api(kube::Error::Api(status)) if status.code == code)
    }

    /// Returns a function that maps an I/O error of `what`.
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |error| Self::Io { what, error }
    }
}
