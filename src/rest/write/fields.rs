//! Which fields of a spec a change sets, and whether they are somebody else's.
//!
//! A field that another manager has set is never taken over, as server-side apply without force would have it: what Git says, Git
//! changes. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::api::DynamicObject;
use serde_json::{Map, Value, json};

use super::FIELD_MANAGER;
use crate::{
    api::{Expiry, MAX_LIVE_CREDENTIALS, duration},
    rest::{
        failure::{Conflict, Failure},
        item::Item,
        order::Change,
    },
};

/// Fields of a spec and what they become; `null` takes one away.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Fields(pub(super) Map<String, Value>);

impl Fields {
    /// What this change sets.
    pub(super) fn of(change: &Change, item: &Item) -> Result<Self, Failure> {
        let mut fields = Map::new();
        if let Some(name) = &change.display_name {
            fields.insert("displayName".into(), json!(name));
        }
        if let Some(scopes) = &change.scopes {
            fields.insert("scopes".into(), json!(scopes));
        }
        if let Some(end) = &change.expiry {
            fields.insert("expiry".into(), expiry(end));
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
            let mut ids: Vec<&str> = item.revoked_credentials.iter().map(String::as_str).collect();
            if ids.contains(&id.as_str()) {
                return Ok(Self(fields));
            }
            if ids.len() >= MAX_LIVE_CREDENTIALS {
                // What is no longer live stays dead without being named.
                ids.retain(|id| item.credentials.iter().any(|live| live.id.as_str() == *id));
            }
            ids.push(id.as_str());
            fields.insert("revokedCredentials".into(), json!(ids));
        }
        Ok(Self(fields))
    }

    /// Leaves out what the object has already.
    pub(super) fn that_differ_from(mut self, object: &DynamicObject) -> Self {
        let spec = &object.data["spec"];
        self.0.retain(|field, value| {
            let present = &spec[field.as_str()];
            !is_same(present, value)
        });
        self
    }

    /// Whether one of these fields is somebody else's.
    pub(super) fn check_managers(&self, object: &DynamicObject) -> Result<(), Failure> {
        for field in self.0.keys() {
            let managers = object.metadata.managed_fields.iter().flatten();
            if let Some(manager) = managers.filter_map(|entry| manages(entry, field)).next() {
                let (field, manager) = (format!("spec.{field}"), manager.to_owned());
                return Err(Failure::Conflict(Conflict::Managed { field, manager }));
            }
        }
        Ok(())
    }
}

/// An expiry as a merge patch has it: with nothing left of another one.
pub(super) fn expiry(end: &Expiry) -> Value {
    json!({"at": end.at, "after": end.after, "never": end.never})
}

/// Whether a merge patch of this value would change nothing.
fn is_same(present: &Value, patch: &Value) -> bool {
    match patch {
        Value::Object(patch) => {
            present.is_object() && patch.iter().all(|(key, value)| is_same(&present[key.as_str()], value))
        }
        patch => present == patch,
    }
}

/// The manager of this entry, if it is another than us and this field of the spec is its.
fn manages<'e>(entry: &'e ManagedFieldsEntry, field: &str) -> Option<&'e str> {
    let manager = entry.manager.as_deref().unwrap_or("somebody");
    if manager == FIELD_MANAGER || entry.subresource.as_deref().is_some_and(|part| !part.is_empty()) {
        return None;
    }
    let owned = entry.fields_v1.as_ref()?.0.get("f:spec")?.get(format!("f:{field}"))?;
    // Of a set it is single items that have managers: adding one takes nothing from anybody.
    (field != "revokedCredentials" || !owned.is_object()).then_some(manager)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(managed: Value, spec: Value) -> DynamicObject {
        serde_json::from_value(json!({"metadata": {"managedFields": managed}, "spec": spec})).unwrap()
    }

    fn fields(value: Value) -> Fields {
        Fields(value.as_object().unwrap().clone())
    }

    #[test]
    fn a_field_of_another_manager_is_not_taken_over_and_all_others_are_free() {
        let entry = |manager: &str, part: &str, fields: Value| json!({"manager": manager, "operation": "Apply", "subresource": part, "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": fields}});
        let object = object(
            json!([
                entry(
                    "argocd",
                    "",
                    json!({"f:scopes": {".": {}, "v:\"a\"": {}}, "f:revokedCredentials": {"v:\"x\"": {}}})
                ),
                entry(FIELD_MANAGER, "", json!({"f:displayName": {}})),
                entry("pat-operator", "status", json!({"f:revoked": {}})),
            ]),
            json!({}),
        );
        let check = |value: Value| fields(value).check_managers(&object);
        assert_eq!(
            check(json!({"displayName": "a", "revoked": true, "expiry": {}, "revokedCredentials": ["y"]})),
            Ok(())
        );
        let managed = Conflict::Managed { field: "spec.scopes".into(), manager: "argocd".into() };
        assert_eq!(check(json!({"displayName": "a", "scopes": []})), Err(Failure::Conflict(managed)));
    }

    #[test]
    fn what_changes_nothing_is_left_out() {
        let object =
            object(json!([]), json!({"displayName": "a", "scopes": ["x"], "expiry": {"at": "2030-01-01T00:00:00Z"}}));
        let differing = |value: Value| Value::Object(fields(value).that_differ_from(&object).0);
        assert_eq!(
            differing(
                json!({"displayName": "a", "scopes": ["x"], "expiry": {"at": "2030-01-01T00:00:00Z", "after": null}})
            ),
            json!({})
        );
        assert_eq!(differing(json!({"accessTokenValidity": null, "revoked": true})), json!({"revoked": true}));
        let never = json!({"expiry": {"at": null, "after": null, "never": true}});
        assert_eq!(differing(never.clone()), never);
    }
}
