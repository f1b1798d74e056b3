//! The client of the API server, for the configuration that kubectl would use.
//!
//! ```text
//! kubeconfig (files) -> resolve (one connection) -> credentials, exec, proxy, trust -> transport -> the client
//! ```
//!
//! kube's own loader refuses or misreads much that kubectl takes. So this module reads kubeconfigs itself, and gives kube only what both
//! understand alike.

mod credentials;
mod exec;
mod explain;
mod kubeconfig;
mod print;
mod proxy;
mod resolve;
#[cfg(test)]
mod tests;
mod transport;
mod trust;
mod url;

use std::{env, path::Path, time::Duration};

use axum::body::Body;
use hyper::{
    Response, StatusCode,
    body::{Body as HttpBody, Bytes},
    header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER},
};
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use k8s_openapi::NamespaceResourceScope;
use kube::{
    Api, Client, Config, Resource,
    api::{ApiResource, DynamicObject, ListParams, ObjectList},
    client::ConfigExt,
    config::InClusterError,
};
use serde_json::json;
use tower::{ServiceBuilder, util::option_layer};

use self::{
    credentials::{Authorization, Credential, CredentialError, Credentials, TokenFile},
    exec::ClientCertificate,
    explain::{explain_build_error, explain_credentials, one_line, shorten},
    kubeconfig::{Files, KubeconfigError},
    print::PrintRequests,
    proxy::ProxyVariables,
    resolve::{Connection, resolve, set_client_certificate},
    transport::Transport,
};
pub use self::{
    explain::explain_api_error,
    proxy::{Proxy, Route, Stream as ProxyStream},
    resolve::ConfigOverrides,
    trust::trusting,
};
use super::{clock::uptime, server_time::ServerTime};

/// How many objects one request lists.
const PAGE: u32 = 500;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The timeout to read from a connection. A watch without events ends after 290 seconds; other requests have timeouts of their own.
const READ_TIMEOUT: Duration = Duration::from_secs(310);

/// The timeout to send a request.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// The files of a pod's ServiceAccount.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// A client and its configuration.
#[derive(Clone)]
pub struct Cluster {
    /// The client; clones share connections.
    pub client: Client,
    /// The address of the API server.
    pub url: String,
    /// The namespace of the pod, or of the kubeconfig's context.
    pub namespace: String,
    /// The time of the API server, as its responses tell it.
    pub server_time: ServerTime,
}

/// Why there is no client. It has no `source`, which might quote a kubeconfig.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No configuration was found.
    #[error(
        "no kubeconfig and not in a cluster: set KUBECONFIG to a kubeconfig file, or run in a pod with a ServiceAccount"
    )]
    NoConfiguration,
    /// The kubeconfig is unusable.
    #[error(
        "the kubeconfig is unusable: {}; check it with `kubectl config view`, or point KUBECONFIG to another",
        shorten(&.0.to_string())
    )]
    Kubeconfig(KubeconfigError),
    /// The process runs in a pod without a usable ServiceAccount.
    #[error(
        "in a cluster, but without a usable ServiceAccount: {}; check that the pod does not set automountServiceAccountToken: false",
        one_line(.0)
    )]
    InCluster(InClusterError),
    /// The credential plugin of the kubeconfig, or the token of the ServiceAccount, gives no credentials.
    #[error("{}", explain_credentials(.0))]
    Credentials(CredentialError),
    /// The configuration was read, but no client can be built from it.
    #[error("cannot build a client for {url}: {}", explain_build_error(.error))]
    Build {
        /// The address of the API server.
        url: String,
        /// The error of kube.
        error: kube::Error,
    },
}

impl ClientError {
    /// Returns the name of this error in metrics, events and logs.
    pub fn category(&self) -> &'static str {
        match self {
            Self::NoConfiguration => "NoConfiguration",
            Self::Kubeconfig(_) => "BadKubeconfig",
            Self::InCluster(_) => "NoServiceAccount",
            Self::Credentials(_) | Self::Build { .. } => "ClientFailed",
        }
    }
}

/// Installs ring as the cryptography provider of the process. Dependencies may bring others, so rustls needs an explicit choice. Call it first
/// in `main`; calling it again does nothing.
pub fn install_crypto() {
    let _already_installed = rustls::crypto::ring::default_provider().install_default();
}

/// Finds the cluster of a program in it: by `KUBECONFIG`, then by the pod's ServiceAccount, then by `~/.kube/config`. It sends no request,
/// but calls the credential plugin of a kubeconfig.
///
/// # Errors
/// There is no usable configuration.
pub async fn connect() -> Result<Cluster, ClientError> {
    let files = find_files(None);
    if matches!(files, Files::Home(_)) && env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        return open(in_cluster()?, false).await;
    }
    match read(&files, &ConfigOverrides::default())? {
        Ok(connection) => open(connection, false).await,
        Err(error) => Err(error),
    }
}

