//! What is counted, and what is refused for want of room.

use futures::{FutureExt, StreamExt, stream};

use super::*;

#[tokio::test]
async fn what_is_counted_is_what_came_of_it_in_the_end() {
    let stage = Stage::with(Settings {
        issuer: None,
        tokenreview: Some(TokenReviewSettings { username_prefix: "sys".parse().unwrap() }),
    });
    let unprintable = stage.put(1, json!({"owner": {"kind": "User", "name": "jane doe"}}));
    for path in ["/auth/forward", "/auth/envoy/-/"] {
        assert_eq!(stage.ask("GET", path, &[("Authorization", &bearer(&unprintable))], "").await.status, 403);
    }
    let reserved = stage.put(2, json!({"owner": {"kind": "User", "name": "tem:admin"}, "audiences": ["k8s"]}));
    let review = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": reserved, "audiences": ["k8s"]},
    });
    assert_eq!(stage.ask("POST", "/k8s/tokenreview", &[], review.to_string()).await.status, 200);
    let caller = stage.put(3, json!({"scopes": ["introspect"]}));
    let headers = |user: &str| [("Authorization".to_owned(), basic(user, &caller))];
    for (user, status) in [(client_id(4), 401), (client_id(3), 200)] {
        let headers = headers(&user);
        let headers = [(&*headers[0].0, &*headers[0].1), ("Content-Type", "application/x-www-form-urlencoded")];
        assert_eq!(stage.ask("POST", "/oauth2/introspect", &headers, "token=junk").await.status, status);
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
        assert_eq!(stage.counted(protocol, reason), count, "{protocol} {reason}");
    }
    // Nobody got in by them, so they were not used.
    for (number, used) in [(1, false), (2, false), (3, true)] {
        let pat = stage.index.pat(uid(number).parse().unwrap()).unwrap();
        assert_eq!(pat.credentials.get(0).unwrap().last_used().is_some(), used, "{number}");
    }
    let text = stage.text();
    for (protocol, requests) in [("forward-auth", 1), ("envoy-http", 1), ("tokenreview", 1), ("introspection", 2)] {
        let line = format!("pat_operator_request_duration_seconds_count{{protocol=\"{protocol}\"}} {requests}");
        assert!(text.lines().any(|one| one == line), "no {line} in:\n{text}");
    }
}

#[tokio::test]
async fn where_there_is_no_room_for_a_body_it_is_503_and_when_to_try_again() {
    let settings =
        Settings { tokenreview: Some(TokenReviewSettings { username_prefix: Default::default() }), issuer: None };
    let stage = Stage::within(settings, Budget::of(50_000));
    let caller = stage.put(1, json!({"scopes": ["introspect"]}));
    let caller = bearer(&caller);
    let form = [("Authorization", &*caller), ("Content-Type", "application/x-www-form-urlencoded")];
    // A body of which the most has come and the rest does not.
    let slow = Body::from_stream(stream::iter([Ok::<_, std::io::Error>(vec![b' '; 40_000])]).chain(stream::pending()));
    let mut held = Box::pin(stage.ask("POST", "/k8s/tokenreview", &[], slow));
    assert!((&mut held).now_or_never().is_none());
    let large = "x".repeat(20_000);
    for (path, headers) in [("/k8s/tokenreview", &[][..]), ("/oauth2/introspect", &form)] {
        let refused = stage.ask("POST", path, headers, large.clone()).await;
        assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{path}");
    }
    // What brings no body needs no room, and small ones still fit.
    assert_eq!(stage.ask("GET", "/auth/forward", &[("Authorization", &caller)], large.clone()).await.status, 200);
    assert_eq!(stage.ask("POST", "/oauth2/introspect", &form, "token=junk").await.status, 200);
    drop(held);
    for path in ["/k8s/tokenreview", "/oauth2/introspect"] {
        assert_eq!(stage.ask("POST", path, &form, large.clone()).await.status, 400, "{path}");
    }
}
