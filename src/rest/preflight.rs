//! Checks before the REST server starts: the resources exist, and every request that it will make is permitted.

use kube::Client;

use crate::{
    api::{GROUP, PersonalAccessToken, VERIFIER_FIELD_MANAGER, VERSION, crd},
    service::{
        PreflightError, ReadinessGate,
        preflight::{self, AccessCheck, RequiredAccess},
    },
};

/// Requests in the served namespace.
pub const READS: &[RequiredAccess] =
    &[(GROUP, crd::PLURAL, "", &["get", "list", "watch"]), (GROUP, crd::PLURAL, "status", &["patch"])];

/// Further requests in the served namespace, unless the server is read-only.
pub const WRITES: &[RequiredAccess] =
    &[(GROUP, crd::PLURAL, "", &["create", "patch", "delete"]), ("", "secrets", "", &["get", "delete"])];

/// Requests for cluster-scoped owners.
pub const OWNERS: RequiredAccess = (GROUP, crd::OWNER_PLURAL, "", &["get", "list", "watch"]);

/// The inputs of the checks.
pub struct RestPreflight<'a> {
    /// The served namespace.
    pub namespace: &'a [String],
    /// Whether the server is read-only.
    pub read_only: bool,
    /// Namespace and name of the Secret with the key of access tokens.
    pub key: (&'a str, &'a str),
}

impl RestPreflight<'_> {
    /// Waits until the API server serves the resources, then checks the permissions.
    pub async fn check(&self, client: &Client, crds_there: &ReadinessGate) -> Result<(), PreflightError> {
        let version = format!("{GROUP}/{VERSION}");
        for (plural, name) in [(crd::OWNER_PLURAL, crd::OWNER_NAME), (crd::PLURAL, crd::NAME)] {
            preflight::wait_for_resource(client, &version, plural, &crd::how_to_install(name), crds_there).await?;
        }
        preflight::warn_of_missing_namespaces(client, self.namespace, "--namespace").await;
        let mut questions = preflight::questions(READS, self.namespace);
        if !self.read_only {
            questions.extend(preflight::questions(WRITES, self.namespace));
        }
        questions.extend(preflight::questions(&[OWNERS], &[]));
        let (namespace, name) = self.key;
        // A Role can restrict `get` to one Secret, but not `create`.
        for (verb, name) in [("get", name), ("create", "")] {
            questions.push(AccessCheck { namespace, group: "", resource: "secrets", subresource: "", verb, name });
        }
        preflight::check_permissions(client, questions).await?;
        preflight::warn_of_status_policy::<PersonalAccessToken>(client, self.namespace, VERIFIER_FIELD_MANAGER).await;
        Ok(())
    }
}
