//! What can go wrong while a control plane runs; every message ends with what to do.
//!
//! For: whoever reads a failed test.
//! Must not know how binaries are built: `assets` has its own enum.

use std::{io, path::PathBuf, process::ExitStatus, time::Duration};

use crate::{AssetsError, Component, pki::PkiError};

/// A control plane could not be started, reached or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The programs are not there and could not be built.
    #[error(transparent)]
    Assets(#[from] AssetsError),

    /// Keys and certificates.
    #[error(transparent)]
    Pki(#[from] PkiError),

    /// A request to the API server failed.
    #[error("the control plane's API server refused or did not answer: {0}; its log is in the control plane's folder")]
    Api(#[from] kube::Error),

    /// A component ended by itself.
    #[error("{component} ended ({status}) instead of running; what it said last tells why:\n{log}")]
    Ended {
        /// Which one.
        component: Component,
        /// How it ended.
        status: ExitStatus,
        /// The end of its log.
        log: String,
    },

    /// It runs but is not ready in time.
    #[error(
        "{component} was not ready after {waited:?} ({last}); is the machine overloaded? The end of its log:\n{log}"
    )]
    NotReady {
        /// Which one.
        component: Component,
        /// How long we waited.
        waited: Duration,
        /// What the last look at it found.
        last: String,
        /// The end of its log.
        log: String,
    },

    /// A manifest could not be applied at the start.
    #[error("kubectl could not apply {path}: correct it, then start again\n{output}")]
    Apply {
        /// The manifest, or the folder of manifests.
        path: PathBuf,
        /// What kubectl said.
        output: String,
    },

    /// The kubeconfig in the environment belongs to something else.
    #[error(
        "{kubeconfig} does not belong to a running control plane of ours: {reason}; unset {variable}, or start one with \
         `control-plane up`",
        variable = crate::KUBECONFIG_VARIABLE
    )]
    Foreign {
        /// The file.
        kubeconfig: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// The address of the API server is none.
    #[error("`{0}` is no address of an API server: start the control plane again")]
    Url(String),

    /// A kubeconfig could not be written as YAML.
    #[error("could not write a kubeconfig as YAML: {0}; use a user name of plain characters")]
    Kubeconfig(String),

    /// The operating system refused something.
    #[error("could not {action}: {source}; check the disk space and the rights of the folder for temporary files")]
    Io {
        /// What was tried.
        action: &'static str,
        /// What came back.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn io(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, source }
    }
}
