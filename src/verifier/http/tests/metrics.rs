//! Tests of metrics and of the memory budget.

use futures::{FutureExt, StreamExt, stream};

use super::*;

#[tokio::test]
async fn metrics_count_the_final_answer() {
    let fixture = HttpFixture::with(HttpConfig {
        issuer: None,
        tokenreview: Some(TokenReviewConfig { username_prefix: "sys".parse().unwrap() }),
    });
    let unprintable = fixture.put(1, json!({"owner": {"kind": "User", "name": "jane doe"}}));
    for path in ["/auth/forward", "/auth/envoy/-/"] {
        assert_eq!(fixture.ask("GET", path, &[("Authorization", &bearer(&unprintable))], "").await.status, 403);
    }
    let reserved = fixture.put(2, json!({"owner": {"kind": "User", "name": "tem:admin"}, "audiences": ["k8s"]}));
    let review = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": reserved, "audiences": ["k8s"]},
    });
    assert_eq!(fixture.ask("POST", "/k8s/tokenreview", &[], review.to_string()).await.status, 200);
    let caller = fixture.put(3, json!({"scopes": ["introspect"]}));
    let headers = |user: &str| [("Authorization".to_owned(), basic(user, &caller))];
    for (user, status) in [(client_id(4), 401), (client_id(3), 200)] {
        let headers = headers(&user);
        let headers = [(&*headers[0].0, &*headers[0].1), ("Content-Type", "application/x-www-form-urlencoded")];
        assert_eq!(fixture.ask("POST", "/oauth2/introspect", &headers, "token=junk").await.status, status);
    }
    for (protocol, reason, count) in [
        ("forward-auth", "Unprintable", 1),
        ("forward-auth", "Good", 0),
        ("envoy-http", "Unprintable", 1),
        ("envoy-http", "Good", 0),
        ("tokenreview", "Reserved", 1),
        ("tokenreview", "Good", 0),
        ("introspection", "Client", 1),
        ("introspection", "Good", 1),
        ("introspection", "Malformed", 1),
    ] {
        assert_eq!(fixture.counted(protocol, reason), count, "{protocol} {reason}");
    }
    // Only accepted tokens count as used.
    for (number, used) in [(1, false), (2, false), (3, true)] {
        let pat = fixture.index.pat(uid(number).parse().unwrap()).unwrap();
        assert_eq!(pat.credentials.get(0).unwrap().last_used().is_some(), used, "{number}");
    }
    let text = fixture.text();
    for (protocol, requests) in [("forward-auth", 1), ("envoy-http", 1), ("tokenreview", 1), ("introspection", 2)] {
        let line = format!("pat_operator_request_duration_seconds_count{{protocol=\"{protocol}\"}} {requests}");
        assert!(text.lines().any(|one| one == line), "no {line} in:\n{text}");
    }
}

#[tokio::test]
async fn beyond_the_memory_budget_the_status_is_503_with_retry_after() {
    let config =
        HttpConfig { tokenreview: Some(TokenReviewConfig { username_prefix: Default::default() }), issuer: None };
    let fixture = HttpFixture::with_memory(config, MemoryBudget::of(50_000));
    let caller = fixture.put(1, json!({"scopes": ["introspect"]}));
    let caller = bearer(&caller);
    let form = [("Authorization", &*caller), ("Content-Type", "application/x-www-form-urlencoded")];
    // A body that stops before its end.
    let slow = Body::from_stream(stream::iter([Ok::<_, std::io::Error>(vec![b' '; 40_000])]).chain(stream::pending()));
    let mut held = Box::pin(fixture.ask("POST", "/k8s/tokenreview", &[], slow));
    assert!((&mut held).now_or_never().is_none());
    let large = "x".repeat(20_000);
    for (path, headers) in [("/k8s/tokenreview", &[][..]), ("/oauth2/introspect", &form)] {
        let refused = fixture.ask("POST", path, headers, large.clone()).await;
        assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{path}");
    }
    // A request without a body needs no memory, and a small body still fits.
    assert_eq!(fixture.ask("GET", "/auth/forward", &[("Authorization", &caller)], large.clone()).await.status, 200);
    assert_eq!(fixture.ask("POST", "/oauth2/introspect", &form, "token=junk").await.status, 200);
    drop(held);
    for path in ["/k8s/tokenreview", "/oauth2/introspect"] {
        assert_eq!(fixture.ask("POST", path, &form, large.clone()).await.status, 400, "{path}");
    }
}
