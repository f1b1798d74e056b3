//! Systems that issue tokens: clients of them, and servers that behave as their documentation says.

pub mod argocd;
pub mod faulty;
pub mod gitea;
pub mod gitlab;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
    http::{HeaderMap, Method, StatusCode, header},
    response::Response,
};
use pat_operator::api::IssuerSystem;
use pat_operator::issuer::{
    AddressPolicy, CallBudget, Driver, Endpoint, IssuerCredential, IssuerTarget, NewToken, PlainToken, RemoteToken,
    driver,
};
use percent_encoding::percent_decode_str;
use serde_json::Value;
use tokio::net::TcpListener;

/// A request to a server of a test.
#[derive(Clone, Debug)]
pub struct VendorRequest {
    /// The method.
    pub method: Method,
    /// The path, split at each `/` and decoded.
    pub path: Vec<String>,
    /// The query.
    pub query: BTreeMap<String, String>,
    /// The headers.
    pub headers: HeaderMap,
    /// The body: `null` for none, and a string if it is no JSON.
    pub body: Value,
}

/// A response of a server of a test: status, headers and body.
pub type VendorResponse = (u16, Vec<(&'static str, String)>, Value);

/// A running server, and what it was asked.
pub struct Vendor {
    /// Its base URL.
    pub url: String,
    requests: Arc<Mutex<Vec<VendorRequest>>>,
}

impl Vendor {
    /// Starts a server that answers with this function.
    pub async fn start(answer: impl Fn(&VendorRequest) -> VendorResponse + Clone + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let requests = Arc::<Mutex<Vec<_>>>::default();
        let seen = requests.clone();
        let handle = async move |request: Request| {
            let request = read(request).await;
            seen.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
            respond(answer(&request))
        };
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(handle)).await });
        Self { url, requests }
    }

    /// Returns the requests so far, and forgets them.
    pub fn take_requests(&self) -> Vec<VendorRequest> {
        std::mem::take(&mut self.requests.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn respond((status, headers, body): VendorResponse) -> Response {
    let mut response = Response::new(if body.is_null() { Body::empty() } else { Body::from(body.to_string()) });
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    response.headers_mut().insert(header::CONTENT_TYPE, "application/json".parse().expect("a header"));
    for (name, value) in headers {
        response.headers_mut().insert(name, value.parse().expect("a header"));
    }
    response
}

async fn read(request: Request) -> VendorRequest {
    let (parts, body) = request.into_parts();
    let decode = |segment: &str| percent_decode_str(segment).decode_utf8().expect("UTF-8").into_owned();
    let query = parts.uri.query().unwrap_or_default();
    let body = to_bytes(body, 1 << 20).await.expect("a body");
    VendorRequest {
        method: parts.method,
        path: parts.uri.path().split('/').skip(1).map(decode).collect(),
        query: form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
        headers: parts.headers,
        body: match serde_json::from_slice(&body) {
            Ok(body) => body,
            Err(_) if body.is_empty() => Value::Null,
            Err(_) => Value::String(String::from_utf8(body.to_vec()).expect("UTF-8")),
        },
    }
}

/// A driver with a token as its credential.
pub fn driver_with_token(kind: IssuerSystem, url: &str, token: &str) -> Arc<dyn Driver> {
    driver_with(kind, url, IssuerCredential::Token(PlainToken::new(token.to_owned())))
}

/// A driver with any credential.
pub fn driver_with(kind: IssuerSystem, url: &str, credential: IssuerCredential) -> Arc<dyn Driver> {
    driver(kind, &endpoint(url, credential)).expect("a driver")
}

/// An endpoint on this computer.
pub fn endpoint(url: &str, credential: IssuerCredential) -> Endpoint {
    Endpoint {
        url: url.to_owned(),
        ca_bundle: None,
        credential,
        account: None,
        http_hosts: vec!["127.0.0.1".to_owned()],
        addresses: AddressPolicy::default(),
        proxy: None,
        budget: CallBudget::new(6_000, 100),
    }
}

/// A request for a token with this name and these scopes, which never expires.
pub fn new_token(name: &str, scopes: &[&str]) -> NewToken {
    NewToken {
        name: name.to_owned(),
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        permissions: Vec::new(),
        expires_at: None,
    }
}

/// The live token with this name.
pub async fn live(driver: &dyn Driver, target: &IssuerTarget, name: &str) -> Option<RemoteToken> {
    let tokens = driver.list(target).await.expect("a list");
    tokens.into_iter().find(|token| token.name == name && token.live)
}
