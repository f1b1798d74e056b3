//! Errors of a running control plane. Every message ends with what to do.

use std::{io, path::PathBuf, process::ExitStatus, time::Duration};

use crate::{AssetsError, Component, pki::PkiError};

/// A control plane cannot be started, reached or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A program cannot be provided.
    #[error(transparent)]
    Assets(#[from] AssetsError),

    /// A key or certificate cannot be made.
    #[error(transparent)]
    Pki(#[from] PkiError),

    /// A request to the API server failed.
    #[error("request to the control plane's API server failed: {0}; see its log in the control plane's folder")]
    Api(#[from] kube::Error),

    /// A component exited by itself.
    #[error("{component} exited ({status}); fix what the end of its log reports:\n{log}")]
    Ended {
        /// The component.
        component: Component,
        /// The exit status.
        status: ExitStatus,
        /// The end of its log.
        log: String,
    },

    /// A component runs, but is not ready in time.
    #[error(
        "{component} is not ready after {waited:?} ({last}); check the load of the machine and the end of the log:\n{log}"
    )]
    NotReady {
        /// The component.
        component: Component,
        /// How long the start was waited for.
        waited: Duration,
        /// The result of the last readiness check.
        last: String,
        /// The end of its log.
        log: String,
    },

    /// A manifest cannot be applied at the start.
    #[error("kubectl cannot apply {path}; correct the manifest, then start again:\n{output}")]
    Apply {
        /// The manifest, or the folder of manifests.
        path: PathBuf,
        /// The error of kubectl.
        output: String,
    },

    /// The kubeconfig in the environment belongs to another cluster.
    #[error(
        "{kubeconfig} does not belong to a running control plane of this crate: {reason}; unset {variable}, or start a control \
         plane with `control-plane up`",
        variable = crate::KUBECONFIG_VARIABLE
    )]
    Foreign {
        /// The kubeconfig.
        kubeconfig: PathBuf,
        /// The reason.
        reason: String,
    },

    /// The URL of the API server is not valid.
    #[error("`{0}` is not the URL of an API server; start the control plane again")]
    Url(String),

    /// A kubeconfig cannot be written as YAML.
    #[error("cannot write a kubeconfig as YAML: {0}; use a user name of plain characters")]
    Kubeconfig(String),

    /// An operation of the operating system failed.
    #[error("cannot {action}: {source}; check disk space and the permissions of the folder for temporary files")]
    Io {
        /// The operation.
        action: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn io(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, source }
    }
}
