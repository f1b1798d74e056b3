//! The credentials of each request: fixed, or from a source that is asked again before they expire, and after the API server has rejected
//! them.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use hyper::header::HeaderValue;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::Mutex;

use super::exec::{ClientCertificate, ExecCredential, ExecPlugin};
use crate::service::clock::uptime;

/// How long a token file is not read again. client-go caches it for a minute, less ten seconds.
const FILE_PERIOD: Duration = Duration::from_secs(50);

/// The shortest time between two calls of a credential plugin, so that one whose credentials are always expired or rejected is not called
/// for each request.
const EXEC_PERIOD: Duration = Duration::from_mins(1);

/// Where credentials come from.
pub enum Authorization {
    /// There are none.
    None,
    /// A header.
    Fixed(HeaderValue),
    /// A file with a bearer token.
    File(TokenFile),
    /// A credential plugin.
    Exec(ExecPlugin),
}

/// The credentials of one request.
#[derive(Clone, Default)]
pub struct Credential {
    /// The header `Authorization`.
    pub header: Option<HeaderValue>,
    /// The client certificate that a plugin printed.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// The uptime of the machine when the plugin printed them. Later ones replace earlier ones.
    pub obtained_at: Duration,
}

/// A file with a bearer token, and the last token that was read.
pub struct TokenFile {
    path: PathBuf,
    header: HeaderValue,
    /// An uptime of the machine.
    renew_at: Duration,
}

impl TokenFile {
    /// Reads the file. Without a readable one, the other token counts, if there is one.
    ///
    /// # Errors
    /// There is no token.
    pub fn open(path: PathBuf, other: Option<HeaderValue>, now: Duration) -> Result<Self, String> {
        let header = match (read_token(&path), other) {
            (Ok(header), _) | (Err(_), Some(header)) => header,
            (Err(reason), None) => return Err(reason),
        };
        Ok(Self { path, header, renew_at: now + FILE_PERIOD })
    }

    /// The header. If the file cannot be read again, the last token counts.
    fn header(&mut self, now: Duration) -> HeaderValue {
        if now >= self.renew_at {
            if let Ok(header) = read_token(&self.path) {
                self.header = header;
            }
            self.renew_at = now + FILE_PERIOD;
        }
        self.header.clone()
    }

    /// Has the file read again for the next request, as client-go does.
    fn reject(&mut self) {
        self.renew_at = Duration::ZERO;
    }
}

fn read_token(path: &Path) -> Result<HeaderValue, String> {
    let at = |reason: &dyn fmt::Display| format!("tokenFile {}: {reason}", path.display());
    let token = std::fs::read_to_string(path).map_err(|error| at(&error))?;
    let header = bearer_header(&token).map_err(|reason| at(&reason))?;
    header.ok_or_else(|| at(&"it has no token"))
}

/// A credential plugin, and the last credentials that it printed.
struct ExecSource {
    plugin: Arc<ExecPlugin>,
    credential: Credential,
    /// An uptime of the machine, so that a clock that is set later does not matter.
    renew_at: Option<Duration>,
}

impl ExecSource {
    fn new(plugin: Arc<ExecPlugin>, printed: ExecCredential, now: Duration) -> Result<Self, CredentialError> {
        let header = bearer_header(&printed.token).map_err(|reason| {
            CredentialError(format!("the exec plugin printed a token that cannot be used: {reason}"))
        })?;
        let left =
            |expires: Timestamp| Duration::try_from(expires.duration_since(Timestamp::now())).unwrap_or_default();
        let renew_at = printed.expires.map(|expires| now + left(expires).max(EXEC_PERIOD));
        let certificate = printed.certificate.map(Arc::new);
        Ok(Self { plugin, credential: Credential { header, certificate, obtained_at: now }, renew_at })
    }

    async fn credential(&mut self, now: Duration) -> Result<Credential, CredentialError> {
        if self.renew_at.is_some_and(|time| now >= time) {
            let printed = run(&self.plugin).await?;
            *self = Self::new(self.plugin.clone(), printed, now)?;
        }
        Ok(self.credential.clone())
    }