/// Finds the cluster of a command as kubectl does: by the flags and the kubeconfig, and only then by the pod's ServiceAccount. It sends no
/// request, but calls the credential plugin of a kubeconfig.
///
/// # Errors
/// There is no usable configuration.
pub async fn connect_as(flags: &ConfigOverrides) -> Result<Cluster, ClientError> {
    let files = find_files(flags.kubeconfig.as_deref());
    let connection = match read(&files, flags)? {
        Ok(connection) => connection,
        Err(_) if is_pod() => {
            let mut connection = in_cluster()?;
            resolve::impersonate_by_flags(&mut connection.config, flags).map_err(ClientError::Kubeconfig)?;
            connection
        }
        Err(error) => return Err(error),
    };
    open(connection, flags.print_requests).await
}

/// Returns the namespace of the context that [`connect_as`] uses, if it has one. It only reads files, and calls no credential plugin.
///
/// # Errors
/// The kubeconfig cannot be used.
pub fn context_namespace(flags: &ConfigOverrides) -> Result<Option<String>, ClientError> {
    match read(&find_files(flags.kubeconfig.as_deref()), flags)? {
        Ok(connection) => Ok(connection.namespace),
        Err(_) if is_pod() => Ok(pod_namespace()),
        Err(ClientError::NoConfiguration) => Ok(None),
        Err(error) => Err(error),
    }
}

fn find_files(flag: Option<&Path>) -> Files {
    Files::find(flag, env::var_os("KUBECONFIG").as_deref(), env::home_dir().as_deref())
}

/// Reads the files. The inner error says that they, and the flags, name no server.
fn read(files: &Files, flags: &ConfigOverrides) -> Result<Result<Connection, ClientError>, ClientError> {
    let (kubeconfig, missing) = files.read().map_err(ClientError::Kubeconfig)?;
    let found = resolve(kubeconfig, flags, &ProxyVariables::from_env()).map_err(ClientError::Kubeconfig)?;
    Ok(found.ok_or_else(|| match (files, missing.first()) {
        (Files::Home(path), missing) if path.is_none() || missing.is_some() => ClientError::NoConfiguration,
        (_, Some(path)) => {
            ClientError::Kubeconfig(KubeconfigError::new(format!("cannot read {}: it does not exist", path.display())))
        }
        _ => ClientError::Kubeconfig(KubeconfigError::new(
            "it has no current context with a cluster; choose one with `kubectl config use-context`",
        )),
    }))
}

/// Whether a program may use the pod's ServiceAccount, as in client-go.
fn is_pod() -> bool {
    let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    let token = Path::new(SERVICE_ACCOUNT).join("token");
    is_set("KUBERNETES_SERVICE_HOST") && is_set("KUBERNETES_SERVICE_PORT") && token.is_file()
}

fn pod_namespace() -> Option<String> {
    let in_file = || std::fs::read_to_string(Path::new(SERVICE_ACCOUNT).join("namespace")).ok();
    let named = env::var("POD_NAMESPACE").ok().filter(|name| !name.is_empty()).or_else(in_file)?;
    Some(named.trim().to_owned()).filter(|name| !name.is_empty())
}

/// The connection of a pod. It uses no proxy.
fn in_cluster() -> Result<Connection, ClientError> {
    let mut config = Config::incluster().map_err(ClientError::InCluster)?;
    let authorization = match config.auth_info.token_file.take() {
        Some(path) => TokenFile::open(path.into(), None, uptime())
            .map(Authorization::File)
            .map_err(|reason| ClientError::Credentials(CredentialError::new(reason)))?,
        None => Authorization::None,
    };
    Ok(Connection { config, authorization, proxy: None, context: None, namespace: None })
}

/// Gets the credentials, and builds the client.
async fn open(connection: Connection, print_requests: bool) -> Result<Cluster, ClientError> {
    let Connection { mut config, authorization, proxy, context, namespace } = connection;
    let credentials = Credentials::obtain(authorization).await.map_err(ClientError::Credentials)?;
    let credential = credentials.current().await.map_err(ClientError::Credentials)?;
    if namespace.is_none() && is_pod() {
        // As in kubectl, also for a kubeconfig without a namespace.
        config.default_namespace = pod_namespace().unwrap_or(config.default_namespace);
    }
    build(config, Setup { credentials, credential, proxy, context, print_requests })
}

/// Returns the API of one namespace, or of all.
pub fn scoped<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// Returns the API of one namespace, or of all, for a resource that is not known by its type.
pub fn scoped_dynamic(client: &Client, namespace: Option<&str>, resource: &ApiResource) -> Api<DynamicObject> {
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
        None => Api::all_with(client.clone(), resource),
    }
}

