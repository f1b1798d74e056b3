//! Tests of introspection and its metadata.

use super::*;

const PATH: &str = "/oauth2/introspect";
const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");

async fn introspect(fixture: &HttpFixture, authorization: &str, token: &str) -> HttpAnswer {
    fixture.ask("POST", PATH, &[("Authorization", authorization), FORM], format!("token={token}")).await
}

#[tokio::test]
async fn an_active_token_is_returned_with_all_claims() {
    let fixture = HttpFixture::new();
    let caller = fixture.put(1, json!({"scopes": ["introspect"]}));
    let jane = json!({
        "owner": {"kind": "User", "name": "jane@example.com"},
        "scopes": ["a:b", "c"],
        "audiences": ["shop", "till"],
        "expiry": {"at": "2026-01-01T00:30:00Z"},
    });
    let token = fixture.put(2, jane);
    let answer = introspect(&fixture, &bearer(&caller), &token).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.json(),
        json!({
            "active": true,
            "scope": "a:b c",
            "client_id": client_id(2),
            "username": "jane@example.com",
            "token_type": "Bearer",
            "exp": 1_767_227_400,
            "iat": 1_767_225_600,
            "nbf": 1_767_225_600,
            "sub": "jane@example.com",
            "aud": ["shop", "till"],
            "iss": ISSUER,
            "jti": id(2),
        })
    );
    let own = introspect(&fixture, &bearer(&caller), &caller).await.json();
    assert_eq!(own["sub"], "va:shop/app-1");
    assert_eq!(own["exp"], 1_767_229_200, "the expiry of the credential");
    assert_eq!(own.get("aud"), None);
}

#[tokio::test]
async fn without_an_issuer_there_is_no_iss() {
    let fixture = HttpFixture::with(HttpConfig::default());
    let caller = fixture.put(1, json!({"scopes": ["introspect"]}));
    assert_eq!(introspect(&fixture, &bearer(&caller), &caller).await.json().get("iss"), None);
}

