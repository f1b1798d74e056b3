//! Responses with a token that do not reach the client.

use axum::http::{Request, header};
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use pat_operator::service::http::Limits;
use serde_json::json;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::in_process::{CALLER, InProcessApi, mint_caller, mint_caller_and_stop, remaining};
use crate::support::process::{
    SOON,
    place::{Place, eventually},
};

/// The path where Cryptlex's clients create tokens.
pub const TOKENS: &str = "/cryptlex/v3/personal-access-tokens";

fn body(name: &str) -> String {
    json!({"name": name, "scopes": ["repo:read"], "expiresAt": "2100-01-01T00:00:00Z"}).to_string()
}

/// Builds a request for a token with this name.
pub fn request(token: &str, name: &str) -> Request<String> {
    Request::post(format!("http://localhost{TOKENS}"))
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(body(name))
        .unwrap()
}

/// Builds the same request as HTTP/1 text.
pub fn plain(token: &str, name: &str) -> String {
    let body = body(name);
    let length = body.len();
    format!(
        "POST {TOKENS} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn received_token_stays() {
    let place = Place::new("rest-received").await;
    let _controller = place.operator().start();
    mint_caller(&place).await;
    let mut api = InProcessApi::new(&place, place.client.clone()).await;
    api.caller(&place).await;
    let addr = api.serve(Limits::busy()).await;
    let token = place.token(CALLER).await;
    let mut received = Vec::new();
    for http2 in [false, true] {
        let stream = TokioIo::new(TcpStream::connect(addr).await.unwrap());
        let request = request(&token, &format!("HTTP/2: {http2}"));
        let answer = if http2 {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await
        };
        let (parts, body) = answer.expect("an answer").into_parts();
        let body = body.collect().await.expect("all of it").to_bytes();
        assert_eq!(parts.headers[header::CONTENT_LENGTH], body.len().to_string());
        let answer: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        received.push(answer["accessToken"].as_str().expect("a token").to_owned());
    }
    // Anything to be taken back is taken back by now.
    assert!(api.service.finish(Duration::from_secs(20)).await);
    assert_eq!(remaining(&place).await.0.len(), 2);
    for token in received {
        assert!(api.accepts_text(&token).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn timed_out_request_gets_408_and_its_token_is_taken_back() {
    let place = Place::new("rest-too-long").await;
    mint_caller_and_stop(&place).await;
    let mut api = InProcessApi::new(&place, place.client.clone()).await;
    api.caller(&place).await;
    // Without a controller, the request times out.
    let addr = api.serve_within(Limits { request: SOON, ..Limits::busy() }, Duration::from_secs(1)).await;
    let token = place.token(CALLER).await;
    let mut client = TcpStream::connect(addr).await.unwrap();
    client.write_all(plain(&token, "Too long").as_bytes()).await.unwrap();
    let mut text = String::new();
    let reading = tokio::time::timeout(SOON, client.read_to_string(&mut text)).await;
    reading.expect("an answer in time").expect("the connection ends with it");
    let (head, body) = text.split_once("\r\n\r\n").expect("a body");
    assert!(head.starts_with("HTTP/1.1 408 "), "{head}");
    for header in ["connection: close", "content-type: application/json", "cache-control: no-store", "x-request-id: "] {
        assert!(head.contains(header), "{header}: {head}");
    }
    let told: serde_json::Value = serde_json::from_str(body).expect("JSON");
    assert!(told["code"] == "TooLong" && told["message"].is_string(), "{body}");
    assert_eq!(remaining(&place).await.0.len(), 1, "it was being made");
    let figures = api.metrics_text();
    assert!(figures.contains(r#"route="/cryptlex/v3/personal-access-tokens",status="408"} 1"#), "{figures}");
    let _controller = place.operator().start();
    eventually("nothing is left", async || remaining(&place).await == (vec![], vec![])).await;
}
