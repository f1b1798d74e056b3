//! Idle and slow connections: requests and bytes leave a trace, which is checked periodically.
//!
//! tokio-io-timeout resets a timer with each read and write, so a trickle of bytes keeps a connection open. Here a request costs a few
//! uncontended atomic operations and no clock read.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use hyper::Version;
use memchr::memchr2;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a connection has done so far. Nothing depends on the order of these fields, so `Relaxed` is enough.
#[derive(Debug, Default)]
pub(super) struct ConnectionActivity {
    begun: AtomicU64,
    ended: AtomicU64,
    /// Bytes have arrived since the last request began or ended: for HTTP/1, part of a header.
    partial: AtomicBool,
    http2: AtomicBool,
    retiring: AtomicBool,
    evicted: AtomicBool,
    /// The first line of an HTTP/1 request has a `#`, which the parser drops with everything behind it.
    fragment: AtomicBool,
}

/// What a connection without a request in progress waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiting {
    /// The rest of a request's header, or its first request.
    ForRequest,
    /// Another request.
    Idle,
}

/// A request in progress, until dropped.
pub(super) struct RequestInProgress {
    activity: Arc<ConnectionActivity>,
    has_fragment: bool,
}

impl ConnectionActivity {
    /// Records that a request's header has arrived.
    pub(super) fn begin(self: &Arc<Self>, version: Version) -> RequestInProgress {
        if version == Version::HTTP_2 && !self.http2.load(Ordering::Relaxed) {
            self.http2.store(true, Ordering::Relaxed);
        }
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.partial.store(false, Ordering::Relaxed);
        // Bytes of HTTP/2 mean something else.
        let has_fragment = self.fragment.load(Ordering::Relaxed) && version != Version::HTTP_2;
        self.fragment.store(false, Ordering::Relaxed);
        RequestInProgress { activity: self.clone(), has_fragment }
    }

    /// Makes each further request the last of its connection.
    pub(super) fn retire(&self) {
        self.retiring.store(true, Ordering::Relaxed);
    }

    /// Makes the connection end at once, and not after a grace period, when it is stopped.
    pub(super) fn evict(&self) {
        self.evicted.store(true, Ordering::Relaxed);
    }

    /// Whether the connection makes room for another.
    pub(super) fn is_evicted(&self) -> bool {
        self.evicted.load(Ordering::Relaxed)
    }

    /// Returns what the connection waits for; `None` while a request is in progress.
    pub(super) fn waiting(&self) -> Option<Waiting> {
        let (begun, ended) = (self.begun.load(Ordering::Relaxed), self.ended.load(Ordering::Relaxed));
        // An HTTP/2 connection also receives bytes without a request, such as pings.
        let partial = begun == 0 || self.partial.load(Ordering::Relaxed) && !self.is_http2();
        (begun == ended).then_some(if partial { Waiting::ForRequest } else { Waiting::Idle })
    }

    /// Whether a request came by HTTP/2.
    pub(super) fn is_http2(&self) -> bool {
        self.http2.load(Ordering::Relaxed)
    }
}

impl RequestInProgress {
    /// Whether no other request should follow on this connection.
    pub(super) fn is_last(&self) -> bool {
        self.activity.retiring.load(Ordering::Relaxed)
    }

    /// Whether the target of the request had a fragment (HTTP/1 only).
    pub(super) fn has_fragment(&self) -> bool {
        self.has_fragment
    }
}

impl Drop for RequestInProgress {
    fn drop(&mut self) {
        self.activity.ended.fetch_add(1, Ordering::Relaxed);
        self.activity.partial.store(false, Ordering::Relaxed);
    }
}

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionState {
    /// It makes progress.
    Active,
    /// It has had no request for too long.
    Idle,
    /// A header, or the first request, has not arrived in time.
    Slow,
}

/// Checks one connection, and remembers when it last made progress.
#[derive(Debug)]
pub(super) struct ConnectionMonitor {
    header: Duration,
    idle: Duration,
    requests: u64,
    since: Instant,
    partial_since: Option<Instant>,
}

impl ConnectionMonitor {
    /// Starts to monitor a new connection.
    pub(super) fn new(header: Duration, idle: Duration, now: Instant) -> Self {
        // The first request must arrive as fast as a header that has begun.
        Self { header, idle, requests: 0, since: now, partial_since: Some(now) }
    }

