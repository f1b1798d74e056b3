//! A private authority: it signs one server's certificates, and vouches for the authority that follows it.
//!
//! It must not know when any of this is done, nor where it is kept.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::wanted::Names;
use crate::service::tls::{Validity, validity};

/// Who made all of these certificates, as their subjects say.
const ORGANIZATION: &str = "pat-operator";

/// An authority: its key, and its certificate, by which it vouches for itself.
pub struct Authority {
    key: KeyPair,
    certificate: CertificateDer<'static>,
    validity: Validity,
}

/// A certificate with its key in PEM.
pub struct Issued {
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// Its private key.
    pub key: Zeroizing<String>,
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// There is no randomness.
    pub fn make(validity: Validity) -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate()?;
        let certificate = parameters(&key, validity, 1).self_signed(&key)?;
        Ok(Self { key, certificate: own(&certificate), validity })
    }

    /// The one with this key, if its certificate is among these.
    pub fn read(key: &str, certificates: &[CertificateDer<'static>]) -> Option<Self> {
        let key = KeyPair::from_pem(key).ok()?;
        let certificate = certificates.iter().find(|one| is_of(one, &key))?.clone();
        let validity = validity::read(&certificate)?;
        Some(Self { key, certificate, validity })
    }

    /// When it begins and ends.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// Its certificate, for clients to trust.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Its private key in PEM.
    pub fn key(&self) -> Zeroizing<String> {
        Zeroizing::new(self.key.serialize_pem())
    }

    /// A certificate, with a new key, for a server of these names.
    ///
    /// # Errors
    /// There is no randomness.
    pub fn issue(&self, names: &Names, validity: Validity) -> Result<Issued, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::new(names.as_slice())?;
        parameters.distinguished_name = organization();
        set(&mut parameters, validity);
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        parameters.use_authority_key_identifier_extension = true;
        let certificate = parameters.signed_by(&key, &self.issuer())?;
        Ok(Issued { certificate: own(&certificate), key: Zeroizing::new(key.serialize_pem()) })
    }

    /// Vouches for the authority that follows it, as long as both are good: whoever trusts only this one then trusts that one as well.
    ///
    /// # Errors
    /// There is no randomness.
    pub fn vouch_for(&self, next: &Self) -> Result<CertificateDer<'static>, rcgen::Error> {
        let (from, until) = (self.validity.from.max(next.validity.from), self.validity.until.min(next.validity.until));
        let mut parameters = parameters(&next.key, Validity { from, until }, 0);
        parameters.use_authority_key_identifier_extension = true;
        Ok(own(&parameters.signed_by(&next.key, &self.issuer())?))
    }

    fn issuer(&self) -> Issuer<'static, &KeyPair> {
        Issuer::new(parameters(&self.key, self.validity, 1), &self.key)
    }
}

/// What stands in an authority's certificate. `below` is how many authorities it may vouch for in a row.
fn parameters(key: &KeyPair, validity: Validity, below: u8) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = organization();
    // Each has a name of its own, which follows from its key, so that no client takes one for another.
    let id = &Sha256::digest(key.public_key_raw())[..8];
    let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    parameters.distinguished_name.push(DnType::CommonName, format!("{ORGANIZATION} authority {id}"));
    set(&mut parameters, validity);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
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

/// Whether this certificate is for this key.
fn is_of(certificate: &[u8], key: &KeyPair) -> bool {
    let public = key.public_key_raw();
    certificate.windows(public.len()).any(|part| part == public)
}

/// Times as X.509 has them; nothing here is from before 1970.
fn set(parameters: &mut CertificateParams, validity: Validity) {
    let time =
        |time: Timestamp| date_time_ymd(1970, 1, 1) + Duration::from_secs(time.as_second().try_into().unwrap_or(0));
    parameters.not_before = time(validity.from);
    parameters.not_after = time(validity.until);
}
