//! One PersonalAccessToken: the complete object, and the typed fields that the plugin uses.
//!
//! An object with an invalid spec or status is not an error here, so that a list can still show it.

use kube::{
    api::{ApiResource, DynamicObject},
    core::GroupVersionKind,
};
use serde_json::Value;

use super::error::Error;
use crate::{
    api::{
        Credential, CredentialState, GROUP, PersonalAccessTokenSpec, PersonalAccessTokenStatus, StoredPat, Time,
        VERSION, crd,
    },
    planner::intent::secret_name,
};

/// A PersonalAccessToken from the API server or from a file.
#[derive(Clone, Debug)]
pub struct PatObject {
    /// The complete object.
    pub object: DynamicObject,
    /// The typed fields.
    pub stored: StoredPat,
}

/// Returns the API resource of PersonalAccessTokens.
pub fn pat_resource() -> ApiResource {
    let kind = GroupVersionKind::gvk(GROUP, VERSION, "PersonalAccessToken");
    ApiResource::from_gvk_with_plural(&kind, crd::PLURAL)
}

impl PatObject {
    /// Reads the typed fields of an object.
    pub fn parse(object: DynamicObject) -> Result<Self, Error> {
        let unreadable = |error: serde_json::Error| Error::Usage(format!("not a Kubernetes object: {error}"));
        let value = serde_json::to_value(&object).map_err(unreadable)?;
        Ok(Self { stored: serde_json::from_value(value).map_err(unreadable)?, object })
    }

    /// The namespace of the object.
    pub fn namespace(&self) -> &str {
        self.stored.namespace()
    }

    /// The name of the object.
    pub fn name(&self) -> &str {
        self.stored.name()
    }

    /// The spec, or a default if it is invalid.
    pub fn spec(&self) -> PersonalAccessTokenSpec {
        self.stored.spec.clone().unwrap_or_default()
    }

    /// The status, or an empty one if it is invalid. Its credentials include the live ones of other systems.
    pub fn status(&self) -> PersonalAccessTokenStatus {
        let status = self.stored.status.clone().unwrap_or_default();
        PersonalAccessTokenStatus { credentials: status.live().cloned().collect(), ..status }
    }

    /// Whether the object is being deleted, which ends its tokens.
    pub fn is_deleted(&self) -> bool {
        self.stored.metadata.deletion_timestamp.is_some()
    }

    /// The active credential, which is the one in the Secret.
    pub fn active(&self) -> Option<Credential> {
        self.status().credentials.into_iter().find(|one| one.state == CredentialState::Active)
    }

    /// The owner as text.
    pub fn owner(&self) -> String {
        crate::planner::intent::owner(&self.stored, &self.spec()).text()
    }

    /// The name of the Secret that contains the token, or will contain it.
    pub fn secret_name(&self) -> String {
        let spec = self.spec();
        self.status().secret_name.unwrap_or_else(|| secret_name(&self.stored, &spec).to_owned())
    }

    /// The key of the Secret that contains the bare token.
    pub fn secret_key(&self) -> String {
        self.spec().secret.and_then(|secret| secret.key).unwrap_or_else(|| "token".to_owned())
    }

    /// All credentials in the status, with those that have ended and are being revoked at an issuer.
    pub fn all_credentials(&self) -> Vec<Credential> {
        self.stored.status.iter().flat_map(PersonalAccessTokenStatus::all_credentials).cloned().collect()
    }

    /// Returns when a token of this object was last used, according to verifiers or to the issuer.
    pub fn last_used_at(&self) -> Option<Time> {
        let status = self.stored.status.as_ref().ok()?;
        let at_issuer = status.all_credentials().filter_map(|one| one.remote.as_ref()?.last_used_at);
        at_issuer.chain(status.last_used_at).max()
    }

    /// Returns how many tokens may still work at an issuer of another system.
    pub fn tokens_at_issuer(&self) -> usize {
        self.stored.status.as_ref().map_or(0, |status| status.remote_credentials.len())
    }

    /// The object as JSON, without managedFields.
    pub fn printable(&self) -> Value {
        printable(&self.object)
    }
}

/// Returns an object as JSON, without managedFields.
pub fn printable(object: &DynamicObject) -> Value {
    let mut value = serde_json::to_value(object).unwrap_or_default();
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    value
}
