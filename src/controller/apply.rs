//! Writes of Secrets: fetches the plain tokens that a planned write needs, renders the data, and sends it.
//!
//! Plain tokens exist here only during a write. The buffers of tokens and rendered data are zeroized; the body of the request, which
//! kube serializes, is not.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::{cluster::ClusterClient, error::Error};
use crate::{
    api::{MANAGED_BY, MANAGED_BY_LABEL, StoredPat},
    planner::{
        SecretContent, SecretWrite, TokenSource,
        damage::{self, Damage},
        observed::{OwnedMetadata, SecretRecord, SecretView, hash, owner_reference},
    },
    secret::{Digest, Layout, Rendered},
    token::{Token, TokenHash, TokenPrefix},
};

/// The API server's answer to a write.
pub struct Written {
    /// The Secret as it is stored.
    pub secret: SecretView,
    /// What admission changed in the write, if anything; an error if the write has failed because of it.
    pub alteration: Result<Option<Damage>, Damage>,
}

/// Executes a planned write, or its dry run, and returns the Secret as the API server reports it.
///
/// # Errors
/// A token is not where the plan expects it, or the request fails.
pub async fn write_secret(
    cluster: &ClusterClient,
    pat: &StoredPat,
    held: Option<(&str, TokenHash)>,
    write: &SecretWrite,
    dry_run: bool,
) -> Result<Written, Error> {
    let content = SecretBody::of(cluster, pat, held, write).await?;
    let namespace = pat.namespace();
    let sent = SecretView::of(content.create(pat, write));
    let secret = match &write.base {
        None => cluster.create_secret(namespace, content.create(pat, write), dry_run).await?,
        Some(base) => {
            let body = content.patch(pat, write, &base.uid, &base.resource_version);
            cluster.patch_secret(namespace, &write.name, &body, dry_run).await?
        }
    };
    let secret = SecretView::of(secret);
    let alteration = damage::alteration(write, pat.uid(), &sent, &secret);
    Ok(Written { secret, alteration })
}

/// The content that a write gives to a Secret.
struct SecretBody<'a> {
    /// The data; `None` keeps the present data.
    data: Option<Rendered>,
    type_: Option<&'a str>,
    layout: Option<&'a Layout>,
    record: SecretRecord,
}

impl<'a> SecretBody<'a> {
    async fn of(
        cluster: &ClusterClient,
        pat: &StoredPat,
        held: Option<(&str, TokenHash)>,
        write: &'a SecretWrite,
    ) -> Result<Self, Error> {
        let record = |data_hash: Digest, render_hash: Digest, owned: OwnedMetadata| SecretRecord {
            pat_uid: pat.uid().into(),
            ledger: write.ledger.clone(),
            data_hash,
            render_hash,
            owned,
        };
        match &write.content {
            SecretContent::Token { token, previous, facts, layout } => {
                let mut sources = TokenSources { cluster, namespace: pat.namespace(), held, read: BTreeMap::new() };
                let token = sources.fetch(token).await?;
                let previous = match previous {
                    Some(source) => Some(sources.fetch(source).await?),
                    None => None,
                };
                let data =
                    layout.render(&token, previous.as_ref().map(|previous| previous.as_str()), &facts.borrow())?;
                let record = record(data.hash(), layout.render_hash(&facts.borrow()), OwnedMetadata::of(layout));
                Ok(Self { data: Some(data), type_: Some(&layout.type_), layout: Some(layout), record })
            }
            SecretContent::MetadataOnly { data_hash, render_hash, layout } => {
                let owned = layout.as_ref().map_or_else(|| write.previously_owned.clone(), OwnedMetadata::of);
                let record = record(*data_hash, *render_hash, owned);
                Ok(Self { data: None, type_: None, layout: layout.as_ref(), record })
            }
            SecretContent::Cleared { type_ } => {
                let data = crate::secret::cleared_data(type_);
                let record = record(data.hash(), Digest::default(), write.previously_owned.clone());
                Ok(Self { data: Some(data), type_: Some(type_), layout: None, record })
            }
        }
    }

