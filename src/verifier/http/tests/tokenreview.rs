//! Tests of the TokenReview webhook.

use super::*;
use crate::verifier::tokenreview::UsernamePrefix;

const V1: &str = "authentication.k8s.io/v1";
const BETA: &str = "authentication.k8s.io/v1beta1";

fn review(version: &str, token: &str, audiences: &[&str]) -> String {
    json!({
        "apiVersion": version,
        "kind": "TokenReview",
        "metadata": {"creationTimestamp": null},
        "spec": {"token": token, "audiences": audiences},
        "status": {"user": {}},
        "surprise": 1,
    })
    .to_string()
}

async fn ask(fixture: &HttpFixture, body: impl Into<Body>) -> HttpAnswer {
    fixture.ask("POST", "/k8s/tokenreview?timeout=30s", &[("Content-Type", "application/json")], body).await
}

#[tokio::test]
async fn a_pat_for_this_cluster_is_authenticated_in_the_requested_version() {
    let fixture = HttpFixture::new();
    let jane = fixture.put(
        1,
        json!({
            "owner": {"kind": "User", "name": "jane@example.com"},
            "scopes": ["a", "b"],
            "audiences": ["other", "https://kubernetes.default.svc"],
        }),
    );
    let account = fixture.put(2, json!({"audiences": ["k8s"]}));
    for version in [V1, BETA] {
        let answer = ask(&fixture, review(version, &jane, &["https://kubernetes.default.svc", "k3s"])).await;
        assert_eq!(answer.status, 200);
        assert_eq!(
            answer.json(),
            json!({
                "apiVersion": version,
                "kind": "TokenReview",
                "status": {
                    "authenticated": true,
                    "user": {
                        "username": "pat:jane@example.com",
                        "uid": uid(1),
                        "extra": {"pat-operator.io/token-id": [id(1)], "pat-operator.io/scopes": ["a", "b"]},
                    },
                    "audiences": ["https://kubernetes.default.svc"],
                },
            })
        );
    }
    let answer = ask(&fixture, review(V1, &account, &["k8s"])).await.json();
    assert_eq!(answer["status"]["user"]["username"], "pat:va:shop/app-2");
    assert_eq!(answer["status"]["user"]["extra"], json!({"pat-operator.io/token-id": [id(2)]}));
}

#[tokio::test]
async fn an_invalid_token_is_denied_and_a_possibly_new_one_is_an_error() {
    let fixture = HttpFixture::new();
    let good = fixture.put(1, json!({"audiences": ["k8s"]}));
    let open = fixture.put(2, json!({}));
    let revoked = fixture.put(3, json!({"audiences": ["k8s"], "revoked": true}));
    let gone = fixture.put(4, json!({"audiences": ["k8s"]}));
    fixture.remove(4);
    let (denied, error) = (json!({"authenticated": false}), true);
    for (what, freshness, token, audiences, is_error) in [
        ("another audience", Freshness::Fresh, &*good, &["k3s"][..], !error),
        ("no audience required", Freshness::Fresh, &good, &[], error),
        ("a PAT without audiences", Freshness::Fresh, &open, &["k8s"], !error),
        ("a PAT without audiences, none required", Freshness::Fresh, &open, &[], error),
        ("revoked", Freshness::Fresh, &revoked, &["k8s"], !error),
        ("removed", Freshness::Fresh, &gone, &["k8s"], !error),
        ("removed, stale", Freshness::Stale, &gone, &["k8s"], !error),
        ("possibly new", Freshness::Fresh, &token(99), &["k8s"], error),
        ("possibly new, stale", Freshness::Stale, &token(99), &["k8s"], error),
        ("mistyped", Freshness::Fresh, &mistyped(&good), &["k8s"], !error),
        ("another issuer's", Freshness::Fresh, "aaa.bbb.ccc", &["k8s"], !error),
        ("another issuer's, none required", Freshness::Fresh, "aaa.bbb.ccc", &[], !error),
        ("junk, lost", Freshness::Lost, "junk", &["k8s"], !error),
        ("empty", Freshness::Fresh, "", &["k8s"], !error),
        ("lost", Freshness::Lost, &good, &["k8s"], error),
        ("starting", Freshness::Starting, &good, &["k8s"], error),
    ] {
        fixture.set_freshness(freshness);
        let answer = ask(&fixture, review(BETA, token, audiences)).await;
        assert_eq!(answer.status, 200, "{what}");
        let mut status = answer.json()["status"].clone();
        let error_text = status.as_object_mut().unwrap().remove("error");
        // Without audiences, the API server would turn the error into a denial.
        let echoed = status.as_object_mut().unwrap().remove("audiences");
        assert_eq!(echoed.is_some(), error_text.is_some() && !audiences.is_empty(), "{what}");
        assert_eq!((status, error_text.is_some()), (denied.clone(), is_error), "{what}: {error_text:?}");
    }
}

#[tokio::test]
async fn reserved_names_are_never_returned() {
    let user = |name: &str| json!({"audiences": ["k8s"], "owner": {"kind": "User", "name": name}});
    for (prefix, name, username) in [
        ("pat:", "system:admin", Some("pat:system:admin")),
        ("s", "ystem:admin", None),
        ("sys", "tem:masters", None),
        ("system", ":admin", None),
        ("SYS", "TEM:admin", None),
        ("p-", "jane", Some("p-jane")),
    ] {
        let tokenreview = Some(TokenReviewConfig { username_prefix: prefix.parse().unwrap() });
        let fixture = HttpFixture::with(HttpConfig { issuer: None, tokenreview });
        let token = fixture.put(1, user(name));
        let status = ask(&fixture, review(V1, &token, &["k8s"])).await.json()["status"].clone();
        assert_eq!(status["user"]["username"].as_str(), username, "{prefix} {name}");
        assert_eq!(status["authenticated"], username.is_some());
    }
    for prefix in ["", "system:", "System:x", "a b", "ä", &"x".repeat(65)] {
        assert!(prefix.parse::<UsernamePrefix>().is_err(), "{prefix}");
    }
}

#[tokio::test]
async fn anything_but_a_token_review_is_refused() {
    let fixture = HttpFixture::new();
    let token = fixture.put(1, json!({"audiences": ["k8s"]}));
    let good = review(V1, &token, &["k8s"]);
    let escaped = good.replace("kpat_", "kpat\\u005f");
    let large = format!("{good}{}", " ".repeat(64 * 1024));
    let slim = json!({"apiVersion": V1, "kind": "TokenReview", "spec": {"token": token, "audiences": null}});
    for (body, status) in [
        (&*good, 200),
        (&*escaped, 200),
        (&*slim.to_string(), 200),
        (&*large, 413),
        ("", 400),
        ("{}", 400),
        ("[]", 400),
        ("null", 400),
        (&*good.replace("TokenReview", "SubjectAccessReview"), 400),
        (&*good.replace("/v1", "/v2"), 400),
        (&*good.replace("\"spec\"", "\"Spec\""), 400),
        (&*good.replace("[\"k8s\"]", "\"k8s\""), 400),
        (&good[..good.len() - 1], 400),
    ] {
        assert_eq!(ask(&fixture, body.to_owned()).await.status, status, "{body}");
    }
    assert_eq!(ask(&fixture, escaped).await.json()["status"]["authenticated"], true);
    let answer = fixture.ask("GET", "/k8s/tokenreview", &[], "").await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
}
