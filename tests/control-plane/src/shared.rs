//! The control plane that the tests of a run share, under `control-plane run` or plain `cargo test`.

use std::{env, path::Path};

use tokio::sync::OnceCell;

use crate::{Access, ControlPlane, Error, KUBECONFIG_VARIABLE, Options};

/// Returns the shared control plane.
///
/// Under `control-plane run` it is the one started for the command. Otherwise the first call starts one for this process.
/// It needs no teardown: when the process ends, the kernel kills its children and the janitor removes the folder. Each
/// test uses a [`Namespace`](crate::Namespace) of its own. A test that kills components starts its own control plane with
/// [`ControlPlane::start`].
pub async fn shared() -> Result<Access, Error> {
    static OWN: OnceCell<ControlPlane> = OnceCell::const_new();
    match env::var_os(KUBECONFIG_VARIABLE).filter(|path| !path.is_empty()) {
        Some(kubeconfig) => Access::from_kubeconfig(Path::new(&kubeconfig)),
        None => OWN.get_or_try_init(|| ControlPlane::start(Options::default())).await.map(ControlPlane::access),
    }
}
