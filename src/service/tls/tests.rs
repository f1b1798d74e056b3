use std::{
    net::SocketAddr,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use axum::{Router, routing::get};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustix::fs::{FileType, Mode};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::*;
use crate::service::http::{HttpServer, Limits};

const SOON: Duration = Duration::from_secs(20);

/// A self-signed certificate for `localhost` and its key, in PEM.
struct Pair {
    cert: String,
    key: String,
}

impl Pair {
    fn until(year: i32) -> Self {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        Self { cert: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
    }
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn with(pair: &Pair) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write(&pair.cert, &pair.key);
        folder
    }

    fn files(&self) -> TlsFiles {
        TlsFiles { cert: self.0.path().join("tls.crt"), key: self.0.path().join("tls.key") }
    }

    fn write(&self, cert: &str, key: &str) {
        let replace = |path: &Path, text: &str| {
            let new = path.with_extension("new");
            std::fs::write(&new, text).unwrap();
            std::fs::rename(new, path).unwrap();
        };
        replace(&self.files().cert, cert);
        replace(&self.files().key, key);
    }

    fn load(&self) -> Result<TlsReloader, String> {
        TlsReloader::load(self.files(), Clock::system()).map_err(|error| error.to_string())
    }
}

/// A client that trusts only these.
fn connector(pairs: &[&Pair]) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    for pair in pairs {
        roots.add(CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap()).unwrap();
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Each connection must receive the certificate.
    config.resumption = rustls::client::Resumption::disabled();
    TlsConnector::from(Arc::new(config))
}

async fn connect(connector: &TlsConnector, addr: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(addr).await?;
    connector.connect(ServerName::try_from("localhost").unwrap(), stream).await
}

async fn ask(stream: &mut TlsStream<TcpStream>) -> std::io::Result<String> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await?;
    let mut buffer = [0; 1024];
    let read = stream.read(&mut buffer).await?;
    Ok(String::from_utf8_lossy(&buffer[..read]).into_owned())
}

async fn serve(
    tls: &TlsReloader,
    limits: Limits,
    stop: &CancellationToken,
) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let router = Router::new().route("/", get(async || "hello"));
    let server = HttpServer::bind("127.0.0.1:0".parse().unwrap(), "tests", "--test-addr").await.unwrap();
    let addr = server.local_addr();
    (addr, tokio::spawn(server.with_tls(Some(tls.clone())).with_limits(limits).serve(router, stop.clone())))
}

#[test]
fn errors_name_flag_file_and_remedy() {
    let (good, other, old) = (Pair::until(2090), Pair::until(2090), Pair::until(2001));
    let folder = Folder::with(&good);
    assert!(folder.load().is_ok());
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let garbage = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    for (cert, key, parts) in [
        (&*good.cert, &*other.key, ["--tls-key=", "tls.key", "does not belong to the certificate of --tls-cert="]),
        (&*old.cert, &*old.key, ["--tls-cert=", "until 2001-01-01T00:00:00Z", "renew it"]),
        (&*good.key, &*good.cert, ["--tls-cert=", "has no certificate", "swapped?"]),
        (&*good.cert, &*good.cert, ["--tls-key=", "has no private key", "swapped?"]),
        (&*good.cert, encrypted, ["--tls-key=", "it is encrypted", "openssl pkey"]),
        ("hello", &*good.key, ["--tls-cert=", "-----BEGIN CERTIFICATE-----", "give the server's certificate"]),
        (garbage, &*good.key, ["--tls-cert=", "tls.crt", "has no certificate"]),
        (&*good.cert, "", ["--tls-key=", "has no private key", "give the key"]),
        (&good.cert[..good.cert.len() / 2], &*good.key, ["--tls-cert=", "tls.crt", "has no certificate"]),
    ] {
        folder.write(cert, key);
        let error = folder.load().unwrap_err();
        for part in parts {
            assert!(error.contains(part), "no {part:?} in {error}");
        }
        assert!(!error.contains('\n') && !good.key.lines().nth(1).is_some_and(|line| error.contains(line)), "{error}");
    }
    std::fs::remove_file(folder.files().key).unwrap();
    let error = folder.load().unwrap_err();
    assert!(
        error.starts_with("cannot read --tls-key=/") && error.contains("check that the file is mounted there"),
        "{error}"
    );
}