#[tokio::test]
async fn every_other_token_is_inactive_without_details() {
    let fixture = HttpFixture::new();
    let caller = bearer(&fixture.put(1, json!({"scopes": ["introspect"]})));
    let revoked = fixture.put(2, json!({"revoked": true}));
    let expired = fixture.put(3, json!({"expiry": {"at": "2025-01-01T00:00:00Z"}}));
    let gone = fixture.put(4, json!({}));
    fixture.remove(4);
    for token in [&*revoked, &expired, &gone, &token(99), &mistyped(&revoked), "junk", "%ff%00", "a.b.c"] {
        let answer = introspect(&fixture, &caller, token).await;
        assert_eq!((answer.status, &*answer.body), (200, r#"{"active":false}"#), "{token}");
    }
}

#[tokio::test]
async fn a_caller_with_audiences_sees_only_tokens_for_one_of_them() {
    let fixture = HttpFixture::new();
    let anybody = fixture.put(1, json!({"scopes": ["introspect"]}));
    let shop = fixture.put(2, json!({"scopes": ["introspect"], "audiences": ["shop", "till"]}));
    let for_till = fixture.put(3, json!({"audiences": ["bank", "till"]}));
    let for_bank = fixture.put(4, json!({"audiences": ["bank"]}));
    let for_none = fixture.put(5, json!({}));
    for (caller, token, active) in [
        (&anybody, &for_till, true),
        (&anybody, &for_bank, true),
        (&anybody, &for_none, true),
        (&shop, &for_till, true),
        (&shop, &for_bank, false),
        (&shop, &for_none, false),
    ] {
        let answer = introspect(&fixture, &bearer(caller), token).await;
        assert_eq!(answer.json()["active"], active);
        assert!(active || answer.body == r#"{"active":false}"#, "{answer:?}");
    }
}

#[tokio::test]
async fn callers_authenticate_with_bearer_or_with_uid_and_token() {
    let fixture = HttpFixture::new();
    let caller = fixture.put(1, json!({"scopes": ["x", "introspect"], "owner": {"kind": "User", "name": "jane"}}));
    let other = fixture.put(2, json!({"scopes": ["introspect"]}));
    let weak = fixture.put(3, json!({"scopes": ["introspect:not"]}));
    let revoked = fixture.put(4, json!({"scopes": ["introspect"], "revoked": true}));
    // Strict libraries form-encode both values.
    let encoded = basic(&uid(1).replace('-', "%2D"), &caller.replace('_', "%5F"));
    for (authorization, status) in [
        (bearer(&caller), 200),
        (bearer(&caller).replace("Bearer", "bearer"), 200),
        (basic(&client_id(1), &caller), 200),
        (basic(&client_id(1).to_uppercase(), &caller), 200),
        (basic(&uid(1), &caller), 200),
        (encoded, 200),
        (basic("jane", &caller), 401),
        (basic("", &caller), 401),
        (basic(&client_id(2), &caller), 401),
        (basic(&client_id(1), &other), 401),
        (basic(&client_id(1), "secret"), 401),
        (bearer(&revoked), 401),
        (basic(&client_id(4), &revoked), 401),
        (bearer(&token(99)), 401),
        (bearer("junk"), 401),
        // This fixture has no API server.
        (bearer("aaa.bbb.ccc"), 401),
        ("Negotiate abc".to_owned(), 401),
        (bearer(&weak), 403),
        (basic(&client_id(3), &weak), 403),
        (format!("{},{}", bearer(&caller), bearer(&caller)), 400),
        ("Bearer".to_owned(), 400),
    ] {
        let answer = introspect(&fixture, &authorization, &other).await;
        assert_eq!(answer.status, status, "{authorization} {answer:?}");
        let challenges = answer.all("www-authenticate");
        match status {
            200 => assert_eq!((answer.json()["active"] == true, challenges), (true, vec![])),
            401 => assert!(challenges.len() == 2 && challenges[1] == r#"Basic realm="pat-operator""#, "{challenges:?}"),
            403 => assert_eq!(
                challenges,
                [r#"Bearer realm="pat-operator", error="insufficient_scope", scope="introspect""#]
            ),
            _ => assert_eq!(challenges, [r#"Bearer realm="pat-operator", error="invalid_request""#]),
        }
    }
    let anonymous = fixture.ask("POST", PATH, &[FORM], "token=x").await;
    assert_eq!(anonymous.status, 401);
    assert_eq!(anonymous.all("www-authenticate"), [r#"Bearer realm="pat-operator""#, r#"Basic realm="pat-operator""#]);
    assert_eq!(anonymous.json()["error"], "invalid_client");
}

#[tokio::test]
async fn only_a_form_with_exactly_one_token_is_accepted() {
    let fixture = HttpFixture::new();
    let caller = bearer(&fixture.put(1, json!({"scopes": ["introspect"]})));
    let token = fixture.put(2, json!({}));
    let active = Some(true);
    let large = format!("token={token}&x={}", "x".repeat(64 * 1024));
    for (content_type, body, status, is_active) in [
        (Some(FORM.1), format!("token={token}"), 200, active),
        (Some("Application/X-WWW-Form-Urlencoded; charset=UTF-8"), format!("token={token}"), 200, active),
        (Some(FORM.1), format!("token_type_hint=refresh_token&token={token}&token_type_hint=9&&="), 200, active),
        (Some(FORM.1), format!("t%6Fken={}", token.replace('_', "%5f")), 200, active),
        (Some(FORM.1), format!("token=+{token}"), 200, Some(false)),
        (Some(FORM.1), format!("token={token}&token={token}"), 400, None),
        (Some(FORM.1), format!("token=&token={token}"), 400, None),
        (Some(FORM.1), format!("Token={token}"), 400, None),
        (Some(FORM.1), "token=".to_owned(), 400, None),
        (Some(FORM.1), String::new(), 400, None),
        (Some("application/json"), json!({"token": token}).to_string(), 415, None),
        (Some("text/plain"), format!("token={token}"), 415, None),
        (None, format!("token={token}"), 415, None),
        (Some(FORM.1), large, 413, None),
    ] {
        let mut headers = vec![("Authorization", &*caller)];
        headers.extend(content_type.map(|value| ("Content-Type", value)));
        let answer = fixture.ask("POST", PATH, &headers, body).await;
        assert_eq!((answer.status, answer.json()["active"].as_bool()), (status, is_active), "{answer:?}");
        assert!(status == 200 || answer.json()["error"] == "invalid_request", "{answer:?}");
    }
}

#[tokio::test]
async fn other_methods_than_post_are_refused() {
    let fixture = HttpFixture::new();
    let caller = fixture.put(1, json!({"scopes": ["introspect"]}));
    for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"] {
        let uri = format!("{PATH}?token={caller}");
        let answer = fixture.ask(method, &uri, &[("Authorization", &bearer(&caller))], "").await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")), "{method}");
    }
}

#[tokio::test]
async fn without_a_current_index_the_status_is_503() {
    let fixture = HttpFixture::new();
    let caller = bearer(&fixture.put(1, json!({"scopes": ["introspect"]})));
    for (freshness, token, status) in [
        (Freshness::Stale, token(9), 503),
        (Freshness::Stale, "junk".to_owned(), 200),
        (Freshness::Starting, "junk".to_owned(), 503),
        (Freshness::Lost, "junk".to_owned(), 503),
    ] {
        fixture.set_freshness(freshness);
        assert_eq!(introspect(&fixture, &caller, &token).await.status, status, "{freshness:?}");
    }
}

#[tokio::test]
async fn the_metadata_names_the_endpoint() {
    let fixture = HttpFixture::new();
    let path = "/.well-known/oauth-authorization-server";
    let answer = fixture.ask("GET", path, &[], "").await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.json(),
        json!({
            "issuer": ISSUER,
            "response_types_supported": ["none"],
            "introspection_endpoint": format!("{ISSUER}/oauth2/introspect"),
            "introspection_endpoint_auth_methods_supported": ["client_secret_basic", "Bearer"],
        })
    );
    let answer = fixture.ask("POST", path, &[], "").await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")));
    assert_eq!(fixture.ask("GET", &format!("{path}/other"), &[], "").await.status, 404);
}

#[tokio::test]
async fn an_issuer_with_a_path_has_its_metadata_under_that_path_too() {
    let issuer = Some("https://example.com/tokens/".parse().unwrap());
    let fixture = HttpFixture::with(HttpConfig { issuer, tokenreview: None });
    let path = "/.well-known/oauth-authorization-server";
    for (path, status) in [(path.to_owned(), 200), (format!("{path}/tokens"), 200), (format!("{path}/tokens/x"), 404)] {
        let answer = fixture.ask("GET", &path, &[], "").await;
        assert_eq!(answer.status, status, "{path}");
        if status == 200 {
            assert_eq!(answer.json()["issuer"], "https://example.com/tokens/");
            assert_eq!(answer.json()["introspection_endpoint"], "https://example.com/tokens/oauth2/introspect");
        }
    }
}

#[test]
fn only_plain_https_urls_are_issuers() {
    for (text, good) in [
        ("https://example.com", true),
        ("https://example.com:8443/path", true),
        ("https://[::1]:8443", true),
        ("http://example.com", false),
        ("https://", false),
        ("https:///path", false),
        ("https://user@example.com", false),
        ("https://example.com?x", false),
        ("https://example.com#x", false),
        ("https://exam ple.com", false),
        ("example.com", false),
        ("", false),
    ] {
        assert_eq!(text.parse::<Issuer>().is_ok(), good, "{text}");
    }
}

#[tokio::test]
async fn the_body_of_a_service_account_is_read_into_the_memory_budget_before_its_review() {
    let api_server = tower::service_fn(|_: Request<kube::client::Body>| {
        std::future::pending::<Result<axum::http::Response<Body>, std::convert::Infallible>>()
    });
    let client = kube::Client::new(api_server, "default");
    let HttpFixture { index, now, metrics, .. } = HttpFixture::new();
    let verifier = Arc::new(Verifier::new(index, || Freshness::Fresh, now, metrics));
    let service = VerifierService::new(Arc::clone(&verifier), HttpConfig::default(), Some(client));
    let left = verifier.memory().left();
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(r#"{"aud":"pat-operator","exp":4102444800}"#);
    let request = Request::post(PATH).header("Authorization", format!("Bearer a.{claims}.c")).header(FORM.0, FORM.1);
    let mut asked = Box::pin(service.oneshot(request.body(Body::from(vec![b'x'; 40_000])).unwrap()));
    assert!((&mut asked).now_or_never().is_none());
    assert!(verifier.memory().left() <= left - 40_000);
    drop(asked);
    assert_eq!(verifier.memory().left(), left);
}
