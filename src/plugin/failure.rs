//! How a command ends: what there is to print, with which exit code; or why it failed and what to do next.
//!
//! It must not know any command.

use std::process::ExitCode;

use zeroize::Zeroizing;

use crate::service::{ClientError, explain_api_error};

/// The exit codes; `--help` tells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done, and the answer is yes.
    Good,
    /// It failed; the last line on stderr says why and what to do.
    Failed,
    /// The command line is wrong.
    Usage,
    /// The token is not good.
    NotValid,
    /// It did not happen in time.
    TimedOut,
}

impl Exit {
    /// The number that the shell sees.
    pub fn code(self) -> u8 {
        match self {
            Self::Good => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotValid => 3,
            Self::TimedOut => 4,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// What a command has to say.
pub struct Answer {
    /// What goes to stdout; wiped afterwards, as it may be a token.
    pub text: Zeroizing<String>,
    /// How it ends.
    pub exit: Exit,
}

impl Answer {
    /// Such a text, and it went well.
    pub fn good(text: impl Into<String>) -> Self {
        Self::with(text, Exit::Good)
    }

    /// Such a text and such an end.
    pub fn with(text: impl Into<String>, exit: Exit) -> Self {
        Self { text: Zeroizing::new(text.into()), exit }
    }
}

/// Why a command failed. The line ends with what to do next.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// There is no client.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The API server said no, or nothing.
    #[error("{}", explain_api_error(.0))]
    Api(#[from] kube::Error),
    /// The API server did not answer in time.
    #[error(
        "the API server did not answer within 30 s; is its address right, and the network open? kubectl pat doctor looks closer"
    )]
    Silent,
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// It would not do what the person wants.
    #[error("{0}")]
    Refused(String),
    /// The command line, or a file that it names, is wrong.
    #[error("{0}")]
    Usage(String),
    /// The token is not good.
    #[error("{0}")]
    NotValid(String),
    /// It did not happen in time.
    #[error("{0}")]
    TimedOut(String),
    /// A file or a terminal does not do its part.
    #[error("{what}: {error}")]
    Io {
        /// What was wanted of it.
        what: String,
        /// What it said.
        error: std::io::Error,
    },
}

impl Failure {
    /// The one name of this error.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Client(error) => error.category(),
            Self::Api(_) => "ApiError",
            Self::Silent => "ApiSilent",
            Self::NotFound(_) => "NotFound",
            Self::Refused(_) => "Refused",
            Self::Usage(_) => "Usage",
            Self::NotValid(_) => "NotValid",
            Self::TimedOut(_) => "TimedOut",
            Self::Io { .. } => "Io",
        }
    }

    /// How the command ends.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Usage,
            Self::NotValid(_) => Exit::NotValid,
            Self::TimedOut(_) => Exit::TimedOut,
            _ => Exit::Failed,
        }
    }

    /// A file or terminal that fails.
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |error| Self::Io { what, error }
    }
}
