//! The content of a serving certificate's Secret: read, verified as a client would, renewed and written.
//!
//! Uses `rcgen`. Where cert-manager is installed, it can issue these certificates instead.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::{ByteString, jiff::Timestamp};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    sign::CertifiedKey,
};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use super::{
    plan::{AUTHORITY_LIFETIME, CERTIFICATE_LIFETIME, CertificateState, validity_from},
    request::ServerNames,
};
use crate::service::tls::validity::{self, Validity};

/// The key of the certificate, followed by cross-signatures of its authority.
pub const CERTIFICATE: &str = "tls.crt";
/// The key of the certificate's private key.
pub const KEY: &str = "tls.key";
/// The key of the trust bundle: the authority and its predecessors that have not expired.
pub const TRUSTED: &str = "ca.crt";
/// The key of the authority's private key. No Pod mounts it.
pub const AUTHORITY_KEY: &str = "ca.key";

/// The certificates and keys of one Secret.
#[derive(Default)]
pub struct CertificateBundle {
    authority: Option<CertificateAuthority>,
    /// Newest first.
    trusted: Vec<CertificateDer<'static>>,
    /// The server's own certificate first.
    chain: Vec<CertificateDer<'static>>,
    key: Zeroizing<String>,
}

impl CertificateBundle {
    /// Reads the values of a Secret. An unreadable value counts as absent.
    pub fn read(data: &BTreeMap<String, ByteString>) -> Self {
        let text = |key| data.get(key).and_then(|value| str::from_utf8(&value.0).ok()).unwrap_or_default();
        let certificates = |key| CertificateDer::pem_slice_iter(text(key).as_bytes()).map_while(Result::ok).collect();
        let trusted: Vec<_> = certificates(TRUSTED);
        Self {
            authority: CertificateAuthority::read(text(AUTHORITY_KEY), &trusted),
            trusted,
            chain: certificates(CERTIFICATE),
            key: Zeroizing::new(text(KEY).to_owned()),
        }
    }

    /// Returns the state that a renewal depends on. `names` are those that the certificate was issued for.
    pub fn state(&self, names: Option<ServerNames>) -> CertificateState {
        let certificate = names.as_ref().and_then(|names| self.certificate_for(names));
        CertificateState { authority: self.authority.as_ref().map(CertificateAuthority::validity), certificate, names }
    }

    /// Returns the certificate's validity, if a server can use it and clients of the authority accept it for each of
    /// these names.
    fn certificate_for(&self, names: &ServerNames) -> Option<Validity> {
        let authority = self.authority.as_ref()?;
        let [first, others @ ..] = &self.chain[..] else { return None };
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).ok()?;
        let provider = Arc::new(ring::default_provider());
        CertifiedKey::from_der(self.chain.clone(), key, &provider).ok()?.keys_match().ok()?;
        let validity = validity::read(first)?;
        // Verifies at a time within both validities; the plan compares them with the present.
        let then = validity.from.max(authority.validity().from).as_second().try_into().ok()?;
        let then = UnixTime::since_unix_epoch(Duration::from_secs(then));
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate().clone()).ok()?;
        let client = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().ok()?;
        names
            .server_names()
            .all(|name| client.verify_server_cert(first, others, &name, &[], then).is_ok())
            .then_some(validity)
    }

    /// Issues a new certificate by the same authority, or by a new one if clients would not accept that.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn with_certificate(mut self, names: &ServerNames, now: Timestamp) -> Result<Self, rcgen::Error> {
        let Some(authority) = &self.authority else { return self.with_authority(names, now) };
        let IssuedCertificate { certificate, key } =
            authority.issue(names, validity_from(CERTIFICATE_LIFETIME, Some(authority.validity()), now))?;
        // Cross-signatures of the authority stay behind the certificate.
        let cross_signatures = self.chain.into_iter().skip(1).filter(|one| is_alive(one, now));
        self.chain = std::iter::once(certificate).chain(cross_signatures).collect();
        self.trusted.retain(|one| is_alive(one, now));
        self.key = key;
        if self.certificate_for(names).is_none() {
            // The stored authority was replaced by a certificate that cannot sign.
            self.authority = None;
            return self.with_authority(names, now);
        }
        Ok(self)
    }

    /// Creates a new authority, cross-signed by the old one, and issues a certificate by it. The old authority's key is
    /// dropped.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn with_authority(self, names: &ServerNames, now: Timestamp) -> Result<Self, rcgen::Error> {
        let authority = CertificateAuthority::generate(validity_from(AUTHORITY_LIFETIME, None, now))?;
        let old = self.authority.filter(|old| now < old.validity().until);
        let cross_signature = old.map(|old| old.cross_sign(&authority)).transpose()?;
        let IssuedCertificate { certificate, key } =
            authority.issue(names, validity_from(CERTIFICATE_LIFETIME, Some(authority.validity()), now))?;
        let trusted = self.trusted.into_iter().filter(|one| is_alive(one, now));
        Ok(Self {
            trusted: std::iter::once(authority.certificate().clone()).chain(trusted).collect(),
            authority: Some(authority),
            chain: std::iter::once(certificate).chain(cross_signature).collect(),
            key,
        })
    }

    /// Returns when the certificate expires.
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.chain.first().and_then(|first| validity::read(first)).map(|validity| validity.until)
    }

    /// The trust bundle, in PEM.
    pub fn trusted(&self) -> String {
        pem(&self.trusted)
    }

    /// The values of the Secret.
    pub fn write(&self) -> BTreeMap<String, ByteString> {
        let key = self.authority.as_ref().map(CertificateAuthority::key).unwrap_or_default();
        [
            (CERTIFICATE, pem(&self.chain)),
            (KEY, self.key.to_string()),
            (TRUSTED, self.trusted()),
            (AUTHORITY_KEY, key.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), ByteString(value.into_bytes())))
        .into()
    }
}

