//! The control plane that the tests of one run share.
//!
//! For: `let plane = control_plane::shared().await?;` in any test, under `control-plane run` or plain `cargo test`.
//! Must not know what the tests do with it.

use std::{env, path::Path};

use tokio::sync::OnceCell;

use crate::{Access, ControlPlane, Error, KUBECONFIG_VARIABLE, Options};

/// The shared control plane.
///
/// Under `control-plane run` it is the one that was started for the command; else the first call starts one for this
/// process. It needs no teardown: when the process ends, the kernel kills its children and the janitor removes the
/// folder. Tests keep apart by a [`Namespace`](crate::Namespace) each; a test that breaks things starts its own with
/// [`ControlPlane::start`].
pub async fn shared() -> Result<Access, Error> {
    static OWN: OnceCell<ControlPlane> = OnceCell::const_new();
    match env::var_os(KUBECONFIG_VARIABLE).filter(|path| !path.is_empty()) {
        Some(kubeconfig) => Access::from_kubeconfig(Path::new(&kubeconfig)),
        None => OWN.get_or_try_init(|| ControlPlane::start(Options::default())).await.map(ControlPlane::access),
    }
}
