//! `PersonalAccessToken` and `TokenOwner` as caches hold them: compact, and tolerant of invalid content.
//!
//! Admission is strict, so stored objects normally decode. If one does not (a modified CRD, an object of a newer version), only
//! that object is affected: a list never fails as a whole.

use k8s_openapi::{
    ClusterResourceScope, NamespaceResourceScope,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time as ApiTime},
};
use kube::ResourceExt;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::value::RawValue;

use super::{
    ClusterTokenIssuer, IssuerStatus, PersonalAccessToken, PersonalAccessTokenSpec, PersonalAccessTokenStatus,
    REMOTE_TOKENS, Time, TokenIssuer, TokenIssuerSpec, TokenOwner, TokenOwnerSpec, UNACKNOWLEDGED,
    VERIFIER_FIELD_MANAGER,
};

/// Implements `kube::Resource` for a type that holds only a part of `$resource`. `$metadata` is the path to its metadata.
macro_rules! impl_resource {
    ($stored:ty, $resource:ty, $scope:ty, $($metadata:tt).+) => {
        impl ::kube::Resource for $stored {
            type DynamicType = ();
            type Scope = $scope;

            fn kind((): &()) -> ::std::borrow::Cow<'_, str> {
                <$resource as ::kube::Resource>::kind(&())
            }

            fn group((): &()) -> ::std::borrow::Cow<'_, str> {
                <$resource as ::kube::Resource>::group(&())
            }

            fn version((): &()) -> ::std::borrow::Cow<'_, str> {
                <$resource as ::kube::Resource>::version(&())
            }

            fn plural((): &()) -> ::std::borrow::Cow<'_, str> {
                <$resource as ::kube::Resource>::plural(&())
            }

            fn meta(&self) -> &ObjectMeta {
                &self.$($metadata).+
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.$($metadata).+
            }
        }
    };
}
pub(crate) use impl_resource;

/// A stored `PersonalAccessToken`. Spec and status decode independently, and either may fail.
#[derive(Clone, Debug)]
pub struct StoredPat {
    /// Metadata of the object, without labels, annotations and managed fields.
    pub metadata: ObjectMeta,
    /// When the object last changed, other than by a recorded use; to the second, from its managed fields.
    pub updated_at: Option<Time>,
    /// ID of the credential in the annotation [`UNACKNOWLEDGED`].
    pub unacknowledged: Option<Box<str>>,
    /// The spec, or why it does not decode.
    pub spec: Result<PersonalAccessTokenSpec, String>,
    /// The status (empty if there is none), or why it does not decode.
    pub status: Result<PersonalAccessTokenStatus, String>,
}

/// A stored `TokenOwner`. Its spec may fail to decode.
#[derive(Clone, Debug)]
pub struct StoredOwner {
    /// Metadata of the object, without labels, annotations and managed fields.
    pub metadata: ObjectMeta,
    /// When the object last changed; to the second, from its managed fields.
    pub updated_at: Option<Time>,
    /// The spec, or why it does not decode.
    pub spec: Result<TokenOwnerSpec, String>,
}

impl<'de> Deserialize<'de> for StoredPat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct PatParts {
            #[serde(default)]
            metadata: SlimMetadata,
            #[serde(default = "no_spec", deserialize_with = "leniently")]
            spec: Result<PersonalAccessTokenSpec, String>,
            #[serde(default = "no_status", deserialize_with = "leniently_optional")]
            status: Result<PersonalAccessTokenStatus, String>,
        }
        let PatParts { mut metadata, spec, status } = PatParts::deserialize(deserializer)?;
        let updated_at = metadata.updated_at();
        let unacknowledged = metadata.annotations.unacknowledged.take();
        Ok(Self { updated_at, unacknowledged, metadata: metadata.into(), spec, status })
    }
}

/// A stored `TokenIssuer` or `ClusterTokenIssuer`. Spec and status may fail to decode.
#[derive(Clone, Debug)]
pub struct StoredIssuer {
    /// Metadata of the object, without labels, annotations and managed fields.
    pub metadata: ObjectMeta,
    /// The spec, or why it does not decode.
    pub spec: Result<TokenIssuerSpec, String>,
    /// The status (empty if there is none), or why it does not decode.
    pub status: Result<IssuerStatus, String>,
}

impl StoredIssuer {
    /// Whether it is being deleted.
    pub fn is_deleting(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }
}

/// A stored `TokenIssuer`.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub struct StoredTokenIssuer(pub StoredIssuer);

/// A stored `ClusterTokenIssuer`.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub struct StoredClusterTokenIssuer(pub StoredIssuer);

impl<'de> Deserialize<'de> for StoredIssuer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct IssuerParts {
            #[serde(default)]
            metadata: SlimMetadata,
            #[serde(default = "no_spec", deserialize_with = "leniently")]
            spec: Result<TokenIssuerSpec, String>,
            #[serde(default = "no_issuer_status", deserialize_with = "leniently_optional")]
            status: Result<IssuerStatus, String>,
        }
        let IssuerParts { metadata, spec, status } = IssuerParts::deserialize(deserializer)?;
        Ok(Self { metadata: metadata.into(), spec, status })
    }
}

impl_resource!(StoredTokenIssuer, TokenIssuer, NamespaceResourceScope, 0.metadata);
impl_resource!(StoredClusterTokenIssuer, ClusterTokenIssuer, ClusterResourceScope, 0.metadata);

