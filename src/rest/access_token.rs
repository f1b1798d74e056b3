//! Access tokens: short-lived JWTs that clients get for a personal access token and that only this API accepts. Also their
//! key.
//!
//! They follow RFC 9068 and are signed by HMAC-SHA-256 with a key of this installation. Each use looks up the credential that the JWT
//! names; the JWT can only narrow its permissions. The `jsonwebtoken` crate is not used, because it keeps copies of a token in memory.
//!
//! The key is in a Secret in the operator's own namespace; the first replica creates it. An attacker who plants a key can forge access tokens,
//! so the Secret must have a type that no PersonalAccessToken can request, no owner, and exactly one key.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Api, Client, api::PostParams};
use rand::{TryRng, rngs::SysRng};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use tracing::info;
use zeroize::{Zeroize, Zeroizing};

use crate::{
    api::{MANAGED_BY, MANAGED_BY_LABEL, Time},
    index::PatUid,
    service::explain_api_error,
    token::TokenId,
};

/// The only header. It is compared and never interpreted, so no token chooses how it is verified.
const HEADER: &str = r#"{"alg":"HS256","typ":"at+jwt"}"#;

/// The maximum length: 64 scopes of 128 characters and the other claims, in base64.
const MAX_LENGTH: usize = 16 * 1024;

/// The length of a signature in bytes.
const MAC_LENGTH: usize = 32;

/// The length of a key in bytes.
pub const KEY_LENGTH: usize = 32;

/// Signs and verifies access tokens. `Debug` does not show the key.
pub struct AccessTokenSigner {
    mac: Hmac<Sha256>,
    /// The issuer and the audience: this server.
    issuer: String,
}

/// The content of an access token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessTokenGrant {
    /// The owner as text.
    pub subject: String,
    /// The PAT.
    pub pat: PatUid,
    /// The credential that was exchanged.
    pub credential: TokenId,
    /// The upper limit of its scopes.
    pub scopes: Vec<String>,
    /// The time of the exchange.
    pub issued_at: Time,
    /// The time of its expiry.
    pub expires_at: Time,
}

/// The claims of the JWT. Times are whole seconds (RFC 7519).
#[derive(Serialize, Deserialize)]
struct AccessTokenClaims {
    iss: String,
    aud: String,
    sub: String,
    client_id: String,
    /// The credential's id.
    cred: String,
    jti: String,
    iat: i64,
    exp: i64,
    scope: String,
}

/// Why an access token is rejected. The caller does not learn the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessTokenError {
    /// It has no valid signature.
    #[error("it is not signed by this installation")]
    InvalidSignature,
    /// It was issued for another server.
    #[error("it was issued for another server")]
    WrongAudience,
    /// It has expired.
    #[error("it has expired")]
    Expired,
}

impl AccessTokenSigner {
    /// Creates a signer for the server of this name.
    pub fn new(key: &[u8; KEY_LENGTH], issuer: String) -> Self {
        let mac = Hmac::new_from_slice(key).expect("HMAC accepts a key of any length");
        Self { mac, issuer }
    }

    /// Signs a token.
    pub fn sign(&self, grant: &AccessTokenGrant) -> Zeroizing<String> {
        let mut id = [0; 16];
        // The ID identifies the token in logs and is not a secret.
        let _zeros_do_no_harm = SysRng.try_fill_bytes(&mut id);
        let seconds = |time: Time| time.as_micros().div_euclid(1_000_000);
        let claims = AccessTokenClaims {
            iss: self.issuer.clone(),
            aud: self.issuer.clone(),
            sub: grant.subject.clone(),
            client_id: grant.pat.to_string(),
            cred: grant.credential.to_string(),
            jti: format!("{:032x}", u128::from_be_bytes(id)),
            iat: seconds(grant.issued_at),
            exp: seconds(grant.expires_at),
            scope: grant.scopes.join(" "),
        };
        let claims = serde_json::to_vec(&claims).expect("strings and numbers are JSON");
        let encoded = |bytes: usize| bytes.div_ceil(3) * 4;
        let length = encoded(HEADER.len()) + encoded(claims.len()) + encoded(MAC_LENGTH) + 2;
        // Allocated in its final size: a string that grows leaves a copy behind.
        let mut token = Zeroizing::new(String::with_capacity(length));
        BASE64_URL_SAFE_NO_PAD.encode_string(HEADER, &mut token);
        token.push('.');
        BASE64_URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        let signature = self.mac.clone().chain_update(token.as_bytes()).finalize().into_bytes();
        token.push('.');
        BASE64_URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        debug_assert!(token.len() <= length, "it did not grow");
        token
    }

