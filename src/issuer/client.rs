//! The HTTP client that all drivers share: TLS, proxies, timeouts, limits, and errors.
//!
//! hyper-util's client, because hyper-rustls, proxies and the trust in private authorities are here already for the API server. reqwest would
//! add some 26 crates, and connects to addresses in URLs without asking its resolver.

#[cfg(test)]
mod tests;

use std::{
    error::Error as StdError,
    io,
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Uri,
    body::{Body as _, Bytes, Incoming},
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, USER_AGENT},
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_timeout::TimeoutConnector;
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, pem::PemObject},
};
use serde::{Serialize, de::DeserializeOwned};
use tower::{BoxError, ServiceExt, util::BoxCloneSyncService};
use zeroize::{Zeroize, Zeroizing};

use super::{
    CallBudget, CallError, ConfigError, Endpoint, PlainToken,
    address::{AddressPolicy, AddressRefused, Resolver},
    budget::MAX_PAUSE,
    error,
};
use crate::service::client::{Proxy, ProxyStream as Stream, Route, trusting};

/// The maximum size of a response.
pub const MAX_BODY: usize = 1024 * 1024;

/// The time limit of a call, with its response.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// The time limit of a connection with TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection waits for the next call: less than the 5 seconds after which Node's servers close theirs, so that a call seldom meets
/// a connection that is about to be closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

const AGENT: &str = concat!("pat-operator/", env!("CARGO_PKG_VERSION"));

/// Media type of JSON.
const JSON: &str = "application/json";

/// Media type of a form.
const FORM: &str = "application/x-www-form-urlencoded";

/// What is not encoded in a segment of a path: the unreserved characters of RFC 3986.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Numbers in `RateLimit-Reset` from here on are seconds since 1970 (GitLab), smaller ones are seconds from now (the IETF draft).
const UNIX_TIMES: u64 = 1_000_000_000;

type HttpClient = legacy::Client<TimeoutConnector<HttpsConnector<Dialer>>, Full<Bytes>>;

/// The client of one issuer.
pub struct IssuerClient {
    http: HttpClient,
    base: String,
    budget: Arc<CallBudget>,
    /// What no message may hold.
    secrets: Vec<PlainToken>,
    limit: Duration,
}

/// A request.
pub struct Call {
    method: Method,
    path: String,
    authorization: Option<HeaderValue>,
    content: Option<(&'static str, Zeroizing<Vec<u8>>)>,
    secrets: Vec<PlainToken>,
    waits: bool,
}

/// A successful response.
pub struct Answer {
    /// The status, from 200 to 299.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    body: Zeroizing<Vec<u8>>,
}

/// Joins segments to a path, and encodes each of them.
///
/// # Errors
/// A segment is empty, `.` or `..`, which would name another path.
pub fn path(segments: &[&str]) -> Result<String, CallError> {
    if segments.iter().any(|segment| matches!(*segment, "" | "." | "..")) {
        return Err(CallError::Unsupported("an empty name, `.` or `..` cannot be part of a path"));
    }
    Ok(segments.iter().map(|segment| format!("/{}", utf8_percent_encode(segment, SEGMENT))).collect())
}

/// Adds a query to a path.
pub fn with_query(path: &str, fields: &[(&str, &str)]) -> String {
    format!("{path}?{}", encoded(fields))
}

fn encoded(fields: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
}

/// Makes the header of a bearer token.
///
/// # Errors
/// The token is empty, or has other than printable ASCII characters.
pub fn bearer(token: &PlainToken) -> Result<HeaderValue, ConfigError> {
    if token.expose().is_empty() {
        return Err(ConfigError::CredentialText("token"));
    }
    sensitive(format!("Bearer {}", token.expose()), "token")
}

/// Makes the header of Basic authentication (RFC 7617), and its base64 text, which no message may hold.
///
/// # Errors
/// The user has a `:`.
pub fn basic(user: &str, password: &PlainToken) -> Result<(HeaderValue, PlainToken), ConfigError> {
    if user.is_empty() || user.contains(':') {
        return Err(ConfigError::CredentialText("user"));
    }
    let pair = Zeroizing::new(format!("{user}:{}", password.expose()));
    let encoded = PlainToken::new(STANDARD.encode(pair.as_bytes()));
    Ok((sensitive(format!("Basic {}", encoded.expose()), "password")?, encoded))
}

/// Makes a header that is not shown by `Debug`, and zeroized when its last clone is dropped.
fn sensitive(text: String, name: &'static str) -> Result<HeaderValue, ConfigError> {
    let bytes = Bytes::from_owner(Zeroizing::new(text.into_bytes()));
    let mut header = HeaderValue::from_maybe_shared(bytes).map_err(|_| ConfigError::CredentialText(name))?;
    header.set_sensitive(true);
    Ok(header)
}

impl Call {
    /// A call of this path, which may have a query.
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), authorization: None, content: None, secrets: Vec::new(), waits: false }
    }

    /// A read.
    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    /// Authenticates the call.
    pub fn authorized(self, authorization: &HeaderValue) -> Self {
        Self { authorization: Some(authorization.clone()), ..self }
    }

    /// Sends JSON.
    pub fn json(self, body: &impl Serialize) -> Self {
        let text = serde_json::to_vec(body).expect("maps with text keys only");
        Self { content: Some((JSON, Zeroizing::new(text))), ..self }
    }

    /// Sends a form.
    pub fn form(self, fields: &[(&str, &str)]) -> Self {
        Self { content: Some((FORM, Zeroizing::new(encoded(fields).into_bytes()))), ..self }
    }

    /// Adds a secret that no message may hold.
    pub fn hiding(mut self, secret: &PlainToken) -> Self {
        self.secrets.push(secret.clone());
        self
    }

    /// Waits for the budget instead of failing, for all pages but the first: a list of more pages than the budget would never end.
    pub fn waiting(self) -> Self {
        Self { waits: true, ..self }
    }
}

