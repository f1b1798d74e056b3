use std::time::Instant;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
};

use super::*;
use crate::issuer::IssuerCredential;

const TOKEN: &str = "s3cret-0123456789";

/// A server that sends this text to each connection after the request's head, and returns the requests.
async fn server(response: String) -> (String, UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, requests) = unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (response, sender) = (response.clone(), sender.clone());
            tokio::spawn(async move {
                let (mut request, mut part) = (Vec::new(), [0; 4096]);
                while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                    match stream.read(&mut part).await {
                        Ok(0) | Err(_) => return,
                        Ok(length) => request.extend_from_slice(&part[..length]),
                    }
                }
                sender.send(String::from_utf8_lossy(&request).into_owned()).unwrap();
                stream.write_all(response.as_bytes()).await.unwrap();
                // The connection stays open: the end of a response is not that of its connection.
                std::future::pending::<()>().await;
            });
        }
    });
    (url, requests)
}

fn response(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len())
}

fn endpoint(url: &str) -> Endpoint {
    Endpoint {
        url: url.to_owned(),
        ca_bundle: None,
        credential: IssuerCredential::Token(PlainToken::new(TOKEN.to_owned())),
        account: None,
        http_hosts: vec!["127.0.0.1".to_owned(), "localhost".to_owned()],
        addresses: AddressPolicy::default(),
        proxy: None,
        budget: CallBudget::new(600, 10),
    }
}

fn client(endpoint: &Endpoint) -> IssuerClient {
    IssuerClient::new(endpoint, vec![PlainToken::new(TOKEN.to_owned())]).unwrap()
}

async fn error_of(response: String) -> CallError {
    let (url, _requests) = server(response).await;
    client(&endpoint(&url)).send(Call::get("/x")).await.err().expect("an error")
}

