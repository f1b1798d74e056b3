//! The bounds of a server.
//!
//! Numbers and what they mean; it must not know how they are enforced.

use std::time::Duration;

use super::body::BODY_WITHIN;

/// The bounds of a server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time; more of them wait in the system's queue.
    pub connections: usize,
    /// How long a TLS handshake may take.
    pub handshake: Duration,
    /// How long a request's header may take once its first byte is there, and a new connection until its first request.
    /// Up to half as long again, as connections are looked at now and then.
    pub header: Duration,
    /// How long a request may take, its body and its answer included: a slow body ends here.
    pub request: Duration,
    /// How long a connection may do nothing. Longer than clients keep theirs (Go: 90 s), so that it is they who close it:
    /// a server that closes may do so just as a request is on its way.
    pub idle: Duration,
    /// How long a connection may last; it then ends after a request, so that clients find new replicas.
    pub lifetime: Duration,
    /// How long a request may still take when its connection has to end.
    pub grace: Duration,
    /// The bytes of a request's body.
    pub body: usize,
    /// How long the answer to a request waits for what nobody has read of its body, so that an HTTP/1 connection can go on. Zero: it does
    /// not wait, and the connection ends.
    pub leftover: Duration,
    /// The bytes of a request's header.
    pub head: usize,
    /// Requests at a time on one HTTP/2 connection.
    pub streams: u32,
    /// The bytes that an HTTP/2 connection may send ahead of whoever reads them.
    pub window: u32,
}

impl Default for Limits {
    /// For an endpoint that few call now and then.
    fn default() -> Self {
        Self {
            connections: 128,
            handshake: Duration::from_secs(10),
            header: Duration::from_secs(10),
            request: Duration::from_secs(30),
            idle: Duration::from_secs(120),
            lifetime: Duration::from_secs(300),
            grace: Duration::from_secs(3),
            body: 256 * 1024,
            leftover: Duration::ZERO,
            head: 64 * 1024,
            streams: 64,
            window: 128 * 1024,
        }
    }
}

impl Limits {
    /// For a server that proxies ask about every request: they keep many connections, send many requests at a time, and do not
    /// wait long. A body that is too slow ends before its request does, so that its client is told in words of the protocol.
    pub fn busy() -> Self {
        Self { connections: 4096, streams: 128, request: BODY_WITHIN + Duration::from_secs(5), ..Self::default() }
    }
}
