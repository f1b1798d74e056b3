//! Clients that trust just what they are given, and files as a kubelet mounts them.
//!
//! It must not know who made the certificates.

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

/// A client that trusts these authorities and no others, and knows the server by one name.
#[derive(Clone)]
pub struct Trust {
    connector: TlsConnector,
    host: ServerName<'static>,
}

/// What a client has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The status of the answer.
    pub code: u16,
    /// The server's certificate, and what came with it.
    pub chain: Vec<CertificateDer<'static>>,
}

/// The certificates in this text.
pub fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().expect("certificates in PEM")
}

impl Trust {
    /// A client of `host` that trusts these.
    pub fn new(authorities: &[CertificateDer<'static>], host: &str) -> Self {
        let mut roots = RootCertStore::empty();
        authorities.iter().for_each(|one| roots.add(one.clone()).expect("an authority"));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = config.expect("versions").with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Each connection has to see the certificate.
        config.resumption = rustls::client::Resumption::disabled();
        let host = ServerName::try_from(host.to_owned()).expect("a host");
        Self { connector: TlsConnector::from(Arc::new(config)), host }
    }

    /// The same client, offering this protocol by ALPN.
    #[allow(dead_code, reason = "not every test speaks another than HTTP/1.1")]
    pub fn speaking(&self, protocol: &str) -> Self {
        let mut config = ClientConfig::clone(self.connector.config());
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        Self { connector: TlsConnector::from(Arc::new(config)), host: self.host.clone() }
    }

    /// A connection with this server.
    ///
    /// # Errors
    /// The server is not trusted, or does not answer.
    pub async fn connect(&self, addr: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
        self.connector.connect(self.host.clone(), TcpStream::connect(addr).await?).await
    }

    /// Asks for this path with this token.
    ///
    /// # Errors
    /// The server is not trusted, or does not answer.
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

/// The flags that have a server read its certificate and key from this folder.
pub fn flags(folder: &Path) -> [String; 2] {
    [("--tls-cert", "tls.crt"), ("--tls-key", "tls.key")]
        .map(|(flag, name)| format!("{flag}={}", folder.join(name).display()))
}

/// Mounts files as a kubelet does: all of them change in one instant, by a link to another folder.
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
    fs::rename(next, folder.join("..data")).expect("in one instant");
}
