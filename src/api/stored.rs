//! A `PersonalAccessToken` as caches hold it: small, and decodable whatever stands in it.
//!
//! Admission is strict, so what is stored normally decodes. Where it does not (a hand-edited CRD, a newer version's object),
//! only that object is affected: a list never fails as a whole.

use std::borrow::Cow;

use k8s_openapi::{
    NamespaceResourceScope,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time as ApiTime},
};
use kube::Resource;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};

use super::{PersonalAccessToken, PersonalAccessTokenSpec, PersonalAccessTokenStatus};

/// A stored `PersonalAccessToken` whose parts decoded or did not, each by itself.
#[derive(Clone, Debug, Deserialize)]
pub struct StoredPat {
    /// The object's metadata, as far as decisions need it: neither labels nor annotations nor who set which field.
    #[serde(default, deserialize_with = "slim")]
    pub metadata: ObjectMeta,
    /// The spec, or why it cannot be read.
    #[serde(default = "no_spec", deserialize_with = "leniently")]
    pub spec: Result<PersonalAccessTokenSpec, String>,
    /// The status (empty if there is none), or why it cannot be read.
    #[serde(default = "no_status", deserialize_with = "leniently_optional")]
    pub status: Result<PersonalAccessTokenStatus, String>,
}

/// Reads what is needed and skips the rest, which is most of the bytes of an object.
fn slim<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Slim {
        namespace: Option<String>,
        name: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
        generation: Option<i64>,
        creation_timestamp: Option<ApiTime>,
        deletion_timestamp: Option<ApiTime>,
    }
    let Slim { namespace, name, uid, resource_version, generation, creation_timestamp, deletion_timestamp } =
        Slim::deserialize(deserializer)?;
    Ok(ObjectMeta {
        namespace,
        name,
        uid,
        resource_version,
        generation,
        creation_timestamp,
        deletion_timestamp,
        ..ObjectMeta::default()
    })
}

fn no_spec() -> Result<PersonalAccessTokenSpec, String> {
    Err("spec is missing".into())
}

fn no_status() -> Result<PersonalAccessTokenStatus, String> {
    Ok(PersonalAccessTokenStatus::default())
}

fn leniently<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Result<T, String>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    if value.is_array() {
        // serde would take an array for a struct whose fields are all optional.
        return Ok(Err("it is a list, not an object".into()));
    }
    Ok(T::deserialize(value).map_err(|error| error.to_string()))
}

fn leniently_optional<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(
    deserializer: D,
) -> Result<Result<T, String>, D::Error> {
    leniently::<D, Option<T>>(deserializer).map(|read| read.map(Option::unwrap_or_default))
}

impl StoredPat {
    /// The object's uid; empty only for an object that never came from an API server.
    pub fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    /// The object's namespace.
    pub fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// The object's name.
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// The version that the next write must be based on.
    pub fn resource_version(&self) -> &str {
        self.metadata.resource_version.as_deref().unwrap_or_default()
    }
}

impl From<PersonalAccessToken> for StoredPat {
    fn from(pat: PersonalAccessToken) -> Self {
        Self { metadata: pat.metadata, spec: Ok(pat.spec), status: Ok(pat.status.unwrap_or_default()) }
    }
}

impl Resource for StoredPat {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        PersonalAccessToken::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        PersonalAccessToken::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        PersonalAccessToken::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        PersonalAccessToken::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
