//! What must be in place before the controller starts: the resource, and permission for every request that it will make.
//!
//! It must not change anything.

use kube::{Api, Client, api::ListParams};

use crate::{
    api::{GROUP, StoredPat, VERSION, crd},
    service::{
        PreflightError, ReadinessGate,
        preflight::{self, AccessCheck, RequiredAccess},
    },
};

/// Every request that the controller makes: API group, resource, subresource, verbs.
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
/// The API server cannot be asked at all.
pub async fn wait_for_crd(client: &Client, gate: &ReadinessGate) -> Result<(), PreflightError> {
    let version = format!("{GROUP}/{VERSION}");
    preflight::wait_for_resource(client, &version, crd::PLURAL, &crd::how_to_install(crd::NAME), gate).await
}

/// Every request that the controller will make, in each namespace or everywhere; and those of leader election, if there is a
/// `lease` (namespace and name): without the right to renew it, an instance would work for some seconds, lose it and end.
pub fn questions<'a>(namespaces: &'a [String], lease: Option<(&'a str, &'a str)>) -> Vec<AccessCheck<'a>> {
    let mut questions = preflight::questions(NEEDS, namespaces);
    if let Some((namespace, name)) = lease {
        for &verb in LEASE_NEEDS {
            // A name is not known to the authorizer when something is created.
            let name = if verb == "create" { "" } else { name };
            let (group, resource) = ("coordination.k8s.io", "leases");
            questions.push(AccessCheck { namespace, group, resource, subresource: "", verb, name });
        }
    }
    questions
}

/// Asks whether all of it is allowed.
///
/// # Errors
/// Which is not, or the API server cannot be asked.
pub async fn check_permissions(
    client: &Client,
    namespaces: &[String],
    lease: Option<(&str, &str)>,
) -> Result<(), PreflightError> {
    preflight::check_permissions(client, questions(namespaces, lease)).await
}

/// Lets the API server read the label selector, once: a watch with a wrong one would begin anew for ever.
///
/// # Errors
/// It cannot be read, or the API server cannot be asked.
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