    /// Has the plugin called again for the next request, or once [`EXEC_PERIOD`] is over.
    fn reject(&mut self, rejected: &Credential) {
        if rejected.obtained_at == self.credential.obtained_at {
            let soon = rejected.obtained_at + EXEC_PERIOD;
            self.renew_at = Some(self.renew_at.map_or(soon, |time| time.min(soon)));
        }
    }
}

async fn run(plugin: &Arc<ExecPlugin>) -> Result<ExecCredential, CredentialError> {
    let plugin = plugin.clone();
    let ended = tokio::task::spawn_blocking(move || plugin.run()).await;
    ended.map_err(|_| "the exec plugin was not run to its end".to_owned()).flatten().map_err(CredentialError)
}

/// Why there are no credentials. It quotes none.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CredentialError(String);

impl CredentialError {
    /// An error with this explanation.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// The credentials of all requests of a client.
#[derive(Clone)]
pub struct Credentials(Arc<Source>);

enum Source {
    Fixed(Option<HeaderValue>),
    File(Mutex<TokenFile>),
    Exec(Mutex<ExecSource>),
}

impl Default for Credentials {
    /// No credentials.
    fn default() -> Self {
        Self(Arc::new(Source::Fixed(None)))
    }
}

impl Credentials {
    /// Credentials from a source. A credential plugin is called now.
    ///
    /// # Errors
    /// The plugin fails.
    pub async fn obtain(from: Authorization) -> Result<Self, CredentialError> {
        let source = match from {
            Authorization::None => Source::Fixed(None),
            Authorization::Fixed(header) => Source::Fixed(Some(header)),
            Authorization::File(file) => Source::File(Mutex::new(file)),
            Authorization::Exec(plugin) => {
                let plugin = Arc::new(plugin);
                let printed = run(&plugin).await?;
                Source::Exec(Mutex::new(ExecSource::new(plugin, printed, uptime())?))
            }
        };
        Ok(Self(Arc::new(source)))
    }

    /// Returns the credentials for a request now.
    ///
    /// # Errors
    /// The plugin is called again, and fails.
    pub async fn current(&self) -> Result<Credential, CredentialError> {
        let header = match &*self.0 {
            Source::Fixed(header) => header.clone(),
            Source::File(file) => Some(file.lock().await.header(uptime())),
            Source::Exec(source) => return source.lock().await.credential(uptime()).await,
        };
        Ok(Credential { header, ..Credential::default() })
    }

    /// Records that the API server has rejected these credentials (401): later requests get others, if the source has others.
    pub async fn reject(&self, rejected: &Credential) {
        match &*self.0 {
            Source::Fixed(_) => {}
            Source::File(file) => file.lock().await.reject(),
            Source::Exec(source) => source.lock().await.reject(rejected),
        }
    }
}

/// The header of a bearer token, without the white space around it; `None` if there is no token.
///
/// # Errors
/// A header cannot have the characters of the token.
pub fn bearer_header(token: &str) -> Result<Option<HeaderValue>, &'static str> {
    let token = token.trim();
    if token.is_empty() {
        return Ok(None);
    }
    sensitive(format!("Bearer {token}")).map(Some).ok_or("the token has line breaks or control characters")
}

/// The header of a user and a password.
///
/// # Errors
/// They are too long for a header.
pub fn basic_header(user: &str, password: &str) -> Result<HeaderValue, &'static str> {
    let basic = STANDARD.encode(format!("{user}:{password}"));
    sensitive(format!("Basic {basic}")).ok_or("the user or the password is too long")
}

