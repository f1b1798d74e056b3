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
//! The programs come from `KUBEBUILDER_ASSETS`. Otherwise they are downloaded once into a per-user cache, or built there
//! from pinned Go modules where a download is not possible. `CONTROL_PLANE_MIRROR` replaces the official download hosts.
//! A test that needs a program which a `KUBEBUILDER_ASSETS` folder lacks calls [`require`] first.
//!
//! A control plane leaves no process and no file behind, not even after a panic or `kill -9`.

mod access;
mod assets;
mod binary;
mod cache;
mod component;
mod control_plane;
mod der;
mod download;
mod error;
mod go_build;
mod home;
mod identity;
mod namespace;
mod pki;
mod process;
mod progress;
#[cfg(test)]
#[path = "../tests/support/server.rs"]
mod server;
mod shared;
mod sources;
mod spawn;

pub use access::{Access, KUBECONFIG_VARIABLE};
pub use assets::{Assets, AssetsError, require};
pub use binary::Binary;
pub use component::Component;
pub use control_plane::{ControlPlane, Options};
pub use error::Error;
pub use identity::Identity;
pub use namespace::Namespace;
pub use pki::PkiError;
pub use shared::shared;
pub use spawn::spawn;
