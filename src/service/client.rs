//! The client of the API server, and error messages that say what to do.

use std::{env, error::Error as StdError, io, path::Path, time::Duration};

use axum::body::Body;
use hyper::{
    Response, StatusCode,
    body::{Body as HttpBody, Bytes},
    header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER},
};
use kube::{
    Client, Config,
    client::ClientBuilder,
    config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError},
    core::Status,
};
use serde_json::json;
use tower::util::MapResponseLayer;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The timeout to read from a connection. A watch without events ends after 290 seconds; other requests have timeouts of their own.
const READ_TIMEOUT: Duration = Duration::from_secs(310);

/// The timeout to send a request.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// A client and its configuration.
#[derive(Clone)]
pub struct Cluster {
    /// The client; clones share connections.
    pub client: Client,
    /// The address of the API server.
    pub url: String,
    /// The namespace of the pod, or of the kubeconfig's context.
    pub namespace: String,
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
        explain_kubeconfig(.0)
    )]
    Kubeconfig(KubeconfigError),
    /// The process runs in a pod without a usable ServiceAccount.
    #[error(
        "in a cluster, but without a usable ServiceAccount: {}; check that the pod does not set automountServiceAccountToken: false",
        one_line(.0)
    )]
    InCluster(InClusterError),
    /// The configuration was read, but no client can be built from it.
    #[error("cannot build a client for {url}: {}", explain_api_error(.error))]
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
            Self::Build { .. } => "ClientFailed",
        }
    }
}

/// Installs ring as the cryptography provider of the process. Dependencies may bring others, so rustls needs an explicit choice. Call it first
/// in `main`; calling it again does nothing.
pub fn install_crypto() {
    let _already_installed = rustls::crypto::ring::default_provider().install_default();
}

/// Finds the cluster by `KUBECONFIG`, then by the pod's ServiceAccount, then by `~/.kube/config`. It only reads files and sends no request.
///
/// # Errors
/// There is no usable configuration.
pub async fn connect() -> Result<Cluster, ClientError> {
    client(find_config().await?)
}

/// Finds the cluster by the given kubeconfig and context, as `kubectl` does.
///
/// # Errors
/// There is no usable configuration.
pub async fn connect_as(file: Option<&Path>, context: Option<&str>) -> Result<Cluster, ClientError> {
    let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
    let config = match (file, context) {
        (None, None) => find_config().await?,
        (None, Some(_)) => Config::from_kubeconfig(&options).await.map_err(ClientError::Kubeconfig)?,
        (Some(file), _) => {
            let kubeconfig = Kubeconfig::read_from(file).map_err(ClientError::Kubeconfig)?;
            Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(ClientError::Kubeconfig)?
        }
    };
    client(config)
}

/// Builds a client with this module's timeouts.
///
/// # Errors
/// The configuration's certificates or keys cannot be used.
pub fn client(mut config: Config) -> Result<Cluster, ClientError> {
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    config.write_timeout = Some(WRITE_TIMEOUT);
    // Callers retry by themselves, each with its own backoff.
    config.default_retry = false;
    // Otherwise the idle time of a pooled connection would count.
    config.reset_reader_on_write = true;
    let url = config.cluster_url.to_string().trim_end_matches('/').to_owned();
    let namespace = config.default_namespace.clone();
    let client = ClientBuilder::try_from(config)
        .map_err(|error| ClientError::Build { url: url.clone(), error })?
        .with_layer(&MapResponseLayer::new(keep_retry_after))
        .build();
    Ok(Cluster { client, url, namespace })
}

/// Turns the `Retry-After` header of a busy API server
/// (<https://kubernetes.io/docs/concepts/cluster-administration/flow-control/>) into a JSON `Status`, because kube drops the header.
fn keep_retry_after<B>(response: Response<B>) -> Response<Body>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    let busy = matches!(response.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    let is_status = header(CONTENT_TYPE).is_some_and(|content| content.starts_with("application/json"));
    match header(RETRY_AFTER).and_then(|seconds| seconds.parse::<u32>().ok()) {
        Some(seconds) if busy && !is_status => {
            let code = response.status();
            let status = json!({
                "kind": "Status",
                "apiVersion": "v1",
                "status": "Failure",
                "message": "the API server is busy",
                "reason": code.canonical_reason().unwrap_or_default().replace(' ', ""),
                "details": {"retryAfterSeconds": seconds},
                "code": code.as_u16(),
            });
            let mut answer = Response::new(Body::from(status.to_string().into_bytes()));
            *answer.status_mut() = code;
            answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            answer
        }
        _ => response.map(Body::new),
    }
}

async fn find_config() -> Result<Config, ClientError> {
    let named = env::var_os("KUBECONFIG").is_some_and(|paths| !paths.is_empty());
    if !named && env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        return Config::incluster().map_err(ClientError::InCluster);
    }
    match Config::from_kubeconfig(&KubeConfigOptions::default()).await {
        Err(KubeconfigError::FindPath) if !named => Err(ClientError::NoConfiguration),
        Err(KubeconfigError::ReadConfig(error, _)) if !named && error.kind() == io::ErrorKind::NotFound => {
            Err(ClientError::NoConfiguration)
        }
        config => config.map_err(ClientError::Kubeconfig),
    }
}

