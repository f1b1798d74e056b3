//! The key that access tokens are signed with: in a Secret of the operator's own namespace, made by whoever starts first.
//!
//! Whoever can plant a key can forge access tokens. So a Secret is taken only if it is of a type that no PersonalAccessToken can ask
//! for, belongs to nobody, and holds exactly one key. It must not know what is signed.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Api, Client, api::PostParams};
use rand::{TryRng, rngs::SysRng};
use tracing::info;
use zeroize::{Zeroize, Zeroizing};

use super::access_token::KEY_LENGTH;
use crate::{
    api::{MANAGED_BY, MANAGED_BY_LABEL},
    service::explain_api_error,
};

/// The type of the Secret. `spec.secret.type` of a PersonalAccessToken cannot be under this domain.
pub const TYPE: &str = "pat-operator.io/access-token-key";

/// Where in the Secret the key is.
pub const DATA_KEY: &str = "key";

/// A key, wiped on drop.
pub type Key = Zeroizing<[u8; KEY_LENGTH]>;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// There is a Secret of this name, and it is not to be trusted.
    #[error(
        "Secret {name} in namespace {namespace} cannot be the key of access tokens: {problem}; if nothing else needs it, delete it, \
         and a new one is made; else choose another name with --key-secret"
    )]
    NotOurs {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// It cannot be read or made.
    #[error("the key of access tokens, Secret {name} in namespace {namespace}: {}", explain_api_error(.error))]
    Api {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// What kube said.
        error: kube::Error,
    },
    /// There is no randomness.
    #[error("the random number generator failed: {0}")]
    Randomness(String),
}

impl KeyError {
    /// The one name of this error for metrics, events and logs.
    pub fn category(&self) -> &'static str {
        match self {
            Self::NotOurs { .. } => "KeyNotOurs",
            Self::Api { .. } => "KeyUnavailable",
            Self::Randomness(_) => "RandomnessFailed",
        }
    }
}

/// Reads the key, or makes one if there is none. Of several who start at a time one makes it, and all have the same.
///
/// # Errors
/// See [`KeyError`].
pub async fn load_or_make(client: &Client, namespace: &str, name: &str) -> Result<Key, KeyError> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let failed = |error| KeyError::Api { namespace: namespace.into(), name: name.into(), error };
    let secret = match secrets.get_opt(name).await.map_err(failed)? {
        Some(secret) => secret,
        None => match secrets.create(&PostParams::default(), &new_secret(name)?).await {
            Ok(secret) => {
                info!(namespace, name, "made the key of access tokens");
                secret
            }
            // Somebody else was quicker: theirs is the key.
            Err(kube::Error::Api(status)) if status.code == 409 => secrets.get(name).await.map_err(failed)?,
            Err(error) => return Err(failed(error)),
        },
    };
    read(secret).map_err(|problem| KeyError::NotOurs { namespace: namespace.into(), name: name.into(), problem })
}

fn new_secret(name: &str) -> Result<Secret, KeyError> {
    let mut key = vec![0; KEY_LENGTH];
    SysRng.try_fill_bytes(&mut key).map_err(|error| KeyError::Randomness(error.to_string()))?;
    Ok(Secret {
        metadata: ObjectMeta {
            name: Some(name.into()),
            labels: Some(BTreeMap::from([("app.kubernetes.io/component".into(), "api".into())])),
            ..ObjectMeta::default()
        },
        type_: Some(TYPE.into()),
        immutable: Some(true),
        data: Some(BTreeMap::from([(DATA_KEY.into(), ByteString(key))])),
        ..Secret::default()
    })
}

/// The key that a Secret holds, or what is wrong with it. The Secret's own copy is wiped.
fn read(mut secret: Secret) -> Result<Key, String> {
    let mut data = secret.data.take().unwrap_or_default();
    let key = take(&secret, &data);
    data.values_mut().for_each(|value| value.0.zeroize());
    key
}

fn take(secret: &Secret, data: &BTreeMap<String, ByteString>) -> Result<Key, String> {
    let type_ = secret.type_.as_deref().unwrap_or_default();
    if type_ != TYPE {
        return Err(format!("its type is {type_:?} and not {TYPE:?}"));
    }
    if let Some(owner) = secret.metadata.owner_references.iter().flatten().next() {
        return Err(format!("it belongs to {} {:?}", owner.kind, owner.name));
    }
    if secret.metadata.labels.iter().flatten().any(|(key, value)| key == MANAGED_BY_LABEL && value == MANAGED_BY) {
        return Err(format!(
            "the label {MANAGED_BY_LABEL}={MANAGED_BY} marks it as the Secret of a PersonalAccessToken"
        ));
    }
    let value = data.get(DATA_KEY).map(|value| value.0.as_slice()).unwrap_or_default();
    let key = value.try_into().map_err(|_| format!("{DATA_KEY:?} has {} bytes and not {KEY_LENGTH}", value.len()))?;
    Ok(Zeroizing::new(key))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

    use super::*;

    #[test]
    fn what_is_made_here_is_taken_and_no_two_are_alike() {
        let key = || read(new_secret("key").unwrap()).unwrap();
        assert_ne!(*key(), *key());
        assert_ne!(*key(), [0; KEY_LENGTH]);
    }

    #[test]
    fn what_somebody_else_could_have_made_is_refused_with_the_reason() {
        type Spoil = fn(&mut Secret);
        let owner = |secret: &mut Secret| {
            let owner = OwnerReference { kind: "PersonalAccessToken".into(), name: "a".into(), ..Default::default() };
            secret.metadata.owner_references = Some(vec![owner]);
        };
        let cases: [(Spoil, &str); 7] = [
            (|secret| secret.type_ = Some("Opaque".into()), "its type is \"Opaque\""),
            (|secret| secret.type_ = None, "its type is \"\""),
            (owner, "it belongs to PersonalAccessToken \"a\""),
            (
                |secret| {
                    secret.metadata.labels = Some(BTreeMap::from([(MANAGED_BY_LABEL.into(), MANAGED_BY.into())]));
                },
                "marks it as the Secret of a PersonalAccessToken",
            ),
            (|secret| secret.data = None, "\"key\" has 0 bytes and not 32"),
            (|secret| drop(secret.data.as_mut().unwrap().insert(DATA_KEY.into(), ByteString(vec![7; 31]))), "31 bytes"),
            (|secret| drop(secret.data.as_mut().unwrap().insert(DATA_KEY.into(), ByteString(vec![7; 33]))), "33 bytes"),
        ];
        for (spoil, words) in cases {
            let mut secret = new_secret("key").unwrap();
            spoil(&mut secret);
            let problem = read(secret).unwrap_err();
            assert!(problem.contains(words), "{words}: {problem}");
        }
    }
}
