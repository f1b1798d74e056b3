//! Tests of forward auth.

use super::*;

const CHALLENGE: &str = r#"Bearer realm="pat-operator""#;
const INVALID_TOKEN: &str = r#"Bearer realm="pat-operator", error="invalid_token""#;
const INVALID_REQUEST: &str = r#"Bearer realm="pat-operator", error="invalid_request""#;

async fn ask(fixture: &HttpFixture, query: &str, headers: &[(&str, &str)]) -> HttpAnswer {
    let answer = fixture.ask("GET", &format!("/auth/forward{query}"), headers, "").await;
    assert!([200, 401, 403].contains(&answer.status), "nginx turns it into 500: {answer:?}");
    answer
}

#[tokio::test]
async fn an_accepted_token_sets_every_identity_header() {
    let fixture = HttpFixture::new();
    let jane = fixture.put(1, json!({"owner": {"kind": "User", "name": "jane@example.com"}, "scopes": ["a:b", "c"]}));
    let account = fixture.put(2, json!({}));
    for (token, query, user, scopes, number) in [
        (&jane, "?scope=a%3Ab&scope=c", "jane@example.com", "a:b c", 1),
        (&jane, "", "jane@example.com", "a:b c", 1),
        (&account, "", "va:shop/app-2", "", 2),
    ] {
        let answer =
            ask(&fixture, query, &[("Authorization", &bearer(token)), ("X-Auth-Request-Email", "root@x")]).await;
        assert_eq!((answer.status, &*answer.body), (200, ""), "{answer:?}");
        for (name, value) in [
            ("X-Auth-Request-User", user),
            ("X-Auth-Request-Email", ""),
            ("X-Auth-Request-Groups", ""),
            ("X-Auth-Request-Preferred-Username", ""),
            ("X-Auth-Request-Access-Token", ""),
            ("X-Auth-Request-Scopes", scopes),
            ("X-Auth-Request-Token-Id", &id(number)),
        ] {
            assert_eq!(answer.all(name), [value], "{name}");
        }
        assert_eq!(answer.header("www-authenticate"), None);
    }
}

#[tokio::test]
async fn any_method_any_case_and_basic_with_any_user_name_are_accepted() {
    let fixture = HttpFixture::new();
    let token = fixture.put(1, json!({}));
    for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PROPFIND"] {
        assert_eq!(fixture.ask(method, "/auth/forward", &[("authorization", &bearer(&token))], "x").await.status, 200);
    }
    for value in [
        bearer(&token),
        format!("bearer {token}"),
        format!("BEARER   {token}"),
        format!("Bearer {token} \t"),
        format!(" Bearer {token}"),
        format!("{} ", basic("x", &token)),
        basic("jane@example.com", &token),
        basic("", &token),
        basic("shop/ci", &token).replace("Basic", "bAsIc"),
        basic("x", &token).trim_end_matches('=').to_owned(),
    ] {
        assert_eq!(ask(&fixture, "", &[("AUTHORIZATION", &value)]).await.status, 200, "{value}");
    }
}

