//! Proxies between the client and the API server: which one is used, and the connection through it.
//!
//! The choice is that of Go's `golang.org/x/net/http/httpproxy`, which kubectl uses: `proxy-url` of the kubeconfig always counts, and the
//! variables do not for loopback and the hosts in `NO_PROXY`.

use std::{env, error::Error as StdError, fmt, net::IpAddr, sync::Arc};

use hyper::Uri;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::{
    client::legacy::connect::{
        HttpConnector,
        proxy::{SocksV5, Tunnel},
    },
    rt::TokioIo,
};
use ipnet::IpNet;
use tokio::net::TcpStream;
use tower::{BoxError, Service, ServiceExt};

use super::{
    credentials::basic_header,
    kubeconfig::KubeconfigError,
    url::{Url, UserInfo},
};

/// A connection to the API server, possibly through TLS with a proxy.
pub type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

/// The protocol that a proxy speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Http,
    Https,
    Socks5,
}

/// A proxy. It is displayed without user and password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    protocol: Protocol,
    uri: Uri,
    user: Option<UserInfo>,
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.uri.to_string().trim_end_matches('/'))
    }
}

impl Proxy {
    /// Reads the URL of an HTTP, HTTPS or SOCKS5 proxy, which may have a user and a password. `None` if it is no such URL.
    pub fn parse(text: &str) -> Option<Self> {
        Url::parse(text).and_then(Self::new)
    }

    /// Reads `proxy-url` of a kubeconfig.
    ///
    /// # Errors
    /// It is not the URL of an HTTP, HTTPS or SOCKS5 proxy.
    pub fn from_kubeconfig(text: &str) -> Result<Self, KubeconfigError> {
        let url = Url::parse(text).filter(|url| url.scheme != "socks5h");
        url.and_then(Self::new).ok_or_else(|| {
            KubeconfigError::new(
                "proxy-url: must be a URL such as http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT",
            )
        })
    }

    fn new(url: Url) -> Option<Self> {
        let (protocol, port) = match &*url.scheme {
            "http" => (Protocol::Http, 80),
            "https" => (Protocol::Https, 443),
            "socks5" | "socks5h" => (Protocol::Socks5, 1080),
            _ => return None,
        };
        let uri = Url { path: String::new(), ..url.clone() }.uri(Some(port))?;
        Some(Self { protocol, uri, user: url.user })
    }
}

/// The variables that choose a proxy.
#[derive(Clone, Debug, Default)]
pub struct ProxyVariables {
    /// `HTTP_PROXY`, for servers without TLS.
    pub http: String,
    /// `HTTPS_PROXY`.
    pub https: String,
    /// `NO_PROXY`.
    pub no: String,
}

impl ProxyVariables {
    /// Reads the environment. Names in capital letters win.
    pub fn from_env() -> Self {
        let any =
            |names: [&str; 2]| names.into_iter().filter_map(|name| env::var(name).ok()).find(|text| !text.is_empty());
        let any = |names| any(names).unwrap_or_default();
        Self {
            http: any(["HTTP_PROXY", "http_proxy"]),
            https: any(["HTTPS_PROXY", "https_proxy"]),
            no: any(["NO_PROXY", "no_proxy"]),
        }
    }

    /// The proxy for a server, if any.
    ///
    /// # Errors
    /// The variable is not the URL of an HTTP, HTTPS or SOCKS5 proxy.
    pub fn proxy_for(&self, server: &Url) -> Result<Option<Proxy>, KubeconfigError> {
        let (name, text) = match &*server.scheme {
            "http" => ("HTTP_PROXY", &self.http),
            _ => ("HTTPS_PROXY", &self.https),
        };
        if text.is_empty() || self.is_excepted(server) {
            return Ok(None);
        }
        let url = if text.contains("://") { Url::parse(text) } else { Url::parse(&format!("http://{text}")) };
        url.and_then(Proxy::new).map(Some).ok_or_else(|| {
            KubeconfigError::new(format!(
                "{name}: must be HOST:PORT, or a URL such as http://HOST:PORT or socks5://HOST:PORT"
            ))
        })
    }

    /// Whether the server is reached without the proxy of the variables.
    fn is_excepted(&self, server: &Url) -> bool {
        let (host, port) = server.host_and_port();
        let port = port.unwrap_or(if server.scheme == "http" { 80 } else { 443 });
        let address = host.parse::<IpAddr>().ok().map(|address| address.to_canonical());
        if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
            return true;
        }
        let host = host.to_ascii_lowercase();
        let entries = self.no.split(',').map(|entry| entry.trim().to_ascii_lowercase());
        entries.filter(|entry| !entry.is_empty()).any(|entry| matches(&entry, &host, address, port))
    }
}