#[tokio::test]
async fn a_request_has_agent_credential_and_body() {
    let (url, mut requests) = server(response("200 OK", "", r#"{"a":1}"#)).await;
    let client = client(&endpoint(&format!("{url}/prefix/")));
    let authorization = bearer(&PlainToken::new(TOKEN.to_owned())).unwrap();
    assert!(authorization.is_sensitive());
    let path = path(&["api", "a/b c", "..."]).unwrap();
    let call = Call::new(Method::POST, path).authorized(&authorization).json(&json!({"name": "x"}));
    let answer = client.send(call).await.unwrap();
    assert_eq!((answer.status, answer.json::<Value>().unwrap()), (StatusCode::OK, json!({"a": 1})));
    let request = requests.recv().await.unwrap().to_lowercase();
    assert!(request.starts_with("post /prefix/api/a%2fb%20c/... http/1.1\r\n"), "{request}");
    for header in [
        &*format!("user-agent: pat-operator/{}\r\n", env!("CARGO_PKG_VERSION")),
        &*format!("authorization: bearer {TOKEN}\r\n"),
        "content-type: application/json\r\n",
        "content-length: 12\r\n",
    ] {
        assert!(request.contains(header), "{header}: {request}");
    }
}

#[test]
fn names_cannot_leave_their_path() {
    for name in ["", ".", ".."] {
        assert!(matches!(path(&["tokens", name]), Err(CallError::Unsupported(_))), "{name:?}");
    }
    assert_eq!(path(&["a", "../?#%é"]).unwrap(), "/a/..%2F%3F%23%25%C3%A9");
}

#[tokio::test]
async fn statuses_become_errors_with_a_clean_message() {
    let said = |status| response(status, "", &json!({"message": format!("no\u{7}, {TOKEN} is bad")}).to_string());
    let message = || "no , [redacted] is bad".to_owned();
    for (status, expected, unknown) in [
        ("400 Bad Request", CallError::Refused { status: 400, message: message() }, false),
        ("401 Unauthorized", CallError::Unauthorized { message: message() }, false),
        ("403 Forbidden", CallError::Forbidden { message: message() }, false),
        ("404 Not Found", CallError::NotFound { message: message() }, false),
        (
            "408 Request Timeout",
            CallError::Unavailable { reason: "HTTP status 408".to_owned(), message: message() },
            true,
        ),
        ("409 Conflict", CallError::Conflict { status: 409, message: message() }, false),
        ("422 Unprocessable Entity", CallError::Refused { status: 422, message: message() }, false),
        ("500 Oops", CallError::Unavailable { reason: "HTTP status 500".to_owned(), message: message() }, true),
        ("303 See Other", CallError::Redirected { status: 303 }, true),
    ] {
        let error = error_of(said(status)).await;
        assert_eq!((&error, error.is_outcome_unknown()), (&expected, unknown), "{status}");
        assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let (target, mut requests) = server(response("200 OK", "", "{}")).await;
    let error = error_of(response("302 Found", &format!("Location: {target}/\r\n"), "")).await;
    assert_eq!(error, CallError::Redirected { status: 302 });
    assert!(requests.try_recv().is_err(), "nobody but the issuer gets a request");
}

#[tokio::test]
async fn a_garbled_success_quotes_nothing() {
    for body in [r#"{"name": "s3cret-0123456789"}"#, "<html>s3cret-0123456789", ""] {
        let (url, _requests) = server(response("200 OK", "", body)).await;
        let answer = client(&endpoint(&url)).send(Call::get("/x")).await.unwrap();
        let error = answer.json::<Vec<u8>>().unwrap_err();
        assert!(matches!(error, CallError::Malformed { .. }) && error.is_outcome_unknown(), "{error:?}");
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }
}

#[tokio::test]
async fn a_large_body_is_refused_whether_announced_or_not() {
    let body = "x".repeat(MAX_BODY + 1);
    assert_eq!(error_of(response("200 OK", "", &body)).await, CallError::TooLarge);
    let chunked =
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    assert_eq!(error_of(chunked).await, CallError::TooLarge);
    let (url, _requests) = server(response("200 OK", "", &"x".repeat(MAX_BODY))).await;
    assert!(client(&endpoint(&url)).send(Call::get("/x")).await.is_ok());
    let refused = error_of(response("403 Forbidden", "", &body)).await;
    assert_eq!(refused, CallError::Forbidden { message: String::new() }, "the status is known without the body");
}

#[tokio::test]
async fn a_slow_answer_times_out() {
    for response in [String::new(), "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{".to_owned()] {
        let (url, _requests) = server(response).await;
        let client = IssuerClient { limit: Duration::from_millis(200), ..client(&endpoint(&url)) };
        let began = Instant::now();
        let error = client.send(Call::get("/x")).await.err().unwrap();
        assert!(error == CallError::TimedOut && error.is_outcome_unknown() && began.elapsed() < CALL_TIMEOUT);
    }
}

#[tokio::test]
async fn a_broken_answer_is_an_unknown_outcome_and_no_connection_is_not() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let breaking = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _length = stream.read(&mut [0; 64]).await.unwrap();
    });
    let client = client(&endpoint(&url));
    let error = client.send(Call::get("/x")).await.err().unwrap();
    assert!(matches!(error, CallError::Unavailable { .. }) && error.is_outcome_unknown(), "{error:?}");
    breaking.await.unwrap();
    // The listener is gone.
    let error = client.send(Call::get("/x")).await.err().unwrap();
    assert!(matches!(error, CallError::Unreachable { .. }) && !error.is_outcome_unknown(), "{error:?}");
}