    /// Verifies signature, audience and expiry. The caller must check the credential.
    pub fn verify(&self, token: &[u8], now: Time) -> Result<AccessTokenGrant, AccessTokenError> {
        let invalid = AccessTokenError::InvalidSignature;
        let text = str::from_utf8(token).ok().filter(|text| text.len() <= MAX_LENGTH).ok_or(invalid)?;
        let (signed, signature) = text.rsplit_once('.').ok_or(invalid)?;
        let (header, claims) = signed.split_once('.').ok_or(invalid)?;
        let signature = decode(signature)?;
        self.mac.clone().chain_update(signed).verify_slice(&signature).map_err(|_| invalid)?;
        if header != encode(HEADER) {
            return Err(invalid);
        }
        let claims: AccessTokenClaims = serde_json::from_slice(&decode(claims)?).map_err(|_| invalid)?;
        if claims.iss != self.issuer || claims.aud != self.issuer {
            return Err(AccessTokenError::WrongAudience);
        }
        let time = |seconds: i64| Time::from_micros(seconds.saturating_mul(1_000_000));
        let expires_at = time(claims.exp);
        if expires_at <= now {
            return Err(AccessTokenError::Expired);
        }
        Ok(AccessTokenGrant {
            subject: claims.sub,
            pat: claims.client_id.parse().map_err(|_| invalid)?,
            credential: claims.cred.parse().map_err(|_| invalid)?,
            scopes: claims.scope.split(' ').filter(|scope| !scope.is_empty()).map(str::to_owned).collect(),
            issued_at: time(claims.iat),
            expires_at,
        })
    }
}

impl std::fmt::Debug for AccessTokenSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessTokenSigner").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

fn decode(text: &str) -> Result<Vec<u8>, AccessTokenError> {
    BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| AccessTokenError::InvalidSignature)
}

/// The type of the key's Secret. `spec.secret.type` of a PersonalAccessToken cannot be in this domain.
pub const KEY_SECRET_TYPE: &str = "pat-operator.io/access-token-key";

/// The key of the Secret's data.
pub const KEY_SECRET_FIELD: &str = "key";

/// A key, zeroed on drop.
pub type AccessTokenKey = Zeroizing<[u8; KEY_LENGTH]>;

/// Why the key is not available.
#[derive(Debug, thiserror::Error)]
pub enum AccessTokenKeyError {
    /// The Secret exists and cannot be trusted.
    #[error(
        "Secret {name} in namespace {namespace} cannot hold the key of access tokens: {problem}; delete it if nothing else uses it, and \
         a new one is created, or choose another name with --key-secret"
    )]
    Untrusted {
        /// The Secret's namespace.
        namespace: String,
        /// The Secret's name.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The Secret cannot be read or created.
    #[error("key of access tokens, Secret {name} in namespace {namespace}: {}", explain_api_error(.error))]
    Api {
        /// The Secret's namespace.
        namespace: String,
        /// The Secret's name.
        name: String,
        /// The error of the API server.
        error: kube::Error,
    },
    /// The operating system returned no random bytes.
    #[error("the random number generator failed: {0}")]
    Randomness(String),
}

impl AccessTokenKeyError {
    /// Returns the name of this error in metrics, events and logs.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Untrusted { .. } => "KeyNotOurs",
            Self::Api { .. } => "KeyUnavailable",
            Self::Randomness(_) => "RandomnessFailed",
        }
    }
}

