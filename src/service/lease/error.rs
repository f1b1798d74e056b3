//! Why there will be no leader election.
//!
//! Each is one line for a person, with what to do. It must not know how an election goes.

/// Why there will be no leader election. Anything that may pass by itself is logged and tried again instead.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The API server refused us the Lease, and kept on refusing if it ever let us.
    #[error("leader election on Lease {lease} is refused: {why}")]
    Refused {
        /// The Lease, as namespace/name.
        lease: String,
        /// What was refused to whom, and what to do.
        why: String,
    },
    /// The Lease's namespace does not exist.
    #[error("leader election needs namespace {namespace}, which does not exist: create it or set --lease-namespace")]
    NoNamespace {
        /// The missing namespace.
        namespace: String,
    },
    /// The API server does not take such a Lease: its name, mostly.
    #[error("leader election cannot use Lease {lease}: {why}")]
    Invalid {
        /// The Lease, as namespace/name.
        lease: String,
        /// What the API server says about it.
        why: String,
    },
}

impl LeaseError {
    /// The one name of this error for metrics, events and logs.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "LeaseRefused",
            Self::NoNamespace { .. } => "LeaseNamespaceMissing",
            Self::Invalid { .. } => "LeaseInvalid",
        }
    }
}