#[test]
fn times_to_wait_are_read_in_all_forms() {
    for (headers, expected) in [
        (&[("retry-after", "30")][..], Some(30)),
        (&[("retry-after", "Wed, 21 Oct 2026 07:28:30 GMT"), ("date", "Wed, 21 Oct 2026 07:28:00 GMT")], Some(30)),
        // The obsolete forms of RFC 9110, 5.6.7.
        (&[("retry-after", "Wednesday, 21-Oct-26 07:28:30 GMT"), ("date", "Wed, 21 Oct 2026 07:28:00 GMT")], Some(30)),
        (&[("retry-after", "Wed, 21 Oct 2026 07:27:00 GMT"), ("date", "Wed, 21 Oct 2026 07:28:00 GMT")], Some(0)),
        (&[("ratelimit-reset", "1792567710"), ("date", "Wed, 21 Oct 2026 07:28:00 GMT")], Some(30)),
        (&[("ratelimit-reset", "7")], Some(7)),
        (&[("retry-after", "5"), ("ratelimit-reset", "7")], Some(5)),
        (&[("retry-after", "99999999999")], Some(3600)),
        (&[("retry-after", "soon")], None),
        (&[("retry-after", "-1")], None),
        (&[], None),
    ] {
        let pairs = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        let headers: HeaderMap = pairs.collect();
        assert_eq!(retry_after(&headers), expected.map(Duration::from_secs), "{headers:?}");
    }
}

#[tokio::test]
async fn a_limited_issuer_gets_no_more_calls() {
    for (status, headers) in [
        ("429 Too Many Requests", "Retry-After: 30\r\n"),
        ("503 Service Unavailable", "Retry-After: 30\r\n"),
        ("200 OK", "RateLimit-Remaining: 0\r\nRateLimit-Reset: 30\r\n"),
    ] {
        let (url, mut requests) = server(response(status, headers, "{}")).await;
        let client = client(&endpoint(&url));
        let first = client.send(Call::get("/x")).await;
        if status.starts_with("429") {
            assert_eq!(first.err(), Some(CallError::RateLimited { retry_after: Some(Duration::from_secs(30)) }));
        }
        requests.recv().await.unwrap();
        let error = client.send(Call::get("/x")).await.err().unwrap();
        let CallError::OverBudget { retry_after } = error else { panic!("{status}: {error:?}") };
        assert!(retry_after > Duration::from_secs(28) && retry_after <= Duration::from_secs(30), "{retry_after:?}");
        assert!(requests.try_recv().is_err(), "{status}");
    }
}

#[tokio::test]
async fn addresses_are_checked_by_name_and_by_number() {
    let (url, mut requests) = server(response("200 OK", "", "{}")).await;
    let by_name =
        Endpoint { addresses: AddressPolicy::public_only(), ..endpoint(&url.replace("127.0.0.1", "localhost")) };
    let error = client(&by_name).send(Call::get("/x")).await.err();
    assert_eq!(error, Some(CallError::AddressRefused));
    let by_number = Endpoint { addresses: AddressPolicy::public_only(), ..endpoint(&url) };
    assert_eq!(IssuerClient::new(&by_number, Vec::new()).err(), Some(ConfigError::Address));
    // A form of 127.0.0.1 that only the resolver understands.
    let odd = Endpoint { http_hosts: vec!["127.1".to_owned()], ..by_name.clone() };
    let odd = Endpoint { url: url.replace("127.0.0.1", "127.1"), ..odd };
    assert_eq!(client(&odd).send(Call::get("/x")).await.err(), Some(CallError::AddressRefused));
    assert!(requests.try_recv().is_err());
    let allowed = AddressPolicy {
        allowed: vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()],
        ..AddressPolicy::public_only()
    };
    assert!(client(&Endpoint { addresses: allowed, ..by_name }).send(Call::get("/x")).await.is_ok());
}