/// Lists objects, page by page. `list` sends the request for one page.
///
/// # Errors
/// The first error of `list`.
pub async fn list_pages<K, E, F>(params: ListParams, list: impl Fn(ListParams) -> F) -> Result<Vec<K>, E>
where
    K: Clone,
    F: Future<Output = Result<ObjectList<K>, E>>,
{
    let mut params = params.limit(PAGE);
    let mut objects = Vec::new();
    loop {
        let page = list(params.clone()).await?;
        objects.extend(page.items);
        match page.metadata.continue_.filter(|next| !next.is_empty()) {
            Some(next) => params = params.continue_token(&next),
            None => return Ok(objects),
        }
    }
}

/// Builds a client with this module's timeouts, for a configuration without bearer token, password, credential plugin and proxy.
///
/// # Errors
/// The configuration's certificates or keys cannot be used.
pub fn client(config: Config) -> Result<Cluster, ClientError> {
    build(config, Setup::default())
}

/// What a client has besides kube's configuration.
#[derive(Default)]
struct Setup {
    credentials: Credentials,
    /// The current one.
    credential: Credential,
    proxy: Option<Proxy>,
    context: Option<String>,
    print_requests: bool,
}

fn build(config: Config, setup: Setup) -> Result<Cluster, ClientError> {
    let Setup { credentials, credential, proxy, context, print_requests } = setup;
    let url = config.cluster_url.to_string().trim_end_matches('/').to_owned();
    let failed = |error| ClientError::Build { url: url.clone(), error };
    let headers = config.extra_headers_layer().map_err(failed)?;
    let place = match &context {
        Some(context) => format!("context {context:?}, server {url}"),
        None => format!("server {url}"),
    };
    let (base_uri, namespace) = (config.base_uri_layer(), config.default_namespace.clone());
    let transport = Transport::new(credentials, credential, move |certificate| match certificate {
        None => connector(&config, proxy.clone()),
        Some(ClientCertificate { certificate, key }) => {
            let mut config = config.clone();
            set_client_certificate(&mut config, certificate.as_bytes(), key.as_bytes());
            connector(&config, proxy.clone())
        }
    });
    let transport = transport.map_err(failed)?;
    let server_time = ServerTime::default();
    let measured = server_time.clone();
    // The first layer sees a request first and its response last.
    let service = ServiceBuilder::new()
        .map_response(move |response| explain_response(response, &place))
        .map_future(move |response| measured.clone().observe(response))
        .layer(base_uri)
        .layer(option_layer(print_requests.then_some(PrintRequests)))
        .layer(headers)
        .service(transport);
    Ok(Cluster { client: Client::new(service, namespace.clone()), url, namespace, server_time })
}

/// Connections with this module's timeouts. Callers retry by themselves, each with its own backoff.
fn connector(config: &Config, proxy: Option<Proxy>) -> kube::Result<impl Connect + Clone + Send + Sync + use<>> {
    let tls = trust::client_config(config)?;
    let name = config.tls_server_name.clone().map(rustls::pki_types::ServerName::try_from).transpose();
    let name = name.map_err(|error| kube::Error::Service(error.into()))?;
    let with_tls = || {
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls.clone()).https_or_http();
        match name.clone() {
            Some(name) => builder.with_server_name_resolver(FixedServerNameResolver::new(name)).enable_http1(),
            None => builder.enable_http1(),
        }
    };
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    let to_proxy: HttpsConnector<HttpConnector> = with_tls().wrap_connector(tcp.clone());
    let route = Route::new(proxy, tcp, to_proxy);
    let https = with_tls().wrap_connector(tower::service_fn(move |server| route.clone().connect(server)));
    let mut connector = TimeoutConnector::new(https);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector.set_read_timeout(Some(READ_TIMEOUT));
    connector.set_write_timeout(Some(WRITE_TIMEOUT));
    // Otherwise the idle time of a pooled connection would count.
    connector.set_reset_reader_on_write(true);
    Ok(connector)
}

/// Turns a response that kube would not explain into a JSON `Status`:
///
/// - 401, which does not say whose credentials the API server refuses, and where.
/// - A busy API server's, because kube drops the header `Retry-After`
///   (<https://kubernetes.io/docs/concepts/cluster-administration/flow-control/>).
fn explain_response<B>(response: Response<B>, place: &str) -> Response<Body>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    let code = response.status();
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    if code == StatusCode::UNAUTHORIZED {
        return status_response(code, &format!("Unauthorized: {place}"), 0);
    }
    let busy = matches!(code, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    let is_status = header(CONTENT_TYPE).is_some_and(|content| content.starts_with("application/json"));
    match header(RETRY_AFTER).and_then(|seconds| seconds.parse::<u32>().ok()) {
        Some(seconds) if busy && !is_status => status_response(code, "the API server is busy", seconds),
        _ => response.map(Body::new),
    }
}

fn status_response(code: StatusCode, message: &str, retry_after: u32) -> Response<Body> {
    let status = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "message": message,
        "reason": code.canonical_reason().unwrap_or_default().replace(' ', ""),
        "details": {"retryAfterSeconds": retry_after},
        "code": code.as_u16(),
    });
    let mut answer = Response::new(Body::from(status.to_string().into_bytes()));
    *answer.status_mut() = code;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}
