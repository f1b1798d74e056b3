//! Reads a certificate and its key from PEM files, with errors that say how to fix them.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use k8s_openapi::jiff::Timestamp;
use rustix::fs::{Mode, OFlags};
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

/// The maximum size of a file, in bytes: that of a Secret.
const MAX_FILE: usize = 1024 * 1024;

/// HTTP/2 first: proxies and the API server multiplex over it.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The paths of certificate and key.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// `--tls-cert`: the server's certificate, then those of intermediate authorities.
    pub cert: PathBuf,
    /// `--tls-key`: its private key.
    pub key: PathBuf,
}

pub(super) struct TlsFileContents {
    cert: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

#[derive(Clone, Debug)]
pub(super) struct LoadedCertificate {
    pub(super) config: Arc<ServerConfig>,
    pub(super) validity: Validity,
}

/// Why certificate and key are unusable. Each message names the flag and the file, and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {flag}={}: {error}; check that the file is mounted there and readable by this user", path.display())]
    Read {
        /// The flag that names it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
    /// The file has no certificate in PEM.
    #[error(
        "{CERT}={} has no certificate in PEM form (-----BEGIN CERTIFICATE-----){hint}",
        path.display()
    )]
    NoCertificate {
        /// The file.
        path: PathBuf,
        /// What the file has instead.
        hint: &'static str,
    },
    /// The file has no private key in PEM.
    #[error("{KEY}={} has no private key in PEM form (-----BEGIN PRIVATE KEY-----){hint}", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
        /// What the file has instead.
        hint: &'static str,
    },
    /// The key does not belong to the certificate.
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
    /// The certificate has expired, or is not valid yet.
    #[error(
        "the certificate of {CERT}={} is valid from {} until {}, and now it is {now}: renew it, or set this machine's clock",
        path.display(), validity.from, validity.until
    )]
    NotValidNow {
        /// The file.
        path: PathBuf,
        /// The validity of the certificate.
        validity: Validity,
        /// The current time.
        now: Timestamp,
    },
    /// rustls rejects the pair.
    #[error("{CERT}={} and {KEY}={} cannot be used: {error}; use an RSA, P-256, P-384 or Ed25519 key", cert.display(), key.display())]
    Unusable {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// The error of rustls.
        error: rustls::Error,
    },
    /// Only one of the two flags is given.
    #[error("{given} needs {missing} as well: give both, or neither for plain text on loopback")]
    Half {
        /// The given flag.
        given: &'static str,
        /// The missing flag.
        missing: &'static str,
    },
}

impl TlsError {
    /// Returns the name of this error in metrics, events and logs.
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

impl TlsFiles {
    /// Returns the files that the two flags name. Both or neither must be set.
    ///
    /// # Errors
    /// Only one of them is set.
    pub fn from_flags(cert: Option<PathBuf>, key: Option<PathBuf>) -> Result<Option<Self>, TlsError> {
        match (cert, key) {
            (Some(cert), Some(key)) => Ok(Some(Self { cert, key })),
            (None, None) => Ok(None),
            (Some(_), None) => Err(TlsError::Half { given: CERT, missing: KEY }),
            (None, Some(_)) => Err(TlsError::Half { given: KEY, missing: CERT }),
        }
    }

    pub(super) fn read(&self) -> Result<TlsFileContents, TlsError> {
        let read =
            |flag, path: &Path| read_file(path).map_err(|error| TlsError::Read { flag, path: path.to_owned(), error });
        Ok(TlsFileContents { cert: read(CERT, &self.cert)?, key: Zeroizing::new(read(KEY, &self.key)?) })
    }

    /// Checks the contents and creates a server configuration.
    pub(super) fn load(&self, content: &TlsFileContents, now: Timestamp) -> Result<LoadedCertificate, TlsError> {
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
        Ok(LoadedCertificate { config: Arc::new(config), validity })
    }
}

impl TlsFileContents {
    /// Returns a hash that identifies the contents without keeping the key.
    pub(super) fn digest(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        // The length separates the two files.
        hasher.update((self.cert.len() as u64).to_be_bytes());
        hasher.update(&self.cert);
        hasher.update(&*self.key);
        hasher.finalize().into()
    }
}

/// Reads a regular file of at most [`MAX_FILE`] bytes. Other files, such as FIFOs and devices, could block or never end.
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    // Opening a device may have effects, so its type is checked first; and it may be another file by then, so it is checked again.
    check_regular(&fs::metadata(path)?)?;
    let mut file =
        fs::File::from(rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?);
    let metadata = file.metadata()?;
    check_regular(&metadata)?;
    let too_large = || io::Error::other(format!("it is larger than {MAX_FILE} bytes"));
    let length = usize::try_from(metadata.len()).ok().filter(|length| *length <= MAX_FILE).ok_or_else(too_large)?;
    let mut bytes = Vec::with_capacity(length + 1);
    file.by_ref().take(MAX_FILE as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_FILE { Err(too_large()) } else { Ok(bytes) }
}

fn check_regular(metadata: &fs::Metadata) -> io::Result<()> {
    if metadata.is_file() { Ok(()) } else { Err(io::Error::other("it is not a regular file")) }
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