/// Explains an error in one line: what went wrong, and what to do.
pub fn explain_api_error(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => explain_status(status),
        kube::Error::Auth(error) => format!(
            "no credentials for the API server: {}; try the same with kubectl, or fix the user in the kubeconfig",
            one_line(error)
        ),
        _ => explain_transport(error),
    }
}

fn explain_status(status: &Status) -> String {
    let message = shorten(&status.message);
    match status.code {
        401 => format!(
            "the API server rejects our credentials (401 {message}): the token or certificate is missing, wrong or expired; renew \
             the kubeconfig's user, or restart the pod for a new ServiceAccount token"
        ),
        403 => match RbacRefusal::parse(&status.message) {
            Some(denied) => denied.explain(),
            None => format!("the API server refused it (403): {message}"),
        },
        404 if status.details.as_ref().is_none_or(|details| details.name.is_empty()) => format!(
            "the API server does not know this resource (404 {message}): is its CustomResourceDefinition installed, and \
             is this the right cluster?"
        ),
        429 => format!("the API server is busy (429 {message}); try again later"),
        code @ 500.. => {
            format!("the API server failed ({code} {message}); try again later, or see its log")
        }
        code => format!("the API server refused it ({code}): {message}"),
    }
}

/// The parts of an RBAC refusal, as in: `leases.coordination.k8s.io "a" is forbidden: User "u" cannot get resource
/// "leases" in API group "coordination.k8s.io" in the namespace "n"`.
struct RbacRefusal<'m> {
    user: &'m str,
    verb: &'m str,
    resource: &'m str,
    group: &'m str,
    namespace: Option<&'m str>,
}

impl<'m> RbacRefusal<'m> {
    fn parse(message: &'m str) -> Option<Self> {
        let (user, rest) = message.split_once("User \"")?.1.split_once("\" cannot ")?;
        let (verb, rest) = rest.split_once(" resource \"")?;
        let (resource, rest) = rest.split_once("\" in API group \"")?;
        let (group, rest) = rest.split_once('"')?;
        let namespace = rest.strip_prefix(" in the namespace \"").and_then(|rest| rest.split('"').next());
        Some(Self { user, verb, resource, group, namespace })
    }

