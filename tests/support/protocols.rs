//! Verifies a token with each protocol of a running verifier.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
};

use axum::body::{Body, to_bytes};
use hyper::{Request, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};

use crate::support::process::{SOON, verifier::VerifierProcess};

/// The required audience. A token must list it.
pub const AUDIENCE: &str = "k8s";

/// The flag that enables the TokenReview protocol.
pub const TOKENREVIEW: &str = "--enable-tokenreview";

/// A protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Introspection,
    TokenReview,
    ForwardAuth,
    EnvoyHttp,
    EnvoyGrpc,
}

impl Way {
    pub const ALL: [Self; 5] =
        [Self::Introspection, Self::TokenReview, Self::ForwardAuth, Self::EnvoyHttp, Self::EnvoyGrpc];

    /// Sends a token to the verifier. Returns whether it is accepted, and the response. `caller` is a token that may introspect.
    pub async fn asks(self, verifier: &VerifierProcess, caller: &str, token: &str) -> (bool, String) {
        let get = |path: &str| format!("GET {path} HTTP/1.1\r\nAuthorization: Bearer {token}\r\n");
        let (request, body) = match self {
            Self::EnvoyGrpc => return check(verifier.grpc, token).await,
            Self::ForwardAuth => (get(&format!("/auth/forward?audience={AUDIENCE}")), String::new()),
            Self::EnvoyHttp => (get(&format!("/auth/envoy/audience={AUDIENCE}/-/")), String::new()),
            Self::Introspection => {
                let head = format!("POST /oauth2/introspect HTTP/1.1\r\nAuthorization: Bearer {caller}\r\n");
                (format!("{head}Content-Type: application/x-www-form-urlencoded\r\n"), format!("token={token}"))
            }
            Self::TokenReview => {
                let review = json!({
                    "apiVersion": "authentication.k8s.io/v1",
                    "kind": "TokenReview",
                    "spec": {"token": token, "audiences": [AUDIENCE]},
                });
                ("POST /k8s/tokenreview HTTP/1.1\r\n".to_owned(), review.to_string())
            }
        };
        let addr = verifier.http;
        let exchanging = tokio::task::spawn_blocking(move || exchange(addr, &request, &body));
        let (status, answer) = exchanging.await.expect("no panic").expect("an answer");
        let field = |pointer: &str| {
            let json = answer.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
            serde_json::from_str::<Value>(json).is_ok_and(|json| json.pointer(pointer) == Some(&json!(true)))
        };
        let let_in = match self {
            Self::Introspection => field("/active"),
            Self::TokenReview => field("/status/authenticated"),
            _ => status == 200,
        };
        (let_in, answer)
    }
}

fn exchange(addr: SocketAddr, head: &str, body: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&addr, SOON)?;
    stream.set_read_timeout(Some(SOON))?;
    write!(stream, "{head}Host: x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok((status.ok_or_else(|| io::Error::other(format!("not an HTTP answer: {answer:?}")))?, answer))
}

/// Sends the fields of an `envoy.service.auth.v3.CheckRequest` that matter, encoded as protobuf.
async fn check(addr: SocketAddr, token: &str) -> (bool, String) {
    let entry = |key: &str, value: &str| [field(1, key.as_bytes()), field(2, value.as_bytes())].concat();
    let headers = field(3, &entry("authorization", &format!("Bearer {token}")));
    let request = field(4, &field(2, &headers));
    let attributes = [request, field(10, &entry("audience", AUDIENCE))].concat();
    let answer = grpc(addr, "/envoy.service.auth.v3.Authorization/Check", &field(1, &attributes)).await;
    // A status without a code is OK. It is the first field.
    (answer.starts_with(&[0x0a, 0]), String::from_utf8_lossy(&answer).into_owned())
}

/// Whether `grpc.health.v1` reports SERVING.
pub async fn is_serving(addr: SocketAddr) -> bool {
    grpc(addr, "/grpc.health.v1.Health/Check", &[]).await == [8, 1]
}

async fn grpc(addr: SocketAddr, path: &str, message: &[u8]) -> Vec<u8> {
    let stream = TokioIo::new(tokio::net::TcpStream::connect(addr).await.expect("the server listens"));
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.expect("HTTP/2");
    let driving = tokio::spawn(connection);
    let length = u32::try_from(message.len()).expect("short").to_be_bytes();
    let framed = [&[0][..], &length, message].concat();
    let request = Request::post(format!("http://{addr}{path}")).header("content-type", "application/grpc");
    let request = request.header("te", "trailers").body(Body::from(framed)).expect("a request");
    let answer = tokio::time::timeout(SOON, sender.send_request(request)).await.expect("in time").expect("an answer");
    let body = to_bytes(Body::new(answer.into_body()), 1 << 20).await.expect("a body");
    driving.abort();
    body.get(5..).expect("a gRPC message").to_vec()
}

/// A protobuf field that contains bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut text = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length > 0x7f {
        text.push(length as u8 & 0x7f | 0x80);
        length >>= 7;
    }
    text.push(length as u8);
    text.extend_from_slice(bytes);
    text
}
