//! The life of a connection: TLS handshake, HTTP/1.1 or HTTP/2 requests, and its end.

use std::{
    convert::Infallible,
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use axum::{
    BoxError,
    body::{Body, Bytes, HttpBody},
    response::Response,
};
use http_body_util::Limited;
use hyper::{
    Request, StatusCode, Version,
    body::{Frame, Incoming, SizeHint},
    header::{CONNECTION, HeaderMap, HeaderValue, TRANSFER_ENCODING},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    net::TcpStream,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{
    DroppedFragment, HttpService, Limits,
    activity::{ConnectionActivity, ConnectionMonitor, ConnectionState, MonitoredStream},
    connections::ConnectionSlot,
};
use crate::service::tls::TlsReloader;

/// The bytes that a TLS client may send before its handshake is complete: a ClientHello, which has some hundred bytes, or 2,000 with a
/// post-quantum key, and perhaps the first record of a request (16 KiB). rustls would buffer 64 KiB.
const HANDSHAKE_BYTES: u64 = 32 * 1024;

/// The maximum number of headers that hyper parses; its own default is 100.
const PARSED_HEADERS: usize = 1024;

/// Serves a connection until it ends. The slot is free again afterwards.
pub(super) async fn serve(
    stream: TcpStream,
    tls: Option<TlsReloader>,
    service: impl HttpService,
    limits: Limits,
    slot: ConnectionSlot,
    activity: Arc<ConnectionActivity>,
    cancellation: CancellationToken,
) {
    let limits = Limits { head: slot.head(limits.head), streams: slot.streams(limits.streams), ..limits };
    // A response is one write: Nagle's algorithm would only delay it.
    let _works_without = stream.set_nodelay(true);
    match tls {
        None => http(stream, service, limits, activity, cancellation).await,
        // Boxed: plain-text connections do not need the room.
        Some(tls) => Box::pin(https(stream, &tls, service, limits, activity, cancellation)).await,
    }
}

async fn https(
    stream: TcpStream,
    tls: &TlsReloader,
    service: impl HttpService,
    limits: Limits,
    activity: Arc<ConnectionActivity>,
    cancellation: CancellationToken,
) {
    let (read, write) = stream.into_split();
    let stream = tokio::io::join(read.take(HANDSHAKE_BYTES), write);
    let handshake = timeout(limits.handshake, tls.acceptor().accept(stream));
    let accepted = tokio::select! {
        accepted = handshake => accepted,
        () = cancellation.cancelled() => return,
    };
    match accepted {
        Ok(Ok(mut stream)) => {
            stream.get_mut().0.reader_mut().set_limit(u64::MAX);
            http(stream, service, limits, activity, cancellation).await;
        }
        Ok(Err(error)) => debug!(%error, "TLS handshake failed"),
        Err(_) => debug!("TLS handshake timed out"),
    }
}

/// Detects HTTP/1.1 or HTTP/2 from the first bytes, also where TLS has negotiated one of them.
async fn http<S>(
    stream: S,
    service: impl HttpService,
    limits: Limits,
    activity: Arc<ConnectionActivity>,
    cancellation: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = TokioIo::new(MonitoredStream::new(stream, activity.clone()));
    let requests = activity.clone();
    let answer = service_fn(move |request: Request<Incoming>| {
        let http1 = request.version() != Version::HTTP_2;
        let in_progress = requests.begin(request.version());
        let mut service = service.clone();
        async move {
            let (mut head, body) = request.into_parts();
            if in_progress.has_fragment() {
                head.extensions.insert(DroppedFragment);
            }
            if http1 && !body.is_end_stream() && !has_supported_coding(&head.headers) {
                return Ok(unsupported_coding());
            }
            let body = Limited::new(body, limits.body);
            let (body, drain) = if http1 && !limits.drain.is_zero() && !body.is_end_stream() {
                let (body, drain) = BodyDrain::share(body);
                (body, Some(drain))
            } else {
                (Body::new(body), None)
            };
            let answering = service.call(Request::from_parts(head, body));
            let mut response = match super::timeout(limits.request, answering).await {
                Ok(Ok(response)) => response,
                Ok(Err(never)) => match never {},
                Err(_) => error(StatusCode::REQUEST_TIMEOUT, "the request took too long\n"),
            };
            let mut ends = in_progress.is_last() || response.status() == StatusCode::REQUEST_TIMEOUT;
            if let Some(drain) = drain.filter(|_| !ends) {
                ends = !drain.read(limits.drain).await;
            }
            if http1 && ends {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // hyper's header timeout costs an allocation for each request; the monitor enforces it instead. Responses are small: copying one
    // behind its head is cheaper than a vectored write.
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(limits.head)
        .max_headers(PARSED_HEADERS)
        .writev(false);
    // HTTP/2 counts 32 bytes for each header in addition (RFC 9113, 6.5.2).
    let head = u32::try_from(limits.head + limits.head / 2).unwrap_or(u32::MAX);
    // No pings: a client that is gone sends no requests and is closed as idle. Pings cost a lock and a clock read for each frame.
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(head)
        .initial_connection_window_size(limits.window)
        .initial_stream_window_size(limits.window);
    let serving = builder.serve_connection(stream, answer);
    tokio::pin!(serving);
    drive(serving, |serving| serving.graceful_shutdown(), &activity, limits, cancellation).await;
}

/// Runs a connection until it ends, is idle, slow or too old, or the server stops.
async fn drive<C, E>(
    mut serving: Pin<&mut C>,
    shut_down: impl Fn(Pin<&mut C>),
    activity: &ConnectionActivity,
    limits: Limits,
    cancellation: CancellationToken,
) where
    C: Future<Output = Result<(), E>>,
    E: std::fmt::Display,
{
    let began = Instant::now();
    let mut monitor = ConnectionMonitor::new(limits.header, limits.idle, began);
    let mut checks = interval(monitor.interval());
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut retired = false;
    loop {
        tokio::select! {
            biased;
            ended = serving.as_mut() => return log_end(ended),
            () = cancellation.cancelled() => break,
            _ = checks.tick() => {}
        }
        let now = Instant::now();
        match monitor.check(activity, now) {
            ConnectionState::Active => {}
            ConnectionState::Idle => break,
            ConnectionState::Slow => return debug!("closed a connection whose request did not arrive in time"),
        }
        if !retired && now.duration_since(began) >= limits.lifetime {
            // HTTP/2 has GOAWAY. An HTTP/1 client gets `Connection: close` with its next response, so that no request
            // is lost.
            retired = true;
            activity.retire();
            if activity.is_http2() {
                break;
            }
        }
    }
    if activity.is_evicted() {
        return;
    }
    shut_down(serving.as_mut());
    match timeout(limits.grace, serving).await {
        Ok(ended) => log_end(ended),
        Err(_) => debug!("closed a connection whose requests did not end in time"),
    }
}

fn log_end<E: std::fmt::Display>(ended: Result<(), E>) {
    if let Err(error) = ended {
        debug!(%error, "connection ended early");
    }
}

/// Whether a body has no transfer coding or is chunked. hyper checks the last coding only; with another one, a proxy in front may see a
/// different end of the request.
fn has_supported_coding(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    }
}

fn unsupported_coding() -> Response {
    let mut response = error(StatusCode::BAD_REQUEST, "Transfer-Encoding must be chunked or absent\n");
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

fn error(status: StatusCode, message: &'static str) -> Response {
    let mut response = Response::new(Body::from(message));
    *response.status_mut() = status;
    response
}

/// A request's body, shared with the service, to be read to its end before the response is sent. Otherwise hyper would close a connection
/// with an unread body without `Connection: close`, and the client's next request would fail.
struct BodyDrain<B>(Arc<Mutex<B>>);

/// The service's side of a [`BodyDrain`].
struct SharedBody<B>(Arc<Mutex<B>>);

impl<B: HttpBody + Unpin> BodyDrain<B> {
    fn share(body: B) -> (Body, Self)
    where
        B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let body = Arc::new(Mutex::new(body));
        (Body::new(SharedBody(body.clone())), Self(body))
    }

    /// Reads the rest of the body within this time. Returns whether the connection can be reused.
    async fn read(self, limit: Duration) -> bool {
        // A body that the service still holds is read by it, or ends the connection.
        let Some(body) = Arc::into_inner(self.0) else { return true };
        let mut body = body.into_inner().unwrap_or_else(PoisonError::into_inner);
        let to_end = poll_fn(|context| {
            loop {
                match ready!(Pin::new(&mut body).poll_frame(context)) {
                    Some(Ok(_)) => {}
                    Some(Err(_)) => return Poll::Ready(false),
                    None => return Poll::Ready(true),
                }
            }
        });
        timeout(limit, to_end).await.unwrap_or(false)
    }
}

impl<B: HttpBody + Unpin> SharedBody<B> {
    fn with<T>(&self, ask: impl FnOnce(&mut B) -> T) -> T {
        ask(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<B: HttpBody + Unpin> HttpBody for SharedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.with(|body| Pin::new(body).poll_frame(context))
    }

    fn is_end_stream(&self) -> bool {
        self.with(|body| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.with(|body| body.size_hint())
    }
}
