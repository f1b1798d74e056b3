//! Authentication of callers, and the exchange at `/oauth/token`.

use std::{
    num::NonZeroU32,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Request, header},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use k8s_openapi::jiff::SignedDuration;
use serde_json::{Value, json};

use super::super::{
    caller::{TokenSet, Verb},
    dialect::OAUTH_TOKEN,
    error::RestError,
    fixture::{NOW, RestFixture, TestToken, at, send},
    oauth,
    rate_limit::RateLimit,
};
use crate::{index::Freshness, token::Token};

const READ: &str = "sp:my-personal-access-tokens:read";

fn headers(values: &[&str]) -> HeaderMap {
    values.iter().map(|value| (header::AUTHORIZATION, value.parse().unwrap())).collect()
}

#[tokio::test]
async fn live_token_is_accepted_with_the_permissions_of_its_scopes() {
    let mut fixture = RestFixture::new();
    let ada = fixture.user("ada", "Laptop", &[READ, "repo:read"]);
    let caller = fixture.service().caller(&ada.headers()).await.unwrap();
    assert_eq!((caller.owner.text(), caller.token_name, caller.id), ("ada".into(), "Laptop".into(), ada.id));
    assert_eq!(caller.credential, ada.token.id());
    assert_eq!(caller.scopes, [READ, "repo:read"]);
    assert!(
        caller.permissions.allow(TokenSet::My, Verb::Read) && !caller.permissions.allow(TokenSet::My, Verb::Manage)
    );
    let used = fixture.index.get(&ada.token.hash()).unwrap().credential().last_used();
    assert_eq!(used, Some(at(NOW)), "the use is recorded");
}

#[tokio::test]
async fn every_other_credential_is_refused_with_the_same_error() {
    let mut fixture = RestFixture::new();
    let ada = fixture.user("ada", "Laptop", &[READ]);
    let unknown = Token::mint(&"kpat".parse().unwrap()).unwrap();
    let other = json!({"kind": "User", "name": "bob"});
    let dead = [
        fixture.pat(json!({"owner": other, "revoked": true}), json!({})),
        fixture.pat(json!({"owner": other, "expiry": {"at": "2026-05-31T00:00:00Z"}}), json!({})),
        fixture.pat(json!({"owner": other, "revokeIfIssuedBefore": "2026-06-01T11:59:59Z"}), json!({})),
        fixture.pat(json!({"owner": other}), json!({"metadata": {"deletionTimestamp": "2026-06-01T11:00:00Z"}})),
        fixture.pat(json!({"owner": other, "audiences": ["https://elsewhere.example.com"]}), json!({})),
    ];
    let service = fixture.service();
    let bearer = ada.bearer();
    let mut wrong: Vec<HeaderMap> = dead.iter().map(TestToken::headers).collect();
    wrong.extend([
        headers(&[]),
        headers(&["Bearer"]),
        headers(&["Bearer "]),
        headers(&[&bearer, &bearer]),
        headers(&[&format!("{bearer}, {bearer}")]),
        headers(&[&bearer.replace("Bearer", "Basic")]),
        headers(&[&format!("Bearer {}", unknown.expose())]),
        headers(&[&format!("{bearer}x")]),
        headers(&["Bearer eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0.e30."]),
    ]);
    for headers in wrong {
        assert_eq!(service.caller(&headers).await.unwrap_err(), RestError::Unauthenticated, "{headers:?}");
    }
    assert!(service.caller(&ada.headers()).await.is_ok());
}

#[tokio::test]
async fn audience_of_a_token_must_be_the_servers() {
    let mut fixture = RestFixture::new();
    let known = fixture.pat(json!({"audiences": ["https://a.example.com", "https://b.example.com"]}), json!({}));
    let plain = fixture.pat(json!({}), json!({}));
    for (audience, taken) in
        [(None, false), (Some("https://b.example.com"), true), (Some("https://c.example.com"), false)]
    {
        fixture.config.audience = audience.map(str::to_owned);
        let service = fixture.service();
        assert_eq!(service.caller(&known.headers()).await.is_ok(), taken, "{audience:?}");
        assert!(service.caller(&plain.headers()).await.is_ok());
    }
}

#[tokio::test]
async fn unverifiable_token_gets_unavailable() {
    let mut fixture = RestFixture::new();
    let ada = fixture.user("ada", "Laptop", &[READ]);
    let now = Arc::new(Mutex::new(Freshness::Starting));
    let shared = now.clone();
    let service = fixture.service_with(move || *shared.lock().unwrap());
    let unknown = headers(&[&format!("Bearer {}", Token::mint(&"kpat".parse().unwrap()).unwrap().expose())]);
    for (freshness, known_is_in, unknown_is_refused) in [
        (Freshness::Starting, false, false),
        (Freshness::Fresh, true, true),
        (Freshness::Stale, true, false),
        (Freshness::Lost, false, false),
    ] {
        *now.lock().unwrap() = freshness;
        for (headers, settled) in [(&ada.headers(), known_is_in), (&unknown, unknown_is_refused)] {
            let unavailable = matches!(service.caller(headers).await, Err(RestError::Unavailable { .. }));
            assert_eq!(unavailable, !settled, "{freshness:?}");
        }
    }
}

