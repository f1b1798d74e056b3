//! Serves HTTP within bounds: how many connections, how long a header may take, how long a connection lives.
//!
//! HTTP/1.1 and HTTP/2, plain or by TLS. It must not know what is answered.

mod activity;
pub mod body;
mod budget;
mod connection;
mod leftover;
mod limits;
mod listen;
#[cfg(test)]
mod tests;
mod within;

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{extract::Request, http::HeaderMap, response::Response};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tower::Service;
use tracing::warn;

pub use self::{
    budget::{Budget, NoRoom, Share},
    limits::Limits,
    listen::{InvalidListenAddr, ListenAddr},
    within::within,
};
use super::tls::TlsReloader;

/// Why an HTTP server could not start.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address is taken, not ours, or needs a privilege.
    #[error("cannot listen on {addr} for {purpose}: {error}; choose another with {flag}")]
    Listen {
        /// The address as it was asked for.
        addr: ListenAddr,
        /// What the server is for.
        purpose: &'static str,
        /// The flag that sets the address.
        flag: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// Plain text, where others than programs of this machine could read it.
    #[error(
        "{flag}={addr} would serve {purpose} in plain text, and tokens are in it: give --tls-cert and --tls-key, listen on \
         loopback only (127.0.0.1:<port>), or, if something else encrypts it, say --insecure-listen"
    )]
    PlainText {
        /// The address as it was asked for.
        addr: ListenAddr,
        /// What the server is for.
        purpose: &'static str,
        /// The flag that sets the address.
        flag: &'static str,
    },
}

impl HttpError {
    /// The one name of this error for metrics, events and logs.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Listen { .. } => "ListenFailed",
            Self::PlainText { .. } => "PlainText",
        }
    }
}

/// Laid on an answer, has it sent only if the client is still there, as far as can be known: else its body is dropped before its end.
///
/// hyper listens for the end of an HTTP/1 connection only while nothing that came on it is unread, and would not hear of it.
#[derive(Clone, Copy, Debug)]
pub struct OnlyIfThere;

/// What answers requests, such as an axum router; cloned for each.
pub trait Answers:
    Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static
{
}

impl<S> Answers for S where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static
{
}

/// A server that has its port but does not answer yet.
#[derive(Debug)]
pub struct HttpServer {
    listener: TcpListener,
    addr: SocketAddr,
    limits: Limits,
    tls: Option<TlsReloader>,
}

/// Whether a server whose requests hold tokens may listen there: with TLS anywhere, else on loopback, or where `insecure`
/// says so (`--insecure-listen`). `purpose` and `flag` are for the message.
///
/// # Errors
/// When it may not.
pub fn refuse_plain_text(
    addr: ListenAddr,
    tls: bool,
    insecure: bool,
    purpose: &'static str,
    flag: &'static str,
) -> Result<(), HttpError> {
    if tls || insecure || addr.is_loopback() {
        return Ok(());
    }
    Err(HttpError::PlainText { addr, purpose, flag })
}

impl HttpServer {
    /// Takes the port. `purpose` and `flag` are for the message if that fails.
    ///
    /// # Errors
    /// When the system refuses it.
    pub async fn bind(addr: ListenAddr, purpose: &'static str, flag: &'static str) -> Result<Self, HttpError> {
        let listen = async {
            let listener = match addr {
                ListenAddr::One(addr) => TcpListener::bind(addr).await?,
                // A socket for all of IPv6 takes IPv4 as well, unless the machine has no IPv6 at all.
                ListenAddr::Any { port } => match TcpListener::bind(SocketAddr::from(([0; 8], port))).await {
                    Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                        TcpListener::bind(SocketAddr::from(([0; 4], port))).await?
                    }
                    listener => listener?,
                },
            };
            Ok((listener.local_addr()?, listener))
        };
        let (local, listener) = listen.await.map_err(|error| HttpError::Listen { addr, purpose, flag, error })?;
        Ok(Self { listener, addr: local, limits: Limits::default(), tls: None })
    }

    /// The same server within other bounds.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The same server, by TLS if there is a certificate.
    #[must_use]
    pub fn with_tls(mut self, tls: Option<TlsReloader>) -> Self {
        self.tls = tls;
        self
    }

    /// The address that it really has.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Answers requests until cancelled; then finishes those under way.
    pub async fn serve(self, answers: impl Answers, cancellation: CancellationToken) {
        let slots = Arc::new(Semaphore::new(self.limits.connections));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = cancellation.cancelled() => break,
                accepted = accept(&self.listener, &slots) => accepted,
                Some(_) = connections.join_next() => continue,
            };
            match accepted {
                Ok((stream, slot)) => {
                    // A token of its own: asking a shared one takes its lock, with each request.
                    let stop = cancellation.child_token();
                    let serving = connection::serve(stream, self.tls.clone(), answers.clone(), self.limits, stop);
                    connections.spawn(async move {
                        serving.await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    // Out of file descriptors, mostly: trying again at once would only burn the processor.
                    warn!(%error, addr = %self.addr, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        while connections.join_next().await.is_some() {}
    }
}

/// Names and values of headers as they came.
pub fn plain(headers: &HeaderMap) -> impl Iterator<Item = (&str, &[u8])> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, slot))
}
