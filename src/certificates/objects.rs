//! The Secret and the ConfigMap of a certificate: checked for ownership, and written.
//!
//! A planted key would let an attacker pass for the server. So a Secret is accepted only with the operator's annotation, and only with a type
//! that no PersonalAccessToken can have.

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{
    bundle::TRUSTED,
    request::{CertificateRequest, ServerNames},
};

/// The type of the Secret. PersonalAccessTokens cannot have it.
pub const TYPE: &str = "kubernetes.io/tls";

/// The annotation of the Secret: the names of its certificate. With the guard rails installed, only the controller can set it.
pub const NAMES: &str = "pat-operator.io/serving-certificate";

/// The annotation of the ConfigMap: the Secret whose authority it publishes.
pub const PUBLISHED: &str = "pat-operator.io/authority-of";

/// The label of Secrets that hold tokens. A serving certificate must not have it.
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// Returns why a Secret does not belong to the operator; `None` if it does.
pub fn not_ours(secret: &Secret) -> Option<String> {
    let type_ = secret.type_.as_deref().unwrap_or_default();
    if type_ != TYPE {
        return Some(format!("its type is {type_:?} and not {TYPE:?}"));
    }
    belongs(&secret.metadata).or_else(|| unmarked(&secret.metadata, NAMES))
}

/// Returns why a ConfigMap does not belong to the operator; `None` if it does.
pub fn map_not_ours(map: &ConfigMap, secret: &str) -> Option<String> {
    belongs(&map.metadata).or_else(|| unmarked(&map.metadata, PUBLISHED)).or_else(|| {
        let of = annotation(&map.metadata, PUBLISHED).unwrap_or_default();
        (of != secret).then(|| format!("it publishes the authority of {of:?}"))
    })
}

fn belongs(metadata: &ObjectMeta) -> Option<String> {
    if let Some(owner) = metadata.owner_references.iter().flatten().next() {
        return Some(format!("it belongs to {} {:?}", owner.kind, owner.name));
    }
    let manager = metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY));
    manager.map(|manager| format!("the label {MANAGED_BY} says that {manager} manages it"))
}

fn unmarked(metadata: &ObjectMeta, mark: &str) -> Option<String> {
    annotation(metadata, mark).is_none().then(|| format!("it has no annotation {mark}"))
}

/// The names that the certificate in this Secret was issued for.
pub fn names(secret: &Secret) -> Option<ServerNames> {
    annotation(&secret.metadata, NAMES)?.parse().ok()
}

fn annotation<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// Returns the Secret to write: a new one, or the one that was read, with its resourceVersion and with labels and
/// annotations of others.
pub fn secret(read: Option<&Secret>, request: &CertificateRequest, data: BTreeMap<String, ByteString>) -> Secret {
    let metadata = metadata(
        read.map(|secret| &secret.metadata),
        request.secret().to_owned(),
        (NAMES, request.names().to_string()),
    );
    Secret { metadata, type_: Some(TYPE.to_owned()), data: Some(data), ..Secret::default() }
}

/// Returns the ConfigMap to write, in the same way.
pub fn config_map(read: Option<&ConfigMap>, request: &CertificateRequest, trusted: String) -> ConfigMap {
    let metadata =
        metadata(read.map(|map| &map.metadata), request.config_map(), (PUBLISHED, request.secret().to_owned()));
    ConfigMap { metadata, data: Some([(TRUSTED.to_owned(), trusted)].into()), ..ConfigMap::default() }
}

fn metadata(read: Option<&ObjectMeta>, name: String, (mark, value): (&str, String)) -> ObjectMeta {
    let mut metadata = read.cloned().unwrap_or_default();
    metadata.name = Some(name);
    metadata.managed_fields = None;
    metadata.labels.get_or_insert_default().insert("app.kubernetes.io/component".into(), "serving-certificate".into());
    metadata.annotations.get_or_insert_default().insert(mark.to_owned(), value);
    metadata
}
