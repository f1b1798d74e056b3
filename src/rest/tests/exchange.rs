//! `/oauth/token` as clients speak it.

use axum::{
    Router,
    body::Body,
    http::{Request, header},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;

use super::super::{
    oauth,
    world::{Known, World, send},
};

const FORM: &str = "application/x-www-form-urlencoded";

fn world() -> (Router, Known) {
    let mut world = World::new();
    let ada = world.user("ada", "Laptop", &["a", "b:c"]);
    (oauth::routes(world.service()), ada)
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
}

async fn ask(
    router: &Router,
    content_type: &str,
    authorization: Option<&str>,
    body: &str,
) -> (u16, Value, axum::http::HeaderMap) {
    let mut request = Request::post(oauth::PATH).header(header::CONTENT_TYPE, content_type);
    if let Some(value) = authorization {
        request = request.header(header::AUTHORIZATION, value);
    }
    let (response, text) = send(router, request.body(Body::from(body.to_owned())).unwrap()).await;
    (
        response.status().as_u16(),
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}")),
        response.headers().clone(),
    )
}

fn multipart(fields: &[(&str, &str)]) -> String {
    let part = |(name, value): &(&str, &str)| {
        format!("--X\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    fields.iter().map(part).collect::<String>() + "--X--\r\n"
}

#[tokio::test]
async fn id_and_token_are_taken_as_form_or_multipart_in_the_body_or_by_basic() {
    let (router, ada) = world();
    let (id, token) = (ada.id.to_string(), ada.token.expose());
    let grant = "grant_type=client_credentials";
    let both = [("grant_type", "client_credentials"), ("client_id", &id), ("client_secret", token), ("other", "x")];
    let hyphenated = ada.id.hyphenated();
    let escaped = token.replace('_', "%5F");
    for (content_type, authorization, body) in [
        (FORM, None, format!("{grant}&client_id={id}&client_secret={token}")),
        (
            "application/x-www-form-urlencoded; charset=utf-8",
            None,
            format!("client_id={id}&{grant}&client_secret={token}&x=y&x=z"),
        ),
        ("multipart/form-data; boundary=X", None, multipart(&both)),
        (FORM, Some(basic(&id, token)), grant.to_owned()),
        (FORM, Some(basic(&hyphenated, &escaped)), grant.to_owned()),
        (FORM, Some(basic(&id, token)), format!("{grant}&client_id={id}&scope=")),
        ("multipart/form-data; boundary=X", Some(basic(&id, token)), multipart(&both[..1])),
    ] {
        let (status, answer, headers) = ask(&router, content_type, authorization.as_deref(), &body).await;
        assert_eq!(status, 200, "{content_type} {body}: {answer}");
        assert_eq!(
            (&answer["token_type"], &answer["expires_in"], &answer["scope"]),
            (&"Bearer".into(), &43_200.into(), &"a b:c".into())
        );
        let parts: Vec<_> = answer["access_token"].as_str().unwrap().split('.').collect();
        assert_eq!(parts.len(), 3, "a JWT");
        assert!(headers["cache-control"] == "no-store" && headers["pragma"] == "no-cache");
    }
}

#[tokio::test]
async fn a_scope_narrows_and_one_that_is_not_there_is_refused() {
    let (router, ada) = world();
    let body = |scope: &str| {
        format!("grant_type=client_credentials&client_id={}&client_secret={}&scope={scope}", ada.id, ada.token.expose())
    };
    let (status, answer, _) = ask(&router, FORM, None, &body("b:c")).await;
    assert_eq!((status, &answer["scope"]), (200, &"b:c".into()));
    let (status, answer, _) = ask(&router, FORM, None, &body("a+d")).await;
    assert_eq!((status, &answer["error"]), (400, &"invalid_scope".into()));
}

#[tokio::test]
async fn whatever_is_wrong_is_told_in_oauth_s_words_and_no_secret_in_them() {
    let (router, ada) = world();
    let mut other = World::new();
    let stranger = other.user("eve", "Other", &[]);
    let (id, token) = (ada.id.to_string(), ada.token.expose());
    let grant = "grant_type=client_credentials";
    let credentials = format!("client_id={id}&client_secret={token}");
    let right = basic(&id, token);
    for (content_type, authorization, body, status, error) in [
        (FORM, None, credentials.clone(), 400, "invalid_request"),
        (FORM, None, format!("grant_type=password&{credentials}"), 400, "unsupported_grant_type"),
        (FORM, None, format!("{grant}&{grant}&{credentials}"), 400, "invalid_request"),
        (FORM, None, format!("{grant}&{credentials}&client_secret=x"), 400, "invalid_request"),
        (FORM, None, format!("{grant}&client_id={id}"), 400, "invalid_request"),
        (FORM, None, grant.into(), 400, "invalid_request"),
        (FORM, Some(&*right), format!("{grant}&{credentials}"), 400, "invalid_request"),
        (FORM, Some(&*right), format!("{grant}&client_id=other"), 400, "invalid_request"),
        (FORM, Some("Bearer x"), format!("{grant}&{credentials}"), 400, "invalid_request"),
        (FORM, Some("Basic !!!"), grant.into(), 400, "invalid_request"),
        (FORM, None, format!("{grant}&client_id={id}&client_secret=junk"), 401, "invalid_client"),
        (FORM, None, format!("{grant}&client_id=junk&client_secret={token}"), 401, "invalid_client"),
        (FORM, None, format!("{grant}&client_id={:032x}&client_secret={token}", 77), 401, "invalid_client"),
        (
            FORM,
            None,
            format!("{grant}&client_id={id}&client_secret={}", stranger.token.expose()),
            401,
            "invalid_client",
        ),
        (FORM, Some(&*basic(&id, "")), grant.into(), 401, "invalid_client"),
        ("application/json", None, "{}".into(), 415, "invalid_request"),
        ("multipart/form-data", None, "x".into(), 400, "invalid_request"),
        ("multipart/form-data; boundary=X", None, "--Y--".into(), 400, "invalid_request"),
        (FORM, None, format!("{grant}&{}", "x=y&".repeat(33)), 400, "invalid_request"),
        (FORM, None, "x".repeat(70_000), 413, "invalid_request"),
    ] {
        let (answered, answer, headers) = ask(&router, content_type, authorization, &body).await;
        assert_eq!((answered, answer["error"].as_str()), (status, Some(error)), "{content_type} {body}: {answer}");
        assert!(!answer.to_string().contains(token), "{answer}");
        assert_eq!(headers.contains_key(header::WWW_AUTHENTICATE), status == 401);
        assert_eq!(&headers["cache-control"], "no-store");
    }
}

#[tokio::test]
async fn only_a_post_with_nothing_in_its_url_is_answered() {
    let (router, ada) = world();
    let get = Request::get(oauth::PATH).body(Body::empty()).unwrap();
    let (response, _) = send(&router, get).await;
    assert_eq!((response.status().as_u16(), &response.headers()["allow"]), (405, &"POST".parse().unwrap()));
    let credentials =
        format!("grant_type=client_credentials&client_id={}&client_secret={}", ada.id, ada.token.expose());
    let request = Request::post(format!("{}?{credentials}", oauth::PATH)).header(header::CONTENT_TYPE, FORM);
    let (response, text) = send(&router, request.body(Body::empty()).unwrap()).await;
    assert_eq!(response.status().as_u16(), 400);
    assert!(text.contains("not into the URL") && !text.contains(ada.token.expose()), "{text}");
}
