//! Serves an axum router within bounds: how many connections, how long a header may take, how long a connection lives.
//!
//! Plain HTTP/1.1. It must not know what the router answers.

use std::{fmt, io, net::SocketAddr, str::FromStr, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// Where to listen: `127.0.0.1:8080`, `[::1]:8080`, or `:8080` for every address of the machine. Port 0 takes a free
/// one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenAddr {
    /// Every address, IPv6 and IPv4.
    Any {
        /// The port, 0 for a free one.
        port: u16,
    },
    /// Just this address.
    One(SocketAddr),
}

/// Text that is not an address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write an IP address and a port, such as 127.0.0.1:8080 or [::1]:8080, or only :8080 for every address")]
pub struct InvalidListenAddr;

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
}

impl HttpError {
    /// The one name of this error for metrics, events and logs.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Listen { .. } => "ListenFailed",
        }
    }
}

/// The bounds of a server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time; more of them wait in the system's queue.
    pub connections: usize,
    /// How long a request's header may take, and how long a connection may be idle.
    pub header: Duration,
    /// How long a connection may last; it is then closed after the request that it is busy with.
    pub lifetime: Duration,
    /// How long a request may still take when its connection has to end.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 128,
            header: Duration::from_secs(10),
            lifetime: Duration::from_secs(300),
            grace: Duration::from_secs(3),
        }
    }
}

/// A server that has its port but does not answer yet.
#[derive(Debug)]
pub struct HttpServer {
    listener: TcpListener,
    addr: SocketAddr,
    limits: Limits,
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
        Ok(Self { listener, addr: local, limits: Limits::default() })
    }

    /// The same server within other bounds.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The address that it really has.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Answers requests until cancelled; then finishes those under way.
    pub async fn serve(self, router: Router, cancellation: CancellationToken) {
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
                    let serving = connection(stream, router.clone(), self.limits, cancellation.clone());
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

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, slot))
}

async fn connection(stream: TcpStream, router: Router, limits: Limits, cancellation: CancellationToken) {
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header)
        .max_headers(64)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = &mut serving => Some(ended),
        () = cancellation.cancelled() => None,
        () = tokio::time::sleep(limits.lifetime) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            serving.as_mut().graceful_shutdown();
            tokio::time::timeout(limits.grace, serving).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn listen_addresses_are_read_as_people_write_them() {
        for (text, read) in [
            (":8080", Some(ListenAddr::Any { port: 8080 })),
            (":0", Some(ListenAddr::Any { port: 0 })),
            ("127.0.0.1:0", Some(ListenAddr::One(SocketAddr::from(([127, 0, 0, 1], 0))))),
            ("[::1]:9", Some(ListenAddr::One("[::1]:9".parse().unwrap()))),
            ("8080", None),
            ("localhost:8080", None),
            ("127.0.0.1", None),
            (":70000", None),
            (":+80", None),
            (":", None),
            ("", None),
        ] {
            assert_eq!(text.parse().ok(), read, "{text}");
            if let Some(addr) = read {
                assert_eq!(addr.to_string(), text);
            }
        }
    }

    #[tokio::test]
    async fn a_taken_port_is_told_with_the_flag_that_would_change_it() {
        let local: ListenAddr = "127.0.0.1:0".parse().unwrap();
        let first = HttpServer::bind(local, "tests", "--test-addr").await.unwrap();
        let taken = ListenAddr::One(first.local_addr());
        let error = HttpServer::bind(taken, "tests", "--test-addr").await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot listen on {taken} for tests: ")), "{error}");
        assert!(error.ends_with("choose another with --test-addr"), "{error}");
    }

    #[tokio::test]
    async fn a_header_that_never_ends_is_cut_off_and_frees_its_place() {
        let server = HttpServer::bind("127.0.0.1:0".parse().unwrap(), "tests", "--test-addr").await.unwrap();
        let addr = server.local_addr();
        let limits = Limits { connections: 1, header: Duration::from_millis(200), ..Limits::default() };
        let stop = CancellationToken::new();
        let router = Router::new().route("/", get(async || "hello"));
        let serving = tokio::spawn(server.with_limits(limits).serve(router, stop.clone()));

        let mut slow = TcpStream::connect(addr).await.unwrap();
        slow.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ").await.unwrap();
        let mut other = TcpStream::connect(addr).await.unwrap();
        other.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(Duration::from_secs(10), other.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("hello"), "{answer}");

        stop.cancel();
        tokio::time::timeout(Duration::from_secs(10), serving).await.unwrap().unwrap();
    }
}
