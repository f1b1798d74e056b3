//! Getting in: as the administrator, as a user, as a ServiceAccount, and not at all.

use std::{collections::BTreeMap, error::Error as StdError, future::Future, time::Duration};

use control_plane::{Binary, Identity, shared};
use k8s_openapi::{
    api::core::v1::{ConfigMap, Namespace, Secret},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta, PostParams},
};

#[path = "support/mod.rs"]
mod support;
use support::{Outcome, until};

#[tokio::test]
async fn the_administrator_gets_in_and_the_version_is_the_pinned_one() -> Outcome {
    let plane = shared().await?;
    let version = plane.client()?.apiserver_version().await?;
    if std::env::var_os("KUBEBUILDER_ASSETS").is_none() {
        assert_eq!(version.git_version, Binary::KubeApiserver.version());
    }
    Ok(())
}
