use axum::{
    Router,
    body::Bytes,
    http::StatusCode,
    routing::{get, post},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Notify,
    task::JoinHandle,
};

use super::*;

const SOON: Duration = Duration::from_secs(20);

struct TestServer {
    addr: SocketAddr,
    /// Notified of each request that is refused without reading its body.
    refused: Arc<Notify>,
    /// Notified of each request that is never answered.
    began: Arc<Notify>,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl TestServer {
    async fn within(limits: Limits) -> Self {
        Self::with_slots(limits, 128).await
    }

    async fn with_slots(limits: Limits, slots: usize) -> Self {
        let refused = Arc::new(Notify::new());
        let notify = refused.clone();
        let refuse = async move || {
            notify.notify_one();
            StatusCode::FORBIDDEN
        };
        let began = Arc::new(Notify::new());
        let notify = began.clone();
        let never = async move || {
            notify.notify_one();
            std::future::pending::<&str>().await
        };
        let router = Router::new()
            .route("/refused", post(refuse))
            .route("/", get(async || "hello").post(async |body: Bytes| format!("{} bytes", body.len())))
            .route(
                "/fragment",
                get(async |request: Request| request.extensions().get::<DroppedFragment>().is_some().to_string()),
            )
            .route("/never", get(never));
        let server = HttpServer::bind("127.0.0.1:0".parse().unwrap(), "tests", "--test-addr").await.unwrap();
        let (addr, stop) = (server.local_addr(), CancellationToken::new());
        let serving = tokio::spawn(
            server.with_limits(limits).with_slots(Arc::new(ConnectionSlots::new(slots))).serve(router, stop.clone()),
        );
        Self { addr, refused, began, stop, serving }
    }

    async fn send(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream
    }

    async fn stops(self) {
        self.stop.cancel();
        tokio::time::timeout(SOON, self.serving).await.unwrap().unwrap();
    }
}

/// Reads until the server closes the connection.
async fn rest(mut stream: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let reading = tokio::time::timeout(SOON, stream.read_to_end(&mut bytes)).await;
    // Unread bytes turn the end of the connection into a reset.
    let _end_or_reset = reading.expect("the server closes");
    bytes
}

async fn answer(stream: TcpStream) -> String {
    String::from_utf8(rest(stream).await).unwrap()
}

fn limits() -> Limits {
    Limits { grace: Duration::from_millis(200), ..Limits::default() }
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
const NEVER: &[u8] = b"GET /never HTTP/1.1\r\nHost: x\r\n\r\n";
const GET_AND_CLOSE: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn port_in_use_is_reported_with_its_flag() {
    let local: ListenAddr = "127.0.0.1:0".parse().unwrap();
    let first = HttpServer::bind(local, "tests", "--test-addr").await.unwrap();
    let taken = ListenAddr::One(first.local_addr());
    let error = HttpServer::bind(taken, "tests", "--test-addr").await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot listen on {taken} for tests: ")), "{error}");
    assert!(error.ends_with("choose another address with --test-addr"), "{error}");
}

#[test]
fn plain_text_is_refused_except_on_loopback_or_with_insecure_listen() {
    let allowed = |addr: &str, tls, insecure| {
        refuse_plain_text(addr.parse().unwrap(), tls, insecure, "tests", "--test-addr")
            .map_err(|error| error.to_string())
    };
    assert_eq!(allowed("127.0.0.1:1", false, false), Ok(()));
    assert_eq!(allowed("0.0.0.0:1", true, false), Ok(()));
    assert_eq!(allowed(":1", false, true), Ok(()));
    let error = allowed(":8443", false, false).unwrap_err();
    for part in ["--test-addr=:8443", "plain text", "--tls-cert and --tls-key", "127.0.0.1:<port>", "--insecure-listen"]
    {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn listen_addresses_are_parsed_as_people_write_them() {
    for (text, parsed) in [
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
        assert_eq!(text.parse().ok(), parsed, "{text}");
        if let Some(addr) = parsed {
            assert_eq!(addr.to_string(), text);
        }
    }
}

#[test]
fn only_loopback_addresses_are_loopback() {
    for (text, loopback) in [
        ("127.0.0.1:1", true),
        ("127.9.9.9:1", true),
        ("[::1]:1", true),
        ("[::ffff:127.0.0.1]:1", true),
        (":1", false),
        ("0.0.0.0:1", false),
        ("[::]:1", false),
        ("10.0.0.1:1", false),
    ] {
        assert_eq!(text.parse::<ListenAddr>().unwrap().is_loopback(), loopback, "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn timeout_needs_no_time_for_a_ready_future_and_ends_a_pending_one() {
    use std::future::{pending, ready};
    assert_eq!(timeout(Duration::ZERO, ready(1)).await.ok(), Some(1));
    let began = tokio::time::Instant::now();
    assert!(timeout(Duration::from_secs(10), pending::<()>()).await.is_err());
    assert_eq!(began.elapsed().as_secs(), 10);
    let later = async {
        tokio::time::sleep(Duration::from_secs(9)).await;
        2
    };
    assert_eq!(timeout(Duration::from_secs(10), later).await.ok(), Some(2));
}

#[tokio::test]
async fn endless_header_is_cut_off() {
    let server = TestServer::within(Limits { header: Duration::from_millis(200), ..limits() }).await;
    let slow = server.send(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ").await;
    assert_eq!(answer(slow).await, "");
    server.stops().await;
}

#[tokio::test]
async fn a_new_connection_closes_one_that_waits_for_its_client() {
    let server = TestServer::with_slots(Limits { header: 2 * SOON, ..limits() }, 4).await;
    let mut busy = vec![server.send(NEVER).await];
    server.began.notified().await;
    let mut idle = server.send(GET).await;
    assert!(idle.read(&mut [0; 1024]).await.unwrap() > 0);
    let slow = server.send(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ").await;
    let silent = server.send(b"").await;
    for closed in [slow, silent, idle] {
        busy.push(server.send(NEVER).await);
        server.began.notified().await;
        assert!(rest(closed).await.is_empty());
    }
    server.stops().await;
}

#[tokio::test]
async fn many_connections_get_smaller_headers_and_fewer_streams() {
    let server = TestServer::with_slots(limits(), 400).await;
    let request =
        |size: usize| format!("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Long: {}\r\n\r\n", "a".repeat(size));
    let (long, short) = (request(60_000), request(20_000));
    assert!(answer(server.send(long.as_bytes()).await).await.starts_with("HTTP/1.1 200 "));
    let mut others = Vec::new();
    for _ in 0..300 {
        let mut other = server.send(GET).await;
        assert!(other.read(&mut [0; 1024]).await.unwrap() > 0);
        others.push(other);
    }
    assert!(answer(server.send(short.as_bytes()).await).await.starts_with("HTTP/1.1 200 "));
    // The answer is 431, but unread bytes may turn the end of the connection into a reset.
    let refused = answer(server.send(long.as_bytes()).await).await;
    assert!(refused.is_empty() || refused.starts_with("HTTP/1.1 431 "), "{refused}");
    let settings = server.send(http2::PREFACE).await;
    settings.readable().await.unwrap();
    drop(others);
    server.stops().await;
    let frames = http2::frames(&rest(settings).await);
    let setting = |id: u8| {
        let settings = frames.iter().find(|frame| frame.kind == http2::SETTINGS).expect("settings");
        http2::number(settings.payload.chunks(6).find(|one| one[..2] == [0, id]).expect("the setting"))
    };
    // MAX_CONCURRENT_STREAMS and MAX_HEADER_LIST_SIZE (RFC 9113, 6.5.2).
    let (streams, list) = (setting(3), setting(6));
    assert!(streams == 8 && (41_000..42_000).contains(&list), "{streams} streams, {list} bytes");
}

#[tokio::test]
async fn trickled_bytes_do_not_extend_the_header_timeout() {
    let server = TestServer::within(Limits { header: Duration::from_millis(200), ..limits() }).await;
    let mut slow = server.send(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ").await;
    let began = std::time::Instant::now();
    let trickling = async {
        while slow.write_all(b"a").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, trickling).await.expect("it is cut off");
    assert!(began.elapsed() >= Duration::from_millis(200));
    server.stops().await;
}

#[tokio::test]
async fn silent_client_is_cut_off() {
    let server = TestServer::within(Limits { header: Duration::from_millis(200), ..limits() }).await;
    // The second may become an HTTP/2 preface.
    for bytes in [&b""[..], b"PRI", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        rest(server.send(bytes).await).await;
    }
    server.stops().await;
}

#[tokio::test]
async fn slow_body_gets_408_and_is_cut_off() {
    let server = TestServer::within(Limits { request: Duration::from_millis(200), ..limits() }).await;
    let slow = server.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc").await;
    let text = answer(slow).await;
    assert!(text.starts_with("HTTP/1.1 408 ") && text.contains("connection: close"), "{text}");
    server.stops().await;
}

#[tokio::test]
async fn oversized_body_is_refused() {
    let server = TestServer::within(Limits { body: 10, ..limits() }).await;
    for (head, body) in
        [("Content-Length: 11", "12345678901"), ("Transfer-Encoding: chunked", "b\r\n12345678901\r\n0\r\n\r\n")]
    {
        let request = format!("POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{head}\r\n\r\n{body}");
        let text = answer(server.send(request.as_bytes()).await).await;
        assert!(text.starts_with("HTTP/1.1 413 "), "{text}");
    }
    let fits = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 10\r\n\r\n1234567890";
    assert!(answer(server.send(fits).await).await.ends_with("10 bytes"));
    server.stops().await;
}

const REFUSED: &[u8] = b"POST /refused HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n";

#[tokio::test]
async fn connection_is_reused_after_an_error_that_left_the_body_unread() {
    let server = TestServer::within(Limits { drain: SOON, ..limits() }).await;
    let mut stream = server.send(REFUSED).await;
    server.refused.notified().await;
    // The body follows after the refusal, in two parts.
    for part in [&b"12345"[..], b"67890", GET_AND_CLOSE] {
        stream.write_all(part).await.unwrap();
    }
    let text = answer(stream).await;
    assert!(text.starts_with("HTTP/1.1 403 ") && text.contains("HTTP/1.1 200 OK") && text.ends_with("hello"), "{text}");
    server.stops().await;
}

#[tokio::test]
async fn error_with_a_missing_or_oversized_body_closes_the_connection() {
    for (drain, body, sent) in [(Duration::from_millis(50), 10, &b"12345"[..]), (SOON, 5, b"1234567890")] {
        let server = TestServer::within(Limits { drain, body, ..limits() }).await;
        let mut stream = server.send(REFUSED).await;
        stream.write_all(sent).await.unwrap();
        let text = answer(stream).await;
        assert!(text.starts_with("HTTP/1.1 403 ") && text.contains("connection: close"), "{text}");
        server.stops().await;
    }
}

#[tokio::test]
async fn oversized_header_is_refused() {
    let server = TestServer::within(Limits { head: 8 * 1024, ..limits() }).await;
    let many: String = (0..1100).map(|n| format!("X-{n}: a\r\n")).collect();
    let long = format!("X-Long: {}\r\n", "a".repeat(9000));
    for headers in [many, long] {
        let request = format!("GET / HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
        let text = answer(server.send(request.as_bytes()).await).await;
        assert!(text.starts_with("HTTP/1.1 431 "), "{text}");
    }
    server.stops().await;
}

#[tokio::test]
async fn hundreds_of_headers_and_a_long_header_are_accepted() {
    let server = TestServer::within(limits()).await;
    let many: String = (0..1000).map(|n| format!("X-{n}: a\r\n")).collect();
    let request = format!("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{many}\r\n");
    assert!(answer(server.send(request.as_bytes()).await).await.starts_with("HTTP/1.1 200 "));
    server.stops().await;
}

#[tokio::test]
async fn fragment_in_the_target_is_reported() {
    let server = TestServer::within(limits()).await;
    for (target, fragment) in
        [("/fragment", false), ("/fragment#a", true), ("/fragment?a=b#c", true), ("/fragment?a=%23", false)]
    {
        // In one piece, in two, and as the second request of a connection. The `#` of a header and of a body have no effect.
        for (before, cut) in [
            ("", 0),
            ("", 8),
            ("", target.len() + 4),
            ("POST / HTTP/1.1\r\nHost: x\r\nX: #\r\nContent-Length: 2\r\n\r\n#\n", 0),
        ] {
            let mut stream = TcpStream::connect(server.addr).await.unwrap();
            stream.set_nodelay(true).unwrap();
            if !before.is_empty() {
                stream.write_all(before.as_bytes()).await.unwrap();
                assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
            }
            let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\nX: #\r\nConnection: close\r\n\r\n");
            stream.write_all(&request.as_bytes()[..cut]).await.unwrap();
            tokio::task::yield_now().await;
            stream.write_all(&request.as_bytes()[cut..]).await.unwrap();
            let text = answer(stream).await;
            assert!(text.ends_with(&format!("\r\n\r\n{fragment}")), "{target} {before} {cut}: {text}");
        }
    }
    server.stops().await;
}

#[tokio::test]
async fn port_without_an_address_listens_on_both_families() {
    let listening = HttpServer::bind(":0".parse().unwrap(), "tests", "--test-addr").await.unwrap();
    if listening.local_addr().is_ipv4() {
        return eprintln!("this machine has no IPv6");
    }
    let port = listening.local_addr().port();
    assert!(!rustix::net::sockopt::ipv6_v6only(&listening.listener).unwrap());
    TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    TcpStream::connect(("::1", port)).await.unwrap();
}

/// A request that is smuggled in the body of another.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n";

#[tokio::test]
async fn request_with_an_ambiguous_end_closes_the_connection() {
    let server = TestServer::within(Limits { drain: SOON, ..limits() }).await;
    for (version, headers, status) in [
        // With both, the chunks determine the end, and the connection is closed (RFC 9112, 6.3).
        ("1.1", "Content-Length: 5\r\nTransfer-Encoding: chunked", 200),
        ("1.1", "Transfer-Encoding: chunked\r\nContent-Length: 5", 200),
        ("1.1", "Content-Length: 0\r\nTransfer-Encoding: chunked", 200),
        ("1.1", "Content-Length: 5\r\nContent-Length: 6", 400),
        ("1.1", "Content-Length: 0\r\nContent-Length: 5", 400),
        ("1.1", "Content-Length: 5, 5", 400),
        ("1.1", "Content-Length: 5, 6", 400),
        ("1.1", "Content-Length: +5", 400),
        ("1.1", "Content-Length: -5", 400),
        ("1.1", "Content-Length: 0x5", 400),
        ("1.1", "Content-Length: 5 5", 400),
        ("1.1", "Content-Length:", 400),
        ("1.1", "Content-Length: 99999999999999999999999", 400),
        ("1.1", "Content-Length : 5", 400),
        ("1.1", "Content-Length: 5\r\n Transfer-Encoding: chunked", 400),
        ("1.1", "Transfer-Encoding: x, chunked", 400),
        ("1.1", "Transfer-Encoding: gzip, chunked", 400),
        ("1.1", "Transfer-Encoding: chunked, x", 400),
        ("1.1", "Transfer-Encoding: chunked, chunked", 400),
        ("1.1", "Transfer-Encoding: ,chunked", 400),
        ("1.1", "Transfer-Encoding: x\r\nTransfer-Encoding: chunked", 400),
        ("1.1", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400),
        ("1.1", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", 400),
        ("1.1", "Transfer-Encoding: identity", 400),
        ("1.1", "Transfer-Encoding: xchunked", 400),
        ("1.1", "Transfer-Encoding: \"chunked\"", 400),
        ("1.1", "Transfer-Encoding: \x0bchunked", 400),
        ("1.1", "Transfer-Encoding : chunked", 400),
        ("1.1", "Transfer-Encoding:\r\n chunked", 400),
        ("1.1", "X-Folded: a\r\n b\r\nContent-Length: 5", 400),
        ("1.1", " X-Before: a\r\nContent-Length: 5", 400),
        ("1.0", "Transfer-Encoding: chunked", 400),
    ] {
        let request =
            format!("POST / HTTP/{version}\r\nHost: x\r\nConnection: keep-alive\r\n{headers}\r\n\r\n0\r\n\r\n{HIDDEN}");
        let text = answer(server.send(request.as_bytes()).await).await;
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{headers:?}: {text:?}");
        assert_eq!(text.matches("HTTP/1.").count(), 1, "{headers:?}: {text:?}");
        assert!(text.contains("connection: close"), "{headers:?}: {text:?}");
    }
    server.stops().await;
}

#[tokio::test]
async fn malformed_chunks_close_the_connection() {
    let server = TestServer::within(Limits { drain: SOON, ..limits() }).await;
    for chunks in ["5 \r\n", "-5\r\n", "0x5\r\n", "ffffffffffffffff1\r\n", "x\r\n", "1\r\nab\r\n"] {
        let request = format!("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}{HIDDEN}");
        let text = answer(server.send(request.as_bytes()).await).await;
        assert!(text.starts_with("HTTP/1.1 400 "), "{chunks:?}: {text:?}");
        assert_eq!(text.matches("HTTP/1.").count(), 1, "{chunks:?}: {text:?}");
    }
    server.stops().await;
}

#[tokio::test]
async fn override_headers_change_neither_method_nor_path() {
    let server = TestServer::within(limits()).await;
    for header in [
        "X-HTTP-Method-Override: GET",
        "X-HTTP-Method: GET",
        "X-Method-Override: GET",
        "X-Original-Method: GET",
        "X-Original-URL: /hidden",
        "X-Rewrite-URL: /hidden",
        "X-Forwarded-Uri: /hidden",
    ] {
        let request = format!(
            "POST /?_method=GET HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\nContent-Length: 11\r\n\r\n_method=GET"
        );
        let text = answer(server.send(request.as_bytes()).await).await;
        assert!(text.starts_with("HTTP/1.1 200 ") && text.ends_with("11 bytes"), "{header}: {text}");
    }
    server.stops().await;
}

#[tokio::test]
async fn idle_connection_is_closed_and_an_active_one_is_not() {
    let idle = Duration::from_millis(300);
    let server = TestServer::within(Limits { header: idle, idle, ..limits() }).await;
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    let mut buffer = [0; 1024];
    for _ in 0..6 {
        stream.write_all(GET).await.unwrap();
        let read = stream.read(&mut buffer).await.unwrap();
        assert!(buffer[..read].starts_with(b"HTTP/1.1 200"), "it has been open for longer than the idle timeout");
        tokio::time::sleep(idle / 3).await;
    }
    assert!(rest(stream).await.is_empty());
    server.stops().await;
}

#[tokio::test]
async fn old_connection_ends_with_connection_close() {
    let limits = Limits { lifetime: Duration::from_millis(100), header: Duration::from_millis(50), ..limits() };
    let server = TestServer::within(limits).await;
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    let mut buffer = [0; 1024];
    let asking = async {
        loop {
            stream.write_all(GET).await.expect("it ends only after an answer");
            let read = stream.read(&mut buffer).await.unwrap();
            let text = str::from_utf8(&buffer[..read]).unwrap();
            assert!(text.starts_with("HTTP/1.1 200 OK"), "{text}");
            if text.contains("connection: close") {
                return;
            }
        }
    };
    tokio::time::timeout(SOON, asking).await.expect("it ends");
    assert!(rest(stream).await.is_empty());
    server.stops().await;
}

#[tokio::test]
async fn shutdown_finishes_requests_within_the_grace_period() {
    let server = TestServer::within(limits()).await;
    let never = server.send(b"GET /never HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let idle = server.send(GET).await;
    idle.readable().await.unwrap();
    server.stops().await;
    assert!(answer(idle).await.ends_with("hello"));
    assert_eq!(answer(never).await, "");
}

/// HTTP/2 frames (RFC 9113) that a well-behaved client library would not send.
mod http2 {
    use super::*;

    pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    pub(super) const SETTINGS: u8 = 4;
    const GOAWAY: u8 = 7;
    const CONTINUATION: u8 = 9;
    const END_STREAM: u8 = 1;
    const END_HEADERS: u8 = 4;
    const ENHANCE_YOUR_CALM: u32 = 11;
    /// Indexed `:method: GET`, `:scheme: http`, `:path: /`, and `:authority: x`.
    const GET_ROOT: &[u8] = &[0x82, 0x86, 0x84, 0x41, 0x01, b'x'];

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    pub(super) struct Frame {
        pub(super) kind: u8,
        stream: u32,
        pub(super) payload: Vec<u8>,
    }

    pub(super) fn frames(mut bytes: &[u8]) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some((head, rest)) = bytes.split_first_chunk::<9>() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let Some((payload, rest)) = rest.split_at_checked(length) else { break };
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            frames.push(Frame { kind: head[3], stream, payload: payload.to_vec() });
            bytes = rest;
        }
        frames
    }

    pub(super) fn number(payload: &[u8]) -> u32 {
        u32::from_be_bytes(payload[payload.len() - 4..].try_into().unwrap())
    }

    #[tokio::test]
    async fn prior_knowledge_works_in_plain_text_and_limits_are_announced() {
        let server = TestServer::within(Limits { streams: 7, idle: Duration::from_millis(200), ..limits() }).await;
        let hello =
            [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(HEADERS, END_STREAM | END_HEADERS, 1, GET_ROOT)].concat();
        let frames = frames(&rest(server.send(&hello).await).await);
        let settings = frames.iter().find(|frame| frame.kind == SETTINGS).expect("settings");
        let streams = settings.payload.chunks(6).find(|one| one[..2] == [0, 3]).expect("MAX_CONCURRENT_STREAMS");
        assert_eq!(number(streams), 7);
        // Static index 8 is `:status: 200`.
        assert!(frames.iter().any(|frame| frame.kind == HEADERS && frame.stream == 1 && frame.payload[0] == 0x88));
        assert!(
            frames.iter().any(|frame| frame.kind == GOAWAY && number(&frame.payload[..8]) == 0),
            "an idle connection ends with GOAWAY"
        );
        server.stops().await;
    }

    #[tokio::test]
    async fn rapid_reset_ends_the_connection() {
        let server = TestServer::within(limits()).await;
        let mut flood = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
        for stream in (1..20_000).step_by(2) {
            flood.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream, GET_ROOT));
            flood.extend(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
        }
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        // The server may close the connection before everything is sent.
        let _sent_or_not = stream.write_all(&flood).await;
        let frames = frames(&rest(stream).await);
        let calm = frames.iter().any(|frame| frame.kind == GOAWAY && number(&frame.payload[..8]) == ENHANCE_YOUR_CALM);
        assert!(calm, "{:?}", frames.iter().map(|frame| frame.kind).collect::<Vec<_>>());
        server.stops().await;
    }

    #[tokio::test]
    async fn endless_header_ends_the_connection() {
        let server = TestServer::within(Limits { head: 16 * 1024, ..limits() }).await;
        let mut endless = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(HEADERS, END_STREAM, 1, GET_ROOT)].concat();
        // A repeated literal header of 60 bytes.
        let part = [&[0x00, 1, b'a', 60][..], &[b'b'; 60]].concat().repeat(250);
        for _ in 0..100 {
            endless.extend(frame(CONTINUATION, 0, 1, &part));
        }
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        let _sent_or_not = stream.write_all(&endless).await;
        rest(stream).await;
        server.stops().await;
    }
}
