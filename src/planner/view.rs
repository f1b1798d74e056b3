//! What the planner sees of the cluster: a Secret reduced to names and hashes, and what else is known of one token.
//!
//! No plain token gets in here: each data value becomes its SHA-256 before anything keeps it. It must not read anything by itself.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    ByteString,
    api::core::v1::Secret,
    apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, OwnerReference},
};
use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest as _, Sha256};

use super::table::Table;
use crate::secret::{Digest, OPAQUE};
use crate::{
    api::{Credential, GROUP, MANAGED_BY, MANAGED_BY_LABEL, Parsed, RESERVED_PREFIX, StoredPat, Time},
    token::{TokenHash, TokenId},
};

/// Annotation: the uid of the PAT that wrote the Secret.
pub const PAT_UID: &str = "pat-operator.io/pat-uid";
/// Annotation: the live credentials, so that a lost status can be rebuilt.
pub const CREDENTIALS: &str = "pat-operator.io/credentials";
/// Annotation: a hash of all data as written, so that drift in any key is seen.
pub const DATA_HASH: &str = "pat-operator.io/data-hash";
/// Annotation: a hash of what decided the data, so that a changed spec is seen.
pub const RENDER_HASH: &str = "pat-operator.io/render-hash";
/// Annotation: the labels and annotations that are ours to remove.
pub const OWNED: &str = "pat-operator.io/owned";

/// What the annotations of a Secret say, as its writer left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The PAT that wrote it.
    pub pat_uid: Arc<str>,
    /// The credentials that were live when it was written.
    pub ledger: Ledger,
    /// Hash of all data as written.
    pub data_hash: Digest,
    /// Hash of what decided the data.
    pub render_hash: Digest,
    /// The labels and annotations that are ours to remove.
    pub owned: Owned,
}

/// The credentials as a Secret's annotation holds them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// The newest revision that had been begun when this was written. A write that was decided for an older one can
    /// no longer land: it carries a resourceVersion that is gone.
    pub revision: i64,
    /// When the first token was issued.
    #[serde(default, rename = "firstIssuedAt", skip_serializing_if = "Option::is_none")]
    pub first_issued_at: Option<Time>,
    /// The end that the default lifetime gave.
    #[serde(default, rename = "defaultExpiresAt", skip_serializing_if = "Option::is_none")]
    pub default_expires_at: Option<Time>,
    /// The live credentials, the newest first.
    #[serde(default, deserialize_with = "snug")]
    pub live: Vec<Credential>,
}

/// The names of labels and annotations that the controller put on a Secret, each in order. Lists: a set has room for eleven names and
/// more, and there is one or none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owned {
    /// Label keys.
    #[serde(default, deserialize_with = "snug")]
    pub labels: Vec<String>,
    /// Annotation keys.
    #[serde(default, deserialize_with = "snug")]
    pub annotations: Vec<String>,
}

/// Who controls a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Controller {
    /// Nobody.
    Nobody,
    /// The PAT with this uid.
    Pat {
        /// Its uid.
        uid: Arc<str>,
        /// Its name.
        name: Arc<str>,
    },
    /// Something else: kind and name.
    Other(String),
}

/// A Secret without its values. There are thousands of them: what mostly is the same text, such as the name of a Secret and of its
/// PAT, is kept once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretView {
    /// metadata.namespace
    pub namespace: String,
    /// metadata.name
    pub name: Arc<str>,
    /// metadata.uid
    pub uid: String,
    /// metadata.resourceVersion: what the next write must be based on.
    pub resource_version: String,
    /// It has a deletionTimestamp.
    pub deleting: bool,
    /// `type`
    pub type_: Cow<'static, str>,
    /// Its controller.
    pub controller: Controller,
    /// All labels.
    pub labels: Table<Box<str>>,
    /// Annotations but our own.
    pub annotations: Table<Box<str>>,
    /// The SHA-256 of each value.
    pub data: Table<TokenHash>,
    /// What our own annotations say, if they can be read.
    pub record: Option<Record>,
    /// The field manager that last touched it and is not us; only in a live reading, where managedFields are.
    pub last_editor: Option<String>,
}