impl Answer {
    /// Reads the body.
    ///
    /// # Errors
    /// It is not of this form. The error quotes nothing of the body, which may hold a token.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, CallError> {
        serde_json::from_slice(&self.body).map_err(|error| {
            let kind = match error.classify() {
                serde_json::error::Category::Data => "a field is missing or of another type",
                _ => "it is not JSON",
            };
            CallError::Malformed { problem: format!("{kind} (line {}, column {})", error.line(), error.column()) }
        })
    }

    /// Returns the size of the body.
    pub fn size(&self) -> usize {
        self.body.len()
    }

    /// Returns a header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

impl IssuerClient {
    /// Makes the client of an endpoint. `secrets` may not be in any message.
    ///
    /// # Errors
    /// The URL or the certificate authorities cannot be used.
    pub fn new(endpoint: &Endpoint, secrets: Vec<PlainToken>) -> Result<Self, ConfigError> {
        let base = base_url(endpoint)?;
        let mut client = legacy::Client::builder(TokioExecutor::new());
        client.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE_TIMEOUT);
        let http = client.build(connector(endpoint)?);
        Ok(Self { http, base, budget: endpoint.budget.clone(), secrets, limit: CALL_TIMEOUT })
    }

    /// Makes a call. Any status but 2xx is an error.
    ///
    /// # Errors
    /// There is no successful response.
    pub async fn send(&self, call: Call) -> Result<Answer, CallError> {
        let _permit = loop {
            match self.budget.take() {
                Ok(permit) => break permit,
                Err(wait) if call.waits => tokio::time::sleep(wait).await,
                Err(retry_after) => return Err(CallError::OverBudget { retry_after }),
            }
        };
        let secrets: Vec<_> = call.secrets.iter().chain(&self.secrets).cloned().collect();
        let sent = async {
            let response = self.http.request(self.request(call)?).await.map_err(|error| failed(&error))?;
            let (parts, body) = response.into_parts();
            Ok(Response::from_parts(parts, read(body).await))
        };
        let response = tokio::time::timeout(self.limit, sent).await.map_err(|_| CallError::TimedOut)??;
        let (parts, body) = response.into_parts();
        self.heed_limits(parts.status, &parts.headers);
        if parts.status.is_success() {
            return Ok(Answer { status: parts.status, headers: parts.headers, body: body? });
        }
        // A status says enough, also without its body.
        let body = body.unwrap_or_default();
        let secrets: Vec<_> = secrets.iter().map(PlainToken::expose).collect();
        Err(refusal(parts.status, &parts.headers, error::message(&body, &secrets)))
    }

    /// Makes a call that deletes. That there is nothing to delete is no error.
    ///
    /// # Errors
    /// There is no successful response.
    pub async fn delete(&self, call: Call) -> Result<(), CallError> {
        match self.send(call).await {
            Ok(_) | Err(CallError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn request(&self, call: Call) -> Result<Request<Full<Bytes>>, CallError> {
        let uri: Uri = format!("{}{}", self.base, call.path)
            .parse()
            .map_err(|_| CallError::Unsupported("the path of the request is not a valid URL"))?;
        let mut request = Request::new(Full::default());
        (*request.method_mut(), *request.uri_mut()) = (call.method, uri);
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        headers.insert(ACCEPT, HeaderValue::from_static(JSON));
        if let Some(authorization) = call.authorization {
            headers.insert(AUTHORIZATION, authorization);
        }
        if let Some((content_type, body)) = call.content {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            *request.body_mut() = Full::new(Bytes::from_owner(body));
        }
        Ok(request)
    }

    /// Pauses all calls if the server says that no more are left.
    fn heed_limits(&self, status: StatusCode, headers: &HeaderMap) {
        let is_limited = status == StatusCode::TOO_MANY_REQUESTS
            || (status == StatusCode::SERVICE_UNAVAILABLE && headers.contains_key(RETRY_AFTER));
        let none_left = headers.get("ratelimit-remaining").is_some_and(|left| left == "0");
        if is_limited || none_left {
            self.budget.pause(retry_after(headers).unwrap_or(Duration::from_secs(1)));
        }
    }
}

/// Checks the URL, and returns it without a `/` at its end.
fn base_url(endpoint: &Endpoint) -> Result<String, ConfigError> {
    let uri: Uri = endpoint.url.parse().map_err(|_| ConfigError::Url)?;
    let (host, authority) = uri.host().zip(uri.authority()).ok_or(ConfigError::Url)?;
    // The parser drops a fragment, which may be a mistake.
    if authority.as_str().contains('@') || uri.query().is_some() || endpoint.url.contains('#') || host.is_empty() {
        return Err(ConfigError::Url);
    }
    match uri.scheme_str() {
        Some("https") => {}
        Some("http") if endpoint.http_hosts.iter().any(|excepted| bare(excepted).eq_ignore_ascii_case(bare(host))) => {}
        Some("http") => return Err(ConfigError::Http),
        _ => return Err(ConfigError::Url),
    }
    if literal(&uri).is_some_and(|address| endpoint.proxy.is_none() && !endpoint.addresses.allows(address)) {
        return Err(ConfigError::Address);
    }
    Ok(endpoint.url.trim_end_matches('/').to_owned())
}

/// A host without the brackets of an IPv6 address.
fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// The host of a URL if it is an address. Connectors do not resolve these.
fn literal(uri: &Uri) -> Option<IpAddr> {
    bare(uri.host()?).parse().ok()
}

/// Connects to the endpoint, or to its proxy. The type of the stream is the same for both.
type Dialer = BoxCloneSyncService<Uri, Stream, BoxError>;

fn connector(endpoint: &Endpoint) -> Result<TimeoutConnector<HttpsConnector<Dialer>>, ConfigError> {
    let tls = tls(endpoint)?;
    let https = HttpsConnectorBuilder::new().with_tls_config(tls.clone()).https_or_http().enable_http1();
    let dialer = match &endpoint.proxy {
        Some(proxy) => through_proxy(proxy.clone(), tls),
        None => direct(endpoint.addresses.clone()),
    };
    let mut connector = TimeoutConnector::new(https.wrap_connector(dialer));
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    Ok(connector)
}

fn tls(endpoint: &Endpoint) -> Result<ClientConfig, ConfigError> {
    let Some(bundle) = &endpoint.ca_bundle else { return trusting(None).map_err(|_| ConfigError::TrustStore) };
    let roots: Vec<_> = CertificateDer::pem_slice_iter(bundle.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_| ConfigError::CaBundle)?;
    if roots.is_empty() {
        return Err(ConfigError::CaBundle);
    }
    trusting(Some(roots)).map_err(|_| ConfigError::CaBundle)
}

fn through_proxy(proxy: Proxy, tls: ClientConfig) -> Dialer {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    let to_proxy = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
    let route = Route::new(Some(proxy), tcp.clone(), to_proxy.wrap_connector(tcp));
    BoxCloneSyncService::new(tower::service_fn(move |server| route.clone().connect(server)))
}

fn direct(policy: AddressPolicy) -> Dialer {
    let mut tcp = HttpConnector::new_with_resolver(Resolver { policy: policy.clone() });
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    BoxCloneSyncService::new(tower::service_fn(move |server: Uri| {
        let (tcp, is_refused) = (tcp.clone(), literal(&server).is_some_and(|address| !policy.allows(address)));
        async move {
            if is_refused {
                return Err(BoxError::from(AddressRefused));
            }
            Ok(Stream::from(tcp.oneshot(server).await?))
        }
    }))
}

/// Reads a body up to [`MAX_BODY`], and zeroizes the parts that it arrived in.
async fn read(mut body: Incoming) -> Result<Zeroizing<Vec<u8>>, CallError> {
    if body.size_hint().lower() > MAX_BODY as u64 {
        return Err(CallError::TooLarge);
    }
    let (mut parts, mut length) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let Ok(part) = frame.map_err(|error| failed_later(&error))?.into_data() else { continue };
        length += part.len();
        if length > MAX_BODY {
            return Err(CallError::TooLarge);
        }
        parts.push(part);
    }
    // Allocated once: a vector that grows leaves copies behind.
    let mut whole = Zeroizing::new(Vec::with_capacity(length));
    for part in parts {
        whole.extend_from_slice(&part);
        if let Ok(mut part) = part.try_into_mut() {
            part.zeroize();
        }
    }
    Ok(whole)
}

/// Explains an error without a response.
fn failed(error: &legacy::Error) -> CallError {
    let first: &(dyn StdError + 'static) = error;
    let causes = || std::iter::successors(Some(first), |&cause| cause.source());
    if causes().any(refuses_address) {
        return CallError::AddressRefused;
    }
    if error.is_connect() {
        let reason = causes().last().map(ToString::to_string).unwrap_or_default();
        return CallError::Unreachable { reason: error::clean(&reason, &[]) };
    }
    failed_later(error)
}

/// Whether this is [`AddressRefused`], also inside an I/O error, which hides it from `source`.
fn refuses_address(error: &(dyn StdError + 'static)) -> bool {
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    error.is::<AddressRefused>() || inner.is_some_and(|inner| inner.is::<AddressRefused>())
}

/// An error after the request was sent, perhaps. It quotes nothing of what the server sent.
fn failed_later(_: &(dyn StdError + 'static)) -> CallError {
    CallError::Unavailable {
        reason: "the connection broke before the answer was complete".to_owned(),
        message: String::new(),
    }
}

/// Explains a response without success.
fn refusal(status: StatusCode, headers: &HeaderMap, message: String) -> CallError {
    let code = status.as_u16();
    match code {
        300..=399 => CallError::Redirected { status: code },
        401 => CallError::Unauthorized { message },
        403 => CallError::Forbidden { message },
        404 => CallError::NotFound { message },
        // A proxy may answer so for a server that has already done it.
        408 => CallError::Unavailable { reason: "HTTP status 408".to_owned(), message },
        409 => CallError::Conflict { status: code, message },
        429 => CallError::RateLimited { retry_after: retry_after(headers) },
        400..=499 => CallError::Refused { status: code, message },
        _ => CallError::Unavailable { reason: format!("HTTP status {code}"), message },
    }
}

/// When to try again: `Retry-After` in both of its forms (RFC 9110, 10.2.3), or `RateLimit-Reset`
/// (<https://docs.gitlab.com/administration/settings/user_and_ip_rate_limits/#response-headers>).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).map(str::trim);
    // The clock of the server, if it tells: both times come from it.
    let now = text("date").and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or_else(SystemTime::now);
    let until = |time: SystemTime| time.duration_since(now).unwrap_or_default();
    let from_header = text("retry-after").and_then(|after| match after.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(after).ok().map(until),
    });
    let from_reset = || {
        let seconds: u64 = text("ratelimit-reset")?.parse().ok()?;
        let length = Duration::from_secs(seconds);
        if seconds < UNIX_TIMES { Some(length) } else { SystemTime::UNIX_EPOCH.checked_add(length).map(until) }
    };
    from_header.or_else(from_reset).map(|wait| wait.min(MAX_PAUSE))
}