/// Whether an entry of `NO_PROXY` names the server: `*`, an address, a network, a domain with its subdomains, or `.domain` for the
/// subdomains only; addresses and domains with or without a port.
fn matches(entry: &str, host: &str, address: Option<IpAddr>, port: u16) -> bool {
    if entry == "*" {
        return true;
    }
    if let Ok(network) = entry.parse::<IpNet>() {
        return address.is_some_and(|address| network.contains(&address));
    }
    let (name, only_port) = match entry.rsplit_once(':') {
        // An IPv6 address without a port has more colons, and no brackets.
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => (name, Some(port)),
        _ => (entry, None),
    };
    if only_port.is_some_and(|only| only != port.to_string()) {
        return false;
    }
    let name = name.trim_start_matches('[').trim_end_matches(']');
    match (name.parse::<IpAddr>(), address) {
        (Ok(named), address) => address == Some(named.to_canonical()),
        (Err(_), Some(_)) => false,
        (Err(_), None) => match name.strip_prefix('*').filter(|name| name.starts_with('.')).unwrap_or(name) {
            "" => false,
            name if name.starts_with('.') => host.ends_with(name),
            name => host.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')),
        },
    }
}

/// Why there is no connection through a proxy.
#[derive(Debug)]
pub struct ProxyError {
    proxy: Arc<Proxy>,
    cause: BoxError,
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no connection through the proxy {}", self.proxy)
    }
}

impl StdError for ProxyError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.cause)
    }
}

/// The way to the API server: direct, or through a proxy.
#[derive(Clone)]
pub struct Route {
    proxy: Option<Arc<Proxy>>,
    tcp: HttpConnector,
    /// For a proxy with TLS. As in Go, it is verified with the settings of the cluster.
    tls: HttpsConnector<HttpConnector>,
}

impl Route {
    /// A route. `tls` is for the connection to an HTTPS proxy.
    pub fn new(proxy: Option<Proxy>, tcp: HttpConnector, tls: HttpsConnector<HttpConnector>) -> Self {
        Self { proxy: proxy.map(Arc::new), tcp, tls }
    }

    /// Connects to the server. TLS with the server comes later.
    ///
    /// # Errors
    /// There is no connection; `ProxyError` if there is a proxy.
    pub async fn connect(self, server: Uri) -> Result<Stream, BoxError> {
        let Some(proxy) = self.proxy else { return Ok(self.tcp.oneshot(server).await?.into()) };
        let stream = match proxy.protocol {
            Protocol::Http => through_tunnel(&proxy, self.tcp, server).await.map(Stream::from),
            Protocol::Https => through_tunnel(&proxy, self.tls, server).await,
            Protocol::Socks5 => through_socks(&proxy, self.tcp, server).await.map(Stream::from),
        };
        stream.map_err(|cause| ProxyError { proxy, cause }.into())
    }
}

/// Asks an HTTP proxy for a connection by CONNECT.
async fn through_tunnel<C>(proxy: &Proxy, connector: C, server: Uri) -> Result<C::Response, BoxError>
where
    C: Service<Uri>,
    C::Future: Send + 'static,
    C::Response: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    C::Error: Into<BoxError>,
{
    let mut tunnel = Tunnel::new(proxy.uri.clone(), connector);
    if let Some(UserInfo { user, password }) = &proxy.user {
        tunnel = tunnel.with_auth(basic_header(user, password)?);
    }
    Ok(tunnel.oneshot(with_port(server)?).await?)
}

async fn through_socks(proxy: &Proxy, tcp: HttpConnector, server: Uri) -> Result<TokioIo<TcpStream>, BoxError> {
    // Connected here, because an error of SocksV5 does not say why there is no connection.
    let stream = tcp.oneshot(proxy.uri.clone()).await?;
    let mut stream = Some(stream);
    let ready = tower::service_fn(move |_: Uri| std::future::ready(stream.take().ok_or(fmt::Error)));
    let mut socks = SocksV5::new(proxy.uri.clone(), ready);
    if let Some(UserInfo { user, password }) = &proxy.user {
        socks = socks.with_auth(user.clone(), password.clone());
    }
    Ok(socks.oneshot(with_port(server)?).await?)
}

