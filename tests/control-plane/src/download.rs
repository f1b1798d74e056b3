//! Downloads a release file, checks its digest, and writes the program in it to a file.

use std::{
    fs::{self, File, Permissions},
    io::{self, BufReader, Read, Seek, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};
use ureq::{
    Agent, Body,
    http::Response,
    tls::{RootCerts, TlsConfig, TlsProvider},
};

use crate::{progress::Progress, sources::Source};

/// How long a download may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// To find the host and connect to it.
    pub connect: Duration,
    /// Without a byte received.
    pub stall: Duration,
    /// In total.
    pub total: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connect: Duration::from_secs(3), stall: Duration::from_secs(15), total: Duration::from_secs(10 * 60) }
    }
}

/// The reason why a download failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DownloadError {
    /// The host is not reachable.
    #[error("cannot connect to {host}: {reason}")]
    Unreachable { host: String, reason: String },
    /// An earlier download in this process could not reach the host either.
    #[error("cannot connect to {0}, as before")]
    StillUnreachable(String),
    /// The server refused, or the transfer broke.
    #[error("{url}: {reason}")]
    Transfer { url: String, reason: String },
    /// The file is complete and is another one than the pinned one.
    #[error("{url}: wrong checksum: the file has SHA-256 {actual}, pinned is {pinned}")]
    Checksum { url: String, actual: String, pinned: String },
    /// The digest is right, but the archive cannot be unpacked.
    #[error("{url}: cannot unpack {member}: {reason}")]
    Unpack { url: String, member: String, reason: String },
    /// The file cannot be written.
    #[error("cannot write the download: {0}")]
    Write(#[from] io::Error),
}

/// Downloads programs; shared by all downloads of a process.
pub(crate) struct Downloader {
    limits: Limits,
    unreachable: Mutex<Unreachable>,
}

/// What earlier downloads have learned, so that a machine without a network waits once and not for each program.
#[derive(Default)]
struct Unreachable {
    hosts: Vec<String>,
    waited: Duration,
}

impl Downloader {
    /// A downloader with these time limits.
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, unreachable: Mutex::default() }
    }

    /// Downloads `source` and writes the program to `output`, which does not exist yet.
    ///
    /// The archive is kept in a temporary file beside `output`, and unpacked only after its digest is known to be right.
    pub(crate) fn fetch(&self, label: &str, source: &Source, output: &Path) -> Result<(), DownloadError> {
        let host = host(&source.url);
        self.check_reachable(&host)?;
        let begin = Instant::now();
        let response = match self.agent().get(&source.url).call() {
            Ok(response) => response,
            Err(error) if is_unreachable(&error) => {
                let reason = reason(&error, &self.limits);
                self.note_unreachable(&host, begin.elapsed());
                return Err(DownloadError::Unreachable { host, reason });
            }
            Err(error) => return Err(transfer(&source.url, reason(&error, &self.limits))),
        };
        let progress = Progress::begin(format!("downloading {label}"));
        let result = self.save(response, source, output, &progress);
        match &result {
            Ok(()) => progress.done("done"),
            Err(_) => progress.cancel(),
        }
        result
    }

    fn save(
        &self,
        response: Response<Body>,
        source: &Source,
        output: &Path,
        progress: &Progress,
    ) -> Result<(), DownloadError> {
        let folder = output.parent().unwrap_or(Path::new("."));
        let mut archive = match source.member {
            Some(_) => tempfile::tempfile_in(folder)?,
            None => File::create_new(output)?,
        };
        let actual = self.receive(response, source, &mut archive, progress)?;
        if actual != source.sha256 {
            let (url, pinned) = (without_credentials(&source.url), source.sha256.clone());
            return Err(DownloadError::Checksum { url, actual, pinned });
        }
        if let Some(member) = &source.member {
            archive.rewind()?;
            unpack(archive, member, output).map_err(|error| DownloadError::Unpack {
                url: without_credentials(&source.url),
                member: member.clone(),
                reason: error.to_string(),
            })?;
        }
        make_executable(output)?;
        Ok(())
    }

    /// Writes the body to `file` and returns its SHA-256.
    fn receive(
        &self,
        response: Response<Body>,
        source: &Source,
        file: &mut File,
        progress: &Progress,
    ) -> Result<String, DownloadError> {
        let body = response.into_body();
        let length = body.content_length();
        let mut reader = body.into_reader();
        let mut digest = Sha256::new();
        let mut buffer = vec![0; 128 * 1024];
        let mut received = 0;
        loop {
            let count = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) => {
                    return Err(transfer(&source.url, reason(&ureq::Error::from(error), &self.limits)));
                }
            };
            digest.update(&buffer[..count]);
            file.write_all(&buffer[..count])?;
            received += count as u64;
            progress.detail(amount(received, length));
        }
        Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    fn agent(&self) -> Agent {
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .root_certs(RootCerts::PlatformVerifier)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        Agent::config_builder()
            .tls_config(tls)
            .timeout_global(Some(self.limits.total))
            .timeout_resolve(Some(self.limits.connect))
            .timeout_connect(Some(self.limits.connect))
            .timeout_recv_response(Some(self.limits.stall))
            .timeout_per_read(Some(self.limits.stall))
            .build()
            .into()
    }

    fn check_reachable(&self, host: &str) -> Result<(), DownloadError> {
        let known = self.unreachable.lock().unwrap_or_else(PoisonError::into_inner);
        if known.waited >= self.limits.connect || known.hosts.iter().any(|known| known == host) {
            return Err(DownloadError::StillUnreachable(host.to_owned()));
        }
        Ok(())
    }

    fn note_unreachable(&self, host: &str, waited: Duration) {
        let mut known = self.unreachable.lock().unwrap_or_else(PoisonError::into_inner);
        known.hosts.push(host.to_owned());
        known.waited += waited;
    }
}

