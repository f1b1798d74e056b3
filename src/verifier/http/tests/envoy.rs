//! Tests of Envoy over HTTP, as far as it differs from forward auth.

use super::*;

#[tokio::test]
async fn requirements_end_at_the_dash_and_the_rest_of_the_path_is_ignored() {
    let fixture = HttpFixture::new();
    let token = fixture.put(1, json!({"scopes": ["a", "b", "c,d", "e/f"], "audiences": ["shop"]}));
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
        // Invalid requirements.
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
        let answer = fixture.ask("GET", &uri, &[("Authorization", &bearer(&token))], "").await;
        assert_eq!(answer.status, status, "{path} {answer:?}");
        assert_eq!(answer.header("x-auth-request-token-id"), (status == 200).then_some(&*id(1)));
    }
    for path in ["/auth/envoy", "/auth/envoy/", "/auth/envoy-/-/"] {
        assert_ne!(fixture.ask("GET", path, &[("Authorization", &bearer(&token))], "").await.status, 200);
    }
}

#[tokio::test]
async fn denials_have_the_status_of_rfc_6750_and_unavailable_is_503() {
    let fixture = HttpFixture::new();
    let token = fixture.put(1, json!({"scopes": ["read"]}));
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
        let answer = fixture.ask("POST", &format!("/auth/envoy/{path}"), &headers, "body of the client").await;
        assert_eq!((answer.status, answer.header("www-authenticate")), (status, challenge), "{value:?}");
    }
    let alias = [("Authorization", &*good), ("x_auth_request_user", "root")];
    assert_eq!(fixture.ask("GET", "/auth/envoy/-/", &alias, "").await.status, 403);
    fixture.set_freshness(Freshness::Lost);
    let answer = fixture.ask("GET", "/auth/envoy/-/", &[("Authorization", &good)], "").await;
    assert_eq!((answer.status, answer.header("www-authenticate")), (503, None));
}