/// The server with its port, for which hyper-util's proxies would assume 443.
fn with_port(server: Uri) -> Result<Uri, BoxError> {
    if server.port().is_some() || server.scheme_str() != Some("http") {
        return Ok(server);
    }
    let host = server.host().unwrap_or_default();
    Ok(Uri::builder().scheme("http").authority(format!("{host}:80")).path_and_query("/").build()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(variables: &ProxyVariables, server: &str) -> Option<String> {
        variables.proxy_for(&Url::parse(server).expect(server)).expect("a proxy").map(|proxy| proxy.to_string())
    }

    #[test]
    fn no_proxy_is_matched_against_the_server_as_in_go() {
        // The table of golang.org/x/net/http/httpproxy (proxy_test.go, UseProxyTests), and a few cases more.
        let no = "foobar.com, .barbaz.net, *.wildcard.io, 192.168.1.1, 192.168.1.2:81, 192.168.1.3:80, 10.0.0.0/30, \
                  2001:db8::52:0:1, [2001:db8::52:0:2]:443, [2002:db8:a::45]:80, 2002:db8:a::/64, ported.com:8443, :80";
        let variables = ProxyVariables { https: "proxy:3128".into(), no: no.into(), ..ProxyVariables::default() };
        for (host, proxied) in [
            ("localhost", false),
            ("127.0.0.1", false),
            ("127.0.0.2", false),
            ("[::1]", false),
            ("[::ffff:127.0.0.1]", false),
            ("[::2]", true),
            ("barbaz.net", true),
            ("www.barbaz.net", false),
            ("foobar.com", false),
            ("FOOBAR.com", false),
            ("www.foobar.com", false),
            ("foofoobar.com", true),
            ("baz.com", true),
            ("localhost.net", true),
            ("local.localhost", true),
            ("wildcard.io", true),
            ("nested.wildcard.io", false),
            ("awildcard.io", true),
            ("192.168.1.1", false),
            ("192.168.1.2", true),
            ("192.168.1.3", true),
            ("192.168.1.4", true),
            ("10.0.0.2", false),
            ("10.0.0.4", true),
            ("[2001:db8::52:0:1]", false),
            ("[2001:db8::52:0:2]", false),
            ("[2001:db8::52:0:3]", true),
            ("[2002:db8:a::123]", false),
            ("[fe80::424b:c8be:1643:a1b6]", true),
            ("ported.com", true),
            ("ported.com:8443", false),
        ] {
            let proxy = proxied.then(|| "http://proxy:3128".to_owned());
            assert_eq!(chosen(&variables, &format!("https://{host}")), proxy, "{host}");
        }
        let all = ProxyVariables { no: "one.example, *".into(), ..variables };
        assert_eq!(chosen(&all, "https://baz.com"), None);
    }

    #[test]
    fn a_proxy_is_read_as_in_go() {
        for (text, proxy) in [
            ("", None),
            ("proxy:3128", Some("http://proxy:3128")),
            ("proxy", Some("http://proxy:80")),
            ("http://proxy", Some("http://proxy:80")),
            ("https://proxy/", Some("https://proxy:443")),
            ("socks5://proxy", Some("socks5://proxy:1080")),
            ("socks5h://user:s3cret@proxy", Some("socks5h://proxy:1080")),
            ("http://user:s3cret@[::1]:3128", Some("http://[::1]:3128")),
            ("user:s3cret@proxy:3128", Some("http://proxy:3128")),
        ] {
            let variables = ProxyVariables { https: text.into(), ..ProxyVariables::default() };
            assert_eq!(chosen(&variables, "https://api.example").as_deref(), proxy, "{text}");
            assert_eq!(chosen(&variables, "http://api.example"), None, "HTTPS_PROXY is for TLS only");
        }
        for text in
            ["ftp://user:s3cret@proxy", "http://user:s3cret@", "user:s3cret@:1", "http://user:s3cret@proxy:port"]
        {
            let variables = ProxyVariables { https: text.into(), ..ProxyVariables::default() };
            let error = variables.proxy_for(&Url::parse("https://api.example").unwrap()).unwrap_err().to_string();
            assert!(error.starts_with("HTTPS_PROXY: must be") && !error.contains("s3cret"), "{error}");
            let error = Proxy::from_kubeconfig(text).unwrap_err().to_string();
            assert!(error.starts_with("proxy-url: must be") && !error.contains("s3cret"), "{error}");
        }
    }
}