impl<'de> Deserialize<'de> for StoredOwner {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct OwnerParts {
            #[serde(default)]
            metadata: SlimMetadata,
            #[serde(default = "no_spec", deserialize_with = "leniently")]
            spec: Result<TokenOwnerSpec, String>,
        }
        let OwnerParts { metadata, spec } = OwnerParts::deserialize(deserializer)?;
        Ok(Self { updated_at: metadata.updated_at(), metadata: metadata.into(), spec })
    }
}

/// The metadata that is decoded. The rest, which is most of an object's bytes, is skipped.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SlimMetadata {
    namespace: Option<String>,
    name: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    creation_timestamp: Option<ApiTime>,
    deletion_timestamp: Option<ApiTime>,
    finalizers: Option<Vec<String>>,
    annotations: SlimAnnotations,
    managed_fields: Vec<FieldChange>,
}

#[derive(Default, Deserialize)]
struct SlimAnnotations {
    #[serde(rename = "pat-operator.io/unacknowledged")]
    unacknowledged: Option<Box<str>>,
}

/// One entry of `managedFields`: who wrote, and when.
#[derive(Default, Deserialize)]
#[serde(default)]
struct FieldChange {
    manager: Option<String>,
    time: Option<ApiTime>,
}

impl SlimMetadata {
    fn updated_at(&self) -> Option<Time> {
        let changes = self.managed_fields.iter().map(|change| (change.manager.as_deref(), change.time.as_ref()));
        newest(changes).or(self.creation_timestamp.as_ref().map(|time| time.0.into()))
    }
}

/// Returns the time of the newest change, ignoring recorded uses.
fn newest<'a>(changes: impl Iterator<Item = (Option<&'a str>, Option<&'a ApiTime>)>) -> Option<Time> {
    let changes = changes.filter(|(manager, _)| *manager != Some(VERIFIER_FIELD_MANAGER));
    changes.filter_map(|(_, time)| Some(time?.0.into())).max()
}

fn updated_at(metadata: &ObjectMeta) -> Option<Time> {
    let changes = metadata.managed_fields.iter().flatten();
    newest(changes.map(|entry| (entry.manager.as_deref(), entry.time.as_ref())))
        .or(metadata.creation_timestamp.as_ref().map(|time| time.0.into()))
}

impl From<SlimMetadata> for ObjectMeta {
    fn from(slim: SlimMetadata) -> Self {
        Self {
            namespace: slim.namespace,
            name: slim.name,
            uid: slim.uid,
            resource_version: slim.resource_version,
            generation: slim.generation,
            creation_timestamp: slim.creation_timestamp,
            deletion_timestamp: slim.deletion_timestamp,
            finalizers: slim.finalizers,
            ..Self::default()
        }
    }
}

fn no_spec<T>() -> Result<T, String> {
    Err("spec is missing".into())
}

fn no_issuer_status() -> Result<IssuerStatus, String> {
    Ok(IssuerStatus::default())
}

fn no_status() -> Result<PersonalAccessTokenStatus, String> {
    Ok(PersonalAccessTokenStatus::default())
}

/// Decodes a part of an object from its raw JSON, so that an error in it does not fail the whole object.
///
/// The raw JSON is available only if serde has not buffered the object. It would buffer a watch event that does not start with
/// its type; those of API servers do.
fn leniently<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Result<T, String>, D::Error> {
    let text = Box::<RawValue>::deserialize(deserializer)?;
    if text.get().starts_with('[') {
        // serde would accept an array for a struct whose fields are all optional.
        return Ok(Err("expected an object, found a list".into()));
    }
    Ok(serde_json::from_str(text.get()).map_err(|error| error.to_string()))
}

fn leniently_optional<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(
    deserializer: D,
) -> Result<Result<T, String>, D::Error> {
    leniently::<D, Option<T>>(deserializer).map(|read| read.map(Option::unwrap_or_default))
}

impl StoredPat {
    /// Returns the uid; empty only for an object that did not come from an API server.
    pub fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    /// Returns the namespace of the object.
    pub fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// Returns the name of the object.
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// Whether the finalizer [`REMOTE_TOKENS`] holds the object until its tokens are revoked at their issuer.
    pub fn has_finalizer(&self) -> bool {
        self.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == REMOTE_TOKENS)
    }

    /// Returns the status; `None` if it does not decode, or was lost and is not yet rebuilt although the object has tokens at an issuer.
    pub fn readable_status(&self) -> Option<&PersonalAccessTokenStatus> {
        let status = self.status.as_ref().ok()?;
        let is_lost = status.revision.is_none() && status.conditions.is_empty() && status.observed_generation.is_none();
        (!is_lost || !self.has_finalizer()).then_some(status)
    }

    /// Returns the version that the next write must be based on.
    pub fn resource_version(&self) -> &str {
        self.metadata.resource_version.as_deref().unwrap_or_default()
    }
}

impl From<PersonalAccessToken> for StoredPat {
    fn from(pat: PersonalAccessToken) -> Self {
        Self {
            updated_at: updated_at(&pat.metadata),
            unacknowledged: pat.annotations().get(UNACKNOWLEDGED).map(|id| id.as_str().into()),
            metadata: pat.metadata,
            spec: Ok(pat.spec),
            status: Ok(pat.status.unwrap_or_default()),
        }
    }
}

impl_resource!(StoredPat, PersonalAccessToken, NamespaceResourceScope, metadata);

impl StoredOwner {
    /// Returns the uid; empty only for an object that did not come from an API server.
    pub fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    /// Returns the name of the object.
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }
}

impl From<TokenOwner> for StoredOwner {
    fn from(owner: TokenOwner) -> Self {
        Self { updated_at: updated_at(&owner.metadata), metadata: owner.metadata, spec: Ok(owner.spec) }
    }
}

impl_resource!(StoredOwner, TokenOwner, ClusterResourceScope, metadata);
