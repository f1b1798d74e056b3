//! Tests of `TokenOwner` in every HTTP protocol.

use super::*;

/// Asks introspection, TokenReview, forward auth and Envoy about a token. PAT 9 calls introspection.
async fn all(fixture: &HttpFixture, token: &str) -> [Value; 4] {
    let caller = fixture.put(9, json!({"scopes": ["introspect"]}));
    let form = format!("token={token}");
    let headers = [("Authorization", &*bearer(&caller)), ("Content-Type", "application/x-www-form-urlencoded")];
    let introspected = fixture.ask("POST", "/oauth2/introspect", &headers, form).await.json();
    let review = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": token, "audiences": ["k8s"]},
    });
    let reviewed = fixture.ask("POST", "/k8s/tokenreview", &[], review.to_string()).await.json()["status"].clone();
    let presented = [("Authorization", &*bearer(token))];
    let forwarded = fixture.ask("GET", "/auth/forward?audience=k8s", &presented, "").await;
    let asked = fixture.ask("GET", "/auth/envoy/audience=k8s/-/", &presented, "").await;
    for proxied in [&forwarded, &asked] {
        let challenge = proxied.header("www-authenticate").unwrap_or_default();
        assert_eq!(proxied.status == 401, challenge.contains("invalid_token"), "{proxied:?}");
    }
    [introspected, reviewed, forwarded.status.into(), asked.status.into()]
}

#[tokio::test]
async fn tokens_of_a_disabled_owner_are_refused_by_every_protocol_until_it_is_enabled() {
    let fixture = HttpFixture::new();
    let jane = json!({"kind": "User", "name": "jane@example.com"});
    let token = fixture.put(1, json!({"owner": jane, "audiences": ["k8s"]}));
    let other = fixture.put(2, json!({"audiences": ["k8s"]}));
    let works = async |token: &str, whether: bool| {
        let [introspected, reviewed, forwarded, asked] = all(&fixture, token).await;
        let status = if whether { 200 } else { 401 };
        assert_eq!([introspected["active"] == true, reviewed["authenticated"] == true], [whether; 2]);
        assert_eq!([forwarded, asked], [json!(status), json!(status)]);
        if !whether {
            assert_eq!(introspected, json!({"active": false}), "it looks like an unknown token");
            assert_eq!(reviewed, json!({"authenticated": false}));
        }
    };
    works(&token, true).await;
    fixture.describe("jane", json!({"subject": jane, "disabled": true}));
    works(&token, false).await;
    works(&other, true).await;
    assert_eq!(fixture.counted("forward-auth", "OwnerDisabled"), 1);
    fixture.describe("jane-too", json!({"subject": jane}));
    works(&token, false).await;
    fixture.describe("jane", json!({"subject": jane, "disabled": false}));
    works(&token, true).await;
    // The owner of the caller can be disabled too.
    fixture.describe("caller", json!({"subject": {"kind": "VirtualAccount", "name": "shop/app-9"}, "disabled": true}));
    let caller = fixture.put(9, json!({"scopes": ["introspect"]}));
    let headers = [("Authorization", &*bearer(&caller)), ("Content-Type", "application/x-www-form-urlencoded")];
    assert_eq!(fixture.ask("POST", "/oauth2/introspect", &headers, format!("token={token}")).await.status, 401);
}

#[tokio::test]
async fn services_get_the_address_and_all_printable_groups() {
    let long = "g".repeat(64);
    for (spec, email, groups) in [
        (json!({}), "", "".to_owned()),
        (json!({"email": "jane@example.com"}), "jane@example.com", "".to_owned()),
        (json!({"groups": ["staff", "on call", &long]}), "", format!("staff,on call,{long}")),
        (
            json!({"groups": ["a,b", "gr\u{f6}n", "x\r\nX-Auth-Request-User: root", "", " c", "ok"]}),
            "",
            "ok".to_owned(),
        ),
        (json!({"email": "j\u{e4}ne@example.com", "groups": ["ok"]}), "", "ok".to_owned()),
        (json!({"email": "a@example.com\nx"}), "", "".to_owned()),
    ] {
        let fixture = HttpFixture::new();
        let token = fixture.put(1, json!({"owner": {"kind": "User", "name": "jane"}}));
        let mut described = spec.clone();
        described["subject"] = json!({"kind": "User", "name": "jane"});
        fixture.describe("jane", described);
        for path in ["/auth/forward", "/auth/envoy/-/"] {
            let answer = fixture.ask("GET", path, &[("Authorization", &bearer(&token))], "").await;
            assert_eq!(answer.status, 200, "{spec}");
            assert_eq!(answer.all("x-auth-request-email"), [email], "{spec}");
            assert_eq!(answer.all("x-auth-request-groups"), [&*groups], "{spec}");
            assert_eq!(answer.all("x-auth-request-user"), ["jane"], "{spec}");
        }
    }
}

#[tokio::test]
async fn the_api_server_gets_prefixed_groups_and_never_a_reserved_one() {
    for (prefix, groups, expected) in [
        ("pat:", json!(["staff", "system:masters"]), Some(json!(["pat:staff", "pat:system:masters"]))),
        ("sys", json!(["staff", "tem:masters"]), None),
        ("pat:", json!([]), Some(Value::Null)),
    ] {
        let tokenreview = Some(TokenReviewConfig { username_prefix: prefix.parse().unwrap() });
        let fixture = HttpFixture::with(HttpConfig { issuer: None, tokenreview });
        let token = fixture.put(1, json!({"owner": {"kind": "User", "name": "jane"}, "audiences": ["k8s"]}));
        fixture.describe("jane", json!({"subject": {"kind": "User", "name": "jane"}, "groups": groups}));
        let status = all(&fixture, &token).await[1].clone();
        assert_eq!(status["authenticated"], expected.is_some(), "{prefix} {groups}");
        assert_eq!(status["user"]["groups"], expected.unwrap_or_default(), "{prefix} {groups}");
    }
}
