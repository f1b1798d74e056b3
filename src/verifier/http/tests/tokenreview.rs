//! The API server's webhook.

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

async fn ask(stage: &Stage, body: impl Into<Body>) -> Answer {
    stage.ask("POST", "/k8s/tokenreview?timeout=30s", &[("Content-Type", "application/json")], body).await
}

#[tokio::test]
async fn a_pat_for_this_cluster_is_a_user_of_it_in_the_version_that_was_asked() {
    let stage = Stage::new();
    let jane = stage.put(
        1,
        json!({
            "owner": {"kind": "User", "name": "jane@example.com"},
            "scopes": ["a", "b"],
            "audiences": ["other", "https://kubernetes.default.svc"],
        }),
    );
    let account = stage.put(2, json!({"audiences": ["k8s"]}));
    for version in [V1, BETA] {
        let answer = ask(&stage, review(version, &jane, &["https://kubernetes.default.svc", "k3s"])).await;
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
    let answer = ask(&stage, review(V1, &account, &["k8s"])).await.json();
    assert_eq!(answer["status"]["user"]["username"], "pat:va:shop/app-2");
    assert_eq!(answer["status"]["user"]["extra"], json!({"pat-operator.io/token-id": [id(2)]}));
}

#[tokio::test]
async fn what_is_surely_no_token_is_denied_and_what_may_be_new_is_an_error() {
    let stage = Stage::new();
    let good = stage.put(1, json!({"audiences": ["k8s"]}));
    let open = stage.put(2, json!({}));
    let revoked = stage.put(3, json!({"audiences": ["k8s"], "revoked": true}));
    let gone = stage.put(4, json!({"audiences": ["k8s"]}));
    stage.remove(4);
    let (denied, error) = (json!({"authenticated": false}), true);
    for (what, freshness, token, audiences, is_error) in [
        ("another audience", Freshness::Fresh, &*good, &["k3s"][..], !error),
        ("none asked for", Freshness::Fresh, &good, &[], error),
        ("a PAT without any", Freshness::Fresh, &open, &["k8s"], !error),
        ("a PAT without any, none asked for", Freshness::Fresh, &open, &[], error),
        ("revoked", Freshness::Fresh, &revoked, &["k8s"], !error),
        ("gone", Freshness::Fresh, &gone, &["k8s"], !error),
        ("gone, stale", Freshness::Stale, &gone, &["k8s"], !error),
        ("perhaps new", Freshness::Fresh, &token(99), &["k8s"], error),
        ("perhaps new, stale", Freshness::Stale, &token(99), &["k8s"], error),
        ("mistyped", Freshness::Fresh, &mistyped(&good), &["k8s"], !error),
        ("somebody else's", Freshness::Fresh, "aaa.bbb.ccc", &["k8s"], !error),
        ("somebody else's, none asked for", Freshness::Fresh, "aaa.bbb.ccc", &[], !error),
        ("junk, lost", Freshness::Lost, "junk", &["k8s"], !error),
        ("empty", Freshness::Fresh, "", &["k8s"], !error),
        ("lost", Freshness::Lost, &good, &["k8s"], error),
        ("starting", Freshness::Starting, &good, &["k8s"], error),
    ] {
        stage.is(freshness);
        let answer = ask(&stage, review(BETA, token, audiences)).await;
        assert_eq!(answer.status, 200, "{what}");
        let mut status = answer.json()["status"].clone();
        let told = status.as_object_mut().unwrap().remove("error");
        // Or the API server makes a denial of it where another audience than its own was asked for.
        let echoed = status.as_object_mut().unwrap().remove("audiences");
        assert_eq!(echoed.is_some(), told.is_some() && !audiences.is_empty(), "{what}");
        assert_eq!((status, told.is_some()), (denied.clone(), is_error), "{what}: {told:?}");
    }
}

#[tokio::test]
async fn nothing_that_begins_with_system_ever_leaves() {
    let user = |name: &str| json!({"audiences": ["k8s"], "owner": {"kind": "User", "name": name}});
    for (prefix, name, username) in [
        ("pat:", "system:admin", Some("pat:system:admin")),
        ("s", "ystem:admin", None),
        ("sys", "tem:masters", None),
        ("system", ":admin", None),
        ("SYS", "TEM:admin", None),
        ("p-", "jane", Some("p-jane")),
    ] {
        let tokenreview = Some(TokenReviewSettings { username_prefix: prefix.parse().unwrap() });
        let stage = Stage::with(Settings { issuer: None, tokenreview });
        let token = stage.put(1, user(name));
        let status = ask(&stage, review(V1, &token, &["k8s"])).await.json()["status"].clone();
        assert_eq!(status["user"]["username"].as_str(), username, "{prefix} {name}");
        assert_eq!(status["authenticated"], username.is_some());
    }
    for prefix in ["", "system:", "System:x", "a b", "ä", &"x".repeat(65)] {
        assert!(prefix.parse::<UsernamePrefix>().is_err(), "{prefix}");
    }
}

#[tokio::test]
async fn what_is_no_token_review_is_refused() {
    let stage = Stage::new();
    let token = stage.put(1, json!({"audiences": ["k8s"]}));
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
        assert_eq!(ask(&stage, body.to_owned()).await.status, status, "{body}");
    }
    assert_eq!(ask(&stage, escaped).await.json()["status"]["authenticated"], true);
    let answer = stage.ask("GET", "/k8s/tokenreview", &[], "").await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
}
