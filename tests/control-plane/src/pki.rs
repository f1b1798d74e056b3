//! The certificate authority of a control plane: it signs the API server's certificate and one for each identity.
//!
//! In a client certificate the common name is the user, and each organisation is a group.

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::{
    rand::{SecureRandom, SystemRandom},
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};

use crate::{Identity, der};

const ECDSA_WITH_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const ORGANISATION: &[u8] = &[0x55, 0x04, 0x0a];
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
const ALTERNATIVE_NAME: &[u8] = &[0x55, 0x1d, 0x11];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
const SERVER_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01];
const CLIENT_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];

const AUTHORITY_NAME: &str = "control-plane tests";

/// A key or certificate cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A key cannot be generated or used.
    #[error("cannot make or use a key: {0}; if this repeats, check the machine's source of randomness")]
    Key(&'static str),
    /// The file with the authority's key is damaged.
    #[error("the key of the certificate authority is damaged; start the control plane again")]
    NotPem,
}

/// A P-256 key pair.
pub struct Key {
    pkcs8: Vec<u8>,
    pair: EcdsaKeyPair,
}

/// A certificate and its key, both PEM.
pub struct Certified {
    pub certificate: String,
    pub key: String,
}

/// A certificate authority.
pub struct Authority {
    key: Key,
}

enum Usage<'a> {
    Authority,
    Server,
    Client(&'a Identity),
}

impl Key {
    /// Generates a key.
    pub fn generate() -> Result<Self, PkiError> {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new())
            .map_err(|_| PkiError::Key("no random key"))?;
        Self::from_pkcs8(pkcs8.as_ref().to_vec())
    }

    fn from_pkcs8(pkcs8: Vec<u8>) -> Result<Self, PkiError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &pkcs8, &SystemRandom::new())
            .map_err(|_| PkiError::Key("not a P-256 key"))?;
        Ok(Self { pkcs8, pair })
    }

    /// The private key as PEM.
    pub fn private_pem(&self) -> String {
        pem("PRIVATE KEY", &self.pkcs8)
    }

    /// The public key as PEM.
    pub fn public_pem(&self) -> String {
        pem("PUBLIC KEY", &self.public())
    }

    fn public(&self) -> Vec<u8> {
        let algorithm = der::sequence(&[der::object_identifier(EC_PUBLIC_KEY), der::object_identifier(P256)]);
        der::sequence(&[algorithm, der::bits(0, self.pair.public_key().as_ref())])
    }
}

impl Authority {
    /// Generates an authority.
    pub fn generate() -> Result<Self, PkiError> {
        Ok(Self { key: Key::generate()? })
    }

    /// Reads the key that [`Authority::key_pem`] has written.
    pub fn from_key_pem(text: &str) -> Result<Self, PkiError> {
        Ok(Self { key: Key::from_pkcs8(unpem(text).ok_or(PkiError::NotPem)?)? })
    }

    /// The authority's private key as PEM.
    pub fn key_pem(&self) -> String {
        self.key.private_pem()
    }

    /// The authority's own certificate, DER.
    pub fn certificate(&self) -> Result<Vec<u8>, PkiError> {
        self.sign(&self.key, Usage::Authority)
    }

    /// The authority's own certificate, PEM.
    pub fn certificate_pem(&self) -> Result<String, PkiError> {
        Ok(pem("CERTIFICATE", &self.certificate()?))
    }

    /// A certificate for a server on loopback.
    pub fn server(&self) -> Result<Certified, PkiError> {
        self.certify(Usage::Server)
    }

    /// A client certificate for `identity`.
    pub fn client(&self, identity: &Identity) -> Result<Certified, PkiError> {
        self.certify(Usage::Client(identity))
    }

    fn certify(&self, usage: Usage<'_>) -> Result<Certified, PkiError> {
        let key = Key::generate()?;
        Ok(Certified { certificate: pem("CERTIFICATE", &self.sign(&key, usage)?), key: key.private_pem() })
    }