#[tokio::test]
async fn denials_have_the_challenge_of_rfc_6750() {
    let fixture = HttpFixture::new();
    let plain = fixture.put(1, json!({"scopes": ["read"]}));
    let bound = fixture.put(2, json!({"audiences": ["shop"]}));
    let revoked = fixture.put(3, json!({"revoked": true}));
    let expired = fixture.put(4, json!({"expiry": {"at": "2026-01-01T00:00:00Z"}}));
    let scope = |scope: &str| format!(r#"{CHALLENGE}, error="insufficient_scope", scope="{scope}""#);
    let two = format!("{}, {}", bearer(&plain), bearer(&plain));
    for (query, value, status, challenge) in [
        ("", None, 401, CHALLENGE),
        ("", Some(""), 401, CHALLENGE),
        ("", Some("Digest abc"), 401, CHALLENGE),
        ("", Some("Bearer"), 401, INVALID_REQUEST),
        ("", Some("Bearer "), 401, INVALID_REQUEST),
        ("", Some("Bearer a b"), 401, INVALID_REQUEST),
        ("", Some("Basic ???"), 401, INVALID_REQUEST),
        ("", Some("Basic bm9jb2xvbg=="), 401, INVALID_REQUEST),
        ("", Some(&*two), 401, INVALID_REQUEST),
        ("", Some("Bearer junk"), 401, INVALID_TOKEN),
        ("", Some(&*basic("jane", "secret")), 401, INVALID_TOKEN),
        ("", Some(&*basic(&plain, "")), 401, INVALID_TOKEN),
        ("", Some(&*bearer(&mistyped(&plain))), 401, INVALID_TOKEN),
        ("", Some(&*bearer(&token(99))), 401, INVALID_TOKEN),
        ("", Some(&*bearer(&revoked)), 401, INVALID_TOKEN),
        ("", Some(&*bearer(&expired)), 401, INVALID_TOKEN),
        ("", Some(&*bearer(&bound)), 401, INVALID_TOKEN),
        ("?audience=other", Some(&*bearer(&bound)), 401, INVALID_TOKEN),
        ("?audience=shop", Some(&*bearer(&plain)), 401, INVALID_TOKEN),
        ("?scope=read&scope=write", Some(&*bearer(&plain)), 403, &*scope("read write")),
        ("?scope=Read", Some(&*bearer(&plain)), 403, &*scope("Read")),
        ("?scope=read;audience=shop", Some(&*bearer(&plain)), 403, &*scope("read;audience=shop")),
        ("?audience=shop&scope=x", Some(&*bearer(&bound)), 403, &*scope("x")),
    ] {
        let headers: Vec<_> = value.iter().map(|value| ("Authorization", *value)).collect();
        let answer = ask(&fixture, query, &headers).await;
        assert_eq!((answer.status, answer.all("www-authenticate")), (status, vec![challenge]), "{query} {value:?}");
        assert!(!answer.body.is_empty() && answer.header("x-auth-request-user").is_none(), "{answer:?}");
    }
    let twice = [("Authorization", &*bearer(&plain)), ("authorization", &*bearer(&plain))];
    assert_eq!(ask(&fixture, "", &twice).await.all("www-authenticate"), [INVALID_REQUEST]);
    assert_eq!(ask(&fixture, "?audience=shop", &[("Authorization", &bearer(&bound))]).await.status, 200);
}

#[tokio::test]
async fn an_invalid_requirement_denies_valid_tokens() {
    let fixture = HttpFixture::new();
    let token = fixture.put(1, json!({"scopes": ["a", "b", "a,b", "+"]}));
    let many = format!("?{}", vec!["scope=a"; 65].join("&"));
    for (query, status) in [
        ("?scope=a&scope=b", 200),
        ("?scope=a%2Cb", 200),
        ("?scope=a,b", 200),
        ("?scope=%2B", 200),
        ("?", 200),
        ("?scopes=a", 403),
        ("?Scope=a", 403),
        ("?scope", 403),
        ("?scope=", 403),
        ("?scope=a&", 403),
        ("?&scope=a", 403),
        ("?scope=a+b", 403),
        ("?scope=a%20b", 403),
        ("?scope=%zz", 403),
        ("?scope=%4", 403),
        ("?scope=%ff", 403),
        ("?scope=%22", 403),
        ("?sc%6Fpe=a", 403),
        ("?audience=", 403),
        ("?audience=a&audience=a", 403),
        ("?rd=https://example.com", 403),
        (&*many, 403),
    ] {
        let answer = ask(&fixture, query, &[("Authorization", &bearer(&token))]).await;
        assert_eq!(answer.status, status, "{query} {answer:?}");
        assert!(status == 200 || answer.body.starts_with("the proxy is misconfigured: "), "{answer:?}");
    }
}

#[tokio::test]
async fn an_alias_of_an_identity_header_is_refused() {
    let fixture = HttpFixture::new();
    let token = fixture.put(1, json!({}));
    for (name, status) in [
        ("X-Auth-Request-User", 200),
        ("x-auth-request-email", 200),
        ("X-Auth-Request-User2", 200),
        ("X_Auth", 200),
        ("X_Auth_Request_User", 403),
        ("X-Auth-Request_User", 403),
        ("x.auth.request.user", 403),
        ("x-auth_request.groups", 403),
        ("X_AUTH_REQUEST_EMAIL", 403),
        ("X-Auth-Request-Token_Id", 403),
        ("X-Auth-Request.Scopes", 403),
        ("X_Auth_Request_Preferred_Username", 403),
        ("X-Auth-Request-Access_Token", 403),
        ("X*Auth-Request-User", 403),
        ("X-Auth!Request|Groups", 403),
        ("x~auth`request^email", 403),
        ("X-Auth-Request'Scopes", 403),
        ("X1Auth-Request-User", 200),
    ] {
        let answer = ask(&fixture, "", &[("Authorization", &bearer(&token)), (name, "root")]).await;
        assert_eq!(answer.status, status, "{name}");
        assert_eq!(answer.header("x-auth-request-user").is_some(), status == 200);
    }
    // Also for a request without a token.
    assert_eq!(ask(&fixture, "", &[("X_Auth_Request_User", "root")]).await.status, 403);
}

#[tokio::test]
async fn without_a_current_index_the_status_is_403() {
    let fixture = HttpFixture::new();
    let token = fixture.put(1, json!({}));
    for (freshness, token, status) in [
        (Freshness::Starting, &token, 403),
        (Freshness::Lost, &token, 403),
        (Freshness::Stale, &token, 200),
        (Freshness::Stale, &super::token(9), 403),
        (Freshness::Lost, &mistyped(&token), 401),
    ] {
        fixture.set_freshness(freshness);
        let answer = ask(&fixture, "", &[("Authorization", &bearer(token))]).await;
        assert_eq!(answer.status, status, "{freshness:?}");
        assert!(status != 403 || answer.body.contains("cannot be verified at the moment"), "{answer:?}");
        assert_eq!(answer.header("www-authenticate").is_some(), status == 401);
    }
}

#[tokio::test]
async fn a_token_is_accepted_until_it_expires() {
    let fixture = HttpFixture::new();
    let token = fixture.put(1, json!({}));
    fixture.hand.advance(SignedDuration::from_micros(3_600_000_000 - 1));
    assert_eq!(ask(&fixture, "", &[("Authorization", &bearer(&token))]).await.status, 200);
    fixture.hand.advance(SignedDuration::from_micros(1));
    assert_eq!(ask(&fixture, "", &[("Authorization", &bearer(&token))]).await.status, 401);
}

#[tokio::test]
async fn an_unprintable_owner_is_refused() {
    let fixture = HttpFixture::new();
    // Admission rejects these names, but they may be stored nevertheless.
    for name in ["jane doe", "jane\r\nX-Auth-Request-User: root", "jän", "\u{7f}", ""] {
        let token = fixture.put(1, json!({"owner": {"kind": "User", "name": name}}));
        let answer = ask(&fixture, "", &[("Authorization", &bearer(&token))]).await;
        assert_eq!((answer.status, answer.header("x-auth-request-user")), (403, None), "{name:?}");
    }
}

#[tokio::test]
async fn a_token_in_the_query_is_not_repeated_in_the_answer() {
    let fixture = HttpFixture::new();
    let token = fixture.put(1, json!({}));
    for query in [
        format!("?{token}"),
        format!("?scope={token}&{token}=1"),
        format!("?token={token}"),
        format!("?scope={token}"),
        format!("?scope=read:{token}:x"),
        format!("?scope={}", token.replace('_', "%5F")),
        format!("?scope={}", mistyped(&token)),
        format!("?scope={}", &token[..token.len() - 6]),
    ] {
        let answer = ask(&fixture, &query, &[("Authorization", &bearer(&token))]).await;
        assert_eq!(answer.status, 403);
        // Not even the whole ID; the log has the same text.
        assert!(!format!("{answer:?}").contains(&token[..17]), "{answer:?}");
    }
}

#[tokio::test]
async fn the_query_of_the_client_states_no_requirements() {
    let fixture = HttpFixture::new();
    let token = fixture.put(1, json!({"scopes": ["read"], "audiences": ["shop"]}));
    let bearer = bearer(&token);
    for (query, forwarded, status) in [
        ("?audience=shop", "/orders?audience=shop", 403),
        ("?audience=shop&scope=read", "?audience=shop&scope=read", 403),
        ("?audience=shop", "/orders?limit=3", 200),
        ("?audience=shop", "/orders?limit=3&audience=shop", 200),
        ("?audience=shop", "/orders", 200),
        ("", "/orders", 401),
        ("", "/orders?", 401),
    ] {
        let answer = ask(&fixture, query, &[("Authorization", &bearer), ("X-Forwarded-Uri", forwarded)]).await;
        assert_eq!(answer.status, status, "{query} {forwarded} {answer:?}");
        assert!(status != 403 || answer.body.contains("X-Forwarded-Uri"), "{answer:?}");
    }
}

#[tokio::test]
async fn too_many_headers_are_refused_with_a_body() {
    let fixture = HttpFixture::new();
    let caller = bearer(&fixture.put(1, json!({"scopes": ["introspect"]})));
    let names: Vec<String> = (0..513).map(|number| format!("x-{number}")).collect();
    let with = |count: usize| {
        let more = names[..count].iter().map(|name| (&**name, "a"));
        more.chain([("Authorization", &*caller), ("Content-Type", "application/x-www-form-urlencoded")])
            .collect::<Vec<_>>()
    };
    for (method, path, many, few) in [
        ("GET", "/auth/forward", 403, 200),
        ("GET", "/auth/envoy/-/", 431, 200),
        ("POST", "/oauth2/introspect", 431, 200),
        ("POST", "/k8s/tokenreview", 431, 400),
    ] {
        assert_eq!(fixture.ask(method, path, &with(510), "token=x").await.status, few, "{path}");
        let answer = fixture.ask(method, path, &with(511), "token=x").await;
        assert_eq!(answer.status, many, "{path}");
        assert!(answer.body.contains("headers"), "{answer:?}");
    }
}

#[tokio::test]
async fn a_requirement_cut_off_by_a_fragment_denies_valid_tokens() {
    let fixture = HttpFixture::new();
    let token = fixture.put(1, json!({"scopes": ["read:a"]}));
    let request = |marked: bool| {
        let mut request = Request::get("/auth/forward?scope=read:a").header("Authorization", bearer(&token));
        if marked {
            request = request.extension(DroppedFragment);
        }
        fixture.service.clone().oneshot(request.body(Body::empty()).unwrap())
    };
    assert_eq!(request(false).await.unwrap().status(), 200);
    let denied = request(true).await.unwrap();
    assert_eq!(denied.status(), 403);
    let body = to_bytes(denied.into_body(), 1 << 10).await.unwrap();
    assert!(body.starts_with(b"the proxy is misconfigured: ") && body.ends_with(b"write %23\n"), "{body:?}");
}
