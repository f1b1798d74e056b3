//! What the controller observed: the PAT, its Secret reduced to names and hashes, and what it holds in memory.
//!
//! No plain token is here: each value of a Secret is replaced by its SHA-256.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    ByteString,
    api::core::v1::Secret,
    apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, OwnerReference},
    jiff::SignedDuration,
};
use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest as _, Sha256};

use super::{
    remote::{CreatedFacts, IssuerCalls, IssuerView, ListProblem, RemoteList},
    repairs::Repairs,
    sorted_map::SortedMap,
};
use crate::{
    api::{Credential, GROUP, MANAGED_BY, MANAGED_BY_LABEL, Parsed, RESERVED_PREFIX, StoredPat, Time, VERSION},
    secret::{Digest, Layout, OPAQUE},
    token::{TokenHash, TokenId},
};

/// Annotation: the uid of the PAT that wrote the Secret.
pub const PAT_UID: &str = "pat-operator.io/pat-uid";
/// Annotation: the live credentials, so that a lost status can be rebuilt.
pub const CREDENTIALS: &str = "pat-operator.io/credentials";
/// Annotation: a hash of all data as written. It shows drift in any key.
pub const DATA_HASH: &str = "pat-operator.io/data-hash";
/// Annotation: a hash of what the data was rendered from. It shows a changed spec.
pub const RENDER_HASH: &str = "pat-operator.io/render-hash";
/// Annotation: the labels and annotations that the controller may remove.
pub const OWNED: &str = "pat-operator.io/owned";

/// What the controller recorded in the annotations of a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretRecord {
    /// The uid of the PAT that it was written for.
    pub pat_uid: Arc<str>,
    /// The credentials that were live when it was written.
    pub ledger: Ledger,
    /// The hash of all data as written.
    pub data_hash: Digest,
    /// The hash of what the data was rendered from.
    pub render_hash: Digest,
    /// The labels and annotations that the controller may remove.
    pub owned: OwnedMetadata,
}

/// The credentials that an annotation of the Secret records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// The newest revision at the time of the write. A write that was decided for an older one carries an outdated resourceVersion and
    /// fails.
    pub revision: i64,
    /// When the first token was issued.
    #[serde(default, rename = "firstIssuedAt", skip_serializing_if = "Option::is_none")]
    pub first_issued_at: Option<Time>,
    /// The expiry from the default lifetime.
    #[serde(default, rename = "defaultExpiresAt", skip_serializing_if = "Option::is_none")]
    pub default_expires_at: Option<Time>,
    /// The live credentials, the newest first.
    #[serde(default, deserialize_with = "without_spare_capacity")]
    pub live: Vec<Credential>,
}

/// The names of the labels and annotations that the spec put on a Secret, sorted. They are lists, because there is rarely more than one
/// name, and an empty set takes more memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnedMetadata {
    /// Label keys.
    #[serde(default, deserialize_with = "without_spare_capacity")]
    pub labels: Vec<String>,
    /// Annotation keys.
    #[serde(default, deserialize_with = "without_spare_capacity")]
    pub annotations: Vec<String>,
}

impl OwnedMetadata {
    /// Returns the names of the labels and annotations that a layout puts on a Secret.
    pub fn of(layout: &Layout) -> Self {
        Self {
            labels: layout.labels.keys().cloned().collect(),
            annotations: layout.annotations.keys().cloned().collect(),
        }
    }
}

/// The controller in a Secret's owner references.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretController {
    /// There is none.
    Unowned,
    /// The PAT with this uid.
    Pat {
        /// Its uid.
        uid: Arc<str>,
        /// Its name.
        name: Arc<str>,
    },
    /// Another object: its kind and name.
    Other(String),
}

