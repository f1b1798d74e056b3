//! Clients that open connections and finish no request.

use std::net::SocketAddr;

use futures::{StreamExt, stream};
use rustix::process::{Resource, getrlimit};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::service::{
    HttpServer,
    http::{ConnectionSlots, Limits},
};

/// More than a process serves at once.
const CONNECTIONS: usize = 4_000;

/// How many connections are opened at once.
const AT_ONCE: usize = 50;

/// How many connections this process can open. It has the other ends, too.
fn connections() -> usize {
    let files = getrlimit(Resource::Nofile).current.and_then(|files| usize::try_from(files).ok());
    files.map_or(CONNECTIONS, |files| CONNECTIONS.min(files / 2))
}

/// Opens a connection with a header that does not end. The verifier may close it at any time.
async fn unfinished(verifier: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(verifier).await.expect("a connection");
    let head = format!("GET /auth/forward HTTP/1.1\r\nHost: x\r\nX-Long: {}", "a".repeat(15_000));
    let _closed_before = stream.write_all(head.as_bytes()).await;
    stream
}

/// Asks with a header of this many bytes, and returns the status line.
async fn ask(verifier: SocketAddr, token: &str, bytes: usize) -> String {
    let mut stream = TcpStream::connect(verifier).await.expect("a connection");
    let (token, long) = (bearer(token), "a".repeat(bytes));
    let head = format!(
        "GET /auth/forward HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nX-Long: {long}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("it is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer.lines().next().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn unfinished_headers_keep_no_token_out() {
    let fixture = HttpFixture::new();
    let good = fixture.put(1, json!({}));
    let server = HttpServer::bind("127.0.0.1:0".parse().unwrap(), "tests", "--test-addr").await.unwrap();
    let server = server.with_limits(Limits::busy()).with_slots(Arc::new(ConnectionSlots::of_process()));
    let (verifier, stop) = (server.local_addr(), CancellationToken::new());
    let serving = tokio::spawn(server.serve(fixture.service.clone(), stop.clone()));
    let (connections, mut open) = (connections(), Vec::new());
    let mut opening = stream::iter(0..connections).map(|_| unfinished(verifier)).buffer_unordered(AT_ONCE);
    while let Some(stream) = opening.next().await {
        open.push(stream);
        if open.len() % 500 == 0 || open.len() == connections {
            // A proxy adds headers of its own to those of its client.
            assert_eq!(ask(verifier, &good, 12_000).await, "HTTP/1.1 200 OK", "{} connections", open.len());
            assert_eq!(ask(verifier, &token(2), 10).await, "HTTP/1.1 401 Unauthorized");
        }
    }
    stop.cancel();
    serving.await.unwrap();
}
