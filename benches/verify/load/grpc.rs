//! A connection of HTTP/2 with one gRPC request at a time: hyper's client, without a client of gRPC above it.
//!
//! Must not know what is asked.

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

/// See the module.
pub struct Connection {
    requests: SendRequest<Full<Bytes>>,
}

impl Connection {
    /// Opens it.
    pub async fn open(addr: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(addr).await.context("connecting")?;
        stream.set_nodelay(true)?;
        let (requests, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        // It ends with the requests' end.
        tokio::spawn(connection);
        Ok(Self { requests })
    }

    /// Sends a request and reads its answer, which must be OK.
    pub async fn ask(&mut self, request: &Request) -> anyhow::Result<usize> {
        Ok(self.exchange(request).await?.len())
    }

    /// The same, and takes the answer apart.
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