/// A Secret without its values. The cache holds thousands of them, so texts that are usually equal, such as the names of a Secret
/// and its PAT, share their memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretView {
    /// metadata.namespace
    pub namespace: String,
    /// metadata.name
    pub name: Arc<str>,
    /// metadata.uid
    pub uid: String,
    /// metadata.resourceVersion: the next write must carry it.
    pub resource_version: String,
    /// Whether it has a deletionTimestamp.
    pub deleting: bool,
    /// Whether Kubernetes refuses every change of its data.
    pub immutable: bool,
    /// `type`
    pub type_: Cow<'static, str>,
    /// Its controller.
    pub controller: SecretController,
    /// All labels.
    pub labels: SortedMap<Box<str>>,
    /// The annotations, without the operator's own.
    pub annotations: SortedMap<Box<str>>,
    /// The SHA-256 of each value.
    pub data: SortedMap<TokenHash>,
    /// The content of the operator's own annotations, if they can be parsed.
    pub record: Option<SecretRecord>,
    /// The field manager of the last change by another client. Known only after an uncached read, which includes
    /// managedFields.
    pub last_editor: Option<String>,
}

impl SecretView {
    /// Reduces a Secret to this view, and zeroizes its values.
    pub fn of(secret: Secret) -> Self {
        let metadata = secret.metadata;
        let small = |(key, value): (String, String)| (key, value.into_boxed_str());
        let labels = metadata.labels.unwrap_or_default().into_iter().map(small).collect();
        let all = metadata.annotations.unwrap_or_default();
        let name: Arc<str> = metadata.name.unwrap_or_default().into();
        let controller = controller(metadata.owner_references.as_deref().unwrap_or_default(), &name);
        let record = SecretRecord::read(&all, &controller);
        let annotations = all.into_iter().filter(|(key, _)| !key.starts_with(RESERVED_PREFIX)).map(small).collect();
        let data = secret
            .data
            .unwrap_or_default()
            .into_iter()
            .map(|(key, ByteString(value))| {
                let value = zeroize::Zeroizing::new(value);
                (key, hash(&value))
            })
            .collect();
        Self {
            namespace: metadata.namespace.unwrap_or_default(),
            name,
            uid: metadata.uid.unwrap_or_default(),
            resource_version: metadata.resource_version.unwrap_or_default(),
            deleting: metadata.deletion_timestamp.is_some(),
            immutable: secret.immutable == Some(true),
            type_: secret.type_.filter(|type_| type_ != OPAQUE).map_or(OPAQUE.into(), Cow::Owned),
            controller,
            labels,
            annotations,
            data,
            record,
            last_editor: last_editor(metadata.managed_fields.as_deref().unwrap_or_default()),
        }
    }

    /// Whether the PAT with this uid controls it. A Secret of one of the operator's own types, such as the key of the REST API's access
    /// tokens, is never a PAT's, whatever its owner references say.
    pub fn is_controlled_by(&self, uid: &str) -> bool {
        !self.is_reserved() && matches!(&self.controller, SecretController::Pat { uid: owner, .. } if **owner == *uid)
    }

    /// Whether its type is one of the operator's own.
    pub fn is_reserved(&self) -> bool {
        self.type_.starts_with(RESERVED_PREFIX)
    }

    /// Whether its controller or the operator's annotations name the PAT with this uid.
    pub fn is_of(&self, uid: &str) -> bool {
        self.is_controlled_by(uid) || self.record.as_ref().is_some_and(|record| record.is_of(uid))
    }

    /// Returns the key whose value has this hash; `preferred` if several have it.
    pub fn key_of(&self, sha256: &Parsed<TokenHash>, preferred: &str) -> Option<&str> {
        if let Some((key, hash)) = self.data.get_key_value(preferred)
            && sha256 == hash
        {
            return Some(key);
        }
        self.data.iter().find(|(_, hash)| sha256 == *hash).map(|(key, _)| key)
    }

    /// Whether it has the label by which Secrets are watched.
    pub fn is_labelled(&self) -> bool {
        self.labels.get(MANAGED_BY_LABEL).is_some_and(|value| **value == *MANAGED_BY)
    }

