use std::{
    error::Error,
    fs,
    net::Ipv4Addr,
    path::PathBuf,
    time::{Duration, Instant},
};

use flate2::{Compression, write::GzEncoder};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::{DownloadError, Downloader, Limits, amount, host, without_credentials};
use crate::{
    server::{Reply, Server},
    sources::Source,
};

type Outcome = Result<(), Box<dyn Error>>;

/// Limits that only a broken transfer reaches.
const PATIENT: Limits =
    Limits { connect: Duration::from_secs(20), stall: Duration::from_secs(20), total: Duration::from_secs(60) };

/// A file larger than the buffers between server and client.
fn file() -> Vec<u8> {
    (0..3_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn source(server: &Server, file: &[u8]) -> Source {
    let sha256 = Sha256::digest(file).iter().map(|byte| format!("{byte:02x}")).collect();
    Source { url: format!("{}/tool", server.url()), member: None, sha256 }
}

/// Downloads into a new folder.
fn fetch(source: &Source, limits: Limits) -> (Result<(), DownloadError>, PathBuf, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("tool");
    (Downloader::new(limits).fetch("tool v1.0.0", source, &output), output, folder)
}

#[test]
fn right_file_becomes_an_executable_program() -> Outcome {
    use std::os::unix::fs::PermissionsExt;
    let server = Server::start(|_| Reply::File(file()))?;
    let (result, output, _folder) = fetch(&source(&server, &file()), PATIENT);
    result?;
    assert_eq!(fs::read(&output)?, file());
    assert_eq!(fs::metadata(&output)?.permissions().mode() & 0o777, 0o755);
    Ok(())
}

#[test]
fn redirect_is_followed() -> Outcome {
    let server =
        Server::start(|path| if path == "/tool" { Reply::Redirect("/elsewhere") } else { Reply::File(file()) })?;
    let (result, output, _folder) = fetch(&source(&server, &file()), PATIENT);
    result?;
    assert_eq!(fs::read(output)?, file());
    assert_eq!(server.requests(), ["/tool", "/elsewhere"]);
    Ok(())
}

fn archive(members: &[(&str, &[u8])]) -> Result<Vec<u8>, std::io::Error> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (name, content) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, *content)?;
    }
    archive.into_inner()?.finish()
}

#[test]
fn member_of_an_archive_is_unpacked() -> Outcome {
    let archive = archive(&[("linux/README.md", b"read me"), ("linux/tool", &file())])?;
    let served = archive.clone();
    let server = Server::start(move |_| Reply::File(served.clone()))?;
    let source = Source { member: Some("linux/tool".to_owned()), ..source(&server, &archive) };
    let (result, output, folder) = fetch(&source, PATIENT);
    result?;
    assert_eq!(fs::read(output)?, file());
    assert_eq!(fs::read_dir(folder.path())?.count(), 1, "the archive is not kept");
    Ok(())
}

#[test]
fn archive_without_the_member_is_an_error() -> Outcome {
    let archive = archive(&[("linux/other", b"other")])?;
    let served = archive.clone();
    let server = Server::start(move |_| Reply::File(served.clone()))?;
    let source = Source { member: Some("linux/tool".to_owned()), ..source(&server, &archive) };
    let (result, ..) = fetch(&source, PATIENT);
    assert!(matches!(result, Err(DownloadError::Unpack { .. })), "{result:?}");
    Ok(())
}

#[test]
fn file_that_is_no_archive_is_an_error() -> Outcome {
    let server = Server::start(|_| Reply::File(file()))?;
    let source = Source { member: Some("linux/tool".to_owned()), ..source(&server, &file()) };
    let (result, ..) = fetch(&source, PATIENT);
    assert!(matches!(result, Err(DownloadError::Unpack { .. })), "{result:?}");
    Ok(())
}

#[test]
fn wrong_checksum_is_an_error_with_both_digests() -> Outcome {
    let server = Server::start(|_| Reply::File(file()))?;
    let (pinned, actual) = (source(&server, b"another file"), source(&server, &file()));
    let (result, ..) = fetch(&pinned, PATIENT);
    let error = result.unwrap_err().to_string();
    assert!(error.contains(&pinned.sha256) && error.contains(&actual.sha256), "{error}");
    Ok(())
}

