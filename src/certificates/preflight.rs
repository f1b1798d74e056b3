//! The rights that looking after certificates takes: in one namespace, and to objects of these names alone.

use super::Wanted;
use crate::service::preflight::Question;

/// What is done to each Secret and ConfigMap.
pub const BY_NAME: &[&str] = &["get", "update"];

/// Every request that will be made. `names` are those of the Secrets and of the ConfigMaps, see [`names`].
pub fn questions<'a>(namespace: &'a str, names: &'a [(String, String)]) -> Vec<Question<'a>> {
    let ask = |group, resource, verb, name| Question { namespace, group, resource, subresource: "", verb, name };
    let mut questions = Vec::new();
    if names.is_empty() {
        return questions;
    }
    // What is yet to be created has no name that a right could be restricted to.
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
pub fn names(wanted: &[Wanted]) -> Vec<(String, String)> {
    wanted.iter().map(|one| (one.secret().to_owned(), one.config_map())).collect()
}
