//! The server with a certificate from files, as in a cluster.

use std::{net::SocketAddr, path::Path};

use hyper::{Method, Request, client::conn::http1::SendRequest, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use pat_operator::api::SecretDelivery;
use rcgen::{CertifiedKey, KeyPair};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::{
    in_process::{mint_caller, remaining},
    undelivered::{TOKENS, plain, request},
};
use crate::support::process::{
    SOON,
    api::ApiProcess,
    place::{Place, eventually},
    trust::{Trust, flags, mount},
};

const HOST: &str = "api.system.svc";

fn certificate() -> CertifiedKey<KeyPair> {
    rcgen::generate_simple_self_signed(vec![HOST.to_owned()]).expect("a certificate")
}

fn put(folder: &Path, version: u32, certificate: &CertifiedKey<KeyPair>) {
    let (cert, key) = (certificate.cert.pem(), certificate.signing_key.serialize_pem());
    mount(folder, version, &[("tls.crt", cert.as_bytes()), ("tls.key", key.as_bytes())]);
}

/// Starts a server with the certificate in this folder.
async fn server(place: &Place, folder: &Path) -> ApiProcess {
    let [cert, key] = flags(folder);
    ApiProcess::start(place, &[&cert, &key]).await
}

/// Opens a connection that stays open.
async fn client(trust: &Trust, addr: SocketAddr) -> SendRequest<String> {
    let stream = TokioIo::new(trust.connect(addr).await.expect("it is trusted"));
    let (sender, connection) = hyper::client::conn::http1::handshake(stream).await.expect("HTTP");
    tokio::spawn(connection);
    sender
}

/// Sends a request, and reads status and body.
async fn ask(client: &mut SendRequest<String>, method: &str, token: &str, body: Option<Value>) -> (u16, Value) {
    let request = Request::builder().method(method).uri(TOKENS).header(header::HOST, HOST);
    let request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    let request = request.header(header::CONTENT_TYPE, "application/json");
    let request = request.body(body.map(|body| body.to_string()).unwrap_or_default()).expect("a request");
    let answering = async {
        client.ready().await.expect("it is connected");
        let (parts, body) = client.send_request(request).await.expect("an answer").into_parts();
        let body = http_body_util::BodyExt::collect(body).await.expect("all of it").to_bytes();
        (parts.status.as_u16(), serde_json::from_slice(&body).expect("JSON"))
    };
    tokio::time::timeout(SOON, answering).await.expect("an answer in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_server_delivers_tokens_and_reloads_its_certificate() {
    let place = Place::new("rest-tls").await;
    let _operator = place.operator().start();
    mint_caller(&place).await;
    let token = place.token(super::in_process::CALLER).await;
    let folder = tempfile::tempdir().expect("a folder");
    let [first, second] = [certificate(), certificate()];
    put(folder.path(), 1, &first);
    let mut api = server(&place, folder.path()).await;
    let [old, new] = [&first, &second].map(|one| Trust::new(&[one.cert.der().clone()], HOST));
    let seen = async |trust: &Trust, token: &str| trust.get(api.http, TOKENS, token).await;
    assert!(seen(&new, &token).await.is_err(), "nobody vouches for the one that is served");
    assert!(Trust::new(&[first.cert.der().clone()], "other.system.svc").connect(api.http).await.is_err());

    let mut stays = client(&old, api.http).await;
    eventually("the caller is known", async || ask(&mut stays, "GET", &token, None).await.0 == 200).await;
    let new_token = |name: &str| json!({"name": name, "scopes": ["sp:my-personal-access-tokens:manage"]});
    let (status, made) = ask(&mut stays, "POST", &token, Some(new_token("ci"))).await;
    assert_eq!(status, 201, "{made}");
    let ci = made["accessToken"].as_str().expect("a token").to_owned();
    let seen_with_it = seen(&old, &ci).await.expect("it is trusted");
    assert_eq!((seen_with_it.code, &seen_with_it.chain[..]), (200, &[first.cert.der().clone()][..]));

    put(folder.path(), 2, &second);
    eventually("the new certificate is served", async || seen(&new, &token).await.is_ok()).await;
    assert_eq!(seen(&new, &token).await.expect("it is trusted").chain, [second.cert.der().clone()]);
    assert!(seen(&old, &token).await.is_err(), "and no longer the old one");
    let (status, made) = ask(&mut stays, "POST", &ci, Some(new_token("cd"))).await;
    assert_eq!(status, 201, "who was connected still is: {made}");
    let (status, list) = ask(&mut client(&new, api.http).await, "GET", &token, None).await;
    assert_eq!(status, 200);
    let mut names: Vec<_> = list.as_array().expect("a list").iter().filter_map(|one| one["name"].as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["caller", "cd", "ci"]);
    let (pats, secrets) = remaining(&place).await;
    assert_eq!((pats.len(), secrets), (2, vec![]), "what was delivered is kept nowhere");
    for name in pats {
        let pat = place.pats().get(&name).await.expect("it is there");
        assert_eq!(pat.spec.secret.and_then(|secret| secret.delivery), Some(SecretDelivery::Once));
    }

    let metrics = api.process.metrics().await;
    assert_eq!(metrics.value("pat_operator_tls_reloads_total"), 1.0);
    assert_eq!(metrics.value("pat_operator_tls_files_unusable"), 0.0);
    let log = api.process.terminate().await.stderr.join("\n");
    let secrets = [token.as_str(), ci.as_str(), made["accessToken"].as_str().expect("a token")];
    assert!(!secrets.iter().any(|secret| log.contains(secret)), "no token is in the log");
    assert!(!log.contains("PRIVATE KEY"), "nor a key");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_client_that_disconnects_before_the_response_leaves_nothing() {
    let place = Place::new("rest-tls-gone").await;
    super::in_process::mint_caller_and_stop(&place).await;
    let token = place.token(super::in_process::CALLER).await;
    let folder = tempfile::tempdir().expect("a folder");
    let certificate = certificate();
    put(folder.path(), 1, &certificate);
    let mut api = server(&place, folder.path()).await;
    let trust = Trust::new(&[certificate.cert.der().clone()], HOST);
    eventually("the caller is known", async || {
        trust.get(api.http, TOKENS, &token).await.expect("it is trusted").code == 200
    })
    .await;
    for (gone, leaves) in (1..).zip([Leaves::Farewell, Leaves::Silent, Leaves::Reset, Leaves::SilentHttp2]) {
        leave(&trust, api.http, &token, leaves, async || {
            // Without a controller there is no response yet.
            eventually("the object is there", async || !remaining(&place).await.0.is_empty()).await;
        })
        .await;
        let series = format!(r#"{{dialect="cryptlex",route="{TOKENS}",status="499"}} {gone}"#);
        eventually(&format!("it is noticed: {leaves:?}"), async || {
            let metrics = api.process.get("/metrics").await.body;
            metrics.contains(&format!("pat_operator_api_requests_total{series}\n"))
        })
        .await;
        eventually("the object is gone", async || remaining(&place).await == (vec![], vec![])).await;
    }
    let _operator = place.operator().start();
    place.apply("after", json!({})).await;
    place.ready("after").await;
    assert_eq!(
        remaining(&place).await,
        (vec!["after".to_owned()], vec!["after".to_owned()]),
        "nor does anything come of it"
    );
    assert_eq!(api.process.terminate().await.code, 0);
}

/// How a client disconnects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaves {
    /// It sends the TLS close_notify alert.
    Farewell,
    /// It closes the connection without the alert.
    Silent,
    /// It resets its HTTP/2 stream; the connection stays open.
    Reset,
    /// It closes the HTTP/2 connection without GOAWAY.
    SilentHttp2,
}

/// Requests a token, waits for `after`, and disconnects.
async fn leave(trust: &Trust, addr: SocketAddr, token: &str, leaves: Leaves, after: impl AsyncFn()) {
    let name = format!("{leaves:?}");
    if matches!(leaves, Leaves::Farewell | Leaves::Silent) {
        let mut stream = trust.connect(addr).await.expect("it is trusted");
        stream.write_all(plain(token, &name).as_bytes()).await.expect("it is sent");
        after().await;
        if leaves == Leaves::Farewell {
            stream.shutdown().await.expect("it says so");
        }
        return;
    }
    // The runtime ends all tasks, including those of hyper.
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (trust, token) = (trust.speaking("h2"), token.to_owned());
    let (leave, left) = tokio::sync::oneshot::channel::<()>();
    let client = runtime.spawn(async move {
        let stream = trust.connect(addr).await.expect("it is trusted");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let stream = TokioIo::new(stream);
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.expect("HTTP/2");
        tokio::spawn(connection);
        let asking = sender.send_request(request(&token, &name));
        tokio::select! {
            answer = asking => panic!("nobody mints: {answer:?}"),
            _ = left => {}
        }
        // The connection is still open: the next request is answered.
        let mut next = request(&token, "");
        (*next.method_mut(), *next.body_mut()) = (Method::GET, String::new());
        let next = sender.send_request(next);
        assert_eq!(tokio::time::timeout(SOON, next).await.expect("in time").expect("an answer").status(), 200);
    });
    after().await;
    if leaves == Leaves::Reset {
        leave.send(()).expect("it waits for that");
        client.await.expect("no panic");
    }
    runtime.shutdown_background();
}
