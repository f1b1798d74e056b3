//! What one connection is doing: told by its requests and its bytes, looked at now and then by whoever must end it.
//!
//! A request costs it a few uncontended atomic operations, and no look at any clock. It must not know HTTP beyond its
//! versions.

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
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Shared by a connection's bytes, its requests and its watch. Nothing depends on the order of these: `Relaxed` will do.
#[derive(Debug, Default)]
pub(super) struct Activity {
    begun: AtomicU64,
    ended: AtomicU64,
    /// Bytes have come since the last request began or ended: part of a header, for HTTP/1.
    partial: AtomicBool,
    http2: AtomicBool,
    retiring: AtomicBool,
    /// Before anything is written, it is to be looked whether anybody is there.
    looks: AtomicBool,
}

/// A request that is under way, until it is dropped.
pub(super) struct UnderWay(Arc<Activity>);

impl Activity {
    /// A request's header is in.
    pub(super) fn begin(self: &Arc<Self>, version: Version) -> UnderWay {
        if version == Version::HTTP_2 && !self.http2.load(Ordering::Relaxed) {
            self.http2.store(true, Ordering::Relaxed);
        }
        if self.looks.load(Ordering::Relaxed) {
            self.looks.store(false, Ordering::Relaxed);
        }
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.partial.store(false, Ordering::Relaxed);
        UnderWay(self.clone())
    }

    /// From now on each request is the last of its connection.
    pub(super) fn retire(&self) {
        self.retiring.store(true, Ordering::Relaxed);
    }

    /// Whether HTTP/2 is spoken, as far as is known.
    pub(super) fn is_http2(&self) -> bool {
        self.http2.load(Ordering::Relaxed)
    }
}

impl UnderWay {
    /// Whether no other request should follow on this connection.
    pub(super) fn is_last(&self) -> bool {
        self.0.retiring.load(Ordering::Relaxed)
    }

    /// The answer goes out only if the client is still there.
    pub(super) fn looks_before_it_writes(&self) {
        self.0.looks.store(true, Ordering::Relaxed);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
        self.0.partial.store(false, Ordering::Relaxed);
    }
}

/// What a look at a connection says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// It is doing what it should.
    Busy,
    /// It has done nothing for too long.
    Idle,
    /// A header, or the first request, is not coming.
    Slow,
}

/// Looks at one connection, and remembers when it last got on.
#[derive(Debug)]
pub(super) struct Watch {
    header: Duration,
    idle: Duration,
    requests: u64,
    since: Instant,
    partial_since: Option<Instant>,
}

impl Watch {
    /// Begins with the connection.
    pub(super) fn new(header: Duration, idle: Duration, now: Instant) -> Self {
        // A connection is opened for a request: the first must come as fast as a header that has begun.
        Self { header, idle, requests: 0, since: now, partial_since: Some(now) }
    }

    /// How often to look.
    pub(super) fn every(&self) -> Duration {
        self.header.min(self.idle) / 2
    }

    /// Looks.
    pub(super) fn look(&mut self, activity: &Activity, now: Instant) -> Finding {
        let (begun, ended) = (activity.begun.load(Ordering::Relaxed), activity.ended.load(Ordering::Relaxed));
        let got_on = begun.wrapping_add(ended) != self.requests;
        self.requests = begun.wrapping_add(ended);
        // What keeps an HTTP/2 connection alive are bytes without a request as well.
        let partial = begun == 0 || activity.partial.load(Ordering::Relaxed) && !activity.is_http2();
        if got_on {
            self.since = now;
            self.partial_since = None;
        }
        if begun != ended {
            // Under way: how long that may take is the request's own limit.
            self.since = now;
            return Finding::Busy;
        }
        if !partial {
            self.partial_since = None;
        } else if now.duration_since(*self.partial_since.get_or_insert(now)) >= self.header {
            return Finding::Slow;
        }
        if now.duration_since(self.since) >= self.idle { Finding::Idle } else { Finding::Busy }
    }
}

/// How many bytes are read ahead to find out whether the client has gone.
const AHEAD: usize = 16 * 1024;

/// A stream that tells when bytes come in.
pub(super) struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
    /// What came in while it was looked whether the client has gone.
    ahead: Vec<u8>,
    gone: bool,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self { stream, activity, ahead: Vec::new(), gone: false }
    }
}

impl<S: AsyncRead + Unpin> Watched<S> {
    /// Fails if the client has gone, where that is asked for. What it sent before is kept; behind too much of it nobody looks.
    fn check_that_it_is_there(&mut self, cx: &mut Context<'_>) -> std::io::Result<()> {
        if !self.activity.looks.load(Ordering::Relaxed) {
            return Ok(());
        }
        while !self.gone && self.ahead.len() < AHEAD {
            let mut space = [0; 1024];
            let mut read = ReadBuf::new(&mut space);
            match Pin::new(&mut self.stream).poll_read(cx, &mut read) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(())) if !read.filled().is_empty() => self.ahead.extend_from_slice(read.filled()),
                Poll::Ready(_) => self.gone = true,
            }
        }
        if self.gone { Err(std::io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        if !self.ahead.is_empty() {
            let part = self.ahead.len().min(buf.remaining());
            buf.put_slice(&self.ahead[..part]);
            self.ahead.drain(..part);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.activity.partial.store(true, Ordering::Relaxed);
        }
        polled
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        self.check_that_it_is_there(cx)?;
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
        self.check_that_it_is_there(cx)?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Duration = Duration::from_secs(10);
    const IDLE: Duration = Duration::from_secs(100);

    #[test]
    fn a_connection_is_slow_until_its_first_request_and_then_idle_between_requests() {
        let (activity, start) = (Arc::new(Activity::default()), Instant::now());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut watch = Watch::new(HEADER, IDLE, start);
        assert_eq!(watch.look(&activity, at(9)), Finding::Busy);
        assert_eq!(watch.look(&activity, at(10)), Finding::Slow);

        let request = activity.begin(Version::HTTP_11);
        assert_eq!(watch.look(&activity, at(1000)), Finding::Busy, "a request has its own limit");
        drop(request);
        assert_eq!(watch.look(&activity, at(1001)), Finding::Busy);
        assert_eq!(watch.look(&activity, at(1100)), Finding::Busy);
        assert_eq!(watch.look(&activity, at(1101)), Finding::Idle);

        drop(activity.begin(Version::HTTP_11));
        assert_eq!(watch.look(&activity, at(2000)), Finding::Busy, "there was a request between two looks");
        activity.partial.store(true, Ordering::Relaxed);
        assert_eq!(watch.look(&activity, at(2005)), Finding::Busy);
        assert_eq!(watch.look(&activity, at(2015)), Finding::Slow, "a header has begun and does not end");
    }

    #[test]
    fn pings_are_no_half_header() {
        let (activity, start) = (Arc::new(Activity::default()), Instant::now());
        let mut watch = Watch::new(HEADER, IDLE, start);
        drop(activity.begin(Version::HTTP_2));
        for seconds in (5..100).step_by(5) {
            activity.partial.store(true, Ordering::Relaxed);
            assert_eq!(watch.look(&activity, start + Duration::from_secs(seconds)), Finding::Busy);
        }
        assert_eq!(watch.look(&activity, start + Duration::from_secs(105)), Finding::Idle);
    }
}
