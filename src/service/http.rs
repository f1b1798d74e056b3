//! An HTTP server with limits on connections, time and memory. It serves HTTP/1.1 and HTTP/2, in plain text or over TLS.
//!
//! `axum::serve` and hyper-util's `GracefulShutdown` limit neither the number and age of connections nor idle time and slow headers.
//! tower-http's `TimeoutLayer` and `RequestBodyLimitLayer` limit a request, but read the clock for every one.

mod activity;
pub mod body;
mod connection;
mod connections;
#[cfg(test)]
mod tests;

use std::{
    convert::Infallible, fmt, future::poll_fn, io, net::SocketAddr, pin::pin, str::FromStr, sync::Arc, task::Poll,
    time::Duration,
};

use axum::{extract::Request, http::HeaderMap, response::Response};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
    time::error::Elapsed,
};
use tokio_util::sync::CancellationToken;
use tower::Service;
use tracing::warn;

use self::{activity::ConnectionActivity, connections::ConnectionSlot};
pub use self::{
    body::{BudgetExhausted, MemoryBudget, MemoryReservation},
    connections::ConnectionSlots,
};
use super::tls::TlsReloader;

/// Why an HTTP server could not start.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address is in use, does not exist, or needs a privilege.
    #[error("cannot listen on {addr} for {purpose}: {error}; choose another address with {flag}")]
    Listen {
        /// The requested address.
        addr: ListenAddr,
        /// The purpose of the server.
        purpose: &'static str,
        /// The flag that sets the address.
        flag: &'static str,
        /// The error of the operating system.
        error: io::Error,
    },
    /// Tokens would be sent in plain text over a network.
    #[error(
        "{flag}={addr} would serve {purpose}, which carries tokens, in plain text: set --tls-cert and --tls-key, listen on \
         loopback only (127.0.0.1:<port>), or set --insecure-listen if a proxy encrypts the traffic"
    )]
    PlainText {
        /// The requested address.
        addr: ListenAddr,
        /// The purpose of the server.
        purpose: &'static str,
        /// The flag that sets the address.
        flag: &'static str,
    },
}

impl HttpError {
    /// Returns the name of this error in metrics, events and logs.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Listen { .. } => "ListenFailed",
            Self::PlainText { .. } => "PlainText",
        }
    }
}

/// The limits of a server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The time limit of a TLS handshake.
    pub handshake: Duration,
    /// The time limit of a request's header, and of the first request on a new connection. Connections are checked periodically, so it
    /// may take up to half as long again.
    pub header: Duration,
    /// The time limit of a request, including its body and its response.
    pub request: Duration,
    /// The time after which an idle connection is closed. It is longer than that of clients (Go: 90 s), so that they close it: a server
    /// may close a connection just as a request arrives.
    pub idle: Duration,
    /// The age after which a connection is closed between requests, so that clients discover new replicas.
    pub lifetime: Duration,
    /// The time that a request in progress still has when its connection must end.
    pub grace: Duration,
    /// The maximum size of a request's body, in bytes.
    pub body: usize,
    /// How long a response waits for the unread rest of its request's body, so that an HTTP/1 connection can be reused. Zero closes the
    /// connection instead.
    pub drain: Duration,
    /// The maximum size of a request's header, in bytes. With many open connections it is lower, see [`ConnectionSlots`].
    pub head: usize,
    /// Concurrent requests on one HTTP/2 connection. With many open connections they are fewer.
    pub streams: u32,
    /// The flow-control window of an HTTP/2 connection, in bytes.
    pub window: u32,
}

impl Default for Limits {
    /// Limits for an endpoint with little traffic.
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            header: Duration::from_secs(10),
            request: Duration::from_secs(30),
            idle: Duration::from_secs(120),
            lifetime: Duration::from_secs(300),
            grace: Duration::from_secs(3),
            body: 256 * 1024,
            drain: Duration::ZERO,
            head: 64 * 1024,
            streams: 64,
            window: 64 * 1024,
        }
    }
}

impl Limits {
    /// Limits for a server that proxies ask about every request. A slow body times out before its request, so that the protocol's own
    /// error is returned.
    pub fn busy() -> Self {
        Self { streams: 128, request: body::TIMEOUT + Duration::from_secs(5), ..Self::default() }
    }
}

/// An address to listen on: `127.0.0.1:8080`, `[::1]:8080`, or `:8080` for every address of the machine. Port 0 chooses a free port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenAddr {
    /// Every address, IPv6 and IPv4.
    Any {
        /// The port, 0 for a free one.
        port: u16,
    },
    /// Only this address.
    One(SocketAddr),
}

/// Text that is not an address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be an IP address and a port, such as 127.0.0.1:8080 or [::1]:8080, or :8080 for every address")]
pub struct InvalidListenAddr;

impl ListenAddr {
    /// Whether only processes on this machine can reach it.
    pub fn is_loopback(&self) -> bool {
        matches!(self, Self::One(addr) if addr.ip().to_canonical().is_loopback())
    }
}

impl FromStr for ListenAddr {
    type Err = InvalidListenAddr;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix(':') {
            Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                port.parse().map(|port| Self::Any { port }).map_err(|_| InvalidListenAddr)
            }
            _ => text.parse().map(Self::One).map_err(|_| InvalidListenAddr),
        }
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any { port } => write!(f, ":{port}"),
            Self::One(addr) => addr.fmt(f),
        }
    }
}