    /// Returns the resourceVersion as a number.
    pub fn version(&self) -> u64 {
        version(Some(&self.resource_version))
    }

    /// Returns the hash of the present data, to compare with [`SecretRecord::data_hash`].
    pub fn data_hash(&self) -> Digest {
        crate::secret::data_hash(self.data.iter().map(|(key, hash)| (key, *hash.as_bytes())))
    }
}

impl SecretRecord {
    fn read(annotations: &BTreeMap<String, String>, controller: &SecretController) -> Option<Self> {
        let pat_uid = annotations.get(PAT_UID)?;
        Some(Self {
            pat_uid: match controller {
                SecretController::Pat { uid, .. } => shared(uid, pat_uid),
                _ => pat_uid.as_str().into(),
            },
            ledger: serde_json::from_str(annotations.get(CREDENTIALS)?).ok()?,
            data_hash: annotations.get(DATA_HASH)?.parse().ok()?,
            render_hash: annotations.get(RENDER_HASH)?.parse().ok()?,
            owned: serde_json::from_str(annotations.get(OWNED)?).ok()?,
        })
    }

    /// Whether it was written for the PAT with this uid.
    pub fn is_of(&self, uid: &str) -> bool {
        *self.pat_uid == *uid
    }

    /// Returns the annotations that [`SecretView::of`] parses.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        let json = "plain data is always JSON";
        [
            (PAT_UID, self.pat_uid.to_string()),
            (CREDENTIALS, serde_json::to_string(&self.ledger).expect(json)),
            (DATA_HASH, self.data_hash.to_string()),
            (RENDER_HASH, self.render_hash.to_string()),
            (OWNED, serde_json::to_string(&self.owned).expect(json)),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into()
    }
}

/// Deserializes a list without spare capacity. A growing list reserves room for four entries, and the cache holds thousands of
/// lists with one.
fn without_spare_capacity<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    let mut list = Vec::deserialize(deserializer)?;
    list.shrink_to_fit();
    Ok(list)
}