#[tokio::test]
async fn only_a_configured_proxy_is_used() {
    let (url, mut requests) = server(response("200 OK", "", "{}")).await;
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy_url = format!("http://user:pw@{}", proxy.local_addr().unwrap());
    let asked = tokio::spawn(async move {
        let (mut stream, _) = proxy.accept().await.unwrap();
        let (mut request, mut part) = (Vec::new(), [0; 4096]);
        while !request.ends_with(b"\r\n\r\n") {
            let length = stream.read(&mut part).await.unwrap();
            request.extend_from_slice(&part[..length]);
        }
        let request = String::from_utf8(request).unwrap();
        let mut server = tokio::net::TcpStream::connect(request.split(' ').nth(1).unwrap()).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        tokio::spawn(async move { tokio::io::copy_bidirectional(&mut stream, &mut server).await });
        request
    });
    // The proxy resolves the name, so the policy does not apply.
    let proxied =
        Endpoint { proxy: Proxy::parse(&proxy_url), addresses: AddressPolicy::public_only(), ..endpoint(&url) };
    client(&proxied).send(Call::get("/x")).await.expect("an answer through the proxy");
    let connect = asked.await.unwrap();
    let authority = url.trim_start_matches("http://");
    assert!(connect.starts_with(&format!("CONNECT {authority} HTTP/1.1\r\n")), "{connect}");
    assert!(connect.to_lowercase().contains("proxy-authorization: basic"), "{connect}");
    assert!(!connect.contains(TOKEN) && requests.recv().await.unwrap().starts_with("GET /x"), "{connect}");
    // Its listener is gone.
    let error = client(&proxied).send(Call::get("/x")).await.err().unwrap();
    assert!(matches!(error, CallError::Unreachable { .. }) && !error.to_string().contains("pw@"), "{error:?}");
}

#[test]
fn only_usable_urls_are_accepted() {
    for (url, expected) in [
        ("https://gitlab.example.com", None),
        ("https://gitlab.example.com:8443/prefix/", None),
        ("http://127.0.0.1:1", None),
        ("http://gitlab.example.com", Some(ConfigError::Http)),
        ("https://user:s3cret@gitlab.example.com", Some(ConfigError::Url)),
        ("https://gitlab.example.com/?x=1", Some(ConfigError::Url)),
        ("https://gitlab.example.com/#x", Some(ConfigError::Url)),
        ("ftp://gitlab.example.com", Some(ConfigError::Url)),
        ("gitlab.example.com", Some(ConfigError::Url)),
        ("https://", Some(ConfigError::Url)),
        ("", Some(ConfigError::Url)),
    ] {
        assert_eq!(IssuerClient::new(&endpoint(url), Vec::new()).err(), expected, "{url}");
    }
    for bundle in ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let endpoint = Endpoint { ca_bundle: Some(bundle.to_owned()), ..endpoint("https://gitlab.example.com") };
        assert_eq!(IssuerClient::new(&endpoint, Vec::new()).err(), Some(ConfigError::CaBundle), "{bundle}");
    }
}

#[test]
fn credentials_must_fit_into_a_header() {
    assert!(bearer(&PlainToken::new(String::new())).is_err());
    assert!(bearer(&PlainToken::new("a\nb".to_owned())).is_err());
    assert!(basic("a:b", &PlainToken::new("c".to_owned())).is_err());
    let (header, encoded) = basic("ada", &PlainToken::new("pw".to_owned())).unwrap();
    assert_eq!((header.to_str().unwrap(), encoded.expose()), ("Basic YWRhOnB3", "YWRhOnB3"));
}

#[tokio::test]
async fn only_the_given_authority_is_trusted() {
    let authority = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = parameters.self_signed(&authority).unwrap();
    let issuer = rcgen::Issuer::new(parameters, authority);
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let _length = stream.read(&mut [0; 1024]).await;
            let _sent = stream.write_all(response("200 OK", "", "{}").as_bytes()).await;
        }
    });
    let trusting = Endpoint { ca_bundle: Some(root.pem()), ..endpoint(&format!("https://localhost:{port}")) };
    client(&trusting).send(Call::get("/x")).await.expect("the authority is trusted");
    let other_name = Endpoint { url: format!("https://127.0.0.1:{port}"), ..trusting.clone() };
    let without_bundle = Endpoint { ca_bundle: None, ..trusting };
    for endpoint in [other_name, without_bundle] {
        let error = client(&endpoint).send(Call::get("/x")).await.err().unwrap();
        assert!(matches!(error, CallError::Unreachable { .. }), "{error:?}");
        assert!(error.to_string().contains("certificate"), "{error}");
    }
}
