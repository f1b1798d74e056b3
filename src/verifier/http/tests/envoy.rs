//! Envoy over HTTP: what differs from forward auth.

use super::*;

#[tokio::test]
async fn what_is_needed_stands_before_the_dash_and_nothing_after_it_is_read() {
    let stage = Stage::new();
    let token = stage.put(1, json!({"scopes": ["a", "b", "c,d", "e/f"], "audiences": ["shop"]}));
    for (path, status) in [
        ("audience=shop/-/", 200),
        ("audience=shop/-/any/path", 200),
        ("audience=shop/-/?scope=none", 200),
        ("audience=shop/-/scope=none/-/", 200),
        ("audience=shop/-//../%zz?%", 200),
        ("scope=a,b/audience=shop/-/x", 200),
        ("audience=shop/scope=a/scope=b/-/x", 200),
        ("scope=c%2Cd/audience=shop/-/x", 200),
        ("scope=e%2Ff/audience=shop/-/x", 200),
        ("scope=a,none/audience=shop/-/", 403),
        ("scope=a,b/-/", 401),
        ("scope=a/-/audience=shop/-/", 401),
        // Set up wrongly.
        ("audience=shop", 403),
        ("audience=shop/-", 403),
        ("audience=shop/-x/", 403),
        ("audience=shop/", 403),
        ("audience=shop//-/", 403),
        ("audience=shop/x/-/", 403),
        ("audience=shop/Scope=a/-/", 403),
        ("audience=shop/scope=/-/", 403),
        ("audience=shop/scope=a,/-/", 403),
        ("audience=shop/scope=a+b/-/", 403),
        ("audience=shop/audience=shop/-/", 403),
        ("audience%3Dshop/-/", 403),
    ] {
        let uri = format!("/auth/envoy/{path}");
        let answer = stage.ask("GET", &uri, &[("Authorization", &bearer(&token))], "").await;
        assert_eq!(answer.status, status, "{path} {answer:?}");
        assert_eq!(answer.header("x-auth-request-token-id"), (status == 200).then_some(&*id(1)));
    }
    for path in ["/auth/envoy", "/auth/envoy/", "/auth/envoy-/-/"] {
        assert_ne!(stage.ask("GET", path, &[("Authorization", &bearer(&token))], "").await.status, 200);
    }
}

#[tokio::test]
async fn refusals_have_rfc_6750s_status_and_503_means_nobody_can_tell() {
    let stage = Stage::new();
    let token = stage.put(1, json!({"scopes": ["read"]}));
    let good = bearer(&token);
    let joined = format!("{good},{good}");
    for (path, value, status, challenge) in [
        ("-/", None, 401, Some(r#"Bearer realm="pat-operator""#)),
        ("-/", Some("Bearer x"), 401, Some(r#"Bearer realm="pat-operator", error="invalid_token""#)),
        ("-/", Some(&*joined), 400, Some(r#"Bearer realm="pat-operator", error="invalid_request""#)),
        (
            "scope=w/-/",
            Some(&*good),
            403,
            Some(r#"Bearer realm="pat-operator", error="insufficient_scope", scope="w""#),
        ),
        ("scope=read/-/", Some(&*good), 200, None),
    ] {
        let headers: Vec<_> = value.iter().map(|value| ("Authorization", *value)).collect();
        let answer = stage.ask("POST", &format!("/auth/envoy/{path}"), &headers, "body of the client").await;
        assert_eq!((answer.status, answer.header("www-authenticate")), (status, challenge), "{value:?}");
    }
    let alias = [("Authorization", &*good), ("x_auth_request_user", "root")];
    assert_eq!(stage.ask("GET", "/auth/envoy/-/", &alias, "").await.status, 403);
    stage.is(Freshness::Lost);
    let answer = stage.ask("GET", "/auth/envoy/-/", &[("Authorization", &good)], "").await;
    assert_eq!((answer.status, answer.header("www-authenticate")), (503, None));
}
