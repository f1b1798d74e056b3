//! The dialect over a fixture in memory, where nothing can be written: a valid change ends with 503. Here: its errors.

mod changes;
pub(super) mod lists;
mod new_tokens;

use std::num::NonZeroU32;

use axum::{
    Extension, Router,
    http::{Method, header},
};
use serde_json::{Value, json};

use super::{SailpointError, routes};
use crate::{
    index::Freshness,
    rest::{
        error::{Conflict, RestError},
        fixture::{RestFixture, TestToken, UNAUTHENTICATED, block_on, get, request},
        rate_limit::RateLimit,
        request::RequestId,
    },
};

/// The paths of all tokens in the older versions.
const OLDER: [&str; 4] = [
    "/beta/personal-access-tokens",
    "/v3/personal-access-tokens",
    "/v2024/personal-access-tokens",
    "/v2025/personal-access-tokens",
];
const NEWER: &str = "/personal-access-tokens/v1";

/// The id of every request.
const TRACKING_ID: &str = "00000000000000000000000000000007";

/// The dialect over this fixture.
fn router(fixture: &RestFixture) -> Router {
    routes(fixture.service()).layer(Extension(RequestId(TRACKING_ID.into())))
}

async fn post(router: &Router, caller: &TestToken, path: &str, body: &str) -> (u16, Value) {
    let (response, json) = request(router, Some(caller), Method::POST, path, Some(("application/json", body))).await;
    (response.status().as_u16(), json)
}

async fn patch(router: &Router, caller: &TestToken, path: &str, body: &str) -> (u16, Value) {
    let body = Some(("application/json-patch+json", body));
    let (response, json) = request(router, Some(caller), Method::PATCH, path, body).await;
    (response.status().as_u16(), json)
}

/// The first cause of an error.
fn cause(error: &Value) -> &str {
    error["causes"][0]["text"].as_str().unwrap_or_else(|| panic!("{error} has a cause"))
}

/// The ids of a list as numbers.
fn numbers(list: &Value) -> Vec<u128> {
    let items = list.as_array().unwrap_or_else(|| panic!("{list} is a list"));
    items.iter().map(|item| u128::from_str_radix(item["id"].as_str().unwrap(), 16).unwrap()).collect()
}

#[tokio::test]
async fn missing_credential_gets_401_on_every_path() {
    let fixture = RestFixture::new();
    let router = router(&fixture);
    let id = format!("{NEWER}/00000000000000000000000000000001");
    let bulk = format!("{NEWER}/bulk-update");
    for (method, path) in [
        (Method::GET, NEWER),
        (Method::GET, "/v3/personal-access-tokens?owner-id=me&limit=1"),
        (Method::POST, OLDER[0]),
        (Method::PATCH, &*id),
        (Method::DELETE, &*id),
        (Method::PATCH, &*bulk),
        (Method::POST, &*bulk),
    ] {
        let (response, error) = request(&router, None, method.clone(), path, None).await;
        assert_eq!(response.status(), 401, "{method} {path}");
        assert_eq!(error, json!({"error": UNAUTHENTICATED}), "{method} {path}");
        assert_eq!(response.headers()[header::WWW_AUTHENTICATE], "Bearer");
    }
}

#[tokio::test]
async fn error_has_code_tracking_id_and_messages() {
    let mut fixture = RestFixture::new();
    let caller = fixture.user("ann@example.com", "caller", &["other"]);
    let (response, error) = request(&router(&fixture), Some(&caller), Method::GET, NEWER, None).await;
    assert_eq!(response.status(), 403);
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
    assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
    let text = |text: &str| json!([{"locale": "en-US", "localeOrigin": "DEFAULT", "text": text}]);
    assert_eq!(
        error,
        json!({
            "detailCode": "403 Forbidden",
            "trackingId": TRACKING_ID,
            "messages": text("The server understood the request but refuses to authorize it."),
            "causes": text("this request requires a token with the scope sp:all-personal-access-tokens:read"),
        })
    );
}

#[tokio::test]
async fn rate_limit_gets_429_with_retry_after() {
    let mut fixture = RestFixture::new();
    let one = NonZeroU32::MIN;
    fixture.config.rate = RateLimit { per_second: one, burst: one };
    let caller = fixture.user("ann@example.com", "caller", &["sp:all-personal-access-tokens:read"]);
    let router = router(&fixture);
    assert_eq!(get(&router, &caller, NEWER).await.0, 200);
    let (response, error) = request(&router, Some(&caller), Method::GET, NEWER, None).await;
    assert_eq!(response.status(), 429);
    assert_eq!(error, json!({"message": "too many requests: retry after 1 s"}));
    assert_eq!(response.headers()[header::RETRY_AFTER], "1");
}

#[tokio::test]
async fn unverifiable_token_gets_503_with_retry_after() {
    let mut fixture = RestFixture::new();
    let caller = fixture.user("ann@example.com", "caller", &["sp:all-personal-access-tokens:read"]);
    let router = routes(fixture.service_with(|| Freshness::Lost));
    let (response, error) = request(&router, Some(&caller), Method::GET, NEWER, None).await;
    assert_eq!(response.status(), 503);
    assert_eq!(error["detailCode"], "503 Service Unavailable");
    assert!(response.headers().contains_key(header::RETRY_AFTER));
}