    pub(super) fn interval(&self) -> Duration {
        self.header.min(self.idle) / 2
    }

    pub(super) fn check(&mut self, activity: &ConnectionActivity, now: Instant) -> ConnectionState {
        let (begun, ended) = (activity.begun.load(Ordering::Relaxed), activity.ended.load(Ordering::Relaxed));
        let progressed = begun.wrapping_add(ended) != self.requests;
        self.requests = begun.wrapping_add(ended);
        if progressed {
            self.since = now;
            self.partial_since = None;
        }
        let Some(waiting) = activity.waiting() else {
            // A request in progress has its own time limit.
            self.since = now;
            return ConnectionState::Active;
        };
        if waiting == Waiting::Idle {
            self.partial_since = None;
        } else if now.duration_since(*self.partial_since.get_or_insert(now)) >= self.header {
            return ConnectionState::Slow;
        }
        if now.duration_since(self.since) >= self.idle { ConnectionState::Idle } else { ConnectionState::Active }
    }
}

/// A stream that records incoming bytes, and whether the first line of a request has a `#`.
pub(super) struct MonitoredStream<S> {
    stream: S,
    activity: Arc<ConnectionActivity>,
    /// The next bytes belong to the first line of a request.
    first_line: bool,
}

impl<S> MonitoredStream<S> {
    pub(super) fn new(stream: S, activity: Arc<ConnectionActivity>) -> Self {
        Self { stream, activity, first_line: true }
    }

    fn record(&mut self, bytes: &[u8]) {
        let activity = &self.activity;
        self.first_line |= !activity.partial.swap(true, Ordering::Relaxed) && activity.waiting().is_some();
        if !self.first_line {
            return;
        }
        match memchr2(b'#', b'\n', bytes) {
            Some(at) if bytes[at] == b'#' => activity.fragment.store(true, Ordering::Relaxed),
            Some(_) => self.first_line = false,
            None => {}
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for MonitoredStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let this = &mut *self;
        let bytes = &buf.filled()[before..];
        if !bytes.is_empty() {
            this.record(bytes);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for MonitoredStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Duration = Duration::from_secs(10);
    const IDLE: Duration = Duration::from_secs(100);

    #[test]
    fn connection_is_slow_before_its_first_request_and_idle_between_requests() {
        let (activity, start) = (Arc::new(ConnectionActivity::default()), Instant::now());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut monitor = ConnectionMonitor::new(HEADER, IDLE, start);
        assert_eq!(monitor.check(&activity, at(9)), ConnectionState::Active);
        assert_eq!(monitor.check(&activity, at(10)), ConnectionState::Slow);

        let request = activity.begin(Version::HTTP_11);
        assert_eq!(monitor.check(&activity, at(1000)), ConnectionState::Active, "a request has its own limit");
        drop(request);
        assert_eq!(monitor.check(&activity, at(1001)), ConnectionState::Active);
        assert_eq!(monitor.check(&activity, at(1100)), ConnectionState::Active);
        assert_eq!(monitor.check(&activity, at(1101)), ConnectionState::Idle);

        drop(activity.begin(Version::HTTP_11));
        assert_eq!(monitor.check(&activity, at(2000)), ConnectionState::Active, "there was a request between checks");
        activity.partial.store(true, Ordering::Relaxed);
        assert_eq!(monitor.check(&activity, at(2005)), ConnectionState::Active);
        assert_eq!(monitor.check(&activity, at(2015)), ConnectionState::Slow, "a header has begun and does not end");
    }

    #[test]
    fn http2_pings_do_not_count_as_an_incomplete_header() {
        let (activity, start) = (Arc::new(ConnectionActivity::default()), Instant::now());
        let mut monitor = ConnectionMonitor::new(HEADER, IDLE, start);
        drop(activity.begin(Version::HTTP_2));
        for seconds in (5..100).step_by(5) {
            activity.partial.store(true, Ordering::Relaxed);
            let at = start + Duration::from_secs(seconds);
            assert_eq!(monitor.check(&activity, at), ConnectionState::Active);
        }
        assert_eq!(monitor.check(&activity, start + Duration::from_secs(105)), ConnectionState::Idle);
    }
}
