//! The server behind the proxies. It returns the request that it got.

use std::net::SocketAddr;

use axum::{Router, extract::Request};
use pat_operator::service::HttpServer;
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::ask::Answer;

/// A running upstream. It stops when dropped.
pub struct Upstream {
    pub addr: SocketAddr,
    _stop: DropGuard,
}

impl Upstream {
    pub async fn start() -> Self {
        let server = HttpServer::bind("127.0.0.1:0".parse().unwrap(), "the upstream", "none").await.unwrap();
        let (addr, stop) = (server.local_addr(), CancellationToken::new());
        tokio::spawn(server.serve(Router::new().fallback(echo), stop.clone()));
        Self { addr, _stop: stop.drop_guard() }
    }
}

async fn echo(request: Request) -> String {
    let headers: Vec<_> = request
        .headers()
        .iter()
        .map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]))
        .collect();
    let (method, path) = (request.method().to_string(), request.uri().to_string());
    let body = axum::body::to_bytes(request.into_body(), 1000).await.expect("a body");
    json!({"upstream": true, "method": method, "path": path, "headers": headers, "body": String::from_utf8_lossy(&body)})
        .to_string()
}

/// The request that the upstream got, if the response is from the upstream.
pub struct Seen(pub Value);

impl Seen {
    pub fn of(answer: &Answer) -> Option<Self> {
        serde_json::from_str::<Value>(&answer.body).ok().filter(|seen| seen["upstream"] == true).map(Self)
    }

    /// The values of a header.
    pub fn header(&self, name: &str) -> Vec<&str> {
        let all = self.headers().into_iter();
        all.filter(|(key, _)| *key == name).map(|(_, value)| value).collect()
    }

    /// All headers.
    pub fn headers(&self) -> Vec<(&str, &str)> {
        let all = self.0["headers"].as_array().expect("headers");
        all.iter().map(|pair| (pair[0].as_str().expect("a name"), pair[1].as_str().expect("a value"))).collect()
    }
}
