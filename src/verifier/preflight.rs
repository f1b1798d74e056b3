//! What must be in place before the verifier can answer: the resources, and permission for every request that it will make.
//!
//! It must not change anything.

use kube::Client;

use crate::{
    api::{GROUP, VERSION, crd},
    service::{
        PreflightError, ReadinessGate,
        preflight::{self, RequiredAccess},
    },
};

/// Every request that the verifier makes about tokens, in each namespace or everywhere: API group, resource, subresource, verbs.
pub const NEEDS: &[RequiredAccess] =
    &[(GROUP, crd::PLURAL, "", &["get", "list", "watch"]), (GROUP, crd::PLURAL, "status", &["patch"])];

/// Every request about owners. They belong to no namespace, so a verifier of some namespaces makes none.
pub const OWNER_NEEDS: &[RequiredAccess] = &[(GROUP, crd::OWNER_PLURAL, "", &["get", "list", "watch"])];

/// Waits until the API server serves the resources, and asks whether everything is allowed that will be needed.
///
/// # Errors
/// What is not, or the API server cannot be asked at all.
pub async fn check(client: &Client, namespaces: &[String], crd_there: &ReadinessGate) -> Result<(), PreflightError> {
    let version = format!("{GROUP}/{VERSION}");
    preflight::wait_for_resource(client, &version, crd::PLURAL, &crd::how_to_install(crd::NAME), crd_there).await?;
    let mut questions = preflight::questions(NEEDS, namespaces);
    if namespaces.is_empty() {
        let missing = crd::how_to_install(crd::OWNER_NAME);
        preflight::wait_for_resource(client, &version, crd::OWNER_PLURAL, &missing, crd_there).await?;
        questions.extend(preflight::questions(OWNER_NEEDS, &[]));
    }
    preflight::check_permissions(client, questions).await
}
