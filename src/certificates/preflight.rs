//! The permissions that serving certificates need, in one namespace and only for the requested names.

use super::CertificateRequest;
use crate::service::preflight::AccessCheck;

/// The verbs for each Secret and ConfigMap.
pub const BY_NAME: &[&str] = &["get", "update"];

/// Returns a check for every request that the manager makes. `names` are those of the Secrets and ConfigMaps, see
/// [`names`].
pub fn questions<'a>(namespace: &'a str, names: &'a [(String, String)]) -> Vec<AccessCheck<'a>> {
    let ask = |group, resource, verb, name| AccessCheck { namespace, group, resource, subresource: "", verb, name };
    let mut questions = Vec::new();
    if names.is_empty() {
        return questions;
    }
    // RBAC cannot restrict a create to a name.
    questions.extend([ask("", "secrets", "create", ""), ask("", "configmaps", "create", "")]);
    questions.extend(["create", "patch"].map(|verb| ask("events.k8s.io", "events", verb, "")));
    for (secret, map) in names {
        for verb in BY_NAME {
            questions.extend([ask("", "secrets", verb, secret), ask("", "configmaps", verb, map)]);
        }
    }
    questions
}

/// The names of the Secret and of the ConfigMap of each certificate.
pub fn names(requests: &[CertificateRequest]) -> Vec<(String, String)> {
    requests.iter().map(|one| (one.secret().to_owned(), one.config_map())).collect()
}
