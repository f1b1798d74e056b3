//! Checks before the controller starts: the resource exists, and every request of the controller is allowed.

use kube::{Api, Client, api::ListParams};

use crate::{
    api::{FIELD_MANAGER, GROUP, PersonalAccessToken, StoredPat, VERSION, crd},
    service::{
        PreflightError, ReadinessGate,
        preflight::{self, AccessCheck, RequiredAccess},
        scoped,
    },
};

/// The requests of the controller: API group, resource, subresource, verbs.
pub const NEEDS: &[RequiredAccess] = &[
    (GROUP, "personalaccesstokens", "", &["get", "list", "watch"]),
    (GROUP, "personalaccesstokens", "status", &["patch"]),
    ("", "secrets", "", &["get", "list", "watch", "create", "patch", "delete"]),
    ("events.k8s.io", "events", "", &["create", "patch"]),
];

/// The requests of the controller about TokenOwners, in the whole cluster. Without them it works, but does not show disabled owners.
pub const OWNER_NEEDS: &[RequiredAccess] = &[(GROUP, crd::OWNER_PLURAL, "", &["list", "watch"])];

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

/// Whether the controller can watch TokenOwners: it serves all namespaces, the API server serves the resource, and the watch is permitted.
/// Otherwise the log says what is missing.
///
/// # Errors
/// The API server cannot be reached.
pub async fn can_watch_owners(client: &Client, namespaces: &[String]) -> Result<bool, PreflightError> {
    const WITHOUT: &str = "Ready does not show whether the owner of a token is disabled";
    if !namespaces.is_empty() {
        tracing::info!("TokenOwners are not watched, because --namespaces is set: {WITHOUT}");
        return Ok(false);
    }
    let unreachable = |error| PreflightError::Unreachable(crate::service::explain_api_error(&error));
    let served = client.list_api_group_resources(&format!("{GROUP}/{VERSION}")).await.map_err(unreachable)?;
    if !served.resources.iter().any(|one| one.name == crd::OWNER_PLURAL) {
        tracing::warn!("{WITHOUT}: {}", crd::how_to_install(crd::OWNER_NAME));
        return Ok(false);
    }
    match preflight::check_permissions(client, owner_questions()).await {
        Err(missing @ PreflightError::NotPermitted { .. }) => {
            tracing::warn!("{WITHOUT}: {missing}");
            Ok(false)
        }
        checked => checked.map(|()| true),
    }
}

/// The requests of the controller about issuers and their tokens, in the whole cluster.
pub const ISSUER_NEEDS: &[RequiredAccess] = &[
    (GROUP, crd::PLURAL, "", &["patch"]),
    (GROUP, crd::CLUSTER_ISSUER_PLURAL, "", &["list", "watch", "patch"]),
    (GROUP, crd::CLUSTER_ISSUER_PLURAL, "status", &["patch"]),
    (GROUP, crd::ISSUER_PLURAL, "", &["list", "watch", "patch"]),
    (GROUP, crd::ISSUER_PLURAL, "status", &["patch"]),
    ("", "namespaces", "", &["get"]),
];

/// Returns the permissions that the controller needs to serve these kinds of issuers.
pub fn issuer_questions(namespaced: bool) -> Vec<AccessCheck<'static>> {
    let is_needed = |(_, resource, ..): &&RequiredAccess| namespaced || *resource != crd::ISSUER_PLURAL;
    let needs: Vec<_> = ISSUER_NEEDS.iter().filter(is_needed).copied().collect();
    let mut questions = preflight::questions(&needs, &[]);
    // The UID of this namespace names the cluster.
    questions.iter_mut().filter(|one| one.resource == "namespaces").for_each(|one| one.name = "kube-system");
    questions
}

/// Returns the permissions that the controller needs to watch TokenOwners.
pub fn owner_questions() -> Vec<AccessCheck<'static>> {
    preflight::questions(OWNER_NEEDS, &[])
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
    let api: Api<StoredPat> = scoped(client, namespaces.first().map(String::as_str));
    match api.list_metadata(&ListParams::default().labels(selector).limit(1)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 400 => Err(PreflightError::BadSelector(status.message.clone())),
        Err(error) => Err(PreflightError::Unreachable(crate::service::explain_api_error(&error))),
    }
}

/// Checks that the chart's admission policies let this identity write statuses.
///
/// # Errors
/// The policy `status` refuses it, as it does for a controller beside the chart that is not listed there.
pub async fn check_status_policy(client: &Client, namespaces: &[String]) -> Result<(), PreflightError> {
    let value = "policies.otherAccounts.controllers";
    preflight::check_status_policy::<PersonalAccessToken>(client, namespaces, FIELD_MANAGER, value).await
}
