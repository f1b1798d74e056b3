//! Small servers between a client and the API server: proxies, and TLS with other certificates.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// The user and the password of [`Server::Http`] and [`Server::Socks5`] with `auth`.
pub const USER: (&str, &str) = ("proxy-user", "s3cret-pa@ss");

/// A certificate for 127.0.0.1 and `localhost`, signed by its own key.
pub struct SelfSigned {
    pub pem: String,
    config: Arc<ServerConfig>,
}

impl SelfSigned {
    pub fn new(is_authority: bool) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(["127.0.0.1".to_owned(), "localhost".to_owned()]).expect("names");
        params.is_ca = if is_authority { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::ExplicitNoCa };
        let certificate = params.self_signed(&key).expect("a certificate");
        let chain = vec![certificate.der().clone()];
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain, PrivatePkcs8KeyDer::from(key.serialize_der()).into())
            .expect("they belong together");
        Self { pem: certificate.pem(), config: Arc::new(config) }
    }
}

/// What a server speaks.
#[derive(Clone)]
pub enum Kind {
    /// TCP only.
    Forward,
    /// An HTTP proxy.
    Http { auth: bool },
    /// An HTTP proxy with TLS.
    Https(Arc<ServerConfig>),
    /// A SOCKS5 proxy.
    Socks5 { auth: bool },
    /// TLS with another certificate than the API server's.
    Tls(Arc<ServerConfig>, Arc<ClientConfig>),
}

impl Kind {
    pub fn https(certificate: &SelfSigned) -> Self {
        Self::Https(certificate.config.clone())
    }

    /// `authority` is that of the API server, in PEM.
    pub fn tls(certificate: &SelfSigned, authority: &str) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).expect("PEM")).expect("an authority");
        let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Self::Tls(certificate.config.clone(), Arc::new(client))
    }
}

/// A server on loopback that connects each client to the API server, whatever address it asks for. Dropping it closes all connections.
pub struct Server {
    pub addr: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    _connections: JoinSet<()>,
}

impl Server {
    /// `target` is the API server's address, such as `127.0.0.1:6443`.
    pub async fn start(kind: Kind, target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (addr, target) = (listener.local_addr().expect("an address"), target.to_owned());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let mut connections = JoinSet::new();
        let log = asked.clone();
        connections.spawn(async move {
            let mut running = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                running.spawn(serve(kind.clone(), client, target.clone(), log.clone()));
            }
        });
        Self { addr, asked, _connections: connections }
    }

    /// The addresses that clients of a proxy asked for.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic").clone()
    }
}

async fn serve(kind: Kind, client: TcpStream, target: String, asked: Arc<Mutex<Vec<String>>>) -> Option<()> {
    let log = |address: String| asked.lock().expect("no panic").push(address);
    let server = TcpStream::connect(&target).await.ok()?;
    match kind {
        Kind::Forward => join(client, server).await,
        Kind::Http { auth } => join(tunnel(client, auth, log).await?, server).await,
        Kind::Https(config) => {
            let client = TlsAcceptor::from(config).accept(client).await.ok()?;
            join(tunnel(client, false, log).await?, server).await
        }
        Kind::Socks5 { auth } => join(socks5(client, auth, log).await?, server).await,
        Kind::Tls(config, to_server) => {
            let client = TlsAcceptor::from(config).accept(client).await.ok()?;
            let name = ServerName::try_from("127.0.0.1").ok()?;
            server.set_nodelay(true).ok()?;
            join(client, TlsConnector::from(to_server).connect(name, server).await.ok()?).await
        }
    }
}

async fn join(
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    mut server: impl AsyncRead + AsyncWrite + Unpin,
) -> Option<()> {
    copy_bidirectional(&mut client, &mut server).await.ok().map(drop)
}

/// Answers CONNECT.
async fn tunnel<S: AsyncRead + AsyncWrite + Unpin>(mut client: S, auth: bool, log: impl Fn(String)) -> Option<S> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    log(head.split_whitespace().nth(1)?.to_owned());
    let basic = format!("Basic {}", STANDARD.encode(format!("{}:{}", USER.0, USER.1)));
    let is_user = head.lines().any(|line| {
        line.split_once(": ")
            .is_some_and(|(name, value)| name.eq_ignore_ascii_case("Proxy-Authorization") && value == basic)
    });
    if auth && !is_user {
        client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n").await.ok()?;
        return None;
    }
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.ok()?;
    Some(client)
}

/// Speaks SOCKS5 (RFC 1928, RFC 1929).
async fn socks5(mut client: TcpStream, auth: bool, log: impl Fn(String)) -> Option<TcpStream> {
    let method = if auth { 2 } else { 0 };
    let [_version, count] = [client.read_u8().await.ok()?, client.read_u8().await.ok()?];
    let mut methods = vec![0; count.into()];
    client.read_exact(&mut methods).await.ok()?;
    let chosen = if methods.contains(&method) { method } else { 0xff };
    client.write_all(&[5, chosen]).await.ok()?;
    if auth {
        client.read_u8().await.ok()?;
        let (user, password) = (short_text(&mut client).await?, short_text(&mut client).await?);
        let is_user = (&*user, &*password) == USER;
        client.write_all(&[1, u8::from(!is_user)]).await.ok()?;
        if !is_user {
            return None;
        }
    }
    let mut request = [0; 4];
    client.read_exact(&mut request).await.ok()?;
    let host = match request[3] {
        1 => client.read_u32().await.map(|address| std::net::Ipv4Addr::from(address).to_string()).ok()?,
        3 => short_text(&mut client).await?,
        _ => client.read_u128().await.map(|address| std::net::Ipv6Addr::from(address).to_string()).ok()?,
    };
    log(format!("{host}:{}", client.read_u16().await.ok()?));
    client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await.ok()?;
    Some(client)
}

async fn short_text(client: &mut TcpStream) -> Option<String> {
    let mut text = vec![0; client.read_u8().await.ok()?.into()];
    client.read_exact(&mut text).await.ok()?;
    String::from_utf8(text).ok()
}