    /// Returns the object to create.
    fn create(&self, pat: &StoredPat, write: &SecretWrite) -> Secret {
        let mut annotations = self.record.annotations();
        let mut labels = BTreeMap::from([(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned())]);
        if let Some(layout) = self.layout {
            annotations.extend(layout.annotations.clone());
            labels.extend(layout.labels.clone());
        }
        let data = self.data.iter().flat_map(Rendered::iter);
        Secret {
            metadata: ObjectMeta {
                name: Some(write.name.clone()),
                annotations: Some(annotations),
                labels: Some(labels),
                owner_references: Some(vec![owner_reference(pat)]),
                ..Default::default()
            },
            type_: self.type_.map(str::to_owned),
            data: Some(data.map(|(key, value)| (key.to_owned(), ByteString(value.to_vec()))).collect()),
            ..Default::default()
        }
    }

    /// Returns a JSON merge patch (RFC 7386). Explicit nulls remove what the controller wrote before and no longer
    /// wants.
    fn patch(&self, pat: &StoredPat, write: &SecretWrite, uid: &str, resource_version: &str) -> Value {
        let mut annotations: Map<String, Value> = nulls(&write.previously_owned.annotations);
        annotations.extend(self.record.annotations().into_iter().map(|(key, value)| (key, value.into())));
        let mut labels = nulls(&write.previously_owned.labels);
        labels.insert(MANAGED_BY_LABEL.into(), MANAGED_BY.into());
        match self.layout {
            Some(layout) => {
                annotations.extend(texts(&layout.annotations));
                labels.extend(texts(&layout.labels));
            }
            // Other labels and annotations stay unchanged.
            None => {
                annotations.retain(|_, value| !value.is_null());
                labels.retain(|_, value| !value.is_null());
            }
        }
        let mut metadata =
            json!({"uid": uid, "resourceVersion": resource_version, "annotations": annotations, "labels": labels});
        if write.set_owner {
            metadata["ownerReferences"] = json!([owner_reference(pat)]);
        }
        let mut body = json!({"metadata": metadata});
        if let Some(rendered) = &self.data {
            let mut data = nulls(&write.existing_keys);
            for (key, value) in rendered.iter() {
                data.insert(key.to_owned(), serde_json::to_value(ByteString(value.to_vec())).unwrap_or_default());
            }
            body["data"] = data.into();
        }
        body
    }
}

fn nulls<'a>(keys: impl IntoIterator<Item = &'a String>) -> Map<String, Value> {
    keys.into_iter().map(|key| (key.clone(), Value::Null)).collect()
}

fn texts(map: &BTreeMap<String, String>) -> impl Iterator<Item = (String, Value)> {
    map.iter().map(|(key, value)| (key.clone(), value.clone().into()))
}

/// The sources of plain tokens. Each Secret is read once.
struct TokenSources<'a> {
    cluster: &'a ClusterClient,
    namespace: &'a str,
    held: Option<(&'a str, TokenHash)>,
    read: BTreeMap<String, ReadSecret>,
}

/// The values of a Secret, zeroized when they are dropped.
struct ReadSecret {
    resource_version: String,
    data: BTreeMap<String, Zeroizing<Vec<u8>>>,
}

impl TokenSources<'_> {
    async fn fetch(&mut self, source: &TokenSource) -> Result<Zeroizing<String>, Error> {
        match source {
            TokenSource::Throwaway => {
                let token = Token::mint(&TokenPrefix::default())?;
                Ok(Zeroizing::new(token.expose().to_owned()))
            }
            TokenSource::Held { sha256 } => self
                .held
                .filter(|(_, hash)| hash == sha256)
                .map(|(token, _)| Zeroizing::new(token.to_owned()))
                .ok_or_else(|| Error::TokenMoved { place: "memory".into() }),
            TokenSource::Secret { target, key, sha256 } => {
                let moved = || Error::TokenMoved { place: format!("Secret {:?}", target.name) };
                if !self.read.contains_key(&target.name) {
                    let secret = self.cluster.secret(self.namespace, &target.name).await?.ok_or_else(moved)?;
                    let resource_version = secret.metadata.resource_version.unwrap_or_default();
                    let data = secret.data.unwrap_or_default();
                    let data = data.into_iter().map(|(key, ByteString(value))| (key, Zeroizing::new(value))).collect();
                    self.read.insert(target.name.clone(), ReadSecret { resource_version, data });
                }
                let ReadSecret { resource_version, data } = &self.read[&target.name];
                let value = data.get(key).filter(|_| *resource_version == target.resource_version).ok_or_else(moved)?;
                if *sha256 != hash(value) {
                    return Err(moved());
                }
                let text = str::from_utf8(value).map_err(|_| moved())?;
                Ok(Zeroizing::new(text.to_owned()))
            }
        }
    }
}
