//! A real Kubernetes control plane for tests: etcd, kube-apiserver and kube-controller-manager on loopback.
//!
//! ```no_run
//! # async fn test() -> Result<(), control_plane::Error> {
//! let plane = control_plane::shared().await?;
//! let namespace = plane.namespace("rotation").await?;
//! let admin = plane.client()?;
//! let operator = plane.client_for(&control_plane::Identity::service_account(namespace.name(), "operator"))?;
//! # Ok(())
//! # }
//! ```
//!
//! The programs come from `KUBEBUILDER_ASSETS`, or are built once from pinned Go modules into a per-user cache.
//! Nothing stays behind: not after a panic, not after `kill -9`.
//! This crate must not know anything about personal access tokens.

mod access;
mod assets;
mod component;
mod der;
mod error;
mod go_build;
mod home;
mod identity;
mod namespace;
mod pki;
mod plane;
mod process;
mod progress;
mod shared;
mod spawn;

pub use access::{Access, KUBECONFIG_VARIABLE};
pub use assets::{Assets, AssetsError, Binary};
pub use component::Component;
pub use error::Error;
pub use identity::Identity;
pub use namespace::Namespace;
pub use pki::PkiError;
pub use plane::{ControlPlane, Options};
pub use shared::shared;
pub use spawn::spawn;
