//! `PersonalAccessToken` and `TokenOwner` as caches hold them: small, and decodable whatever stands in them.
//!
//! Admission is strict, so what is stored normally decodes. Where it does not (a hand-edited CRD, a newer version's object),
//! only that object is affected: a list never fails as a whole.

use k8s_openapi::{
    ClusterResourceScope, NamespaceResourceScope,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time as ApiTime},
};
use kube::ResourceExt;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::value::RawValue;

use super::{
    PersonalAccessToken, PersonalAccessTokenSpec, PersonalAccessTokenStatus, Time, TokenOwner, TokenOwnerSpec,
    UNACKNOWLEDGED, VERIFIER_FIELD_MANAGER,
};

/// Makes a type that holds less of a resource be that resource to a client. The fields after the scope lead to the metadata.
macro_rules! stands_for {
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
pub(crate) use stands_for;

/// A stored `PersonalAccessToken` whose parts decoded or did not, each by itself.
#[derive(Clone, Debug)]
pub struct StoredPat {
    /// The object's metadata, as far as decisions need it: neither labels nor annotations nor who set which field.
    pub metadata: ObjectMeta,
    /// When the object last changed by other than use, to the second, as its field managers tell.
    pub updated_at: Option<Time>,
    /// The credential that the annotation [`UNACKNOWLEDGED`] names.
    pub unacknowledged: Option<Box<str>>,
    /// The spec, or why it cannot be read.
    pub spec: Result<PersonalAccessTokenSpec, String>,
    /// The status (empty if there is none), or why it cannot be read.
    pub status: Result<PersonalAccessTokenStatus, String>,
}

/// A stored `TokenOwner` whose spec decoded or did not.
#[derive(Clone, Debug)]
pub struct StoredOwner {
    /// The object's metadata, as far as decisions need it.
    pub metadata: ObjectMeta,
    /// When the object last changed, to the second, as its field managers tell.
    pub updated_at: Option<Time>,
    /// The spec, or why it cannot be read.
    pub spec: Result<TokenOwnerSpec, String>,
}

impl<'de> Deserialize<'de> for StoredPat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Parts {
            #[serde(default)]
            metadata: Slim,
            #[serde(default = "no_spec", deserialize_with = "leniently")]
            spec: Result<PersonalAccessTokenSpec, String>,
            #[serde(default = "no_status", deserialize_with = "leniently_optional")]
            status: Result<PersonalAccessTokenStatus, String>,
        }
        let Parts { mut metadata, spec, status } = Parts::deserialize(deserializer)?;
        let updated_at = metadata.updated_at();
        let unacknowledged = metadata.annotations.unacknowledged.take();
        Ok(Self { updated_at, unacknowledged, metadata: metadata.into(), spec, status })
    }
}

impl<'de> Deserialize<'de> for StoredOwner {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Parts {
            #[serde(default)]
            metadata: Slim,
            #[serde(default = "no_spec", deserialize_with = "leniently")]
            spec: Result<TokenOwnerSpec, String>,
        }
        let Parts { metadata, spec } = Parts::deserialize(deserializer)?;
        Ok(Self { updated_at: metadata.updated_at(), metadata: metadata.into(), spec })
    }
}

/// What is needed of an object's metadata. The rest, which is most of the bytes of an object, is skipped.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Slim {
    namespace: Option<String>,
    name: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    creation_timestamp: Option<ApiTime>,
    deletion_timestamp: Option<ApiTime>,
    annotations: Annotations,
    managed_fields: Vec<Change>,
}

/// The annotations that decide anything.
#[derive(Default, Deserialize)]
struct Annotations {
    #[serde(rename = "pat-operator.io/unacknowledged")]
    unacknowledged: Option<Box<str>>,
}

/// Who wrote to an object last, and when.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Change {
    manager: Option<String>,
    time: Option<ApiTime>,
}

impl Slim {
    fn updated_at(&self) -> Option<Time> {
        let changes = self.managed_fields.iter().map(|change| (change.manager.as_deref(), change.time.as_ref()));
        newest(changes).or(self.creation_timestamp.as_ref().map(|time| time.0.into()))
    }
}

/// The newest change, leaving out those that only tell of use.
fn newest<'a>(changes: impl Iterator<Item = (Option<&'a str>, Option<&'a ApiTime>)>) -> Option<Time> {
    let told = changes.filter(|(manager, _)| *manager != Some(VERIFIER_FIELD_MANAGER));
    told.filter_map(|(_, time)| Some(time?.0.into())).max()
}

fn updated_at(metadata: &ObjectMeta) -> Option<Time> {
    let changes = metadata.managed_fields.iter().flatten();
    newest(changes.map(|entry| (entry.manager.as_deref(), entry.time.as_ref())))
        .or(metadata.creation_timestamp.as_ref().map(|time| time.0.into()))
}

impl From<Slim> for ObjectMeta {
    fn from(slim: Slim) -> Self {
        let Slim { namespace, name, uid, resource_version, generation, creation_timestamp, deletion_timestamp, .. } =
            slim;
        Self {
            namespace,
            name,
            uid,
            resource_version,
            generation,
            creation_timestamp,
            deletion_timestamp,
            ..Self::default()
        }
    }
}

fn no_spec<T>() -> Result<T, String> {
    Err("spec is missing".into())
}

fn no_status() -> Result<PersonalAccessTokenStatus, String> {
    Ok(PersonalAccessTokenStatus::default())
}

/// Reads a part of which only the text is taken from the object: whatever is wrong in it stays in it. The text is there as long as
/// nothing has taken it apart before, as serde would in an event that did not begin with its type; API servers' do.
fn leniently<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Result<T, String>, D::Error> {
    let text = Box::<RawValue>::deserialize(deserializer)?;
    if text.get().starts_with('[') {
        // serde would take an array for a struct whose fields are all optional.
        return Ok(Err("it is a list, not an object".into()));
    }
    Ok(serde_json::from_str(text.get()).map_err(|error| error.to_string()))
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
        Self {
            updated_at: updated_at(&pat.metadata),
            unacknowledged: pat.annotations().get(UNACKNOWLEDGED).map(|id| id.as_str().into()),
            metadata: pat.metadata,
            spec: Ok(pat.spec),
            status: Ok(pat.status.unwrap_or_default()),
        }
    }
}

stands_for!(StoredPat, PersonalAccessToken, NamespaceResourceScope, metadata);

impl StoredOwner {
    /// The object's uid; empty only for an object that never came from an API server.
    pub fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    /// The object's name.
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }
}

impl From<TokenOwner> for StoredOwner {
    fn from(owner: TokenOwner) -> Self {
        Self { updated_at: updated_at(&owner.metadata), metadata: owner.metadata, spec: Ok(owner.spec) }
    }
}

stands_for!(StoredOwner, TokenOwner, ClusterResourceScope, metadata);