#[test]
fn both_flags_or_neither() {
    let path = || Some("a".into());
    assert!(
        TlsFiles::from_flags(path(), path()).unwrap().is_some() && TlsFiles::from_flags(None, None).unwrap().is_none()
    );
    let error = TlsFiles::from_flags(path(), None).unwrap_err().to_string();
    assert!(error.starts_with("--tls-cert needs --tls-key as well"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_fails_no_request() {
    let (first, second) = (Pair::until(2090), Pair::until(2091));
    let folder = Folder::with(&first);
    let tls = folder.load().unwrap();
    let stop = CancellationToken::new();
    let (addr, serving) = serve(&tls, Limits::default(), &stop).await;
    let watching = tokio::spawn(tls.clone().keep_fresh(Duration::from_millis(10), stop.clone()));

    let (asked, enough) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
    let mut load = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (connector, enough, asked) = (connector(&[&first, &second]), enough.clone(), asked.clone());
        load.spawn(async move {
            let mut kept = connect(&connector, addr).await.expect("a connection");
            while !enough.is_cancelled() {
                for stream in [&mut kept, &mut connect(&connector, addr).await.expect("a connection")] {
                    let answer = ask(stream).await.expect("an answer");
                    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    let wait = async |what: &str, holds: &dyn Fn() -> bool| {
        let waiting = async {
            while !holds() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(SOON, waiting).await.unwrap_or_else(|_| panic!("not in time: {what}"));
    };
    for round in 1..=10 {
        let seen = asked.load(Ordering::Relaxed);
        wait("requests go on", &|| asked.load(Ordering::Relaxed) > seen + 8).await;
        let pair = if round % 2 == 1 { &second } else { &first };
        folder.write(&pair.cert, &pair.key);
        wait("the files are taken", &|| tls.status().reloads >= round).await;
    }
    // Back to the first pair, so that only this one is shown.
    ask(&mut connect(&connector(&[&first]), addr).await.unwrap()).await.unwrap();
    assert!(connect(&connector(&[&second]), addr).await.is_err());
    enough.cancel();
    while let Some(ended) = load.join_next().await {
        ended.expect("no request failed");
    }
    stop.cancel();
    watching.await.unwrap();
    tokio::time::timeout(SOON, serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn unusable_files_leave_the_old_certificate_in_use() {
    let (first, second) = (Pair::until(2090), Pair::until(2091));
    let folder = Folder::with(&first);
    let tls = folder.load().unwrap();
    let stop = CancellationToken::new();
    let (addr, serving) = serve(&tls, Limits::default(), &stop).await;
    for (cert, key, category) in [
        (&*second.cert, &*first.key, "TlsNotAPair"),
        (&second.cert[..100], &*second.key, "TlsNoCertificate"),
        (&*second.cert, "", "TlsNoKey"),
        (&*Pair::until(2001).cert, &*second.key, "TlsNotAPair"),
    ] {
        folder.write(cert, key);
        tls.reload();
        assert!(tls.status().failure.is_none_or(|known| known == category), "one read may fall between two writes");
        tls.reload();
        assert_eq!(tls.status().failure, Some(category));
        assert!(tls.describe().contains("2090-01-01T00:00:00Z; the files are unusable: "), "{}", tls.describe());
        ask(&mut connect(&connector(&[&first]), addr).await.unwrap()).await.unwrap();
    }
    folder.write(&second.cert, &second.key);
    tls.reload();
    assert_eq!((tls.status().failure, tls.status().reloads), (None, 1));
    assert_eq!(tls.describe(), "the certificate is valid until 2091-01-01T00:00:00Z");
    ask(&mut connect(&connector(&[&second]), addr).await.unwrap()).await.unwrap();
    stop.cancel();
    tokio::time::timeout(SOON, serving).await.unwrap().unwrap();
}

#[test]
fn only_regular_files_of_limited_size_are_read() {
    let folder = Folder::with(&Pair::until(2090));
    let tls = folder.load().unwrap();
    let cert = folder.files().cert;
    let failure = |what: &str| {
        tls.reload();
        tls.reload();
        assert_eq!(tls.status().failure, Some("TlsFileUnreadable"), "{what}");
        tls.describe()
    };
    std::fs::remove_file(&cert).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &cert, FileType::Fifo, Mode::RUSR, 0).unwrap();
    assert!(failure("a FIFO").contains("it is not a regular file"));
    std::fs::remove_file(&cert).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &cert).unwrap();
    assert!(failure("a device").contains("it is not a regular file"));
    std::fs::remove_file(&cert).unwrap();
    std::fs::File::create(&cert).unwrap().set_len(1 << 30).unwrap();
    assert!(failure("a huge file").contains("it is larger than 1048576 bytes"));
}

#[tokio::test]
async fn an_unfinished_handshake_is_cut_off() {
    let pair = Pair::until(2090);
    let tls = Folder::with(&pair).load().unwrap();
    let stop = CancellationToken::new();
    let limits = Limits { handshake: Duration::from_millis(200), ..Limits::default() };
    let (addr, serving) = serve(&tls, limits, &stop).await;
    // The first bytes of a ClientHello of 512 bytes, no bytes at all, and plain text.
    for bytes in [&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01][..], b"", b"GET / HTTP/1.1\r\n\r\n"] {
        let mut half = TcpStream::connect(addr).await.unwrap();
        half.write_all(bytes).await.unwrap();
        let mut rest = Vec::new();
        let _end_or_reset = tokio::time::timeout(SOON, half.read_to_end(&mut rest)).await.expect("it is cut off");
        assert!(!rest.starts_with(b"HTTP"));
    }
    ask(&mut connect(&connector(&[&pair]), addr).await.unwrap()).await.unwrap();
    stop.cancel();
    tokio::time::timeout(SOON, serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_endless_handshake_is_cut_off() {
    let pair = Pair::until(2090);
    let tls = Folder::with(&pair).load().unwrap();
    let stop = CancellationToken::new();
    let limits = Limits { handshake: 2 * SOON, ..Limits::default() };
    let (addr, serving) = serve(&tls, limits, &stop).await;
    // The start of a ClientHello of 60,000 bytes.
    let mut hello = vec![1, 0, 0xea, 0x60, 3, 3];
    hello.resize(50_000, 0);
    let records = hello.chunks(10_000).flat_map(|part| [&[0x16, 3, 1, 0x27, 0x10][..], part].concat());
    let mut half = TcpStream::connect(addr).await.unwrap();
    let _sent_or_not = half.write_all(&records.collect::<Vec<_>>()).await;
    let mut rest = Vec::new();
    let _end_or_reset = tokio::time::timeout(SOON, half.read_to_end(&mut rest)).await.expect("it is cut off");
    // A request after the handshake may be longer.
    let mut stream = connect(&connector(&[&pair]), addr).await.unwrap();
    let long = format!("GET / HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\nConnection: close\r\n\r\n", "a".repeat(40_000));
    stream.write_all(long.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _end = tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await.expect("an answer");
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
    stop.cancel();
    tokio::time::timeout(SOON, serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn alpn_selects_http2() {
    let pair = Pair::until(2090);
    let tls = Folder::with(&pair).load().unwrap();
    let stop = CancellationToken::new();
    let (addr, serving) = serve(&tls, Limits::default(), &stop).await;
    for (offered, agreed) in
        [(&[&b"h2"[..], b"http/1.1"][..], Some(&b"h2"[..])), (&[b"http/1.1"], Some(b"http/1.1")), (&[], None)]
    {
        let mut config = (**connector(&[&pair]).config()).clone();
        config.alpn_protocols = offered.iter().map(|name| name.to_vec()).collect();
        let stream = connect(&TlsConnector::from(Arc::new(config)), addr).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), agreed);
    }
    stop.cancel();
    tokio::time::timeout(SOON, serving).await.unwrap().unwrap();
}

#[test]
fn metrics_show_expiry_lifetime_reloads_and_unusable_files() {
    let none = TlsMetrics::new(None, Clock::system()).text();
    for line in ["tls_certificate_expiry_seconds inf", "tls_certificate_lifetime_seconds inf", "tls_reloads_total 0"] {
        assert!(none.contains(&format!("pat_operator_{line}\n")), "no {line} in:\n{none}");
    }
    assert!(!none.contains("# EOF"), "others follow");

    let (first, second) = (Pair::until(2030), Pair::until(2040));
    let folder = Folder::with(&first);
    let (clock, hand) = Clock::driven("2029-12-31T00:00:00Z".parse().unwrap());
    let tls = TlsReloader::load(folder.files(), clock.clone()).unwrap();
    let metrics = TlsMetrics::new(Some(tls.clone()), clock);
    let shows = |lines: [&str; 4]| {
        let text = metrics.text();
        for line in lines {
            assert!(text.contains(&format!("pat_operator_{line}\n")), "no {line} in:\n{text}");
        }
    };
    let lifetime = "tls_certificate_lifetime_seconds 946771200.0";
    shows(["tls_certificate_expiry_seconds 86400.0", lifetime, "tls_reloads_total 0", "tls_files_unusable 0"]);
    hand.advance(k8s_openapi::jiff::SignedDuration::from_hours(48));
    shows(["tls_certificate_expiry_seconds -86400.0", lifetime, "tls_reloads_total 0", "tls_files_unusable 0"]);
    folder.write(&second.cert, &first.key);
    tls.reload();
    tls.reload();
    shows(["tls_certificate_expiry_seconds -86400.0", lifetime, "tls_reloads_total 0", "tls_files_unusable 1"]);
    folder.write(&second.cert, &second.key);
    tls.reload();
    let lifetime = "tls_certificate_lifetime_seconds 1262304000.0";
    shows(["tls_certificate_expiry_seconds 315446400.0", lifetime, "tls_reloads_total 1", "tls_files_unusable 0"]);
}
