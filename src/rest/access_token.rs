//! Access tokens: what a personal access token is exchanged for, for a short while, accepted by this API alone.
//!
//! A JWT as RFC 9068 has it, signed by HMAC-SHA-256 with a key that only this installation has. It names its credential, which is
//! looked up at each use; what it says itself can only narrow. It must not know where the key is kept.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use rand::{TryRng, rngs::SysRng};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{api::Time, index::PatUid, token::TokenId};

/// The one header there is: nothing of it is ever interpreted, so that no token chooses how it is checked.
const HEADER: &str = r#"{"alg":"HS256","typ":"at+jwt"}"#;

/// The longest that is looked at: 64 scopes of 128 characters, and the rest, in base64.
const MAX_LENGTH: usize = 16 * 1024;

/// The bytes of a signature.
const MAC_LENGTH: usize = 32;

/// The bytes of a key.
pub const KEY_LENGTH: usize = 32;

/// Signs and checks. `Debug` tells nothing.
pub struct Signer {
    mac: Hmac<Sha256>,
    /// Who issues, and the only one to accept: this server.
    issuer: String,
}

/// What an access token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Whose it is, in one string.
    pub subject: String,
    /// The PAT.
    pub pat: PatUid,
    /// The credential that it was given for.
    pub credential: TokenId,
    /// What it may do at most.
    pub scopes: Vec<String>,
    /// When it was given.
    pub issued_at: Time,
    /// Its end.
    pub expires_at: Time,
}

/// As it stands in the token. Times are whole seconds (RFC 7519).
#[derive(Serialize, Deserialize)]
struct Claims {
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

/// Why a text is no access token that is good here: all alike to whoever sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// Not one of ours, or changed.
    #[error("it is not signed by this installation")]
    Foreign,
    /// For another server.
    #[error("it is for another server")]
    Elsewhere,
    /// Its time is over.
    #[error("it has expired")]
    Expired,
}

impl Signer {
    /// With this key, for the server of this name.
    pub fn new(key: &[u8; KEY_LENGTH], issuer: String) -> Self {
        let mac = Hmac::new_from_slice(key).expect("HMAC takes a key of any length");
        Self { mac, issuer }
    }

    /// Writes a token.
    pub fn sign(&self, grant: &Grant) -> Zeroizing<String> {
        let mut id = [0; 16];
        // It tells tokens apart in logs and is no secret.
        let _zeros_do_no_harm = SysRng.try_fill_bytes(&mut id);
        let seconds = |time: Time| time.as_micros().div_euclid(1_000_000);
        let claims = Claims {
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
        let claims = serde_json::to_vec(&claims).expect("texts and numbers are JSON");
        let encoded = |bytes: usize| bytes.div_ceil(3) * 4;
        let length = encoded(HEADER.len()) + encoded(claims.len()) + encoded(MAC_LENGTH) + 2;
        // Of its final size from the start: one that grows would leave a copy behind.
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

    /// Reads a token and checks all that it says of itself. Whether its credential is alive is for the caller to find out.
    ///
    /// # Errors
    /// See [`Rejected`].
    pub fn check(&self, token: &[u8], now: Time) -> Result<Grant, Rejected> {
        let text = str::from_utf8(token).ok().filter(|text| text.len() <= MAX_LENGTH).ok_or(Rejected::Foreign)?;
        let (signed, signature) = text.rsplit_once('.').ok_or(Rejected::Foreign)?;
        let (header, claims) = signed.split_once('.').ok_or(Rejected::Foreign)?;
        let signature = decode(signature)?;
        self.mac.clone().chain_update(signed).verify_slice(&signature).map_err(|_| Rejected::Foreign)?;
        if header != encode(HEADER) {
            return Err(Rejected::Foreign);
        }
        let claims: Claims = serde_json::from_slice(&decode(claims)?).map_err(|_| Rejected::Foreign)?;
        if claims.iss != self.issuer || claims.aud != self.issuer {
            return Err(Rejected::Elsewhere);
        }
        let time = |seconds: i64| Time::from_micros(seconds.saturating_mul(1_000_000));
        let expires_at = time(claims.exp);
        if expires_at <= now {
            return Err(Rejected::Expired);
        }
        Ok(Grant {
            subject: claims.sub,
            pat: claims.client_id.parse().map_err(|_| Rejected::Foreign)?,
            credential: claims.cred.parse().map_err(|_| Rejected::Foreign)?,
            scopes: claims.scope.split(' ').filter(|scope| !scope.is_empty()).map(str::to_owned).collect(),
            issued_at: time(claims.iat),
            expires_at,
        })
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

fn decode(text: &str) -> Result<Vec<u8>, Rejected> {
    BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| Rejected::Foreign)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> Time {
        Time::from_micros(seconds * 1_000_000)
    }

    fn grant() -> Grant {
        Grant {
            subject: "va:team/ci".into(),
            pat: 7.into(),
            credential: "000000000001".parse().unwrap(),
            scopes: vec!["a".into(), "b:c".into()],
            issued_at: at(1_000),
            expires_at: at(1_060),
        }
    }

    fn signer(key: u8, issuer: &str) -> Signer {
        Signer::new(&[key; KEY_LENGTH], issuer.into())
    }

    #[test]
    fn what_is_signed_here_is_read_again_until_its_end() {
        let signer = signer(1, "pat-operator-api:team");
        let token = signer.sign(&grant());
        assert_eq!(signer.check(token.as_bytes(), at(1_059)), Ok(grant()));
        assert_eq!(signer.check(token.as_bytes(), at(1_060)), Err(Rejected::Expired));
        assert_ne!(*token, *signer.sign(&grant()), "each has an id of its own");
    }

    #[test]
    fn another_key_another_server_and_another_algorithm_are_refused() {
        let signer = signer(1, "here");
        let check = |token: &str| signer.check(token.as_bytes(), at(1_000)).unwrap_err();
        assert_eq!(check(&self::signer(2, "here").sign(&grant())), Rejected::Foreign);
        assert_eq!(check(&self::signer(1, "there").sign(&grant())), Rejected::Elsewhere);
        let token = signer.sign(&grant());
        let (_, rest) = token.split_once('.').unwrap();
        let (claims, signature) = rest.split_once('.').unwrap();
        for header in [r#"{"alg":"none","typ":"at+jwt"}"#, r#"{"alg":"HS256","typ":"JWT"}"#] {
            let signed = format!("{}.{claims}", encode(header));
            let right = encode(signer.mac.clone().chain_update(&signed).finalize().into_bytes());
            for signature in ["", signature, &right] {
                assert_eq!(check(&format!("{signed}.{signature}")), Rejected::Foreign, "{header}");
            }
        }
        for text in ["", ".", "..", "...", "a.b.c", &format!("{}=", *token), &format!(" {}", *token)] {
            assert_eq!(check(text), Rejected::Foreign, "{text}");
        }
    }

    #[test]
    fn no_debug_tells_the_key() {
        let text = format!("{:?}", signer(0xab, "here"));
        assert_eq!(text, r#"Signer { issuer: "here", .. }"#);
    }

    proptest! {
        #[test]
        fn a_changed_byte_makes_it_foreign(place in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let signer = signer(1, "here");
            let mut token = signer.sign(&grant()).as_bytes().to_vec();
            let place = place.index(token.len());
            prop_assume!(token[place] != byte);
            token[place] = byte;
            prop_assert_eq!(signer.check(&token, at(1_000)), Err(Rejected::Foreign));
        }

        #[test]
        fn any_text_is_refused_without_a_panic(text in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(signer(1, "here").check(&text, at(0)).is_err());
        }
    }
}
