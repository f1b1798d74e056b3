//! The floor: bare handlers that return constants, served by `axum::serve` and by tonic's own server. Their answers have the headers and
//! the size of the verifier's.
//!
//! They read only as much of a request as each handler must: the bytes of a form, or a protobuf message up to its first field.

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

/// The constant answers.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answers {
    /// The answer to an introspection.
    pub introspection: Constant,
    /// The answer to forward authentication.
    pub forward_auth: Constant,
    /// The size of the answer to a gRPC check.
    pub grpc_bytes: usize,
}

/// A constant HTTP response.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Constant {
    /// Its headers.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: String,
}

/// Serves until the process is killed.
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
    part::print(&addresses)?;
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

/// The bytes before [`Message::content`]: the field's tag, and its length in two bytes.
const OVERHEAD: usize = 3;

/// A request or response, as small as protobuf allows.
#[derive(Clone, PartialEq, prost::Message)]
struct Message {
    #[prost(bytes = "bytes", tag = "1")]
    content: Bytes,
}

/// The service, written like tonic's generated code.
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