#[test]
fn wrong_checksum_of_an_archive_unpacks_nothing() -> Outcome {
    let archive = archive(&[("tool", b"evil")])?;
    let server = Server::start(move |_| Reply::File(archive.clone()))?;
    let source = Source { member: Some("tool".to_owned()), ..source(&server, b"another file") };
    let (result, output, _folder) = fetch(&source, PATIENT);
    assert!(matches!(result, Err(DownloadError::Checksum { .. })), "{result:?}");
    assert!(!output.exists());
    Ok(())
}

#[test]
fn file_that_is_cut_off_is_an_error() -> Outcome {
    let server = Server::start(|_| Reply::CutOff(file()))?;
    let (result, ..) = fetch(&source(&server, &file()), PATIENT);
    assert!(matches!(result, Err(DownloadError::Transfer { .. })), "{result:?}");
    Ok(())
}

#[test]
fn missing_file_is_an_error_with_the_status() -> Outcome {
    let server = Server::start(|_| Reply::Status(404))?;
    let (result, output, _folder) = fetch(&source(&server, &file()), PATIENT);
    assert_eq!(result.unwrap_err().to_string(), format!("{}/tool: the server answered 404", server.url()));
    assert!(!output.exists());
    Ok(())
}

#[test]
fn transfer_that_stalls_is_given_up() -> Outcome {
    let server = Server::start(|_| Reply::Stall(file()))?;
    let limits = Limits { stall: Duration::from_millis(200), ..PATIENT };
    let begin = Instant::now();
    let (result, ..) = fetch(&source(&server, &file()), limits);
    assert_eq!(result.unwrap_err().to_string(), format!("{}/tool: nothing received for 200ms", server.url()));
    assert!(begin.elapsed() < PATIENT.stall);
    Ok(())
}

#[test]
fn transfer_that_is_too_slow_is_given_up() -> Outcome {
    let server = Server::start(|_| Reply::Drip(file()))?;
    let limits = Limits { total: Duration::from_millis(300), ..PATIENT };
    let begin = Instant::now();
    let (result, ..) = fetch(&source(&server, &file()), limits);
    assert_eq!(result.unwrap_err().to_string(), format!("{}/tool: not complete after 300ms", server.url()));
    assert!(begin.elapsed() < PATIENT.stall);
    Ok(())
}

#[tokio::test]
async fn refused_connection_fails_at_once_and_is_not_tried_again() -> Outcome {
    // Bound and not listening: no other process can take the port.
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let url = format!("http://{}/tool", socket.local_addr()?);
    let source = Source { url, member: None, sha256: String::new() };
    let folder = tempfile::tempdir()?;
    let downloader = Downloader::new(PATIENT);
    let begin = Instant::now();
    let fetch = || downloader.fetch("tool v1.0.0", &source, &folder.path().join("tool"));
    let first = fetch().unwrap_err();
    assert!(matches!(first, DownloadError::Unreachable { .. }), "{first}");
    let second = fetch().unwrap_err();
    assert!(matches!(second, DownloadError::StillUnreachable(_)), "{second}");
    assert!(begin.elapsed() < PATIENT.connect);
    Ok(())
}

#[test]
fn time_spent_on_unreachable_hosts_is_limited_in_total() {
    let downloader = Downloader::new(Limits { connect: Duration::from_secs(3), ..PATIENT });
    downloader.note_unreachable("https://one.example.com", Duration::from_secs(1));
    assert!(downloader.check_reachable("https://two.example.com").is_ok());
    downloader.note_unreachable("https://two.example.com", Duration::from_secs(2));
    assert!(downloader.check_reachable("https://three.example.com").is_err());
}

#[test]
fn credentials_of_a_mirror_are_not_printed() {
    assert_eq!(without_credentials("https://me:secret@mirror.example.com/a@b"), "https://mirror.example.com/a@b");
    assert_eq!(host("https://me:secret@mirror.example.com/a"), "https://mirror.example.com");
    assert_eq!(host("http://127.0.0.1:80/a/b"), "http://127.0.0.1:80");
}

#[test]
fn amount_has_a_percentage_if_the_length_is_known() {
    assert_eq!(amount(12_000_000, Some(48_000_000)), "12 of 48 MB (25 %)");
    assert_eq!(amount(12_000_000, None), "12 MB");
}
