//! Changes to a token: a merge patch of the fields that differ, based on the version that was read.
//!
//! As in server-side apply without force, a field of another manager is never taken over.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::api::{DynamicObject, Patch, PatchParams};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::{ApiServerError, FIELD_MANAGER, STORE_TIMEOUT, Writer, call, check_retry};
use crate::{
    api::{Expiry, StoredPat, duration},
    rest::{
        error::{Conflict, RestError},
        model::{ChangeToken, TokenItem},
    },
};

impl Writer {
    /// Changes a token, and waits until the store shows the change.
    pub(in crate::rest) async fn change(
        &self,
        item: &TokenItem,
        change: &ChangeToken,
    ) -> Result<Arc<TokenItem>, RestError> {
        if let Some(name) = &change.display_name {
            let other = self.store.named(&item.owner, name);
            if other.is_some_and(|other| other.id != item.id) {
                return Err(RestError::Conflict(Conflict::NameTaken(name.clone())));
            }
        }
        let patch = SpecPatch::of(change, item)?;
        let object = self.patch(item, &patch).await?;
        let generation = object.metadata.generation.unwrap_or_default();
        let shown = || self.store.item(item.id).filter(|shown| shown.generation >= generation);
        if let Some(shown) = self.wait_until(Instant::now() + STORE_TIMEOUT, shown).await {
            return Ok(shown);
        }
        // The watch is slow, so the response of the API server is used.
        read(&object).map(Arc::new).ok_or(RestError::Internal)
    }

    /// Sets these fields, unless the spec was changed since `item`, or another manager owns one of them.
    pub(super) async fn patch(&self, item: &TokenItem, patch: &SpecPatch) -> Result<DynamicObject, RestError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let object = self.present(item).await?;
            if object.metadata.generation.unwrap_or_default() != item.generation {
                return Err(RestError::Conflict(Conflict::Changed));
            }
            let patch = patch.clone().without_unchanged(&object);
            if patch.0.is_empty() {
                return Ok(object);
            }
            patch.check_managers(&object)?;
            let version = object.metadata.resource_version.as_deref().unwrap_or_default();
            match self.merge(item, version, Value::Object(patch.0)).await {
                Ok(patched) => return Ok(patched),
                Err(error) => check_retry(error, attempt, "change a token")?,
            }
        }
    }

    /// Reads the object from the API server; `NotFound` if another object has its name.
    pub(super) async fn present(&self, item: &TokenItem) -> Result<DynamicObject, RestError> {
        let object = call(self.pats().get(&item.name)).await.map_err(|error| error.into_rest_error("read a token"))?;
        let is_it = object.metadata.uid.as_deref() == Some(&*item.id.hyphenated());
        if is_it { Ok(object) } else { Err(RestError::NotFound) }
    }

    async fn merge(&self, item: &TokenItem, version: &str, spec: Value) -> Result<DynamicObject, ApiServerError> {
        let metadata = json!({"uid": item.id.hyphenated(), "resourceVersion": version});
        let patch = json!({"metadata": metadata, "spec": spec});
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        call(self.pats().patch(&item.name, &params, &Patch::Merge(patch))).await
    }
}

/// Parses an object from the API server; `None` if it is malformed or being deleted.
pub(super) fn read(object: &DynamicObject) -> Option<TokenItem> {
    let stored: StoredPat = serde_json::to_value(object).and_then(serde_json::from_value).ok()?;
    TokenItem::read(&stored)
}

/// A merge patch of a spec: fields and their new values; `null` removes one.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct SpecPatch(pub(super) Map<String, Value>);

impl SpecPatch {
    fn of(change: &ChangeToken, item: &TokenItem) -> Result<Self, RestError> {
        let mut fields = Map::new();
        if let Some(name) = &change.display_name {
            fields.insert("displayName".into(), json!(name));
        }
        if let Some(scopes) = &change.scopes {
            fields.insert("scopes".into(), json!(scopes));
        }
        if let Some(expiry) = &change.expiry {
            fields.insert("expiry".into(), expiry_patch(expiry));
        }
        if let Some(validity) = change.access_token_validity {
            fields.insert("accessTokenValidity".into(), json!(validity.map(duration::format)));
        }
        if let Some(revoked) = change.revoked {
            fields.insert("revoked".into(), json!(revoked));
        }
        if let Some(time) = change.revoke_if_issued_before {
            fields.insert("revokeIfIssuedBefore".into(), json!(time));
        }
        if let Some(id) = &change.revoke_credential {
            let is_listed = item.revoked_credentials.iter().any(|listed| listed == id.as_str());
            if !is_listed {
                fields.insert("revokedCredentials".into(), json!(item.with_revoked(&[id.as_str()])));
            }
        }
        Ok(Self(fields))
    }

