//! Checks before the verifier starts: the resources are installed, and every request it makes is permitted.

use kube::Client;

use crate::{
    api::{GROUP, PersonalAccessToken, VERIFIER_FIELD_MANAGER, VERSION, crd},
    service::{
        PreflightError, ReadinessGate,
        preflight::{self, RequiredAccess},
    },
};

/// Permissions on tokens, per namespace or for the cluster: API group, resource, subresource, verbs.
pub const NEEDS: &[RequiredAccess] =
    &[(GROUP, crd::PLURAL, "", &["get", "list", "watch"]), (GROUP, crd::PLURAL, "status", &["patch"])];

/// Permissions on owners, which are cluster-scoped: a verifier limited to namespaces needs none of them.
pub const OWNER_NEEDS: &[RequiredAccess] = &[(GROUP, crd::OWNER_PLURAL, "", &["get", "list", "watch"])];

/// Waits until the API server serves the resources, then checks all permissions.
///
/// # Errors
/// Returns an error that lists the missing permissions, or if the API server cannot be reached.
pub async fn check(client: &Client, namespaces: &[String], crd_there: &ReadinessGate) -> Result<(), PreflightError> {
    let version = format!("{GROUP}/{VERSION}");
    preflight::wait_for_resource(client, &version, crd::PLURAL, &crd::how_to_install(crd::NAME), crd_there).await?;
    preflight::warn_of_missing_namespaces(client, namespaces, "--namespaces").await;
    let mut questions = preflight::questions(NEEDS, namespaces);
    if namespaces.is_empty() {
        let missing = crd::how_to_install(crd::OWNER_NAME);
        preflight::wait_for_resource(client, &version, crd::OWNER_PLURAL, &missing, crd_there).await?;
        questions.extend(preflight::questions(OWNER_NEEDS, &[]));
    }
    preflight::check_permissions(client, questions).await?;
    preflight::warn_of_status_policy::<PersonalAccessToken>(client, namespaces, VERIFIER_FIELD_MANAGER).await;
    Ok(())
}
