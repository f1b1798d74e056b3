//! Sends requests to the API server, each with the current credentials.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use hyper::{Request, Response, StatusCode, body::Incoming, header::AUTHORIZATION};
use hyper_util::{
    client::legacy::{Client, connect::Connect},
    rt::TokioExecutor,
};
use kube::client::Body;
use tower::{BoxError, Service};

use super::{
    credentials::{Credential, CredentialError, Credentials},
    exec::ClientCertificate,
};

/// Makes the connector for a client certificate that a plugin printed, or for none.
type MakeConnector<C> = dyn Fn(Option<&ClientCertificate>) -> kube::Result<C> + Send + Sync;

/// Sends requests with the current credentials. For another client certificate it opens new connections, as client-go does. Clones share
/// them.
#[derive(Clone)]
pub struct Transport<C> {
    credentials: Credentials,
    connector: Arc<MakeConnector<C>>,
    connections: Arc<Mutex<Connections<C>>>,
}

/// Connections with one client certificate.
struct Connections<C> {
    client: Client<C, Body>,
    credential: Credential,
}

impl<C: Connect + Clone + Send + Sync + 'static> Transport<C> {
    /// A transport. `credential` is the current one of `credentials`.
    ///
    /// # Errors
    /// There is no connector.
    pub fn new(
        credentials: Credentials,
        credential: Credential,
        connector: impl Fn(Option<&ClientCertificate>) -> kube::Result<C> + Send + Sync + 'static,
    ) -> kube::Result<Self> {
        let client = client(connector(credential.certificate.as_deref())?);
        let connections = Arc::new(Mutex::new(Connections { client, credential }));
        Ok(Self { credentials, connector: Arc::new(connector), connections })
    }

    /// Returns the client for these credentials. The connections of another client certificate are closed once their requests have ended.
    fn client(&self, credential: &Credential) -> Result<Client<C, Body>, CredentialError> {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let present = &connections.credential;
        if present.obtained_at < credential.obtained_at {
            if present.certificate != credential.certificate {
                let connector = (self.connector)(credential.certificate.as_deref()).map_err(|_| {
                    CredentialError::new("the exec plugin printed a client certificate that cannot be used")
                })?;
                connections.client = client(connector);
            }
            connections.credential = credential.clone();
        }
        Ok(connections.client.clone())
    }

    async fn send(self, mut request: Request<Body>) -> Result<Response<Incoming>, BoxError> {
        let credential = self.credentials.current().await?;
        if let Some(header) = &credential.header {
            request.headers_mut().insert(AUTHORIZATION, header.clone());
        }
        let response = self.client(&credential)?.request(request).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            self.credentials.reject(&credential).await;
        }
        Ok(response)
    }
}

fn client<C: Connect + Clone>(connector: C) -> Client<C, Body> {
    Client::builder(TokioExecutor::new()).build(connector)
}

impl<C: Connect + Clone + Send + Sync + 'static> Service<Request<Body>> for Transport<C> {
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;
    type Response = Response<Incoming>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.clone().send(request))
    }
}