    fn sign(&self, key: &Key, usage: Usage<'_>) -> Result<Vec<u8>, PkiError> {
        let random = SystemRandom::new();
        let mut serial = [0; 16];
        random.fill(&mut serial).map_err(|_| PkiError::Key("no random serial"))?;
        serial[0] = 1;
        let algorithm = der::sequence(&[der::object_identifier(ECDSA_WITH_SHA256)]);
        let subject = match usage {
            Usage::Authority => name(AUTHORITY_NAME, &[]),
            Usage::Server => name("kube-apiserver", &[]),
            Usage::Client(identity) => name(identity.name(), identity.groups()),
        };
        let body = der::sequence(&[
            der::context(0, &der::integer(&[2])),
            der::integer(&serial),
            algorithm.clone(),
            name(AUTHORITY_NAME, &[]),
            // From 2000 to the end of 2099, so that no test with a driven clock meets an expired certificate.
            der::sequence(&[der::element(0x17, b"000101000000Z"), der::element(0x18, b"20991231235959Z")]),
            subject,
            key.public(),
            der::context(3, &der::sequence(&extensions(&usage))),
        ]);
        let signature = self.key.pair.sign(&random, &body).map_err(|_| PkiError::Key("could not sign"))?;
        Ok(der::sequence(&[body, algorithm, der::bits(0, signature.as_ref())]))
    }
}

fn extensions(usage: &Usage<'_>) -> Vec<Vec<u8>> {
    let purpose = |oid| extension(EXTENDED_KEY_USAGE, &der::sequence(&[der::object_identifier(oid)]));
    // Bit 0 is digitalSignature.
    let signs = || extension(KEY_USAGE, &der::bits(7, &[0x80]));
    match usage {
        Usage::Authority => vec![
            extension(BASIC_CONSTRAINTS, &der::sequence(&[der::yes()])),
            // Bit 5 is keyCertSign.
            extension(KEY_USAGE, &der::bits(2, &[0x04])),
        ],
        Usage::Server => {
            let dns = |name: &str| der::element(0x82, name.as_bytes());
            let names = [dns("localhost"), dns("kubernetes.default.svc"), der::element(0x87, &[127, 0, 0, 1])];
            vec![signs(), purpose(SERVER_AUTH), extension(ALTERNATIVE_NAME, &der::sequence(&names))]
        }
        Usage::Client(_) => vec![signs(), purpose(CLIENT_AUTH)],
    }
}

fn extension(oid: &[u8], content: &[u8]) -> Vec<u8> {
    der::sequence(&[der::object_identifier(oid), der::yes(), der::octets(content)])
}

fn name(common: &str, organisations: &[String]) -> Vec<u8> {
    let attribute = |oid, value: &str| der::set(&der::sequence(&[der::object_identifier(oid), der::text(value)]));
    let mut parts: Vec<_> = organisations.iter().map(|group| attribute(ORGANISATION, group)).collect();
    parts.push(attribute(COMMON_NAME, common));
    der::sequence(&parts)
}

fn pem(label: &str, content: &[u8]) -> String {
    let encoded = STANDARD.encode(content);
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in encoded.as_bytes().chunks(64) {
        out.extend(line.iter().map(|byte| char::from(*byte)));
        out.push('\n');
    }
    out + &format!("-----END {label}-----\n")
}

fn unpem(text: &str) -> Option<Vec<u8>> {
    let encoded: String = text.lines().filter(|line| !line.starts_with("-----")).collect();
    STANDARD.decode(encoded).ok()
}

#[cfg(test)]
mod tests {
    use super::{Authority, pem, unpem};

    #[test]
    fn authority_can_be_written_and_read() {
        let authority = Authority::generate().unwrap();
        let read = Authority::from_key_pem(&authority.key_pem()).unwrap();
        assert_eq!(read.key.public(), authority.key.public());
        assert!(Authority::from_key_pem("nonsense").is_err());
    }

    #[test]
    fn pem_lines_are_wrapped() {
        let content = [7; 100];
        let text = pem("THING", &content);
        assert!(text.lines().all(|line| line.len() <= 64));
        assert_eq!(unpem(&text).unwrap(), content);
    }
}
