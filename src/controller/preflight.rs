//! Checks before the controller starts: the resource exists, and every request of the controller is allowed.

use kube::{Api, Client, api::ListParams};

use crate::{
    api::{GROUP, StoredPat, VERSION, crd},
    service::{
        PreflightError, ReadinessGate,
        preflight::{self, AccessCheck, RequiredAccess},
    },
};

/// The requests of the controller: API group, resource, subresource, verbs.
pub const NEEDS: &[RequiredAccess] = &[
    (GROUP, "personalaccesstokens", "", &["get", "list", "watch"]),
    (GROUP, "personalaccesstokens", "status", &["patch"]),
    ("", "secrets", "", &["get", "list", "watch", "create", "patch", "delete"]),
    ("events.k8s.io", "events", "", &["create", "patch"]),
];

/// The verbs that leader election needs on its Lease.
pub const LEASE_NEEDS: &[&str] = &["get", "create", "update"];

/// Waits until the API server serves the resource.
///
/// # Errors
/// The API server cannot be reached.
pub async fn wait_for_crd(client: &Client, gate: &ReadinessGate) -> Result<(), PreflightError> {
    let version = format!("{GROUP}/{VERSION}");
    preflight::wait_for_resource(client, &version, crd::PLURAL, &crd::how_to_install(crd::NAME), gate).await
}

/// Returns the permissions that the controller needs, in each namespace or in all. With a `lease` (namespace and name), those of
/// leader election too: a process that may not renew the lease would work for some seconds, lose the lease and exit.
pub fn questions<'a>(namespaces: &'a [String], lease: Option<(&'a str, &'a str)>) -> Vec<AccessCheck<'a>> {
    let mut questions = preflight::questions(NEEDS, namespaces);
    if let Some((namespace, name)) = lease {
        for &verb in LEASE_NEEDS {
            // The authorizer does not know the name of an object that is created.
            let name = if verb == "create" { "" } else { name };
            let (group, resource) = ("coordination.k8s.io", "leases");
            questions.push(AccessCheck { namespace, group, resource, subresource: "", verb, name });
        }
    }
    questions
}

/// Lists once with the label selector, so that the API server validates it: a watch with an invalid selector would fail
/// forever.
///
/// # Errors
/// The selector is invalid, or the API server cannot be reached.
pub async fn check_selector(
    client: &Client,
    namespaces: &[String],
    selector: Option<&str>,
) -> Result<(), PreflightError> {
    let Some(selector) = selector else { return Ok(()) };
    let api: Api<StoredPat> = match namespaces.first() {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    match api.list_metadata(&ListParams::default().labels(selector).limit(1)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 400 => Err(PreflightError::BadSelector(status.message.clone())),
        Err(error) => Err(PreflightError::Unreachable(crate::service::explain_api_error(&error))),
    }
}
