//! TLS clients with given trust anchors, and files that are mounted like a kubelet mounts them.

use std::{fs, io, net::SocketAddr, path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// A TLS client that trusts only these CAs, and expects this server name.
#[derive(Clone)]
pub struct Trust {
    connector: TlsConnector,
    host: ServerName<'static>,
}

/// The result of a request over TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The status code.
    pub code: u16,
    /// The server's certificate and its intermediates.
    pub chain: Vec<CertificateDer<'static>>,
}

/// The certificates in a PEM text.
pub fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().expect("certificates in PEM")
}

impl Trust {
    /// A client that trusts these CAs and expects this server name.
    pub fn new(authorities: &[CertificateDer<'static>], host: &str) -> Self {
        let mut roots = RootCertStore::empty();
        authorities.iter().for_each(|one| roots.add(one.clone()).expect("an authority"));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = config.expect("versions").with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Each connection must get the certificate.
        config.resumption = rustls::client::Resumption::disabled();
        let host = ServerName::try_from(host.to_owned()).expect("a host");
        Self { connector: TlsConnector::from(Arc::new(config)), host }
    }

    /// The same client with another ALPN protocol.
    #[allow(dead_code, reason = "most tests use only HTTP/1.1")]
    pub fn speaking(&self, protocol: &str) -> Self {
        let mut config = ClientConfig::clone(self.connector.config());
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        Self { connector: TlsConnector::from(Arc::new(config)), host: self.host.clone() }
    }

    /// Connects to a server.
    ///
    /// # Errors
    /// The client does not trust the server, or the server does not answer.
    pub async fn connect(&self, addr: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
        self.connector.connect(self.host.clone(), TcpStream::connect(addr).await?).await
    }

    /// Requests a path with a bearer token.
    ///
    /// # Errors
    /// The client does not trust the server, or the server does not answer.
    pub async fn get(&self, addr: SocketAddr, path: &str, token: &str) -> io::Result<Seen> {
        let asking = async {
            let mut stream = self.connect(addr).await?;
            let request =
                format!("GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            let answer = String::from_utf8_lossy(&answer).into_owned();
            let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
            let code = code.ok_or_else(|| io::Error::other(format!("not an HTTP answer: {answer:?}")))?;
            let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
            Ok(Seen { code, chain: chain.iter().map(|one| one.clone().into_owned()).collect() })
        };
        tokio::time::timeout(super::SOON, asking).await.map_err(io::Error::other)?
    }
}

/// The flags with which a server reads its certificate and key from this folder.
pub fn flags(folder: &Path) -> [String; 2] {
    [("--tls-cert", "tls.crt"), ("--tls-key", "tls.key")]
        .map(|(flag, name)| format!("{flag}={}", folder.join(name).display()))
}

/// Mounts files like a kubelet: a symbolic link to another folder changes all of them at once.
pub fn mount(folder: &Path, version: u32, files: &[(&str, &[u8])]) {
    let real = folder.join(format!("..{version}"));
    fs::create_dir_all(&real).expect("a folder");
    for (name, content) in files {
        fs::write(real.join(name), content).expect("a file");
        let link = folder.join(name);
        if !link.is_symlink() {
            std::os::unix::fs::symlink(Path::new("..data").join(name), link).expect("a link");
        }
    }
    let next = folder.join("..data_tmp");
    std::os::unix::fs::symlink(format!("..{version}"), &next).expect("a link");
    fs::rename(next, folder.join("..data")).expect("the link is replaced");
}
