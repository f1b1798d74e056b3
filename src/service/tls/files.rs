//! A certificate and its key, read from PEM files, and what to tell a person who got them wrong.
//!
//! It must not know when they are read, nor who serves with them.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use k8s_openapi::jiff::Timestamp;
use rustls::{
    InconsistentKeys, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::validity::{self, Validity};

/// The flags that name the files.
const CERT: &str = "--tls-cert";
const KEY: &str = "--tls-key";

/// HTTP/2 first: proxies and the API server multiplex over it.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Where certificate and key are.
#[derive(Clone, Debug)]
pub struct Files {
    /// `--tls-cert`: the server's certificate, then those of intermediate authorities.
    pub cert: PathBuf,
    /// `--tls-key`: its private key.
    pub key: PathBuf,
}

/// What was in them.
pub(super) struct Content {
    cert: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

/// A certificate that can be served with.
#[derive(Clone, Debug)]
pub(super) struct Loaded {
    pub(super) config: Arc<ServerConfig>,
    pub(super) validity: Validity,
}

/// Why certificate and key are of no use. Each line names the flag and the file, and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {flag}={}: {error}; is it mounted there, and may this user read it?", path.display())]
    Read {
        /// The flag that names it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// No certificate in PEM.
    #[error(
        "{CERT}={} has no certificate in PEM form (-----BEGIN CERTIFICATE-----){hint}",
        path.display()
    )]
    NoCertificate {
        /// The file.
        path: PathBuf,
        /// What it may be instead.
        hint: &'static str,
    },
    /// No private key in PEM.
    #[error("{KEY}={} has no private key in PEM form (-----BEGIN PRIVATE KEY-----){hint}", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
        /// What it may be instead.
        hint: &'static str,
    },
    /// Both are well, but they are no pair.
    #[error(
        "the key of {KEY}={} does not belong to the certificate of {CERT}={}: give the two files of one pair, the server's \
         own certificate first",
        key.display(), cert.display()
    )]
    NotAPair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// Too late, or too early.
    #[error(
        "the certificate of {CERT}={} is valid from {} until {}, and now it is {now}: renew it, or set this machine's clock",
        path.display(), validity.from, validity.until
    )]
    NotValidNow {
        /// The file.
        path: PathBuf,
        /// When it would be valid.
        validity: Validity,
        /// The present.
        now: Timestamp,
    },
    /// rustls takes neither.
    #[error("{CERT}={} and {KEY}={} cannot be served with: {error}; use an RSA, P-256, P-384 or Ed25519 key", cert.display(), key.display())]
    Unusable {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What rustls said.
        error: rustls::Error,
    },
    /// One flag without the other.
    #[error("{given} needs {missing} as well: give both, or neither for plain text on loopback")]
    Half {
        /// The flag that was given.
        given: &'static str,
        /// The one that was not.
        missing: &'static str,
    },
}

impl TlsError {
    /// The one name of this error for metrics, events and logs.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Read { .. } => "TlsFileUnreadable",
            Self::NoCertificate { .. } => "TlsNoCertificate",
            Self::NoKey { .. } => "TlsNoKey",
            Self::NotAPair { .. } => "TlsNotAPair",
            Self::NotValidNow { .. } => "TlsNotValidNow",
            Self::Unusable { .. } => "TlsUnusable",
            Self::Half { .. } => "TlsHalf",
        }
    }
}

impl Files {
    /// Of two flags: both or neither.
    ///
    /// # Errors
    /// When just one is given.
    pub fn of(cert: Option<PathBuf>, key: Option<PathBuf>) -> Result<Option<Self>, TlsError> {
        match (cert, key) {
            (Some(cert), Some(key)) => Ok(Some(Self { cert, key })),
            (None, None) => Ok(None),
            (Some(_), None) => Err(TlsError::Half { given: CERT, missing: KEY }),
            (None, Some(_)) => Err(TlsError::Half { given: KEY, missing: CERT }),
        }
    }

    /// Reads both.
    pub(super) fn read(&self) -> Result<Content, TlsError> {
        let read =
            |flag, path: &Path| fs::read(path).map_err(|error| TlsError::Read { flag, path: path.to_owned(), error });
        Ok(Content { cert: read(CERT, &self.cert)?, key: Zeroizing::new(read(KEY, &self.key)?) })
    }

    /// Makes of them what a server needs.
    pub(super) fn load(&self, content: &Content, now: Timestamp) -> Result<Loaded, TlsError> {
        let no_certificate = || TlsError::NoCertificate {
            path: self.cert.clone(),
            hint: if has_key(&content.cert) && !has_certificate(&content.cert) {
                " but a private key: are --tls-cert and --tls-key swapped?"
            } else {
                ": give the server's certificate, then those of its intermediate authorities"
            },
        };
        let chain = CertificateDer::pem_slice_iter(&content.cert)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| no_certificate())?;
        let first = chain.first().ok_or_else(no_certificate)?;
        let validity = validity::read(first).ok_or_else(no_certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&content.key).map_err(|_| TlsError::NoKey {
            path: self.key.clone(),
            hint: match &content.key {
                key if contains(key, b"-----BEGIN ENCRYPTED PRIVATE KEY-----") => {
                    ", it is encrypted: decrypt it with `openssl pkey -in … -out …`"
                }
                key if has_certificate(key) => " but a certificate: are --tls-cert and --tls-key swapped?",
                _ => ": give the key that the certificate was made for",
            },
        })?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let unusable = |error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                TlsError::NotAPair { cert: self.cert.clone(), key: self.key.clone() }
            }
            error => TlsError::Unusable { cert: self.cert.clone(), key: self.key.clone(), error },
        };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(unusable)?;
        config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
        if !(validity.from..=validity.until).contains(&now) {
            return Err(TlsError::NotValidNow { path: self.cert.clone(), validity, now });
        }
        Ok(Loaded { config: Arc::new(config), validity })
    }
}

impl Content {
    /// Tells one content from another without keeping the key.
    pub(super) fn digest(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        // With its length, so that no byte can move from one file to the other unseen.
        hasher.update((self.cert.len() as u64).to_be_bytes());
        hasher.update(&self.cert);
        hasher.update(&*self.key);
        hasher.finalize().into()
    }
}

fn has_certificate(text: &[u8]) -> bool {
    contains(text, b"-----BEGIN CERTIFICATE-----")
}

fn has_key(text: &[u8]) -> bool {
    contains(text, b"PRIVATE KEY-----")
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