/// Reads the key, or creates one if there is none. Replicas that start at the same time share the key of the first.
pub async fn load_or_create_key(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<AccessTokenKey, AccessTokenKeyError> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let failed = |error| AccessTokenKeyError::Api { namespace: namespace.into(), name: name.into(), error };
    let secret = match secrets.get_opt(name).await.map_err(failed)? {
        Some(secret) => secret,
        None => match secrets.create(&PostParams::default(), &new_secret(name)?).await {
            Ok(secret) => {
                info!(namespace, name, "created the key of access tokens");
                secret
            }
            // Another replica was first.
            Err(kube::Error::Api(status)) if status.code == 409 => secrets.get(name).await.map_err(failed)?,
            Err(error) => return Err(failed(error)),
        },
    };
    let untrusted =
        |problem| AccessTokenKeyError::Untrusted { namespace: namespace.into(), name: name.into(), problem };
    read_key(secret).map_err(untrusted)
}

fn new_secret(name: &str) -> Result<Secret, AccessTokenKeyError> {
    let mut key = vec![0; KEY_LENGTH];
    SysRng.try_fill_bytes(&mut key).map_err(|error| AccessTokenKeyError::Randomness(error.to_string()))?;
    Ok(Secret {
        metadata: ObjectMeta {
            name: Some(name.into()),
            labels: Some(BTreeMap::from([("app.kubernetes.io/component".into(), "api".into())])),
            ..ObjectMeta::default()
        },
        type_: Some(KEY_SECRET_TYPE.into()),
        immutable: Some(true),
        data: Some(BTreeMap::from([(KEY_SECRET_FIELD.into(), ByteString(key))])),
        ..Secret::default()
    })
}

/// Returns the key in a Secret, or what is wrong with the Secret. The Secret's own copy is zeroed.
fn read_key(mut secret: Secret) -> Result<AccessTokenKey, String> {
    let mut data = secret.data.take().unwrap_or_default();
    let key = check_key(&secret, &data);
    data.values_mut().for_each(|value| value.0.zeroize());
    key
}