/// Whether the request never reached a server.
fn is_unreachable(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => true,
        ureq::Error::Timeout(which) => matches!(which, ureq::Timeout::Resolve | ureq::Timeout::Connect),
        // Also a name that cannot be resolved: the standard library has no kind for that.
        ureq::Error::Io(_) => true,
        _ => false,
    }
}

/// Says in a few words what went wrong.
fn reason(error: &ureq::Error, limits: &Limits) -> String {
    match error {
        ureq::Error::StatusCode(code) => format!("the server answered {code}"),
        ureq::Error::HostNotFound => "the name is unknown".to_owned(),
        ureq::Error::Timeout(ureq::Timeout::Resolve | ureq::Timeout::Connect) => {
            format!("no connection within {:?}", limits.connect)
        }
        ureq::Error::Timeout(ureq::Timeout::PerRead | ureq::Timeout::RecvResponse) => {
            format!("nothing received for {:?}", limits.stall)
        }
        ureq::Error::Timeout(_) => format!("not complete after {:?}", limits.total),
        ureq::Error::Io(error) => error.to_string(),
        other => other.to_string(),
    }
}

fn transfer(url: &str, reason: String) -> DownloadError {
    DownloadError::Transfer { url: without_credentials(url), reason }
}

/// Copies one member of a `.tar.gz` archive to `output`.
fn unpack(archive: File, member: &str, output: &Path) -> io::Result<()> {
    let mut archive = tar::Archive::new(GzDecoder::new(BufReader::new(archive)));
    for entry in archive.entries()? {
        let mut entry = entry?;
        if entry.path()? == Path::new(member) {
            return io::copy(&mut entry, &mut File::create_new(output)?).map(drop);
        }
    }
    Err(io::Error::other("the archive has no such file"))
}

fn make_executable(program: &Path) -> io::Result<()> {
    fs::set_permissions(program, Permissions::from_mode(0o755))
}

/// The scheme and host of a URL.
fn host(url: &str) -> String {
    let url = without_credentials(url);
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url[start..].find('/').map_or(url.len(), |at| start + at);
    url[..end].to_owned()
}

/// A URL without the user name and password that a mirror may need.
fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

/// How much is received, such as `12 of 48 MB (25 %)`.
fn amount(received: u64, length: Option<u64>) -> String {
    let megabytes = received / 1_000_000;
    match length.filter(|length| *length > 0) {
        Some(length) => format!("{megabytes} of {} MB ({} %)", length / 1_000_000, received * 100 / length),
        None => format!("{megabytes} MB"),
    }
}

#[cfg(test)]
mod tests;