#[tokio::test]
async fn tokens_of_one_owner_share_a_rate_limit() {
    let mut fixture = RestFixture::new();
    let one = NonZeroU32::MIN;
    fixture.config.rate = RateLimit { per_second: one, burst: NonZeroU32::new(3).unwrap() };
    let [first, second] = ["One", "Two"].map(|name| fixture.user("ada", name, &[READ]));
    let bob = fixture.user("bob", "Three", &[READ]);
    let service = fixture.service();
    for known in [&first, &second, &first] {
        assert!(service.caller(&known.headers()).await.is_ok());
    }
    for known in [&first, &second] {
        let Err(RestError::TooMany { retry_after }) = service.caller(&known.headers()).await else {
            panic!("accepted")
        };
        assert_eq!(retry_after, Duration::from_secs(1));
    }
    let id = first.id.to_string();
    let exchanged = service.exchange(id.as_bytes(), first.token.expose().as_bytes(), None);
    assert!(matches!(exchanged, Err(RestError::TooMany { .. })), "an exchange counts as a request");
    assert!(service.caller(&bob.headers()).await.is_ok());
}

#[tokio::test]
async fn failed_authentications_are_rate_limited_without_blocking_others() {
    let mut fixture = RestFixture::new();
    let ada = fixture.user("ada", "Laptop", &[READ]);
    let service = fixture.service();
    let mut answers = Vec::new();
    for _ in 0..3_000 {
        answers.push(service.caller(&headers(&["Bearer junk"])).await.unwrap_err());
    }
    assert_eq!(answers[0], RestError::Unauthenticated);
    assert!(matches!(answers.last(), Some(RestError::TooMany { .. })));
    assert!(service.caller(&ada.headers()).await.is_ok());
}

#[tokio::test]
async fn access_token_is_limited_to_its_pat() {
    let mut fixture = RestFixture::new();
    let owner = json!({"kind": "User", "name": "ada"});
    let spec = |scopes: &[&str]| json!({"owner": owner, "scopes": scopes});
    let ada = fixture.pat(spec(&["a", "b", READ]), json!({}));
    let service = fixture.service();
    let id = ada.id.to_string();
    let exchanged = service.exchange(id.as_bytes(), ada.token.expose().as_bytes(), Some(&["b", READ])).unwrap();
    let bearer = headers(&[&format!("Bearer {}", *exchanged.token)]);
    let caller = service.caller(&bearer).await.unwrap();
    assert_eq!((caller.scopes, caller.id, caller.credential), (vec!["b".into(), READ.into()], ada.id, ada.token.id()));

    // Changes of the PAT take effect at once: other scopes, a revocation, and its end.
    let change = |spec: Value, credentials: Value| {
        json!({
            "metadata": {
                "namespace": "team", "name": "pat-1", "uid": ada.id.hyphenated(), "creationTimestamp": "2026-01-01T00:00:01Z",
            },
            "spec": spec, "status": {"credentials": credentials},
        })
    };
    let credentials = |id: &str| json!([{"id": id, "revision": 1, "sha256": ada.token.hash().to_string(), "state": "Active", "issuedAt": "2026-06-01T11:00:00Z"}]);
    let alive = credentials(ada.token.id().as_str());
    fixture.put(change(spec(&["a", "b"]), alive.clone()));
    assert_eq!(service.caller(&bearer).await.unwrap().scopes, ["b"]);
    let mut revoked = spec(&["b"]);
    revoked["revoked"] = json!(true);
    fixture.put(change(revoked, alive.clone()));
    assert_eq!(service.caller(&bearer).await.unwrap_err(), RestError::Unauthenticated);
    fixture.put(change(spec(&["b"]), alive));
    assert!(service.caller(&bearer).await.is_ok());
    // Another credential of the same PAT was not exchanged.
    fixture.put(change(spec(&["b"]), credentials("otherotherid")));
    assert_eq!(service.caller(&bearer).await.unwrap_err(), RestError::Unauthenticated);
}

#[tokio::test]
async fn access_token_can_be_narrowed_to_a_scope_that_one_of_its_pat_includes() {
    let mut fixture = RestFixture::new();
    let ada = fixture.user("ada", "Laptop", &["sp:my-personal-access-tokens:manage"]);
    let service = fixture.service();
    let id = ada.id.to_string();
    let exchange = |scope: &str| service.exchange(id.as_bytes(), ada.token.expose().as_bytes(), Some(&[scope]));
    let exchanged = exchange(READ).unwrap();
    assert_eq!(exchanged.scopes, [READ]);
    let caller = service.caller(&headers(&[&format!("Bearer {}", *exchanged.token)])).await.unwrap();
    assert!(
        caller.permissions.allow(TokenSet::My, Verb::Read) && !caller.permissions.allow(TokenSet::My, Verb::Manage)
    );
    assert!(matches!(exchange("sp:all-personal-access-tokens:read"), Err(RestError::Forbidden(_))));
}