impl SecretView {
    /// Reduces a Secret. The values given are dropped.
    pub fn of(secret: Secret) -> Self {
        let metadata = secret.metadata;
        let small = |(key, value): (String, String)| (key, value.into_boxed_str());
        let labels = metadata.labels.unwrap_or_default().into_iter().map(small).collect();
        let all = metadata.annotations.unwrap_or_default();
        let name: Arc<str> = metadata.name.unwrap_or_default().into();
        let controller = controller(metadata.owner_references.as_deref().unwrap_or_default(), &name);
        let record = Record::read(&all, &controller);
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
            type_: secret.type_.filter(|type_| type_ != OPAQUE).map_or(OPAQUE.into(), Cow::Owned),
            controller,
            labels,
            annotations,
            data,
            record,
            last_editor: last_editor(metadata.managed_fields.as_deref().unwrap_or_default()),
        }
    }

    /// Whether the PAT with this uid controls it. A Secret of a type of ours, such as the key of the REST API's access tokens, is
    /// never a PAT's, whatever its owner reference says.
    pub fn is_controlled_by(&self, uid: &str) -> bool {
        !self.is_reserved() && matches!(&self.controller, Controller::Pat { uid: owner, .. } if **owner == *uid)
    }

    /// Whether its type is one of the operator's own.
    pub fn is_reserved(&self) -> bool {
        self.type_.starts_with(RESERVED_PREFIX)
    }

    /// Whether anything says that it is of the PAT with this uid: its controller or our annotations.
    pub fn is_of(&self, uid: &str) -> bool {
        self.is_controlled_by(uid) || self.record.as_ref().is_some_and(|record| record.is_of(uid))
    }

    /// The key whose value has this hash; `preferred` if it is one of several.
    pub fn key_of(&self, sha256: &Parsed<TokenHash>, preferred: &str) -> Option<&str> {
        if let Some((key, hash)) = self.data.get_key_value(preferred)
            && sha256 == hash
        {
            return Some(key);
        }
        self.data.iter().find(|(_, hash)| sha256 == *hash).map(|(key, _)| key)
    }

    /// Whether it carries the label that it is watched by.
    pub fn is_labelled(&self) -> bool {
        self.labels.get(MANAGED_BY_LABEL).is_some_and(|value| **value == *MANAGED_BY)
    }

    /// The resource version as a number; 0 if it is not one.
    pub fn version(&self) -> u64 {
        self.resource_version.parse().unwrap_or(0)
    }

    /// The hash of its data as it is now, to be compared with [`Record::data_hash`].
    pub fn data_hash(&self) -> Digest {
        crate::secret::data_hash(self.data.iter().map(|(key, hash)| (key, *hash.as_bytes())))
    }
}

impl Record {
    fn read(annotations: &BTreeMap<String, String>, controller: &Controller) -> Option<Self> {
        let pat_uid = annotations.get(PAT_UID)?;
        Some(Self {
            pat_uid: match controller {
                Controller::Pat { uid, .. } => shared(uid, pat_uid),
                _ => pat_uid.as_str().into(),
            },
            ledger: serde_json::from_str(annotations.get(CREDENTIALS)?).ok()?,
            data_hash: annotations.get(DATA_HASH)?.parse().ok()?,
            render_hash: annotations.get(RENDER_HASH)?.parse().ok()?,
            owned: serde_json::from_str(annotations.get(OWNED)?).ok()?,
        })
    }

    /// Whether the PAT with this uid wrote it.
    pub fn is_of(&self, uid: &str) -> bool {
        *self.pat_uid == *uid
    }

    /// The annotations that [`SecretView::of`] reads back.
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

/// Reads a list that is kept for long, into just the room that it needs: one that grows has room for four at least, and there are
/// thousands of objects with one condition and one credential.
fn snug<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    let mut list = Vec::deserialize(deserializer)?;
    list.shrink_to_fit();
    Ok(list)
}

/// The SHA-256 of one value.
pub fn hash(value: &[u8]) -> TokenHash {
    <[u8; 32]>::from(Sha256::digest(value)).into()
}

/// This text, as a part of the one that is there if they are the same.
fn shared(there: &Arc<str>, text: &str) -> Arc<str> {
    if **there == *text { there.clone() } else { text.into() }
}

fn controller(owners: &[OwnerReference], secret: &Arc<str>) -> Controller {
    let Some(owner) = owners.iter().find(|owner| owner.controller == Some(true)) else {
        return Controller::Nobody;
    };
    let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
    if group == GROUP && owner.kind == "PersonalAccessToken" {
        Controller::Pat { uid: owner.uid.as_str().into(), name: shared(secret, &owner.name) }
    } else {
        Controller::Other(format!("{} {}", owner.kind, owner.name))
    }
}

/// Who wrote last, if it was after us; field managers' times have whole seconds.
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

/// Everything that a plan is made from. All of it is read before, none of it during planning.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The object itself.
    pub pat: &'a StoredPat,
    /// The Secret with the name that the spec asks for.
    pub secret: Option<&'a SecretView>,
    /// Whether `secret` and after it `pat` were read from the API server for this very decision, rather than from a cache. In
    /// this order: a PAT that is older than the Secret could make us undo what another leader has done since.
    pub live: bool,
    /// Other Secrets that this PAT controls: what a rename left.
    pub former: &'a [SecretView],
    /// The PAT that has the better claim to the Secret's name, if there is one.
    pub rival: Option<&'a str>,
    /// The freshly minted token that waits in memory.
    pub held: Option<Held>,
    /// What the API server last refused, if nothing succeeded since.
    pub refusal: Option<&'a Refusal>,
    /// A dry run of the next write to the Secret succeeded a moment ago.
    pub rehearsed: bool,
}

/// The public side of a token that waits in memory for its place in the Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its id.
    pub id: TokenId,
    /// Its hash.
    pub hash: TokenHash,
    /// When it was minted.
    pub issued_at: Time,
    /// When its hash was in the status.
    pub published_at: Option<Time>,
    /// The version that the Secret had just before ([`SecretView::version`]; 0: there was none). Whatever has changed it since
    /// may know of a newer status than we do.
    pub published_over: Option<u64>,
}

/// A write to the Secret that the API server refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What kind it was.
    pub kind: RefusalKind,
    /// The API server's words; they never hold a Secret's values.
    pub message: String,
    /// When to try again.
    pub retry_at: Time,
}

/// The kinds of refusal that call for different answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// The namespace is being deleted.
    NamespaceTerminating,
    /// Quota, admission, validation, permission.
    Other,
}
