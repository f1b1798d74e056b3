//! What a `TokenOwner` says, in every protocol over HTTP.

use super::*;

/// Asks all of them about a token: introspection, TokenReview, forward auth, Envoy. The caller of introspection is PAT 9.
async fn all(stage: &Stage, token: &str) -> [Value; 4] {
    let caller = stage.put(9, json!({"scopes": ["introspect"]}));
    let form = format!("token={token}");
    let headers = [("Authorization", &*bearer(&caller)), ("Content-Type", "application/x-www-form-urlencoded")];
    let introspected = stage.ask("POST", "/oauth2/introspect", &headers, form).await.json();
    let review = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": token, "audiences": ["k8s"]},
    });
    let reviewed = stage.ask("POST", "/k8s/tokenreview", &[], review.to_string()).await.json()["status"].clone();
    let presented = [("Authorization", &*bearer(token))];
    let forwarded = stage.ask("GET", "/auth/forward?audience=k8s", &presented, "").await;
    let asked = stage.ask("GET", "/auth/envoy/audience=k8s/-/", &presented, "").await;
    for proxied in [&forwarded, &asked] {
        let challenge = proxied.header("www-authenticate").unwrap_or_default();
        assert_eq!(proxied.status == 401, challenge.contains("invalid_token"), "{proxied:?}");
    }
    [introspected, reviewed, forwarded.status.into(), asked.status.into()]
}

#[tokio::test]
async fn a_disabled_owners_tokens_are_refused_by_every_protocol_and_revived_by_enabling() {
    let stage = Stage::new();
    let jane = json!({"kind": "User", "name": "jane@example.com"});
    let token = stage.put(1, json!({"owner": jane, "audiences": ["k8s"]}));
    let other = stage.put(2, json!({"audiences": ["k8s"]}));
    let works = async |token: &str, whether: bool| {
        let [introspected, reviewed, forwarded, asked] = all(&stage, token).await;
        let status = if whether { 200 } else { 401 };
        assert_eq!([introspected["active"] == true, reviewed["authenticated"] == true], [whether; 2]);
        assert_eq!([forwarded, asked], [json!(status), json!(status)]);
        if !whether {
            assert_eq!(introspected, json!({"active": false}), "nothing tells it from a token that never was");
            assert_eq!(reviewed, json!({"authenticated": false}));
        }
    };
    works(&token, true).await;
    stage.describe("jane", json!({"subject": jane, "disabled": true}));
    works(&token, false).await;
    works(&other, true).await;
    assert_eq!(stage.counted("forward-auth", "OwnerDisabled"), 1);
    stage.describe("jane-too", json!({"subject": jane}));
    works(&token, false).await;
    stage.describe("jane", json!({"subject": jane, "disabled": false}));
    works(&token, true).await;
    // The caller's own owner counts as well.
    stage.describe("caller", json!({"subject": {"kind": "VirtualAccount", "name": "shop/app-9"}, "disabled": true}));
    let caller = stage.put(9, json!({"scopes": ["introspect"]}));
    let headers = [("Authorization", &*bearer(&caller)), ("Content-Type", "application/x-www-form-urlencoded")];
    assert_eq!(stage.ask("POST", "/oauth2/introspect", &headers, format!("token={token}")).await.status, 401);
}

#[tokio::test]
async fn upstreams_are_told_the_address_and_those_groups_that_can_stand_in_a_header() {
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
        let stage = Stage::new();
        let token = stage.put(1, json!({"owner": {"kind": "User", "name": "jane"}}));
        let mut described = spec.clone();
        described["subject"] = json!({"kind": "User", "name": "jane"});
        stage.describe("jane", described);
        for path in ["/auth/forward", "/auth/envoy/-/"] {
            let answer = stage.ask("GET", path, &[("Authorization", &bearer(&token))], "").await;
            assert_eq!(answer.status, 200, "{spec}");
            assert_eq!(answer.all("x-auth-request-email"), [email], "{spec}");
            assert_eq!(answer.all("x-auth-request-groups"), [&*groups], "{spec}");
            assert_eq!(answer.all("x-auth-request-user"), ["jane"], "{spec}");
        }
    }
}

#[tokio::test]
async fn the_api_server_is_told_the_groups_with_the_prefix_and_never_one_of_its_own() {
    for (prefix, groups, told) in [
        ("pat:", json!(["staff", "system:masters"]), Some(json!(["pat:staff", "pat:system:masters"]))),
        ("sys", json!(["staff", "tem:masters"]), None),
        ("pat:", json!([]), Some(Value::Null)),
    ] {
        let tokenreview = Some(TokenReviewSettings { username_prefix: prefix.parse().unwrap() });
        let stage = Stage::with(Settings { issuer: None, tokenreview });
        let token = stage.put(1, json!({"owner": {"kind": "User", "name": "jane"}, "audiences": ["k8s"]}));
        stage.describe("jane", json!({"subject": {"kind": "User", "name": "jane"}, "groups": groups}));
        let status = all(&stage, &token).await[1].clone();
        assert_eq!(status["authenticated"], told.is_some(), "{prefix} {groups}");
        assert_eq!(status["user"]["groups"], told.unwrap_or_default(), "{prefix} {groups}");
    }
}