#[tokio::test]
async fn unknown_paths_and_methods_are_refused_in_json() {
    let mut fixture = RestFixture::new();
    let caller = fixture.user("ann@example.com", "caller", &["sp:all-personal-access-tokens:manage"]);
    let router = router(&fixture);
    for path in [
        "/",
        "/v3",
        "/v4/personal-access-tokens",
        "/v3/personal-access-tokens/a/b",
        "/personal-access-tokens",
        "/v3/personal-access-tokens/",
    ] {
        let (response, error) = request(&router, Some(&caller), Method::GET, path, None).await;
        assert_eq!((response.status().as_u16(), cause(&error)), (404, "No resource at this path."), "{path}");
    }
    for (method, path, allow) in [
        (Method::PUT, NEWER, "GET,HEAD,POST"),
        (Method::GET, "/v3/personal-access-tokens/1", "PATCH,DELETE"),
        (Method::DELETE, "/personal-access-tokens/v1/bulk-update", "PATCH,POST"),
    ] {
        let (response, error) = request(&router, Some(&caller), method.clone(), path, None).await;
        assert_eq!(response.status(), 405, "{method} {path}");
        assert_eq!(cause(&error), "Method not allowed. See the Allow header for the supported methods.");
        assert_eq!(response.headers()[header::ALLOW], allow, "{method} {path}");
    }
    // The older versions treat it as an unknown id.
    let (response, _) =
        request(&router, Some(&caller), Method::PATCH, "/v3/personal-access-tokens/bulk-update", None).await;
    assert_eq!(response.status(), 404);
}

#[tokio::test]
async fn body_of_another_type_or_size_is_refused_in_json() {
    let mut fixture = RestFixture::new();
    let caller = fixture.user("ann@example.com", "caller", &["sp:all-personal-access-tokens:manage"]);
    let router = router(&fixture);
    let own = format!("{NEWER}/{}", caller.id);
    for (method, path, media_type, words) in [
        (Method::POST, NEWER, "text/plain", "Content-Type must be application/json"),
        (Method::POST, NEWER, "application/json-patch+json", "Content-Type must be application/json"),
        (Method::PATCH, &*own, "application/json", "Content-Type must be application/json-patch+json"),
        (Method::PATCH, "/personal-access-tokens/v1/bulk-update", "text/json", "Content-Type must be application/json"),
    ] {
        let (response, error) = request(&router, Some(&caller), method, path, Some((media_type, "{}"))).await;
        assert_eq!((response.status().as_u16(), cause(&error)), (415, words), "{path} {media_type}");
        assert_eq!(error["detailCode"], "415 Unsupported Media Type");
    }
    let (response, _) = request(&router, Some(&caller), Method::PATCH, &own, Some(("application/json", "[]"))).await;
    assert_eq!(response.headers()["accept-patch"], "application/json-patch+json");
    let large = format!("{{\"name\": \"{}\"}}", "a".repeat(64 * 1024));
    let (status, error) = post(&router, &caller, NEWER, &large).await;
    assert_eq!((status, error["detailCode"].as_str()), (413, Some("413 Payload Too Large")));
}

#[test]
fn every_error_has_a_status_and_the_dialects_field_names() {
    use axum::response::IntoResponse;
    let taken = Conflict::NameTaken("ci".into());
    let managed = Conflict::Managed { field: "spec.scopes".into(), manager: "argocd".into() };
    for (error, status, words) in [
        (RestError::invalid("spec.displayName", "too long"), 400, "name: too long"),
        (RestError::Conflict(taken), 400, "name: a token with the name \"ci\" already exists: choose another name"),
        (
            RestError::Conflict(Conflict::Changed),
            400,
            "the token was changed by another request: read it again, then retry",
        ),
        (RestError::Conflict(managed), 400, "scope is managed by \"argocd\": change it there"),
        (RestError::Conflict(Conflict::State("it is over".into())), 400, "it is over"),
        (RestError::ReadOnly, 403, "this server is read-only"),
        (RestError::NotFound, 404, "token not found"),
        (RestError::Internal, 500, "internal error: see the server's log for the id of this request"),
    ] {
        let error = SailpointError::from(error);
        let response = error.clone().tracked(TRACKING_ID.into()).into_response();
        assert_eq!(response.status(), status, "{error:?}");
        let body = block_on(axum::body::to_bytes(response.into_body(), 10_000)).unwrap();
        let error: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(cause(&error), words);
        assert_eq!(error["trackingId"], TRACKING_ID);
    }
}

#[tokio::test]
async fn the_description_has_every_path_with_ids_of_operations_that_differ() {
    let api = serde_json::to_value(crate::rest::sailpoint::openapi()).unwrap();
    let paths = api["paths"].as_object().unwrap();
    let mut ids: Vec<&str> = Vec::new();
    for base in OLDER.into_iter().chain([NEWER]) {
        for (path, methods) in
            [(base.to_owned(), &["get", "post"][..]), (format!("{base}/{{id}}"), &["patch", "delete"])]
        {
            for method in methods {
                ids.push(paths[&path][method]["operationId"].as_str().unwrap_or_else(|| panic!("{method} {path}")));
            }
        }
    }
    for method in ["patch", "post"] {
        ids.push(paths["/personal-access-tokens/v1/bulk-update"][method]["operationId"].as_str().unwrap());
    }
    assert_eq!(paths.len(), 11);
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count);
    assert!(ids.contains(&"sailpointV2025List") && ids.contains(&"sailpointV1BulkUpdate"));
    let schemas = api["components"]["schemas"].as_object().unwrap();
    assert!(schemas.keys().all(|name| name.starts_with("Sailpoint")), "{:?}", schemas.keys());
}
