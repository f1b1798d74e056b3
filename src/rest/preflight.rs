//! What must be in place before the REST server can answer: the resources, and permission for every request that it will make.
//!
//! It must not change anything.

use kube::Client;

use crate::{
    api::{GROUP, VERSION, crd},
    service::{
        PreflightError, ReadinessGate,
        preflight::{self, AccessCheck, RequiredAccess},
    },
};

/// Every request that is made in the namespace that is served.
pub const READS: &[RequiredAccess] =
    &[(GROUP, crd::PLURAL, "", &["get", "list", "watch"]), (GROUP, crd::PLURAL, "status", &["patch"])];

/// The same, where it may write.
pub const WRITES: &[RequiredAccess] =
    &[(GROUP, crd::PLURAL, "", &["create", "patch", "delete"]), ("", "secrets", "", &["get", "delete"])];

/// What it asks of the whole cluster: owners are in no namespace.
pub const OWNERS: RequiredAccess = (GROUP, crd::OWNER_PLURAL, "", &["get", "list", "watch"]);

/// What is to be looked at.
pub struct Place<'a> {
    /// The namespace that is served.
    pub namespace: &'a [String],
    /// Whether nothing is ever changed.
    pub read_only: bool,
    /// Namespace and name of the Secret with the key of access tokens.
    pub key: (&'a str, &'a str),
}

/// Waits until the API server serves the resources, and asks whether everything is allowed that will be needed.
///
/// # Errors
/// What is not, or the API server cannot be asked at all.
pub async fn check(client: &Client, place: &Place<'_>, crds_there: &ReadinessGate) -> Result<(), PreflightError> {
    let version = format!("{GROUP}/{VERSION}");
    for (plural, name) in [(crd::OWNER_PLURAL, crd::OWNER_NAME), (crd::PLURAL, crd::NAME)] {
        preflight::wait_for_resource(client, &version, plural, &crd::how_to_install(name), crds_there).await?;
    }
    let mut questions = preflight::questions(READS, place.namespace);
    if !place.read_only {
        questions.extend(preflight::questions(WRITES, place.namespace));
    }
    questions.extend(preflight::questions(&[OWNERS], &[]));
    let (namespace, name) = place.key;
    // A Role can name the one Secret that may be read; a create it cannot.
    for (verb, name) in [("get", name), ("create", "")] {
        questions.push(AccessCheck { namespace, group: "", resource: "secrets", subresource: "", verb, name });
    }
    preflight::check_permissions(client, questions).await
}
