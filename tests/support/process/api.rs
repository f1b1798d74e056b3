//! Runs `pat-operator api` as a process, and sends plain HTTP requests to it.

use std::{net::SocketAddr, path::Path};

use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::{Launch, OperatorProcess, SOON, place::Place};

/// A running REST server. It is killed on drop.
pub struct ApiProcess {
    /// The process.
    pub process: OperatorProcess,
    /// Its HTTP address.
    pub http: SocketAddr,
}

/// An HTTP response of the REST server.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: hyper::HeaderMap,
    /// The body.
    pub text: String,
}

impl ApiProcess {
    /// Starts a REST server for the namespace of this place, as an administrator, and waits until it is ready.
    pub async fn start(place: &Place, arguments: &[&str]) -> Self {
        let mut this = Self::begin(place, &place.kubeconfig(), arguments).await;
        this.process.is_ready().await;
        this
    }

    /// The same with another kubeconfig, and without waiting until it is ready.
    pub async fn begin(place: &Place, kubeconfig: &Path, arguments: &[&str]) -> Self {
        Self::listening(Self::launch(place, kubeconfig, arguments)).await
    }

    /// Starts this process on a free port, and waits until it is ready.
    pub async fn of(launch: Launch) -> Self {
        let mut this = Self::listening(launch.arg("--http-addr=127.0.0.1:0")).await;
        this.process.is_ready().await;
        this
    }

    async fn listening(launch: Launch) -> Self {
        let mut process = launch.start();
        let http = super::verifier::listens(&mut process, "serving the REST API").await;
        Self { process, http }
    }

    /// The process, not started yet.
    pub fn launch(place: &Place, kubeconfig: &Path, arguments: &[&str]) -> Launch {
        let launch = Launch::new(&["api", "--log-format=json", "--health-addr=127.0.0.1:0", "--http-addr=127.0.0.1:0"])
            .env("KUBECONFIG", kubeconfig)
            .arg(format!("--namespace={}", place.name()))
            .arg(format!("--key-namespace={}", place.name()));
        arguments.iter().fold(launch, |launch, argument| launch.arg(argument))
    }

    /// Sends a request. `path` may include a query.
    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let sending = send(self.http, method, path, headers, body.to_owned());
        tokio::time::timeout(SOON, sending).await.expect("an answer in time").expect("an answer")
    }

    /// The same with a bearer token, and JSON if there is a body.
    pub async fn call(&self, method: &str, path: &str, token: &str, body: Option<&Value>) -> Reply {
        let bearer = format!("Bearer {token}");
        let mut headers = vec![("authorization", bearer.as_str())];
        if body.is_some() {
            headers.push(("content-type", "application/json"));
        }
        self.send(method, path, &headers, &body.map(Value::to_string).unwrap_or_default()).await
    }

    /// Exchanges a token for an access token.
    pub async fn exchange(&self, client: &str, token: &str) -> Reply {
        let body = format!("grant_type=client_credentials&client_id={client}&client_secret={token}");
        self.send("POST", "/oauth/token", &[("content-type", "application/x-www-form-urlencoded")], &body).await
    }
}

impl Reply {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Sends a request to an address. `path` may include a query.
///
/// # Errors
/// There is no valid HTTP response.
pub async fn send(
    addr: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: String,
) -> Result<Reply, Box<dyn std::error::Error>> {
    let stream = TcpStream::connect(addr).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path).header(header::HOST, addr.to_string());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = sender.send_request(request.body(body)?).await?;
    let (parts, body) = response.into_parts();
    let bytes = http_body_util::BodyExt::collect(body).await?.to_bytes();
    drop(sender);
    connection.await??;
    Ok(Reply { status: parts.status.as_u16(), headers: parts.headers, text: String::from_utf8(bytes.to_vec())? })
}
