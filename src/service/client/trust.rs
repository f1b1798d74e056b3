//! Which certificates of the API server are accepted.
//!
//! rustls checks chains of certificates. In addition, as in Go, a certificate that is itself listed as an authority is accepted: a
//! self-signed one, also with `CA:TRUE`, or a leaf.

use std::sync::Arc;

use hyper::Uri;
use k8s_openapi::jiff::Timestamp;
use kube::{Config, client::ConfigExt};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

use crate::service::tls::validity;

/// The TLS settings of a client.
///
/// # Errors
/// The certificate authorities, or the client certificate and its key, cannot be used.
pub fn client_config(config: &Config) -> Result<ClientConfig, kube::Error> {
    let mut tls = config.rustls_client_config()?;
    // In a pod, kube reads the authorities again when they change.
    if let (Some(roots), None, false) = (&config.root_cert, &config.root_cert_file, config.accept_invalid_certs) {
        let roots: Vec<_> = roots.iter().map(|root| CertificateDer::from(root.clone())).collect();
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(roots.iter().cloned());
        if let Ok(chains) = WebPkiServerVerifier::builder(Arc::new(store)).build() {
            tls.dangerous().set_certificate_verifier(Arc::new(OwnAuthority { roots, chains }));
        }
    }
    Ok(tls)
}

/// The TLS settings of a client that trusts these authorities, or without any those of the system.
///
/// # Errors
/// The certificate authorities cannot be used.
pub fn trusting(roots: Option<Vec<CertificateDer<'static>>>) -> Result<ClientConfig, kube::Error> {
    super::install_crypto();
    let mut config = Config::new(Uri::from_static("https://localhost"));
    config.root_cert = roots.map(|roots| roots.iter().map(|root| root.to_vec()).collect());
    client_config(&config)
}

/// Accepts a certificate that is listed as an authority, and certificates that such authorities signed.
#[derive(Debug)]
struct OwnAuthority {
    roots: Vec<CertificateDer<'static>>,
    chains: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for OwnAuthority {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if !self.roots.iter().any(|root| root.as_ref() == certificate.as_ref()) {
            return self.chains.verify_server_cert(certificate, intermediates, name, ocsp, now);
        }
        let validity = validity::read(certificate).ok_or(CertificateError::BadEncoding)?;
        let now = i64::try_from(now.as_secs()).ok().and_then(|now| Timestamp::from_second(now).ok());
        let now = now.ok_or(CertificateError::BadEncoding)?;
        if now < validity.from {
            return Err(CertificateError::NotValidYet.into());
        }
        if now > validity.until {
            return Err(CertificateError::Expired.into());
        }
        verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}
