//! Errors: every status with the body of its kind.

use std::num::NonZeroU32;

use axum::http::{Method, header};
use serde_json::json;

use super::{NEWER, OLDER, TRACKING_ID, ask, block_on, cause, get, post, router};
use crate::{
    index::Freshness,
    rest::{
        failure::{Conflict, Failure},
        rate::Rate,
        sailpoint::{refusal::Refusal, routes},
        world::World,
    },
};

#[tokio::test]
async fn nobody_is_answered_401_with_error_whatever_is_asked() {
    let world = World::new();
    let router = router(&world);
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
        let (response, error) = ask(&router, None, method.clone(), path, None).await;
        assert_eq!(response.status(), 401, "{method} {path}");
        let words = "authenticate with a personal access token that is live: Authorization: Bearer <token>";
        assert_eq!(error, json!({"error": words}), "{method} {path}");
        assert_eq!(response.headers()[header::WWW_AUTHENTICATE], "Bearer");
    }
}

#[tokio::test]
async fn an_error_has_a_code_the_request_s_id_and_texts() {
    let mut world = World::new();
    let caller = world.user("ann@example.com", "caller", &["other"]);
    let (response, error) = ask(&router(&world), Some(&caller), Method::GET, NEWER, None).await;
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
            "causes": text("this needs a token with the scope sp:all-personal-access-tokens:read"),
        })
    );
}

#[tokio::test]
async fn too_many_requests_are_answered_429_with_message_and_when_to_come_back() {
    let mut world = World::new();
    let one = NonZeroU32::MIN;
    world.settings.rate = Rate { per_second: one, burst: one };
    let caller = world.user("ann@example.com", "caller", &["sp:all-personal-access-tokens:read"]);
    let router = router(&world);
    assert_eq!(get(&router, &caller, NEWER).await.0, 200);
    let (response, error) = ask(&router, Some(&caller), Method::GET, NEWER, None).await;
    assert_eq!(response.status(), 429);
    assert_eq!(error, json!({"message": "too many requests: wait 1 s"}));
    assert_eq!(response.headers()[header::RETRY_AFTER], "1");
}

#[tokio::test]
async fn while_nobody_can_tell_whether_a_token_is_good_the_answer_is_503_and_when_to_come_back() {
    let mut world = World::new();
    let caller = world.user("ann@example.com", "caller", &["sp:all-personal-access-tokens:read"]);
    let router = routes(world.service_while(|| Freshness::Lost));
    let (response, error) = ask(&router, Some(&caller), Method::GET, NEWER, None).await;
    assert_eq!(response.status(), 503);
    assert_eq!(error["detailCode"], "503 Service Unavailable");
    assert!(response.headers().contains_key(header::RETRY_AFTER));
}

#[tokio::test]
async fn paths_and_methods_that_are_not_there_are_refused_in_json() {
    let mut world = World::new();
    let caller = world.user("ann@example.com", "caller", &["sp:all-personal-access-tokens:manage"]);
    let router = router(&world);
    for path in [
        "/",
        "/v3",
        "/v4/personal-access-tokens",
        "/v3/personal-access-tokens/a/b",
        "/personal-access-tokens",
        "/v3/personal-access-tokens/",
    ] {
        let (response, error) = ask(&router, Some(&caller), Method::GET, path, None).await;
        assert_eq!((response.status().as_u16(), cause(&error)), (404, "there is nothing at this path"), "{path}");
    }
    for (method, path, allow) in [
        (Method::PUT, NEWER, "GET,HEAD,POST"),
        (Method::GET, "/v3/personal-access-tokens/1", "PATCH,DELETE"),
        (Method::DELETE, "/personal-access-tokens/v1/bulk-update", "PATCH,POST"),
    ] {
        let (response, error) = ask(&router, Some(&caller), method.clone(), path, None).await;
        assert_eq!(response.status(), 405, "{method} {path}");
        assert_eq!(cause(&error), "this path does not have this method");
        assert_eq!(response.headers()[header::ALLOW], allow, "{method} {path}");
    }
    // What the older versions do not have is an id that nobody has.
    let (response, _) =
        ask(&router, Some(&caller), Method::PATCH, "/v3/personal-access-tokens/bulk-update", None).await;
    assert_eq!(response.status(), 404);
}

#[tokio::test]
async fn a_body_of_another_kind_or_size_is_refused_in_json() {
    let mut world = World::new();
    let caller = world.user("ann@example.com", "caller", &["sp:all-personal-access-tokens:manage"]);
    let router = router(&world);
    let own = format!("{NEWER}/{}", caller.id);
    for (method, path, media_type, words) in [
        (Method::POST, NEWER, "text/plain", "Content-Type must be application/json"),
        (Method::POST, NEWER, "application/json-patch+json", "Content-Type must be application/json"),
        (Method::PATCH, &*own, "application/json", "Content-Type must be application/json-patch+json"),
        (Method::PATCH, "/personal-access-tokens/v1/bulk-update", "text/json", "Content-Type must be application/json"),
    ] {
        let (response, error) = ask(&router, Some(&caller), method, path, Some((media_type, "{}"))).await;
        assert_eq!((response.status().as_u16(), cause(&error)), (415, words), "{path} {media_type}");
        assert_eq!(error["detailCode"], "415 Unsupported Media Type");
    }
    let (response, _) = ask(&router, Some(&caller), Method::PATCH, &own, Some(("application/json", "[]"))).await;
    assert_eq!(response.headers()["accept-patch"], "application/json-patch+json");
    let large = format!("{{\"name\": \"{}\"}}", "a".repeat(64 * 1024));
    let (status, error) = post(&router, &caller, NEWER, &large).await;
    assert_eq!((status, error["detailCode"].as_str()), (413, Some("413 Payload Too Large")));
}

#[test]
fn every_failure_has_its_status_and_calls_fields_as_the_client_does() {
    use axum::response::IntoResponse;
    let taken = Conflict::NameTaken("ci".into());
    let managed = Conflict::Managed { field: "spec.scopes".into(), manager: "argocd".into() };
    for (failure, status, words) in [
        (Failure::invalid("spec.displayName", "too long"), 400, "name: too long"),
        (Failure::Conflict(taken), 400, "name: a token with the name \"ci\" exists already: choose another name"),
        (
            Failure::Conflict(Conflict::Changed),
            400,
            "the token was changed by somebody else meanwhile: read it again, then repeat",
        ),
        (Failure::Conflict(managed), 400, "scope is managed by \"argocd\": change it there"),
        (Failure::Conflict(Conflict::State("it is over".into())), 400, "it is over"),
        (Failure::ReadOnly, 403, "this server is read-only"),
        (Failure::NotFound, 404, "there is no such token"),
        (Failure::Internal, 500, "something went wrong here; the log has more under the id of this request"),
    ] {
        let refusal = Refusal::from(failure);
        let response = refusal.clone().tracked(TRACKING_ID.into()).into_response();
        assert_eq!(response.status(), status, "{refusal:?}");
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
