//! The floor: handlers that return constants, by `axum::serve` and by tonic's own server. Their answers have the verifier's
//! headers and the verifier's size.
//!
//! They read a request as far as anybody must: a form's bytes, a message of protobuf down to its first field. Must not know the
//! verifier.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll},
};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderMap, HeaderName, HeaderValue, Request, Response},
    routing::{get, post},
};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tonic::{
    server::{Grpc, NamedService, UnaryService},
    transport::{Server, server::TcpIncoming},
};
use tonic_prost::ProstCodec;
use tower::Service;

use crate::{
    part,
    protocol::{FORWARD, INTROSPECT, SERVICE},
    subject::Addresses,
};

/// What the handlers return.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answers {
    /// To introspection.
    pub introspection: Constant,
    /// To forward auth.
    pub forward_auth: Constant,
    /// The size of the message to a check.
    pub grpc_bytes: usize,
}

/// An answer of HTTP.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Constant {
    /// Its headers.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: String,
}

/// Serves until this process is killed.
pub async fn serve(answers: Answers) -> anyhow::Result<()> {
    let (http, grpc) = (TcpListener::bind("127.0.0.1:0").await?, TcpListener::bind("127.0.0.1:0").await?);
    let addresses = Addresses { http: http.local_addr()?, grpc: grpc.local_addr()? };
    let introspection = answers.introspection.response()?;
    let forward_auth = answers.forward_auth.response()?;
    let router = Router::new()
        .route(INTROSPECT, post(async move |_form: Bytes| introspection()))
        .route(FORWARD, get(async move || forward_auth()));
    let check = Check(Message { content: vec![b'x'; answers.grpc_bytes.saturating_sub(OVERHEAD)].into() });
    let incoming = TcpIncoming::from(grpc).with_nodelay(Some(true));
    tokio::spawn(Server::builder().add_service(check).serve_with_incoming(incoming));
    part::tell(&addresses)?;
    Ok(axum::serve(http, router).await?)
}

impl Constant {
    fn response(self) -> anyhow::Result<impl Fn() -> Response<Body> + Clone + Send + Sync + 'static> {
        let mut headers = HeaderMap::new();
        for (name, value) in self.headers {
            headers.insert(HeaderName::try_from(name)?, HeaderValue::try_from(value)?);
        }
        let body = Bytes::from(self.body);
        Ok(move || {
            let mut response = Response::new(Body::from(body.clone()));
            response.headers_mut().clone_from(&headers);
            response
        })
    }
}

/// What stands before the bytes of [`Message::content`]: its number, and its length in two bytes.
const OVERHEAD: usize = 3;

/// A question and an answer, as little of it as protobuf allows.
#[derive(Clone, PartialEq, prost::Message)]
struct Message {
    #[prost(bytes = "bytes", tag = "1")]
    content: Bytes,
}

/// The service, written as tonic's generated code is.
#[derive(Clone)]
struct Check(Message);

impl NamedService for Check {
    const NAME: &'static str = SERVICE;
}

impl UnaryService<Message> for Check {
    type Response = Message;
    type Future = Ready<Result<tonic::Response<Message>, tonic::Status>>;

    fn call(&mut self, _: tonic::Request<Message>) -> Self::Future {
        ready(Ok(tonic::Response::new(self.0.clone())))
    }
}

impl Service<Request<tonic::body::Body>> for Check {
    type Response = Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        let check = self.clone();
        Box::pin(async move { Ok(Grpc::new(ProstCodec::default()).unary(check, request).await) })
    }
}