    /// Removes fields that the object already has.
    fn without_unchanged(mut self, object: &DynamicObject) -> Self {
        let spec = &object.data["spec"];
        self.0.retain(|field, value| !is_unchanged(&spec[field.as_str()], value));
        self
    }

    /// Rejects a field of another manager.
    fn check_managers(&self, object: &DynamicObject) -> Result<(), RestError> {
        for field in self.0.keys() {
            let managers = object.metadata.managed_fields.iter().flatten();
            if let Some(manager) = managers.filter_map(|entry| other_manager(entry, field)).next() {
                let (field, manager) = (format!("spec.{field}"), manager.to_owned());
                return Err(RestError::Conflict(Conflict::Managed { field, manager }));
            }
        }
        Ok(())
    }
}

/// Returns the merge patch for an expiry, which removes the fields of any other expiry.
pub(super) fn expiry_patch(expiry: &Expiry) -> Value {
    json!({"at": expiry.at, "after": expiry.after, "never": expiry.never})
}

/// Whether a merge patch with this value would change nothing.
fn is_unchanged(present: &Value, patch: &Value) -> bool {
    match patch {
        Value::Object(patch) => {
            present.is_object() && patch.iter().all(|(key, value)| is_unchanged(&present[key.as_str()], value))
        }
        patch => present == patch,
    }
}

/// Returns the manager of this entry, if it is another one and owns this field of the spec.
fn other_manager<'e>(entry: &'e ManagedFieldsEntry, field: &str) -> Option<&'e str> {
    let manager = entry.manager.as_deref().unwrap_or("unknown");
    if manager == FIELD_MANAGER || entry.subresource.as_deref().is_some_and(|part| !part.is_empty()) {
        return None;
    }
    let owned = entry.fields_v1.as_ref()?.0.get("f:spec")?.get(format!("f:{field}"))?;
    // In a set, each item has its own manager: adding one takes over nothing.
    (field != "revokedCredentials" || !owned.is_object()).then_some(manager)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(managed: Value, spec: Value) -> DynamicObject {
        serde_json::from_value(json!({"metadata": {"managedFields": managed}, "spec": spec})).unwrap()
    }

    fn patch(value: Value) -> SpecPatch {
        SpecPatch(value.as_object().unwrap().clone())
    }

    #[test]
    fn field_of_another_manager_is_not_taken_over() {
        let entry = |manager: &str, part: &str, fields: Value| {
            json!({
                "manager": manager, "operation": "Apply", "subresource": part, "fieldsType": "FieldsV1",
                "fieldsV1": {"f:spec": fields},
            })
        };
        let argocd = json!({"f:scopes": {".": {}, "v:\"a\"": {}}, "f:revokedCredentials": {"v:\"x\"": {}}});
        let object = object(
            json!([
                entry("argocd", "", argocd),
                entry(FIELD_MANAGER, "", json!({"f:displayName": {}})),
                entry("pat-operator", "status", json!({"f:revoked": {}})),
            ]),
            json!({}),
        );
        let check = |value: Value| patch(value).check_managers(&object);
        let free = json!({"displayName": "a", "revoked": true, "expiry": {}, "revokedCredentials": ["y"]});
        assert_eq!(check(free), Ok(()));
        let managed = Conflict::Managed { field: "spec.scopes".into(), manager: "argocd".into() };
        assert_eq!(check(json!({"displayName": "a", "scopes": []})), Err(RestError::Conflict(managed)));
    }

    #[test]
    fn unchanged_fields_are_left_out() {
        let spec = json!({"displayName": "a", "scopes": ["x"], "expiry": {"at": "2030-01-01T00:00:00Z"}});
        let object = object(json!([]), spec);
        let remaining = |value: Value| Value::Object(patch(value).without_unchanged(&object).0);
        let same =
            json!({"displayName": "a", "scopes": ["x"], "expiry": {"at": "2030-01-01T00:00:00Z", "after": null}});
        assert_eq!(remaining(same), json!({}));
        assert_eq!(remaining(json!({"accessTokenValidity": null, "revoked": true})), json!({"revoked": true}));
        let never = json!({"expiry": {"at": null, "after": null, "never": true}});
        assert_eq!(remaining(never.clone()), never);
    }
}
