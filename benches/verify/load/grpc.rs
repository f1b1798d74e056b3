//! An HTTP/2 connection with one gRPC request at a time, by hyper without a gRPC client.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use axum::{
    body::Bytes,
    http::{HeaderMap, Request as HttpRequest, Version},
};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::{Answer, Request};
use crate::protocol::{CHECK, unframed};

/// An HTTP/2 connection.
pub struct Connection {
    requests: SendRequest<Full<Bytes>>,
}

impl Connection {
    /// Opens a connection.
    pub async fn open(addr: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(addr).await.context("connecting")?;
        stream.set_nodelay(true)?;
        let (requests, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        // This task ends with the sender.
        tokio::spawn(connection);
        Ok(Self { requests })
    }

    /// Sends a request. The answer must be OK. Returns its size.
    pub async fn ask(&mut self, request: &Request) -> anyhow::Result<usize> {
        Ok(self.exchange(request).await?.len())
    }

    /// The same. Returns the parsed answer.
    pub async fn probe(&mut self, request: &Request) -> anyhow::Result<Answer> {
        let frame = self.exchange(request).await?;
        Ok(Answer { headers: Vec::new(), body: unframed(&frame)?.to_vec() })
    }

    async fn exchange(&mut self, request: &Request) -> anyhow::Result<Bytes> {
        let request = HttpRequest::post(format!("http://pat-operator{CHECK}"))
            .version(Version::HTTP_2)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(request.clone()))?;
        self.requests.ready().await?;
        let response = self.requests.send_request(request).await?;
        let (head, body) = response.into_parts();
        let body = body.collect().await?;
        let nothing = HeaderMap::new();
        let trailers = body.trailers().unwrap_or(&nothing);
        let status = trailers.get("grpc-status").or(head.headers.get("grpc-status"));
        ensure!(status.is_some_and(|status| status == "0"), "not OK: {head:?} {trailers:?}");
        Ok(body.to_bytes())
    }
}