/// An extension of a request whose target had a fragment: `#` and everything behind it, which the parser drops. HTTP allows none (RFC 9112,
/// 3.2). Over HTTP/2 it cannot be detected.
#[derive(Clone, Copy, Debug)]
pub struct DroppedFragment;

/// A service that can answer requests, such as an axum router. It is cloned for each request.
pub trait HttpService:
    Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static
{
}

impl<S> HttpService for S where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static
{
}

/// The connections that the operating system queues until they are accepted, as in `TcpListener::bind`.
const BACKLOG: u32 = 1024;

/// The connection slots of a server with little traffic.
const DEFAULT_CONNECTIONS: usize = 128;

/// A server that has bound its port but does not accept connections yet.
#[derive(Debug)]
pub struct HttpServer {
    listener: TcpListener,
    addr: SocketAddr,
    limits: Limits,
    slots: Arc<ConnectionSlots>,
    tls: Option<TlsReloader>,
}

/// Rejects an address on which tokens would be sent in plain text: without TLS, only loopback is allowed, unless `insecure` is set
/// (`--insecure-listen`). `purpose` and `flag` appear in the error.
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
    /// Binds the port. `purpose` and `flag` appear in the error.
    pub async fn bind(addr: ListenAddr, purpose: &'static str, flag: &'static str) -> Result<Self, HttpError> {
        let listen = async {
            let listener = match addr {
                ListenAddr::One(addr) => TcpListener::bind(addr).await?,
                ListenAddr::Any { port } => match listen_on_both_families(port) {
                    // The machine has no IPv6.
                    Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                        TcpListener::bind(SocketAddr::from(([0; 4], port))).await?
                    }
                    listener => listener?,
                },
            };
            Ok((listener.local_addr()?, listener))
        };
        let (local, listener) = listen.await.map_err(|error| HttpError::Listen { addr, purpose, flag, error })?;
        let slots = Arc::new(ConnectionSlots::new(DEFAULT_CONNECTIONS));
        Ok(Self { listener, addr: local, limits: Limits::default(), slots, tls: None })
    }

    /// Sets the limits.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Shares these connection slots with other servers. Without it, the server has 128 of its own.
    #[must_use]
    pub fn with_slots(mut self, slots: Arc<ConnectionSlots>) -> Self {
        self.slots = slots;
        self
    }

    /// Serves over TLS, if there is a certificate.
    #[must_use]
    pub fn with_tls(mut self, tls: Option<TlsReloader>) -> Self {
        self.tls = tls;
        self
    }

    /// Returns the bound address.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves requests until cancelled, then finishes those in progress.
    pub async fn serve(self, service: impl HttpService, cancellation: CancellationToken) {
        let mut connections = JoinSet::new();
        let mut accepting = pin!(self.accept());
        loop {
            let accepted = tokio::select! {
                () = cancellation.cancelled() => break,
                accepted = &mut accepting => accepted,
                Some(_) = connections.join_next() => continue,
            };
            accepting.set(self.accept());
            match accepted {
                Ok((stream, slot)) => {
                    // A child token: polling a shared one would take its lock for each request.
                    let stop = cancellation.child_token();
                    let activity = Arc::new(ConnectionActivity::default());
                    self.slots.register(&activity, stop.clone());
                    let tls = self.tls.clone();
                    connections.spawn(connection::serve(
                        stream,
                        tls,
                        service.clone(),
                        self.limits,
                        slot,
                        activity,
                        stop,
                    ));
                }
                Err(error) => {
                    // Usually there are no file descriptors left: an immediate retry would only use the CPU.
                    warn!(%error, addr = %self.addr, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        while connections.join_next().await.is_some() {}
    }

    /// Accepts a connection, and then waits for a slot: only a connection that has arrived may close another.
    async fn accept(&self) -> io::Result<(TcpStream, ConnectionSlot)> {
        let (stream, _) = self.listener.accept().await?;
        Ok((stream, self.slots.acquire().await))
    }
}

/// Listens on IPv6 and IPv4, whatever the sysctl `net.ipv6.bindv6only` says.
fn listen_on_both_families(port: u16) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v6()?;
    rustix::net::sockopt::set_ipv6_v6only(&socket, false)?;
    // As `TcpListener::bind` does: a restarted server takes its port again.
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from(([0; 8], port)))?;
    socket.listen(BACKLOG)
}

/// Iterates over names and values of headers.
pub fn plain(headers: &HeaderMap) -> impl Iterator<Item = (&str, &[u8])> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))
}

/// Limits the time of a future. Unlike [`tokio::time::timeout`], it neither reads the clock nor sets a timer if the future is ready when
/// first polled, as most responses are.
pub async fn timeout<F: Future>(limit: Duration, task: F) -> Result<F::Output, Elapsed> {
    let mut task = pin!(task);
    match poll_fn(|cx| Poll::Ready(task.as_mut().poll(cx))).await {
        Poll::Ready(output) => Ok(output),
        Poll::Pending => tokio::time::timeout(limit, task).await,
    }
}
