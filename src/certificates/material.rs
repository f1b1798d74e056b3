//! What a Secret holds of a certificate: read, judged as a client would judge it, made anew, and written.
//!
//! It must not know when something is due, nor whose the Secret is.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::{ByteString, jiff::Timestamp};
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    sign::CertifiedKey,
};
use zeroize::{Zeroize, Zeroizing};

use super::{
    authority::{Authority, Issued},
    plan::{AUTHORITY_LIFETIME, CERTIFICATE_LIFETIME, Held, validity},
    wanted::Names,
};
use crate::service::tls::{Validity, validity as of_certificate};

/// The certificate, and then what vouches for its authority.
pub const CERTIFICATE: &str = "tls.crt";
/// The certificate's private key.
pub const KEY: &str = "tls.key";
/// What clients are to trust: the authority, and those before it that have not ended.
pub const TRUSTED: &str = "ca.crt";
/// The authority's private key. No Pod mounts it.
pub const AUTHORITY_KEY: &str = "ca.key";

/// What a Secret holds.
#[derive(Default)]
pub struct Material {
    authority: Option<Authority>,
    /// The newest first.
    trusted: Vec<CertificateDer<'static>>,
    /// The server's own first.
    chain: Vec<CertificateDer<'static>>,
    key: Zeroizing<String>,
}

impl Material {
    /// Reads values of a Secret. What cannot be read is as if it were not there.
    pub fn read(data: &BTreeMap<String, ByteString>) -> Self {
        let text = |key| data.get(key).and_then(|value| str::from_utf8(&value.0).ok()).unwrap_or_default();
        let certificates = |key| CertificateDer::pem_slice_iter(text(key).as_bytes()).map_while(Result::ok).collect();
        let trusted: Vec<_> = certificates(TRUSTED);
        Self {
            authority: Authority::read(text(AUTHORITY_KEY), &trusted),
            trusted,
            chain: certificates(CERTIFICATE),
            key: Zeroizing::new(text(KEY).to_owned()),
        }
    }

    /// What there is of use; `names` are those that it was made for.
    pub fn held(&self, names: Option<Names>) -> Held {
        let certificate = names.as_ref().and_then(|names| self.certificate_for(names));
        Held { authority: self.authority.as_ref().map(Authority::validity), certificate, names }
    }

    /// When the certificate begins and ends, if it can be served with and whoever trusts the authority takes it for a server of each of these
    /// names.
    fn certificate_for(&self, names: &Names) -> Option<Validity> {
        let authority = self.authority.as_ref()?;
        let [first, others @ ..] = &self.chain[..] else { return None };
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).ok()?;
        let provider = Arc::new(ring::default_provider());
        CertifiedKey::from_der(self.chain.clone(), key, &provider).ok()?.keys_match().ok()?;
        let validity = of_certificate::read(first)?;
        // At a time at which both are good, if there is one: whether that is now is for the plan to see.
        let then = validity.from.max(authority.validity().from).as_second().try_into().ok()?;
        let then = UnixTime::since_unix_epoch(Duration::from_secs(then));
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate().clone()).ok()?;
        let client = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().ok()?;
        names
            .asked_for()
            .all(|name| client.verify_server_cert(first, others, &name, &[], then).is_ok())
            .then_some(validity)
    }

    /// The same with a new certificate by the same authority; by a new one if there is none that clients believe.
    ///
    /// # Errors
    /// There is no randomness.
    pub fn with_certificate(mut self, names: &Names, now: Timestamp) -> Result<Self, rcgen::Error> {
        let Some(authority) = &self.authority else { return self.with_authority(names, now) };
        let Issued { certificate, key } =
            authority.issue(names, validity(CERTIFICATE_LIFETIME, Some(authority.validity()), now))?;
        // What vouches for the authority stays behind the certificate.
        let vouching = self.chain.into_iter().skip(1).filter(|one| is_alive(one, now));
        self.chain = std::iter::once(certificate).chain(vouching).collect();
        self.trusted.retain(|one| is_alive(one, now));
        self.key = key;
        if self.certificate_for(names).is_none() {
            // Somebody has put something in its place in whose name nothing can be signed.
            self.authority = None;
            return self.with_authority(names, now);
        }
        Ok(self)
    }

    /// The same with a new authority, for which the old one vouches, and a certificate by it. The old one's key is gone.
    ///
    /// # Errors
    /// There is no randomness.
    pub fn with_authority(self, names: &Names, now: Timestamp) -> Result<Self, rcgen::Error> {
        let authority = Authority::make(validity(AUTHORITY_LIFETIME, None, now))?;
        let old = self.authority.filter(|old| now < old.validity().until);
        let vouching = old.map(|old| old.vouch_for(&authority)).transpose()?;
        let Issued { certificate, key } =
            authority.issue(names, validity(CERTIFICATE_LIFETIME, Some(authority.validity()), now))?;
        let trusted = self.trusted.into_iter().filter(|one| is_alive(one, now));
        Ok(Self {
            trusted: std::iter::once(authority.certificate().clone()).chain(trusted).collect(),
            authority: Some(authority),
            chain: std::iter::once(certificate).chain(vouching).collect(),
            key,
        })
    }

    /// When the certificate ends.
    pub fn ends_at(&self) -> Option<Timestamp> {
        self.chain.first().and_then(|first| of_certificate::read(first)).map(|validity| validity.until)
    }

    /// What clients are to trust, in PEM.
    pub fn trusted(&self) -> String {
        pem(&self.trusted)
    }

    /// The values of the Secret.
    pub fn write(&self) -> BTreeMap<String, ByteString> {
        let key = self.authority.as_ref().map(Authority::key).unwrap_or_default();
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

/// Wipes values of a Secret.
pub fn wipe(data: &mut BTreeMap<String, ByteString>) {
    data.values_mut().for_each(|value| value.0.zeroize());
}

/// Whether it has not ended, and clients can read it.
fn is_alive(certificate: &CertificateDer<'static>, now: Timestamp) -> bool {
    of_certificate::read(certificate).is_some_and(|validity| now < validity.until)
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
