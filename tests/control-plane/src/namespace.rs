//! A namespace for a single test, so that tests on a shared control plane do not see each other.

use std::{fmt, thread};

use k8s_openapi::api::core::v1;
use kube::{
    Api, Resource,
    api::{ObjectMeta, PostParams},
};

use crate::{Access, Error};

/// A namespace with a unique name. Dropping it requests its deletion.
#[derive(Debug)]
pub struct Namespace {
    access: Access,
    name: String,
}

impl Namespace {
    pub(crate) async fn create(access: Access, prefix: &str) -> Result<Self, Error> {
        let metadata = ObjectMeta { generate_name: Some(format!("{prefix}-")), ..ObjectMeta::default() };
        let namespace = v1::Namespace { metadata, ..v1::Namespace::default() };
        let made = Api::<v1::Namespace>::all(access.client()?).create(&PostParams::default(), &namespace).await?;
        Ok(Self { access, name: made.meta().name.clone().unwrap_or_default() })
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.name)
    }
}

impl Drop for Namespace {
    /// Best effort: if it fails, the namespace goes with its control plane.
    ///
    /// The test's runtime may be shutting down, so the request gets a thread and a runtime of its own.
    fn drop(&mut self) {
        let (access, name) = (self.access.clone(), self.name.clone());
        let _ = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
            runtime.block_on(async {
                let mut config = access.config_for(&crate::Identity::admin()).ok()?;
                // A test may have killed the API server: do not retry.
                config.default_retry = false;
                let client = kube::Client::try_from(config).ok()?;
                let delete = Api::<v1::Namespace>::all(client);
                let limit = std::time::Duration::from_secs(5);
                tokio::time::timeout(limit, delete.delete(&name, &Default::default())).await.ok()?.ok()
            })
        })
        .join();
    }
}