    fn explain(&self) -> String {
        let Self { user, verb, resource, group, namespace } = self;
        // `kubectl auth can-i` takes a subresource as a flag, RBAC rules write it with a slash.
        let (plain, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let dot = if group.is_empty() { "" } else { "." };
        let flag = if subresource.is_empty() { String::new() } else { format!(" --subresource={subresource}") };
        let (scope, role, flags) = match namespace {
            Some(namespace) => {
                (format!("in namespace {namespace}"), "Role or ClusterRole", format!(" --namespace={namespace}"))
            }
            None => ("in the whole cluster".to_owned(), "ClusterRole", " --all-namespaces".to_owned()),
        };
        format!(
            "no permission: {user} may not {verb} {resource}{dot}{group} {scope}; allow it with a {role} bound to that \
             user, and check with: kubectl auth can-i {verb} {plain}{dot}{group}{flag}{flags} --as={user}"
        )
    }
}

fn explain_transport(error: &(dyn StdError + 'static)) -> String {
    for cause in causes(error) {
        if let Some(error) = cause.downcast_ref::<rustls::Error>() {
            return format!(
                "no secure connection to the API server: {error}; do the kubeconfig's certificate-authority and server \
                 name belong to this API server?"
            );
        }
        let Some(io) = cause.downcast_ref::<io::Error>() else { continue };
        match io.kind() {
            io::ErrorKind::ConnectionRefused => {
                return format!(
                    "no API server listens at this address: {io}; is it running, and is the address right?"
                );
            }
            io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                return format!("the API server does not answer: {io}; is its address right, and the network open?");
            }
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => {
                return format!("the API server closed the connection: {io}; try again later");
            }
            _ => {}
        }
        if io.to_string().starts_with("failed to lookup address") {
            return format!("the API server's name cannot be resolved: {io}; is the address right?");
        }
    }
    one_line(error)
}

fn explain_kubeconfig(error: &KubeconfigError) -> String {
    match error {
        KubeconfigError::ReadConfig(error, path) => format!("cannot read {}: {error}", path.display()),
        // Further lines quote the file, which may contain a token.
        KubeconfigError::Parse(error) => format!("not YAML: {}", error.to_string().lines().next().unwrap_or_default()),
        error => one_line(error),
    }
}

/// The error and its causes. `io::Error::source` skips the wrapped error, which may be that of rustls.
fn causes<'e>(error: &'e (dyn StdError + 'static)) -> impl Iterator<Item = &'e (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| match error.downcast_ref::<io::Error>() {
        Some(io) => io.get_ref().map(|inner| inner as &(dyn StdError + 'static)),
        None => error.source(),
    })
}

/// The error and its causes in one line, without repetitions.
fn one_line(error: &(dyn StdError + 'static)) -> String {
    let mut line = String::new();
    for cause in causes(error) {
        let text = cause.to_string();
        if line.is_empty() {
            line = text;
        } else if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
    }
    shorten(&line)
}

fn shorten(text: &str) -> String {
    const MOST: usize = 500;
    let words: Vec<_> = text.split_whitespace().collect();
    let line = words.join(" ");
    match line.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(code: u16, message: &str) -> kube::Error {
        kube::Error::Api(Status::failure(message, "").with_code(code).boxed())
    }

    #[tokio::test]
    async fn retry_after_is_kept() {
        let answer = |code: u16, content: &str, body: &str| {
            let response = Response::builder().status(code).header("Retry-After", "7").header("Content-Type", content);
            keep_retry_after(response.body(Body::from(body.to_owned())).expect("a response"))
        };
        let read = async |response: Response<Body>| {
            let bytes = axum::body::to_bytes(response.into_body(), 10_000).await.expect("a body");
            String::from_utf8(bytes.to_vec()).expect("text")
        };
        let busy = answer(429, "text/plain; charset=utf-8", "Too many requests, please try again later.");
        assert_eq!(busy.status(), 429);
        let status: Status = serde_json::from_str(&read(busy).await).expect("a Status");
        assert_eq!(status.details.expect("details").retry_after_seconds, 7);
        assert_eq!((status.code, status.reason.as_str()), (429, "TooManyRequests"));
        assert_eq!(read(answer(429, "application/json", "{}")).await, "{}");
        assert_eq!(read(answer(200, "text/plain", "fine")).await, "fine");
    }

    #[test]
    fn a_refusal_names_user_verb_resource_and_check() {
        for (message, line) in [
            (
                r#"leases.coordination.k8s.io "a" is forbidden: User "system:serviceaccount:ops:pat" cannot get resource "leases" in API group "coordination.k8s.io" in the namespace "ops""#,
                "no permission: system:serviceaccount:ops:pat may not get leases.coordination.k8s.io in namespace ops; \
                 allow it with a Role or ClusterRole bound to that user, and check with: kubectl auth can-i get \
                 leases.coordination.k8s.io --namespace=ops --as=system:serviceaccount:ops:pat",
            ),
            (
                r#"secrets is forbidden: User "u" cannot list resource "secrets" in API group "" at the cluster scope: RBAC: [clusterrole "x" not found]"#,
                "no permission: u may not list secrets in the whole cluster; allow it with a ClusterRole bound to that \
                 user, and check with: kubectl auth can-i list secrets --all-namespaces --as=u",
            ),
            (
                r#"pats.example.org "a" is forbidden: User "u" cannot patch resource "pats/status" in API group "example.org" in the namespace "n""#,
                "no permission: u may not patch pats/status.example.org in namespace n; allow it with a Role or \
                 ClusterRole bound to that user, and check with: kubectl auth can-i patch pats.example.org \
                 --subresource=status --namespace=n --as=u",
            ),
            (
                "secrets \"a\" is forbidden: exceeded quota: q",
                "the API server refused it (403): secrets \"a\" is forbidden: exceeded quota: q",
            ),
        ] {
            assert_eq!(explain_api_error(&api(403, message)), line);
        }
    }

    #[test]
    fn every_explanation_is_one_short_line() {
        for code in [400, 401, 403, 404, 409, 410, 422, 429, 500, 503, 504] {
            let line = explain_api_error(&api(code, &"first\nsecond ".repeat(1_000)));
            assert!(line.contains(&code.to_string()) && !line.contains('\n') && line.len() < 1_000, "{line}");
        }
    }

    #[tokio::test]
    async fn an_unreachable_api_server_is_explained() {
        install_crypto();
        let config = Config::new("http://127.0.0.1:1".parse().unwrap());
        let Cluster { client, url, namespace } = client(config).unwrap();
        assert_eq!((&*url, &*namespace), ("http://127.0.0.1:1", "default"));
        let line = explain_api_error(&client.apiserver_version().await.unwrap_err());
        assert!(line.starts_with("no API server listens at this address: Connection refused"), "{line}");
    }

    #[test]
    fn an_invalid_kubeconfig_is_not_printed() {
        let error = kube::config::Kubeconfig::from_yaml("users: [{user: {token: s3cret}}").unwrap_err();
        let error = ClientError::Kubeconfig(error);
        assert!(error.source().is_none());
        let line = error.to_string();
        assert!(line.contains("not YAML: ") && !line.contains("s3cret") && !line.contains('\n'), "{line}");
    }

    #[test]
    fn a_rustls_error_is_found_inside_an_io_error() {
        let tls = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let error = kube::Error::Service(Box::new(io::Error::other(tls)));
        let line = explain_api_error(&error);
        assert!(line.starts_with("no secure connection to the API server: invalid peer certificate"), "{line}");
    }
}
