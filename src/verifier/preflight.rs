//! What must be in place before the verifier can answer: the resource, and permission for every request that it will make.
//!
//! It must not change anything.

use kube::Client;

use crate::{
    api::{GROUP, VERSION, crd},
    runtime::{
        Gate, PreflightError,
        preflight::{self, Need},
    },
};

/// Every request that the verifier makes about tokens: API group, resource, subresource, verbs.
pub const NEEDS: &[Need] =
    &[(GROUP, crd::PLURAL, "", &["get", "list", "watch"]), (GROUP, crd::PLURAL, "status", &["patch"])];

/// Waits until the API server serves the resource, and asks whether everything is allowed that will be needed.
///
/// # Errors
/// What is not, or the API server cannot be asked at all.
pub async fn check(client: &Client, namespaces: &[String], crd_there: &Gate) -> Result<(), PreflightError> {
    let version = format!("{GROUP}/{VERSION}");
    preflight::wait_for_resource(client, &version, crd::PLURAL, &crd::how_to_install(crd::NAME), crd_there).await?;
    preflight::check_permissions(client, preflight::questions(NEEDS, namespaces)).await
}