fn sensitive(text: String) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, fs, net::SocketAddr};

    use hyper::{Request, Response, StatusCode, service::service_fn};
    use hyper_util::{
        rt::{TokioExecutor, TokioIo},
        server::conn::auto,
    };
    use rcgen::{Certificate, CertificateParams, KeyPair};
    use rustls::{RootCertStore, ServerConfig, pki_types::PrivatePkcs8KeyDer, server::WebPkiClientVerifier};
    use serde_json::json;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::service::client::{
        Setup, build, install_crypto,
        kubeconfig::{Cluster, Exec},
    };

    const START: Duration = Duration::from_secs(1_000);

    fn text(header: &HeaderValue) -> &str {
        assert!(header.is_sensitive());
        header.to_str().expect("text")
    }

    #[test]
    fn a_token_file_is_trimmed_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        for (content, reason) in [(&b"\n \n"[..], "it has no token"), (b"a\nb", "line breaks"), (b"\xff", "UTF-8")] {
            fs::write(&path, content).unwrap();
            let error = TokenFile::open(path.clone(), None, START).err().expect("an error");
            assert!(error.contains(reason) && error.contains("tokenFile"), "{error}");
        }
        fs::write(&path, "\n one \r\n").unwrap();
        let mut file = TokenFile::open(path.clone(), None, START).ok().unwrap();
        fs::write(&path, "two\n").unwrap();
        assert_eq!(text(&file.header(START + Duration::from_secs(49))), "Bearer one");
        assert_eq!(text(&file.header(START + Duration::from_secs(50))), "Bearer two");
        fs::write(&path, "three\n").unwrap();
        file.reject();
        assert_eq!(text(&file.header(START + Duration::from_secs(51))), "Bearer three", "after a rejection");
        fs::remove_file(&path).unwrap();
        assert_eq!(text(&file.header(START + Duration::from_secs(200))), "Bearer three");
        let other = bearer_header("inline").unwrap();
        let mut file = TokenFile::open(path, other, START).ok().unwrap();
        assert_eq!(text(&file.header(START)), "Bearer inline");
    }

    /// A plugin that prints a token, and how often it was called.
    fn plugin(folder: &Path, expires: Option<Timestamp>) -> (Arc<ExecPlugin>, impl Fn() -> usize) {
        let calls = folder.join("calls");
        let credential = json!({
            "kind": "ExecCredential", "apiVersion": "client.authentication.k8s.io/v1",
            "status": {"token": "t", "expirationTimestamp": expires},
        });
        let exec = Exec {
            command: "sh".into(),
            args: vec!["-c".into(), format!("printf x >> {}; echo '{credential}'", calls.display())],
            api_version: "client.authentication.k8s.io/v1".into(),
            interactive_mode: "Never".into(),
            ..Exec::default()
        };
        let count = move || fs::read(&calls).map_or(0, |text| text.len());
        (Arc::new(ExecPlugin::new(exec, &Cluster::default()).ok().unwrap()), count)
    }

    #[tokio::test]
    async fn a_plugin_is_called_once_until_its_token_expires() {
        const HOUR: Duration = Duration::from_hours(1);
        let second = Duration::from_secs(1);
        // One that expires after an hour, and one that is always expired.
        for (expires, earliest, latest) in [
            (Timestamp::now() + HOUR, HOUR - Duration::from_mins(1), HOUR),
            (Timestamp::UNIX_EPOCH, EXEC_PERIOD - second, EXEC_PERIOD),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let (plugin, count) = plugin(folder.path(), Some(expires));
            let printed = run(&plugin).await.ok().unwrap();
            let mut source = ExecSource::new(plugin, printed, START).ok().unwrap();
            for _ in 0..3 {
                let header = source.credential(START + earliest).await.ok().unwrap().header;
                assert_eq!(text(&header.expect("a header")), "Bearer t");
            }
            assert_eq!(count(), 1, "{expires}");
            source.credential(START + latest).await.ok().unwrap();
            assert_eq!(count(), 2, "{expires}");
        }
    }

    #[tokio::test]
    async fn a_plugin_is_called_again_after_a_rejection_but_at_most_once_a_minute() {
        let folder = tempfile::tempdir().unwrap();
        let (plugin, count) = plugin(folder.path(), None);
        let printed = run(&plugin).await.ok().unwrap();
        let mut source = ExecSource::new(plugin, printed, START).ok().unwrap();
        let at = |seconds| START + Duration::from_secs(seconds);
        let first = source.credential(at(3_600)).await.ok().unwrap();
        assert_eq!(count(), 1);
        source.reject(&first);
        let second = source.credential(at(3_600)).await.ok().unwrap();
        assert_eq!(count(), 2);
        // Answers to requests with the former credentials say nothing about the new ones.
        source.reject(&first);
        source.credential(at(7_200)).await.ok().unwrap();
        assert_eq!(count(), 2);
        for (rejected_at, calls) in [(7_200, 3), (7_201, 3), (7_259, 3), (7_260, 4)] {
            let credential = source.credential.clone();
            source.reject(&credential);
            source.credential(at(rejected_at)).await.ok().unwrap();
            assert_eq!(count(), calls, "{rejected_at}");
        }
        assert!(second.obtained_at < source.credential.obtained_at);
    }

    /// An address with TLS that answers 200 to the second of these client certificates, and 401 to others.
    async fn start_server(server: (Certificate, KeyPair), users: [&Certificate; 2]) -> SocketAddr {
        let mut roots = RootCertStore::empty();
        users.iter().for_each(|user| roots.add(user.der().clone()).expect("a certificate"));
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().expect("a verifier");
        let key = PrivatePkcs8KeyDer::from(server.1.serialize_der()).into();
        let tls = ServerConfig::builder().with_client_cert_verifier(verifier);
        let tls = tls.with_single_cert(vec![server.0.der().clone()], key).expect("they belong together");
        let (acceptor, accepted) = (TlsAcceptor::from(Arc::new(tls)), users[1].der().clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let stream = acceptor.accept(stream).await.expect("a handshake");
                let is_accepted = stream.get_ref().1.peer_certificates().is_some_and(|chain| chain[0] == accepted);
                let status = if is_accepted { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
                let answer = service_fn(move |_| {
                    let response = Response::builder().status(status).body(axum::body::Body::empty()).unwrap();
                    std::future::ready(Ok::<_, Infallible>(response))
                });
                let builder = auto::Builder::new(TokioExecutor::new());
                tokio::spawn(async move { builder.serve_connection(TokioIo::new(stream), answer).await });
            }
        });
        address
    }

    #[tokio::test]
    async fn another_client_certificate_is_used_after_a_rejection() {
        install_crypto();
        let pair = |name: &str| {
            let key = KeyPair::generate().unwrap();
            (CertificateParams::new([name.to_owned()]).unwrap().self_signed(&key).unwrap(), key)
        };
        let (server, one, two) = (pair("127.0.0.1"), pair("one"), pair("two"));
        let mut config = kube::Config::new("https://127.0.0.1".parse().unwrap());
        config.root_cert = Some(vec![server.0.der().to_vec()]);
        let address = start_server(server, [&one.0, &two.0]).await;
        config.cluster_url = format!("https://{address}").parse().unwrap();

        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("credential");
        let print = |(certificate, key): &(Certificate, KeyPair)| {
            let status = json!({"clientCertificateData": certificate.pem(), "clientKeyData": key.serialize_pem()});
            let version = "client.authentication.k8s.io/v1";
            let credential = json!({"kind": "ExecCredential", "apiVersion": version, "status": status});
            fs::write(&file, credential.to_string()).unwrap();
        };
        print(&one);
        let exec = Exec {
            command: "cat".into(),
            args: vec![file.display().to_string()],
            api_version: "client.authentication.k8s.io/v1".into(),
            interactive_mode: "Never".into(),
            ..Exec::default()
        };
        let plugin = Arc::new(ExecPlugin::new(exec, &Cluster::default()).ok().unwrap());
        let printed = run(&plugin).await.ok().unwrap();
        // So long ago that it may be called again.
        let source = ExecSource::new(plugin, printed, uptime().saturating_sub(2 * EXEC_PERIOD)).ok().unwrap();
        let credential = source.credential.clone();
        let credentials = Credentials(Arc::new(Source::Exec(Mutex::new(source))));
        let client = build(config, Setup { credentials, credential, ..Setup::default() }).unwrap().client;
        let ask = async || {
            let request = Request::get("/version").body(kube::client::Body::empty()).unwrap();
            client.send(request).await.expect("an answer").status().as_u16()
        };
        assert_eq!(ask().await, 401);
        print(&two);
        assert_eq!(ask().await, 200);
        // It is not called again: nothing was rejected.
        print(&one);
        assert_eq!(ask().await, 200);
    }
}
