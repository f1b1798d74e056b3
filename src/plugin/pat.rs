//! One PersonalAccessToken as a command sees it: all that the API server has, and what of it can be read.
//!
//! One object that cannot be read is a problem of that object: it is listed as such. It must not ask the API server.

use kube::{
    api::{ApiResource, DynamicObject},
    core::GroupVersionKind,
};
use serde_json::Value;

use super::failure::Failure;
use crate::{
    api::{
        Credential, CredentialState, GROUP, PersonalAccessTokenSpec, PersonalAccessTokenStatus, StoredPat, VERSION, crd,
    },
    planner::intent::secret_name,
};

/// See the module.
#[derive(Clone, Debug)]
pub struct Pat {
    /// The whole object.
    pub object: DynamicObject,
    /// What decisions are made of.
    pub stored: StoredPat,
}

/// How to address the resource.
pub fn resource() -> ApiResource {
    let kind = GroupVersionKind::gvk(GROUP, VERSION, "PersonalAccessToken");
    ApiResource::from_gvk_with_plural(&kind, crd::PLURAL)
}

impl Pat {
    /// The object as the API server, or a file, has it.
    pub fn of(object: DynamicObject) -> Result<Self, Failure> {
        let unreadable = |error: serde_json::Error| Failure::Usage(format!("it is no Kubernetes object: {error}"));
        let value = serde_json::to_value(&object).map_err(unreadable)?;
        Ok(Self { stored: serde_json::from_value(value).map_err(unreadable)?, object })
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        self.stored.namespace()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.stored.name()
    }

    /// The spec; a default one if it cannot be read.
    pub fn spec(&self) -> PersonalAccessTokenSpec {
        self.stored.spec.clone().unwrap_or_default()
    }

    /// The status; an empty one if it cannot be read.
    pub fn status(&self) -> PersonalAccessTokenStatus {
        self.stored.status.clone().unwrap_or_default()
    }

    /// The credential that the Secret holds.
    pub fn active(&self) -> Option<Credential> {
        self.status().credentials.into_iter().find(|one| one.state == CredentialState::Active)
    }

    /// The owner as one string.
    pub fn owner(&self) -> String {
        crate::planner::intent::owner(&self.stored, &self.spec()).text()
    }

    /// The Secret that holds the token now, or will.
    pub fn secret_name(&self) -> String {
        let spec = self.spec();
        self.status().secret_name.unwrap_or_else(|| secret_name(&self.stored, &spec).to_owned())
    }

    /// The object without what nobody reads.
    pub fn printable(&self) -> Value {
        let mut value = serde_json::to_value(&self.object).unwrap_or_default();
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
        value
    }
}