/// Reads a resourceVersion as a number; 0 if it is none. The versions of one API server can be compared
/// (<https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions>).
pub fn version(text: Option<&str>) -> u64 {
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Returns the SHA-256 of a value.
pub fn hash(value: &[u8]) -> TokenHash {
    <[u8; 32]>::from(Sha256::digest(value)).into()
}

/// Returns the text, sharing the memory of `there` if both are equal.
fn shared(there: &Arc<str>, text: &str) -> Arc<str> {
    if **there == *text { there.clone() } else { text.into() }
}

fn controller(owners: &[OwnerReference], secret: &Arc<str>) -> SecretController {
    let Some(owner) = owners.iter().find(|owner| owner.controller == Some(true)) else {
        return SecretController::Unowned;
    };
    let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
    if group == GROUP && owner.kind == "PersonalAccessToken" {
        SecretController::Pat { uid: owner.uid.as_str().into(), name: shared(secret, &owner.name) }
    } else {
        SecretController::Other(format!("{} {}", owner.kind, owner.name))
    }
}

/// Returns the owner reference of a PAT's Secret: the garbage collector deletes the Secret after the PAT, without blocking the deletion of
/// the PAT.
pub fn owner_reference(pat: &StoredPat) -> OwnerReference {
    OwnerReference {
        api_version: format!("{GROUP}/{VERSION}"),
        kind: "PersonalAccessToken".into(),
        name: pat.name().into(),
        uid: pat.uid().into(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}

/// Returns the field manager of the last change, if it is not older than ours. The times in managedFields are whole
/// seconds.
fn last_editor(entries: &[ManagedFieldsEntry]) -> Option<String> {
    let time = |entry: &ManagedFieldsEntry| entry.time.as_ref().map(|time| time.0);
    let is_ours = |entry: &&ManagedFieldsEntry| entry.manager.as_deref() == Some(crate::api::FIELD_MANAGER);
    let ours = entries.iter().filter(is_ours).filter_map(time).max();
    entries
        .iter()
        .filter(|entry| !is_ours(entry) && time(entry) >= ours)
        .max_by_key(|entry| time(entry))
        .and_then(|entry| entry.manager.clone())
}

/// The observed state that a plan is made from.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// The object itself.
    pub pat: &'a StoredPat,
    /// The Secret with the name in the spec.
    pub secret: Option<&'a SecretView>,
    /// Whether `secret` and then `pat` were read from the API server for this decision, rather than from a cache. The order matters: with
    /// a PAT that is older than the Secret, the plan could undo the work of another leader.
    pub uncached: bool,
    /// Other Secrets that this PAT controls, left by a change of `spec.secret.name`.
    pub former: &'a [SecretView],
    /// The older PAT that asks for the same Secret, if there is one.
    pub conflicting_pat: Option<&'a str>,
    /// The name of a TokenOwner that disables the owner of the PAT, if there is one.
    pub disabled_by: Option<&'a str>,
    /// How far the controller's clock is ahead of the API server's, or behind if negative. The time of the plan is already corrected.
    pub clock_skew: SignedDuration,
    /// The minted token that is held in memory.
    pub held: Option<HeldCredential>,
    /// The issuer of the tokens, if it is another system and known.
    pub issuer: Option<&'a IssuerView>,
    /// The newest complete lists of the issuer's tokens for the target of the PAT, newest first.
    pub remote_lists: &'a [Arc<RemoteList>],
    /// The targets of the PAT's tokens for which the newest list failed.
    pub list_problems: &'a [ListProblem],
    /// The names of this PAT's tokens that have ended and were issued to a PAT with another UID ([`names_of_another`](super::remote::names_of_another)), and
    /// that some other PAT uses.
    pub shared_names: &'a [String],
    /// What the process knows of its calls at the issuer.
    pub calls: &'a IssuerCalls,
    /// What the issuer answered to the creation of the held token.
    pub created: Option<&'a CreatedFacts>,
    /// For each Secret, the last write that the API server refused, if none has succeeded since.
    pub refusals: &'a [WriteRefusal],
    /// The repairs in a row of the Secret with the name in the spec, if something undoes them.
    pub repairs: Option<&'a Repairs>,
    /// The number of Secrets that were deleted in this reconcile.
    pub deletions: usize,
    /// Whether the API server has just accepted a dry run of the next write to the Secret.
    pub dry_run_accepted: bool,
}

/// Returns the newest version of the Secret with the name in the spec and the former ones ([`SecretView::version`]); 0 if there are none.
pub fn newest_version(secret: Option<&SecretView>, former: &[SecretView]) -> u64 {
    secret.into_iter().chain(former).map(SecretView::version).max().unwrap_or(0)
}

/// The public part of a token that is held in memory until the Secret holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldCredential {
    /// Its id.
    pub id: TokenId,
    /// Its hash; `None` if an issuer of another system has not created it yet.
    pub hash: Option<TokenHash>,
    /// When it was minted.
    pub issued_at: Time,
    /// When its hash was published in the status.
    pub published_at: Option<Time>,
    /// The newest version of the Secrets just before ([`newest_version`]). A writer that has changed one since may know a newer
    /// status.
    pub published_over: Option<u64>,
}

/// A write to the Secret that failed: the API server refused it, or admission changed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteRefusal {
    /// The name of the Secret.
    pub secret: String,
    /// Its kind.
    pub kind: WriteRefusalKind,
    /// The API server's message, or what admission changed; it never contains a Secret's values.
    pub message: String,
    /// When to try again.
    pub retry_at: Time,
}

/// The kinds of refusal that are handled differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteRefusalKind {
    /// The namespace is being deleted.
    NamespaceTerminating,
    /// Admission changed the write, so that the Secret does not hold its token.
    Altered,
    /// Quota, admission, validation, permission.
    Other,
}
