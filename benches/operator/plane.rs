//! The control plane for all measurements, and namespaces with names of equal length.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::Context;
use control_plane::{Component, ControlPlane, Identity, Options};
use kube::Client;

use crate::{meter::Meter, progress, requests::Requests, wire::Wire};

/// The limit for the control plane to become idle.
const QUIET_WITHIN: Duration = Duration::from_secs(15);

/// A running control plane. It has no kube-controller-manager, so that only the measured program writes.
pub struct Plane {
    plane: ControlPlane,
    namespaces: AtomicUsize,
    /// The build of the operator to measure.
    pub operator: PathBuf,
    /// The API server's version.
    pub version: String,
}

impl Plane {
    /// Starts the control plane with the CRDs of this checkout.
    pub async fn start(operator: &Path) -> anyhow::Result<Self> {
        progress::report("starting etcd and kube-apiserver (the first build takes some minutes) …");
        let crds = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("crds");
        let options = Options::default().without_controller_manager().apply(crds);
        let plane = ControlPlane::start(options).await?;
        let version = plane.client()?.apiserver_version().await?.git_version;
        Ok(Self { plane, namespaces: AtomicUsize::new(0), operator: operator.to_owned(), version })
    }

    /// A client with the same settings as the operator's.
    pub fn client(&self) -> anyhow::Result<Client> {
        let config = self.plane.config_for(&Identity::admin())?;
        Ok(pat_operator::service::client::client(config)?.client)
    }

    /// A client for bare requests.
    pub fn wire(&self) -> anyhow::Result<Wire> {
        Ok(Wire::new(self.client()?))
    }

    /// An administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.plane.admin_kubeconfig()
    }

    /// Creates a namespace. All names have the same length, so that requests have the same size.
    pub async fn namespace(&self) -> anyhow::Result<String> {
        let name = format!("bench-{:04}", self.namespaces.fetch_add(1, Ordering::Relaxed));
        let body = serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        self.wire()?.create("/api/v1/namespaces", body.to_string().into_bytes()).await?;
        Ok(name)
    }

    /// The API server's request counters.
    pub async fn requests(&self) -> anyhow::Result<Requests> {
        Ok(Requests::read(&self.plane.metrics().await?))
    }

    /// A meter of all processes.
    pub fn meter(&self, operator: Option<u32>) -> anyhow::Result<Meter> {
        let pid = |component| self.plane.pid(component).context("a process of the control plane has exited");
        Ok(Meter { api_server: pid(Component::ApiServer)?, etcd: pid(Component::Etcd)?, operator })
    }

    /// Waits until the control plane is idle, so that earlier work does not affect a measurement.
    pub async fn settle(&self) -> anyhow::Result<()> {
        const LOOK: Duration = Duration::from_millis(500);
        let meter = self.meter(None)?;
        let mut last = meter.read()?;
        let rounds = QUIET_WITHIN.as_millis() / LOOK.as_millis();
        for _ in 0..rounds {
            tokio::time::sleep(LOOK).await;
            let now = meter.read()?;
            if (now - last).control_plane() < LOOK / 10 {
                break;
            }
            last = now;
        }
        Ok(())
    }
}