fn check_key(secret: &Secret, data: &BTreeMap<String, ByteString>) -> Result<AccessTokenKey, String> {
    let type_ = secret.type_.as_deref().unwrap_or_default();
    if type_ != KEY_SECRET_TYPE {
        return Err(format!("its type is {type_:?} and not {KEY_SECRET_TYPE:?}"));
    }
    if let Some(owner) = secret.metadata.owner_references.iter().flatten().next() {
        return Err(format!("it is owned by {} {:?}", owner.kind, owner.name));
    }
    if secret.metadata.labels.iter().flatten().any(|(key, value)| key == MANAGED_BY_LABEL && value == MANAGED_BY) {
        return Err(format!(
            "the label {MANAGED_BY_LABEL}={MANAGED_BY} marks it as the Secret of a PersonalAccessToken"
        ));
    }
    let value = data.get(KEY_SECRET_FIELD).map(|value| value.0.as_slice()).unwrap_or_default();
    let wrong_length = |_| format!("{KEY_SECRET_FIELD:?} has {} bytes and not {KEY_LENGTH}", value.len());
    value.try_into().map(Zeroizing::new).map_err(wrong_length)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> Time {
        Time::from_micros(seconds * 1_000_000)
    }

    fn grant() -> AccessTokenGrant {
        AccessTokenGrant {
            subject: "va:team/ci".into(),
            pat: 7.into(),
            credential: "000000000001".parse().unwrap(),
            scopes: vec!["a".into(), "b:c".into()],
            issued_at: at(1_000),
            expires_at: at(1_060),
        }
    }

    fn signer(key: u8, issuer: &str) -> AccessTokenSigner {
        AccessTokenSigner::new(&[key; KEY_LENGTH], issuer.into())
    }

    #[test]
    fn signed_token_is_accepted_until_it_expires() {
        let signer = signer(1, "pat-operator-api:team");
        let token = signer.sign(&grant());
        assert_eq!(signer.verify(token.as_bytes(), at(1_059)), Ok(grant()));
        assert_eq!(signer.verify(token.as_bytes(), at(1_060)), Err(AccessTokenError::Expired));
        assert_ne!(*token, *signer.sign(&grant()), "each has an id of its own");
    }

    #[test]
    fn another_key_server_or_algorithm_is_refused() {
        let signer = signer(1, "here");
        let verify = |token: &str| signer.verify(token.as_bytes(), at(1_000)).unwrap_err();
        assert_eq!(verify(&self::signer(2, "here").sign(&grant())), AccessTokenError::InvalidSignature);
        assert_eq!(verify(&self::signer(1, "there").sign(&grant())), AccessTokenError::WrongAudience);
        let token = signer.sign(&grant());
        let (_, rest) = token.split_once('.').unwrap();
        let (claims, signature) = rest.split_once('.').unwrap();
        for header in [r#"{"alg":"none","typ":"at+jwt"}"#, r#"{"alg":"HS256","typ":"JWT"}"#] {
            let signed = format!("{}.{claims}", encode(header));
            let right = encode(signer.mac.clone().chain_update(&signed).finalize().into_bytes());
            for signature in ["", signature, &right] {
                assert_eq!(verify(&format!("{signed}.{signature}")), AccessTokenError::InvalidSignature, "{header}");
            }
        }
        for text in ["", ".", "..", "...", "a.b.c", &format!("{}=", *token), &format!(" {}", *token)] {
            assert_eq!(verify(text), AccessTokenError::InvalidSignature, "{text}");
        }
    }

    #[test]
    fn debug_does_not_show_the_key() {
        let text = format!("{:?}", signer(0xab, "here"));
        assert_eq!(text, r#"AccessTokenSigner { issuer: "here", .. }"#);
    }

    proptest! {
        #[test]
        fn changed_byte_invalidates_the_signature(place in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let signer = signer(1, "here");
            let mut token = signer.sign(&grant()).as_bytes().to_vec();
            let place = place.index(token.len());
            prop_assume!(token[place] != byte);
            token[place] = byte;
            prop_assert_eq!(signer.verify(&token, at(1_000)), Err(AccessTokenError::InvalidSignature));
        }

        #[test]
        fn arbitrary_text_is_refused_without_a_panic(text in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(signer(1, "here").verify(&text, at(0)).is_err());
        }
    }

    #[test]
    fn created_key_is_accepted_and_random() {
        let key = || read_key(new_secret("key").unwrap()).unwrap();
        assert_ne!(*key(), *key());
        assert_ne!(*key(), [0; KEY_LENGTH]);
    }

    #[test]
    fn secret_that_someone_else_could_have_created_is_refused() {
        type Change = fn(&mut Secret);
        fn data(secret: &mut Secret, length: usize) {
            secret.data.as_mut().unwrap().insert(KEY_SECRET_FIELD.into(), ByteString(vec![7; length]));
        }
        let owner = |secret: &mut Secret| {
            let owner = OwnerReference { kind: "PersonalAccessToken".into(), name: "a".into(), ..Default::default() };
            secret.metadata.owner_references = Some(vec![owner]);
        };
        let label = |secret: &mut Secret| {
            secret.metadata.labels = Some(BTreeMap::from([(MANAGED_BY_LABEL.into(), MANAGED_BY.into())]));
        };
        let cases: [(Change, &str); 7] = [
            (|secret| secret.type_ = Some("Opaque".into()), "its type is \"Opaque\""),
            (|secret| secret.type_ = None, "its type is \"\""),
            (owner, "it is owned by PersonalAccessToken \"a\""),
            (label, "marks it as the Secret of a PersonalAccessToken"),
            (|secret| secret.data = None, "\"key\" has 0 bytes and not 32"),
            (|secret| data(secret, 31), "31 bytes"),
            (|secret| data(secret, 33), "33 bytes"),
        ];
        for (change, words) in cases {
            let mut secret = new_secret("key").unwrap();
            change(&mut secret);
            let problem = read_key(secret).unwrap_err();
            assert!(problem.contains(words), "{words}: {problem}");
        }
    }
}
