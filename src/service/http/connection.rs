//! One connection from its first byte to its last: the handshake, its requests, its end.
//!
//! HTTP/1.1 and HTTP/2. It must not know where connections come from, nor what is answered.

use std::{convert::Infallible, pin::Pin, sync::Arc, time::Instant};

use axum::{body::Body, response::Response};
use http_body_util::Limited;
use hyper::{
    Request, StatusCode, Version,
    body::{Body as _, Incoming},
    header::{CONNECTION, HeaderMap, HeaderValue, TRANSFER_ENCODING},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{
    Answers, OnlyIfThere,
    activity::{Activity, Finding, Watch, Watched},
    leftover::lend,
    limits::Limits,
    within::within,
};
use crate::service::tls::TlsReloader;

/// Serves it to its end.
pub(super) async fn serve(
    stream: TcpStream,
    tls: Option<TlsReloader>,
    answers: impl Answers,
    limits: Limits,
    cancellation: CancellationToken,
) {
    // An answer is one write; waiting for more of it would only delay it.
    let _works_without = stream.set_nodelay(true);
    let Some(tls) = tls else {
        return http(stream, answers, limits, cancellation).await;
    };
    let handshake = timeout(limits.handshake, tls.acceptor().accept(stream));
    let accepted = tokio::select! {
        accepted = handshake => accepted,
        () = cancellation.cancelled() => return,
    };
    match accepted {
        Ok(Ok(stream)) => http(stream, answers, limits, cancellation).await,
        Ok(Err(error)) => debug!(%error, "a TLS handshake failed"),
        Err(_) => debug!("a TLS handshake took too long"),
    }
}

/// Which of the two it is shows in its first bytes, also where TLS has agreed on one.
async fn http<S>(stream: S, answers: impl Answers, limits: Limits, cancellation: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = Arc::new(Activity::default());
    let stream = TokioIo::new(Watched::new(stream, activity.clone()));
    let requests = activity.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let http1 = request.version() != Version::HTTP_2;
        let under_way = requests.begin(request.version());
        let mut answers = answers.clone();
        async move {
            let (head, body) = request.into_parts();
            if http1 && !body.is_end_stream() && !has_a_plain_body(&head.headers) {
                return Ok(unknown_coding());
            }
            let body = Limited::new(body, limits.body);
            let (body, leftover) = if http1 && !limits.leftover.is_zero() && !body.is_end_stream() {
                let (body, leftover) = lend(body);
                (body, Some(leftover))
            } else {
                (Body::new(body), None)
            };
            let answering = answers.call(Request::from_parts(head, body));
            let mut answer = match within(limits.request, answering).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(never)) => match never {},
                Err(_) => too_slow(),
            };
            let mut ends = under_way.is_last() || answer.status() == StatusCode::REQUEST_TIMEOUT;
            if let Some(leftover) = leftover.filter(|_| !ends) {
                ends = !leftover.read(limits.leftover).await;
            }
            if http1 && answer.extensions().get::<OnlyIfThere>().is_some() {
                under_way.looks_before_it_writes();
            }
            if http1 && ends {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // hyper's own limits of HTTP/1 cost an allocation with each request: how many headers (100 is its default), and how
    // long one may take, which the watch sees to. Answers are small: to copy one behind its head costs less than to have the system
    // gather the two.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(limits.head).writev(false);
    let head = u32::try_from(limits.head).unwrap_or(u32::MAX);
    // No pings: a client that is gone sends no requests, and is cut off as idle; and they cost a lock and a look at the clock with
    // each frame.
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(head)
        .initial_connection_window_size(limits.window)
        .initial_stream_window_size(limits.window);
    let serving = builder.serve_connection(stream, service);
    tokio::pin!(serving);
    drive(serving, |serving| serving.graceful_shutdown(), &activity, limits, cancellation).await;
}

/// Runs a connection until it ends, must end, or is to be cut off.
async fn drive<C, E>(
    mut serving: Pin<&mut C>,
    finish: impl Fn(Pin<&mut C>),
    activity: &Activity,
    limits: Limits,
    cancellation: CancellationToken,
) where
    C: Future<Output = Result<(), E>>,
    E: std::fmt::Display,
{
    let began = Instant::now();
    let mut watch = Watch::new(limits.header, limits.idle, began);
    let mut looks = interval(watch.every());
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut retired = false;
    loop {
        tokio::select! {
            biased;
            ended = serving.as_mut() => return tell(ended),
            () = cancellation.cancelled() => break,
            _ = looks.tick() => {}
        }
        let now = Instant::now();
        match watch.look(activity, now) {
            Finding::Busy => {}
            Finding::Idle => break,
            Finding::Slow => return debug!("a client was too slow with its request and is cut off"),
        }
        if !retired && now.duration_since(began) >= limits.lifetime {
            // HTTP/2 has words for it (GOAWAY); an HTTP/1 client is told with its next answer, so that no request is lost.
            retired = true;
            activity.retire();
            if activity.is_http2() {
                break;
            }
        }
    }
    finish(serving.as_mut());
    match timeout(limits.grace, serving).await {
        Ok(ended) => tell(ended),
        Err(_) => debug!("a connection did not end in time and is cut off"),
    }
}

fn tell<E: std::fmt::Display>(ended: Result<(), E>) {
    if let Err(error) = ended {
        debug!(%error, "a connection ended early");
    }
}

/// Whether a body is as it is, or in chunks and nothing else. hyper looks at the last coding only, and would pass on what another one
/// has made of it, for which a proxy in front may have found another end.
fn has_a_plain_body(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    }
}

fn unknown_coding() -> Response {
    let mut answer = Response::new(Body::from("Transfer-Encoding must be chunked, or left out\n"));
    *answer.status_mut() = StatusCode::BAD_REQUEST;
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

fn too_slow() -> Response {
    let mut answer = Response::new(Body::from("the request took too long\n"));
    *answer.status_mut() = StatusCode::REQUEST_TIMEOUT;
    answer
}
