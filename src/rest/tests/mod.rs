//! The service and the middleware of all requests, over a fixture in memory.

mod authentication;
mod queries;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{Method, Request},
    routing::get,
};
use serde_json::{Value, json};

use super::{
    fixture::{self, RestFixture, send},
    metrics::Metrics,
    request::RequestId,
    server,
    store::TokenStore,
};
use crate::index::IndexFreshness;

fn text(metrics: &Metrics) -> String {
    metrics.text(&TokenStore::default(), &IndexFreshness::new(1, Duration::from_secs(1)))
}

fn request(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn response_has_a_new_id_is_not_stored_and_is_counted_by_route() {
    let metrics = Arc::new(Metrics::new());
    let show_id = get(async |axum::Extension(id): axum::Extension<RequestId>| id.0);
    let routes = Router::new().nest("/sailpoint", Router::new().route("/v3/{id}", show_id));
    let router = server::with_middleware(routes, metrics.clone(), server::REQUEST_TIMEOUT);
    let mut ids = Vec::new();
    for path in ["/sailpoint/v3/one", "/sailpoint/v3/two"] {
        let mut request = request(path);
        request.headers_mut().insert("x-request-id", "chosen-by-the-client".parse().unwrap());
        let (response, body) = send(&router, request).await;
        assert_eq!(response.headers()["x-request-id"], *body, "the handler has the same id");
        assert_eq!(response.headers()["cache-control"], "no-store");
        ids.push(body);
    }
    assert!(ids[0] != ids[1] && ids.iter().all(|id| id.len() == 32), "{ids:?}");
    let text = text(&metrics);
    let series = r#"pat_operator_api_requests_total{dialect="sailpoint",route="/sailpoint/v3/{id}",status="200"} 2"#;
    assert!(text.contains(series), "{text}");
}

#[tokio::test]
async fn unknown_path_is_not_a_metric_label() {
    let metrics = Arc::new(Metrics::new());
    let router = server::router(RestFixture::new().service(), metrics.clone());
    for path in ["/", "/a-secret-in-a-path", "/sailpointed"] {
        let (response, body) = send(&router, request(path)).await;
        assert_eq!((response.status().as_u16(), &*body), (404, r#"{"message":"No resource at this path."}"#));
        assert_eq!(response.headers()["cache-control"], "no-store");
    }
    let text = text(&metrics);
    assert!(text.contains(r#"pat_operator_api_requests_total{dialect="other",route="none",status="404"} 3"#), "{text}");
    assert!(!text.contains("secret"), "{text}");
}

#[tokio::test]
async fn panic_becomes_an_error_without_details() {
    let metrics = Arc::new(Metrics::new());
    async fn panics() -> &'static str {
        panic!("something with details")
    }
    let router =
        server::with_middleware(Router::new().route("/", get(panics)), metrics.clone(), server::REQUEST_TIMEOUT);
    for _ in 0..2 {
        let (response, body) = send(&router, request("/")).await;
        assert_eq!(response.status().as_u16(), 500);
        assert!(response.headers().contains_key("x-request-id") && !body.contains("details"), "{body}");
    }
    assert!(text(&metrics).contains(r#"route="/",status="500"} 2"#));
}

/// An error in SailPoint's format without an id.
fn sailpoint(code: &str, text: &str, cause: &str) -> Value {
    let message = |text: &str| json!({"locale": "en-US", "localeOrigin": "DEFAULT", "text": text});
    json!({"detailCode": code, "trackingId": null, "messages": [message(text)], "causes": [message(cause)]})
}

#[tokio::test(start_paused = true)]
async fn timeout_and_panic_have_the_dialects_format() {
    async fn panics() -> &'static str {
        panic!("something with details")
    }
    let long = "the request timed out and may have taken effect: check before you retry";
    let broke = "internal error: see the server's log for the id of this request";
    let of_sailpoint = (
        sailpoint("408 Request Timeout", "The request was not complete in time.", long),
        sailpoint("500.0 Internal Fault", "An internal fault occurred.", broke),
    );
    for (dialect, path, (too_long, broken)) in [
        ("sailpoint", "/sailpoint/v3/personal-access-tokens", of_sailpoint),
        (
            "truefoundry",
            "/api/svc/v1/personal-access-tokens",
            (
                json!({"statusCode": 408, "message": long, "code": "TooLong"}),
                json!({"statusCode": 500, "message": broke, "code": "Internal"}),
            ),
        ),
        (
            "cryptlex",
            "/cryptlex/v3/personal-access-tokens",
            (json!({"message": long, "code": "TooLong"}), json!({"message": broke, "code": "Internal"})),
        ),
        (
            "oauth",
            "/sailpoint/oauth/token",
            (
                json!({"error": "temporarily_unavailable", "error_description": long}),
                json!({"error": "server_error", "error_description": broke}),
            ),
        ),
        ("other", "/elsewhere", (json!({"message": long}), json!({"message": broke}))),
    ] {
        let never = get(async || std::future::pending::<&str>().await);
        for (handler, status, mut expected) in [(never, 408, too_long), (get(panics), 500, broken)] {
            let metrics = Arc::new(Metrics::new());
            let router =
                server::with_middleware(Router::new().route(path, handler), metrics.clone(), server::REQUEST_TIMEOUT);
            let (response, body) = send(&router, request(path)).await;
            let what = format!("{dialect} {status}: {body}");
            assert_eq!(response.status().as_u16(), status, "{what}");
            assert_eq!(response.headers()["content-type"], "application/json", "{what}");
            assert_eq!(response.headers()["cache-control"], "no-store", "{what}");
            if let Some(id) = expected.get_mut("trackingId") {
                *id = json!(response.headers()["x-request-id"].to_str().unwrap());
            }
            assert_eq!(response.headers()["x-request-id"].len(), 32, "{what}");
            assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), expected, "{what}");
            let series = format!(r#"dialect="{dialect}",route="{path}",status="{status}"}} 1"#);
            assert!(text(&metrics).contains(&series), "{what}: {}", text(&metrics));
        }
    }
}

#[tokio::test]
async fn request_of_a_disconnected_client_is_counted() {
    let metrics = Arc::new(Metrics::new());
    let never = get(async || std::future::pending::<&str>().await);
    let router =
        server::with_middleware(Router::new().route("/never", never), metrics.clone(), server::REQUEST_TIMEOUT);
    let mut asking = Box::pin(send(&router, request("/never")));
    assert!(futures::poll!(&mut asking).is_pending());
    assert!(!text(&metrics).contains("/never"));
    drop(asking);
    let text = text(&metrics);
    assert!(text.contains(r#"dialect="other",route="/never",status="499"} 1"#), "{text}");
}

#[tokio::test]
async fn duplicate_field_is_refused_in_every_dialect_even_if_it_is_unknown() {
    let mut fixture = RestFixture::new();
    let scopes = ["sp:my-personal-access-tokens:manage", "sp:all-personal-access-tokens:manage"];
    let robot = fixture.account("team/robot", "robot", &scopes);
    fixture.owner(1, json!({"subject": {"kind": "User", "name": "ada"}, "email": "ada@example.com"}));
    let own = robot.id;
    let router = server::router(fixture.service(), Arc::new(Metrics::new()));
    let (post, patch, delete) = (Method::POST, Method::PATCH, Method::DELETE);
    for (method, path, media_type, fields) in [
        (&post, "/sailpoint/v3/personal-access-tokens".to_owned(), "json", r#""name": "ci""#),
        (
            &patch,
            format!("/sailpoint/v3/personal-access-tokens/{own}"),
            "json-patch+json",
            r#""op": "remove", "path": "/name""#,
        ),
        (&patch, "/sailpoint/personal-access-tokens/v1/bulk-update".into(), "json", r#""ids": ["a"], "patch": []"#),
        (&post, "/api/svc/v1/personal-access-tokens".into(), "json", r#""name": "abc""#),
        (
            &post,
            "/api/svc/v1/personal-access-tokens/for-user".into(),
            "json",
            r#""name": "abc", "userEmail": "ada@example.com""#,
        ),
        (&delete, "/api/svc/v1/personal-access-tokens/revoke/all".into(), "json", r#""email": "ada@example.com""#),
        (&post, format!("/api/svc/v1/virtual-accounts/{own}/regenerate-token"), "json", r#""gracePeriodInMinutes": 0"#),
        (&post, "/cryptlex/v3/personal-access-tokens".into(), "json", r#""name": "ci""#),
        (&patch, format!("/cryptlex/v3/personal-access-tokens/{own}"), "json", r#""revoked": true"#),
    ] {
        for duplicate in [r#""kpat_x": 1, "kpat_x": 1"#, r#""more": [{"kpat_x": null, "kpat_x": 1.5}]"#] {
            let object = format!("{{{fields}, {duplicate}}}");
            let body = if media_type == "json" { object } else { format!("[{object}]") };
            let media_type = format!("application/{media_type}");
            let body = Some((&*media_type, &*body));
            let (response, error) = fixture::request(&router, Some(&robot), method.clone(), &path, body).await;
            let error = error.to_string();
            assert_eq!(response.status(), 400, "{method} {path}: {error}");
            assert!(error.contains("body: a field must not be set more than once"), "{method} {path}: {error}");
            assert!(!error.contains("kpat_x"), "{method} {path}: {error}");
        }
    }
}

#[tokio::test]
async fn token_endpoint_exists_below_sailpoints_base_path() {
    let router = server::router(RestFixture::new().service(), Arc::new(Metrics::new()));
    for path in ["/oauth/token", "/sailpoint/oauth/token"] {
        let (response, _) = send(&router, request(path)).await;
        assert_eq!(response.status().as_u16(), 405, "{path}");
    }
}