/// Zeroizes the values of a Secret.
pub fn wipe(data: &mut BTreeMap<String, ByteString>) {
    data.values_mut().for_each(|value| value.0.zeroize());
}

/// Whether a certificate has not expired and clients can read it.
fn is_alive(certificate: &CertificateDer<'static>, now: Timestamp) -> bool {
    validity::read(certificate).is_some_and(|validity| now < validity.until)
        && RootCertStore::empty().add(certificate.clone()).is_ok()
}

fn pem(certificates: &[CertificateDer<'_>]) -> String {
    let mut text = String::new();
    for certificate in certificates {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let encoded = STANDARD.encode(certificate);
        for at in (0..encoded.len()).step_by(64) {
            text.push_str(&encoded[at..encoded.len().min(at + 64)]);
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

/// The organization in the subject of each certificate.
const ORGANIZATION: &str = "pat-operator";

/// A private certificate authority: its key and its self-signed certificate.
struct CertificateAuthority {
    key: KeyPair,
    certificate: CertificateDer<'static>,
    validity: Validity,
}

/// A certificate with its private key in PEM.
struct IssuedCertificate {
    pub certificate: CertificateDer<'static>,
    pub key: Zeroizing<String>,
}

impl CertificateAuthority {
    /// Makes a new authority.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn generate(validity: Validity) -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate()?;
        let certificate = parameters(&key, validity, 1).self_signed(&key)?;
        Ok(Self { key, certificate: own(&certificate), validity })
    }

    /// The authority with this key, if its certificate is among these.
    pub fn read(key: &str, certificates: &[CertificateDer<'static>]) -> Option<Self> {
        let key = KeyPair::from_pem(key).ok()?;
        let certificate = certificates.iter().find(|one| is_of(one, &key))?.clone();
        let validity = validity::read(&certificate)?;
        Some(Self { key, certificate, validity })
    }

    /// When the authority begins and expires.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// The certificate that clients trust.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The private key in PEM.
    pub fn key(&self) -> Zeroizing<String> {
        Zeroizing::new(self.key.serialize_pem())
    }

    /// Issues a certificate with a new key for these names.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn issue(&self, names: &ServerNames, validity: Validity) -> Result<IssuedCertificate, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::new(names.as_slice())?;
        parameters.distinguished_name = organization();
        set_validity(&mut parameters, validity);
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        parameters.use_authority_key_identifier_extension = true;
        let certificate = parameters.signed_by(&key, &self.issuer())?;
        Ok(IssuedCertificate { certificate: own(&certificate), key: Zeroizing::new(key.serialize_pem()) })
    }

    /// Cross-signs the next authority, so that clients that trust only this one accept it as well.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn cross_sign(&self, next: &Self) -> Result<CertificateDer<'static>, rcgen::Error> {
        let (from, until) = (self.validity.from.max(next.validity.from), self.validity.until.min(next.validity.until));
        let mut parameters = parameters(&next.key, Validity { from, until }, 0);
        parameters.use_authority_key_identifier_extension = true;
        Ok(own(&parameters.signed_by(&next.key, &self.issuer())?))
    }

    fn issuer(&self) -> Issuer<'static, &KeyPair> {
        Issuer::new(parameters(&self.key, self.validity, 1), &self.key)
    }
}

/// The parameters of an authority's certificate. `path_length` limits the chain of authorities below it.
fn parameters(key: &KeyPair, validity: Validity, path_length: u8) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = organization();
    // Each authority has a name derived from its key, so that clients can distinguish them.
    let id = &Sha256::digest(key.public_key_raw())[..8];
    let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    parameters.distinguished_name.push(DnType::CommonName, format!("{ORGANIZATION} authority {id}"));
    set_validity(&mut parameters, validity);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    parameters
}

fn organization() -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, ORGANIZATION);
    name
}

fn own(certificate: &Certificate) -> CertificateDer<'static> {
    certificate.der().clone()
}

/// Whether a certificate is for this key.
fn is_of(certificate: &[u8], key: &KeyPair) -> bool {
    let public = key.public_key_raw();
    certificate.windows(public.len()).any(|part| part == public)
}

/// Sets the validity; all times are after 1970.
fn set_validity(parameters: &mut CertificateParams, validity: Validity) {
    let time =
        |time: Timestamp| date_time_ymd(1970, 1, 1) + Duration::from_secs(time.as_second().try_into().unwrap_or(0));
    parameters.not_before = time(validity.from);
    parameters.not_after = time(validity.until);
}