#[tokio::test]
async fn access_token_expires_at_the_earliest_end() {
    let mut fixture = RestFixture::new();
    let owner = json!({"kind": "User", "name": "ada"});
    let hours = |hours: i64| at(NOW).plus(SignedDuration::from_hours(hours)).to_string();
    let credential_ends = |known: &TestToken, end: &str| {
        json!({"credentials": [{
            "id": known.token.id().as_str(), "revision": 1, "sha256": known.token.hash().to_string(), "state": "Active",
            "issuedAt": "2026-06-01T11:00:00Z", "expiresAt": end,
        }]})
    };
    let plain = fixture.pat(json!({"owner": owner}), json!({}));
    let short = fixture.pat(json!({"owner": owner, "accessTokenValidity": "15s"}), json!({}));
    let ending = fixture.pat(json!({"owner": owner, "expiry": {"at": hours(1)}}), json!({}));
    let grace = fixture.pat(json!({"owner": owner}), json!({}));
    fixture.put(json!({
        "metadata": {"namespace": "team", "name": "pat-4", "uid": grace.id.hyphenated(), "creationTimestamp": "2026-01-01T00:00:04Z"},
        "spec": {"owner": owner}, "status": credential_ends(&grace, &hours(2)),
    }));
    let service = fixture.service();
    for (known, seconds) in [(&plain, 43_200), (&short, 15), (&ending, 3_600), (&grace, 7_200)] {
        let exchanged =
            service.exchange(known.id.to_string().as_bytes(), known.token.expose().as_bytes(), None).unwrap();
        assert_eq!(exchanged.expires_in, seconds);
    }
    let exchanged = service.exchange(short.id.to_string().as_bytes(), short.token.expose().as_bytes(), None).unwrap();
    let bearer = headers(&[&format!("Bearer {}", *exchanged.token)]);
    assert!(service.caller(&bearer).await.is_ok());
    fixture.hand.advance(SignedDuration::from_secs(15));
    assert_eq!(service.caller(&bearer).await.unwrap_err(), RestError::Unauthenticated);
}

const FORM: &str = "application/x-www-form-urlencoded";

fn oauth_router() -> (Router, TestToken) {
    let mut fixture = RestFixture::new();
    let ada = fixture.user("ada", "Laptop", &["a", "b:c"]);
    (oauth::routes(fixture.service()), ada)
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
}

async fn token_request(
    router: &Router,
    content_type: &str,
    authorization: Option<&str>,
    body: &str,
) -> (u16, Value, HeaderMap) {
    let mut request = Request::post(OAUTH_TOKEN).header(header::CONTENT_TYPE, content_type);
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
async fn credentials_are_accepted_as_form_multipart_or_basic() {
    let (router, ada) = oauth_router();
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
        let (status, answer, headers) = token_request(&router, content_type, authorization.as_deref(), &body).await;
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
async fn scope_narrows_and_an_unknown_one_is_refused() {
    let (router, ada) = oauth_router();
    let body = |scope: &str| {
        format!("grant_type=client_credentials&client_id={}&client_secret={}&scope={scope}", ada.id, ada.token.expose())
    };
    let (status, answer, _) = token_request(&router, FORM, None, &body("b:c")).await;
    assert_eq!((status, &answer["scope"]), (200, &"b:c".into()));
    let (status, answer, _) = token_request(&router, FORM, None, &body("a+d")).await;
    assert_eq!((status, &answer["error"]), (400, &"invalid_scope".into()));
}

#[tokio::test]
async fn errors_have_oauths_format_and_no_secret() {
    let (router, ada) = oauth_router();
    let mut other = RestFixture::new();
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
        let (answered, answer, headers) = token_request(&router, content_type, authorization, &body).await;
        assert_eq!((answered, answer["error"].as_str()), (status, Some(error)), "{content_type} {body}: {answer}");
        assert!(!answer.to_string().contains(token), "{answer}");
        assert_eq!(headers.contains_key(header::WWW_AUTHENTICATE), status == 401);
        assert_eq!(&headers["cache-control"], "no-store");
    }
}

#[tokio::test]
async fn only_post_without_a_query_is_accepted() {
    let (router, ada) = oauth_router();
    let get = Request::get(OAUTH_TOKEN).body(Body::empty()).unwrap();
    let (response, _) = send(&router, get).await;
    assert_eq!((response.status().as_u16(), &response.headers()["allow"]), (405, &"POST".parse().unwrap()));
    let credentials =
        format!("grant_type=client_credentials&client_id={}&client_secret={}", ada.id, ada.token.expose());
    let request = Request::post(format!("{}?{credentials}", OAUTH_TOKEN)).header(header::CONTENT_TYPE, FORM);
    let (response, text) = send(&router, request.body(Body::empty()).unwrap()).await;
    assert_eq!(response.status().as_u16(), 400);
    assert!(text.contains("not in the URL") && !text.contains(ada.token.expose()), "{text}");
}
