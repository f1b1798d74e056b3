//! A Secret without `managedFields`, which make up half of its JSON.
//!
//! Watches and responses to writes decode to it. Only an uncached read needs to know who changed a Secret.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::{
    ByteString, NamespaceResourceScope,
    api::core::v1::Secret,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time},
};
use serde::{Deserialize, Deserializer, Serialize};

use crate::api::stored::impl_resource;

/// A Secret without `managedFields`. `Debug` shows no value.
#[derive(Clone, Serialize)]
#[serde(transparent)]
pub struct StoredSecret(pub Secret);

impl<'de> Deserialize<'de> for StoredSecret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Read {
            metadata: Metadata,
            #[serde(rename = "type")]
            type_: Option<String>,
            immutable: Option<bool>,
            data: Option<BTreeMap<String, ByteString>>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Metadata {
            namespace: Option<String>,
            name: Option<String>,
            uid: Option<String>,
            resource_version: Option<String>,
            deletion_timestamp: Option<Time>,
            owner_references: Option<Vec<OwnerReference>>,
            labels: Option<BTreeMap<String, String>>,
            annotations: Option<BTreeMap<String, String>>,
        }
        let Read { metadata, type_, immutable, data } = Read::deserialize(deserializer)?;
        let metadata = ObjectMeta {
            namespace: metadata.namespace,
            name: metadata.name,
            uid: metadata.uid,
            resource_version: metadata.resource_version,
            deletion_timestamp: metadata.deletion_timestamp,
            owner_references: metadata.owner_references,
            labels: metadata.labels,
            annotations: metadata.annotations,
            ..ObjectMeta::default()
        };
        Ok(Self(Secret { metadata, type_, immutable, data, ..Secret::default() }))
    }
}

impl fmt::Debug for StoredSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StoredSecret").field(&self.0.metadata).finish_non_exhaustive()
    }
}

impl_resource!(StoredSecret, Secret, NamespaceResourceScope, 0.metadata);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planner::observed::SecretView;

    const TEXT: &str = r#"{
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "immutable": false, "data": {"token": "c2VjcmV0"},
        "metadata": {
            "namespace": "team", "name": "app", "uid": "1-2", "resourceVersion": "7", "generateName": "x",
            "creationTimestamp": "2026-01-01T00:00:00Z", "deletionTimestamp": "2026-01-02T00:00:00Z",
            "labels": {"a": "b"}, "annotations": {"c": "d"},
            "ownerReferences": [{
                "apiVersion": "pat-operator.io/v1alpha1", "kind": "PersonalAccessToken", "name": "app", "uid": "u", "controller": true
            }],
            "managedFields": [{"manager": "another", "operation": "Update", "time": "2026-01-01T00:00:00Z"}]
        }
    }"#;

    #[test]
    fn everything_but_the_last_editor_is_kept() {
        let whole = SecretView::of(serde_json::from_str(TEXT).unwrap());
        let StoredSecret(stored) = serde_json::from_str(TEXT).unwrap();
        assert_eq!(whole.last_editor.as_deref(), Some("another"));
        assert_eq!(SecretView::of(stored), SecretView { last_editor: None, ..whole });
    }

    #[test]
    fn debug_shows_no_value() {
        let stored: StoredSecret = serde_json::from_str(TEXT).unwrap();
        let shown = format!("{stored:?} {stored:#?}");
        assert!(shown.contains("app") && !shown.contains("c2VjcmV0") && !shown.contains("secret"), "{shown}");
    }
}
