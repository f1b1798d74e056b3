//! A real API server with PATs in the state in which a controller leaves them.

use std::path::PathBuf;

use anyhow::Context;
use control_plane::{Component, ControlPlane, Identity, Options};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use pat_operator::api::{FIELD_MANAGER, PersonalAccessToken};
use serde_json::{Value, json};

use crate::{
    crowd::each,
    progress::{self, Progress},
    tokens::{self, NAMESPACE},
};

/// A running control plane. Only the benchmark writes to it.
pub struct Plane {
    plane: ControlPlane,
    pats: Api<PersonalAccessToken>,
    /// The API server's version.
    pub version: String,
}

impl Plane {
    /// Starts the control plane with the CRDs of this checkout.
    pub async fn start() -> anyhow::Result<Self> {
        progress::report("starting etcd and kube-apiserver (the first build takes some minutes) …");
        let crds = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("crds");
        let plane = ControlPlane::start(Options::default().without_controller_manager().apply(crds)).await?;
        let config = plane.config_for(&Identity::admin())?;
        let client = pat_operator::service::client::client(config)?.client;
        let version = client.apiserver_version().await?.git_version;
        let namespace = serde_json::from_value(json!({"metadata": {"name": NAMESPACE}}))?;
        let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client.clone());
        namespaces.create(&PostParams::default(), &namespace).await?;
        Ok(Self { plane, pats: Api::namespaced(client, NAMESPACE), version })
    }

    /// An administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.plane.admin_kubeconfig()
    }

    /// The process ids of the API server and etcd.
    pub fn pids(&self) -> anyhow::Result<Vec<u32>> {
        let pid = |component| self.plane.pid(component).context("a process of the control plane has exited");
        Ok(vec![pid(Component::ApiServer)?, pid(Component::Etcd)?])
    }

    /// Creates this many PATs, each with its status.
    pub async fn fill(&self, count: usize) -> anyhow::Result<()> {
        let progress = Progress::begin(format!("creating {count} tokens on the API server"), count);
        let pats = self.pats.clone();
        let work = move |number: u32| {
            let pats = pats.clone();
            async move {
                let name = tokens::name(number);
                let object = json!({
                    "apiVersion": "pat-operator.io/v1alpha1",
                    "kind": "PersonalAccessToken",
                    "metadata": {"name": name},
                    "spec": tokens::spec(number),
                });
                let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
                pats.create(&params, &serde_json::from_value(object)?).await.context("creating a token")?;
                let status = json!({"status": tokens::status(number)?});
                pats.patch_status(&name, &merging(), &Patch::Merge(status)).await.context("writing a status")?;
                Ok(())
            }
        };
        each((0..u32::try_from(count)?).collect(), &progress, work).await.map(drop)
    }

    /// Patches the spec of a PAT.
    pub async fn change(&self, number: u32, spec: Value) -> anyhow::Result<()> {
        let patch = Patch::Merge(json!({"spec": spec}));
        self.pats.patch_metadata(&tokens::name(number), &merging(), &patch).await.context("writing a spec")?;
        Ok(())
    }
}

fn merging() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() }
}
