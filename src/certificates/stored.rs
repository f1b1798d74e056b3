//! The Secret and the ConfigMap of a certificate: whether they are ours, and what is written to them.
//!
//! Whoever can plant a key can pass for the server, so a Secret is taken only with our mark and only of a type that no PersonalAccessToken
//! can ask for. It must not know what the values mean.

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{
    material::TRUSTED,
    wanted::{Names, Wanted},
};

/// The type of the Secret. PersonalAccessTokens cannot have any type of this domain but two others.
pub const TYPE: &str = "kubernetes.io/tls";

/// The mark of the Secret, and the names that its certificate is for. Where the guard rails are installed nobody but the controller can set it.
pub const NAMES: &str = "pat-operator.io/serving-certificate";

/// The mark of the ConfigMap: the Secret whose authority it publishes.
pub const PUBLISHED: &str = "pat-operator.io/authority-of";

/// The label by which the controller finds the Secrets of tokens; ours are none.
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// What is wrong with a Secret of this name, if it is not ours.
pub fn not_ours(secret: &Secret) -> Option<String> {
    let type_ = secret.type_.as_deref().unwrap_or_default();
    if type_ != TYPE {
        return Some(format!("its type is {type_:?} and not {TYPE:?}"));
    }
    belongs(&secret.metadata).or_else(|| unmarked(&secret.metadata, NAMES))
}

/// What is wrong with a ConfigMap of this name, if it is not ours.
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

/// The names that the certificate in this Secret was made for.
pub fn names(secret: &Secret) -> Option<Names> {
    annotation(&secret.metadata, NAMES)?.parse().ok()
}

fn annotation<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// The Secret with these values: a new one, or that which was read, at the version in which it was read. Its values are all ours; other labels and
/// annotations stay.
pub fn secret(read: Option<&Secret>, wanted: &Wanted, data: BTreeMap<String, ByteString>) -> Secret {
    let metadata =
        metadata(read.map(|secret| &secret.metadata), wanted.secret().to_owned(), (NAMES, wanted.names().to_string()));
    Secret { metadata, type_: Some(TYPE.to_owned()), data: Some(data), ..Secret::default() }
}

/// The ConfigMap with what clients are to trust, in the same way.
pub fn config_map(read: Option<&ConfigMap>, wanted: &Wanted, trusted: String) -> ConfigMap {
    let metadata =
        metadata(read.map(|map| &map.metadata), wanted.config_map(), (PUBLISHED, wanted.secret().to_owned()));
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
