//! Expiry: changed, reached, and final.

use pat_operator::api::{
    CredentialState::{Active, Grace},
    Time,
};
use serde_json::{Value, json};

use super::observe::{
    after, assert_rests, before, conditions, credentials, end_of, is_anywhere, keys, length, reasons, revision,
};
use crate::support::stage::Stage;

const EXPIRED: [&str; 2] = ["Ready=False Expired", "Stalled=True Expired"];

fn expires_at_spec(end: Time) -> Value {
    json!({"expiry": {"at": end}})
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_expiry_moves_the_deadline_without_a_mint() {
    let mut stage = Stage::new("expiry-move").await;
    stage.apply("app", expires_at_spec(after(&stage, "30d"))).await;
    stage.settle("app").await;
    let token = stage.value("app", "token").await;
    for by in ["10d", "300d", "2d"] {
        stage.advance("1h");
        let end = after(&stage, by);
        stage.apply("app", expires_at_spec(end)).await;
        stage.settle("app").await;
        assert_eq!(stage.status("app").await.expires_at, Some(end), "{by}");
        assert_eq!(end_of(&stage, "app", 1).await, Some(end), "{by}");
        assert_eq!(credentials(&stage, "app").await, [(1, Active)], "{by}");
        assert_eq!(stage.value("app", "token").await, token, "{by}");
        assert_rests(&mut stage, "app").await;
    }
    let end = stage.status("app").await.expires_at.unwrap();
    stage.live_until("app", end.minus(length("1s"))).await;
    assert!(stage.accepts("app", &token).await);
    stage.live_until("app", end).await;
    assert!(!stage.accepts("app", &token).await);
    stage.settle("app").await;
    assert_eq!(conditions(&stage, "app").await, EXPIRED);
    assert_eq!(keys(&stage, "app").await, [""; 0]);
    assert_eq!(credentials(&stage, "app").await, []);
    assert_rests(&mut stage, "app").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn past_expiry_is_final_and_a_later_one_issues_a_new_token() {
    let mut stage = Stage::new("expiry-past").await;
    stage.apply("app", expires_at_spec(after(&stage, "30d"))).await;
    stage.settle("app").await;
    let first = stage.value("app", "token").await;
    stage.advance("1d");
    stage.apply("app", expires_at_spec(before(&stage, "1h"))).await;
    assert!(!stage.accepts("app", &first).await, "verifiers act without the operator");
    stage.settle("app").await;
    assert_eq!(conditions(&stage, "app").await, EXPIRED);
    assert!(!is_anywhere(&stage, &first).await);
    assert_eq!(reasons(&stage, "app").await, ["Expired"]);
    assert_rests(&mut stage, "app").await;

    stage.apply("app", expires_at_spec(after(&stage, "30d"))).await;
    assert!(!stage.accepts("app", &first).await, "the token stays invalid");
    stage.settle("app").await;
    assert_eq!(credentials(&stage, "app").await, [(2, Active)]);
    assert_eq!(conditions(&stage, "app").await, ["Ready=True Issued"]);
    assert!(!stage.accepts("app", &first).await, "the token stays invalid");
    let second = stage.value("app", "token").await;
    assert!(stage.accepts("app", &second).await);
    assert_eq!(reasons(&stage, "app").await, ["Expired"], "an issue publishes no event");
    assert_rests(&mut stage, "app").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expiry_during_downtime_is_not_undone_by_a_later_one() {
    for (name, spec) in [("plain", json!({})), ("rotating", json!({"rotation": {"interval": "60d"}}))] {
        let mut stage = Stage::new("expiry-unseen").await;
        let with = |end: Time| {
            let mut spec = spec.clone();
            spec["expiry"] = json!({"at": end});
            spec
        };
        stage.apply(name, with(after(&stage, "30d"))).await;
        stage.settle(name).await;
        let first = stage.value(name, "token").await;
        // The operator is down while the token expires, and while its expiry is changed.
        stage.advance("31d");
        assert!(!stage.accepts(name, &first).await);
        stage.apply(name, with(after(&stage, "30d"))).await;
        assert!(!stage.accepts(name, &first).await, "{name}: its recorded expiry has passed");
        stage.restart();
        stage.settle(name).await;
        assert_eq!(credentials(&stage, name).await, [(2, Active)], "{name}");
        assert!(!stage.accepts(name, &first).await, "{name}");
        let second = stage.value(name, "token").await;
        assert!(stage.accepts(name, &second).await, "{name}");
        assert_rests(&mut stage, name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn expiry_also_ends_grace_periods() {
    let mut stage = Stage::new("expiry-grace").await;
    let spec = |stage: &Stage, end: Time| json!({"expiry": {"at": end}, "gracePeriod": "9d", "rotateIfIssuedBefore": stage.now(), "secret": {"previousKey": "old"}});
    stage.apply("app", expires_at_spec(after(&stage, "30d"))).await;
    stage.settle("app").await;
    let first = stage.value("app", "token").await;
    stage.advance("1d");
    let end = after(&stage, "5d");
    stage.apply("app", spec(&stage, end)).await;
    stage.settle("app").await;
    let second = stage.value("app", "token").await;
    assert_eq!(credentials(&stage, "app").await, [(2, Active), (1, Grace)]);
    assert_eq!(end_of(&stage, "app", 1).await, Some(end), "a grace period ends at the expiry");
    stage.live_until("app", end).await;
    stage.settle("app").await;
    assert!(!stage.accepts("app", &first).await && !stage.accepts("app", &second).await);
    assert!(!is_anywhere(&stage, &first).await && !is_anywhere(&stage, &second).await);
    assert_eq!(conditions(&stage, "app").await, EXPIRED);
    assert_rests(&mut stage, "app").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expiry_after_counts_from_the_first_issue() {
    let mut stage = Stage::new("expiry-after").await;
    stage.apply("app", json!({"expiry": {"after": "35d"}, "rotation": {"interval": "10d"}})).await;
    stage.settle("app").await;
    let issued = stage.now();
    let end = issued.plus(length("35d")).ceil_second();
    for expected in 2..=4 {
        let status = stage.status("app").await;
        assert_eq!((status.first_issued_at, status.expires_at), (Some(issued), Some(end)));
        stage.live_until("app", status.next_rotation_at.unwrap()).await;
        stage.settle("app").await;
        assert_eq!(revision(&stage, "app").await, expected);
    }
    let status = stage.status("app").await;
    assert_eq!(
        (status.expires_at, status.next_rotation_at),
        (Some(end), None),
        "no further rotation before the expiry"
    );
    assert_eq!(end_of(&stage, "app", 4).await, Some(end));
    stage.live_until("app", end).await;
    stage.settle("app").await;
    assert_eq!(conditions(&stage, "app").await, EXPIRED);
    assert_eq!(revision(&stage, "app").await, 4);
    assert_rests(&mut stage, "app").await;

    // A longer one also counts from the first issue.
    stage.apply("app", json!({"expiry": {"after": "36d"}, "rotation": {"interval": "10d"}})).await;
    stage.settle("app").await;
    let status = stage.status("app").await;
    assert_eq!(status.expires_at, Some(issued.plus(length("36d")).ceil_second()));
    assert_eq!(status.revision, Some(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn expiry_warning_comes_seven_days_or_a_fifth_before() {
    let mut stage = Stage::new("expiry-warn").await;
    for (name, spec, life, lead) in [
        ("long", json!({"expiry": {"after": "100d"}}), "100d", "7d"),
        ("default", json!({}), "90d", "7d"),
        ("short", json!({"expiry": {"after": "10h"}}), "10h", "2h"),
        ("rotating", json!({"expiry": {"after": "100d"}, "rotation": {"interval": "30d"}}), "100d", "7d"),
    ] {
        stage.apply(name, spec).await;
        let end = after(&stage, life).ceil_second();
        stage.settle(name).await;
        assert_eq!(stage.status(name).await.expires_at, Some(end), "{name}");
        stage.live_until(name, end.minus(length(lead)).minus(length("2s"))).await;
        assert_eq!(conditions(&stage, name).await, ["Ready=True Issued"], "{name}");
        stage.live_until(name, end.minus(length(lead)).plus(length("1s"))).await;
        assert_eq!(conditions(&stage, name).await, ["Ready=True Issued", "ExpiringSoon=True ExpiryNear"], "{name}");
        let warnings = reasons(&stage, name).await.iter().filter(|reason| *reason == "ExpiryNear").count();
        assert_eq!(warnings, 1, "{name}");
        assert_rests(&mut stage, name).await;
        stage.apply(name, json!({"expiry": {"never": true}})).await;
        stage.settle(name).await;
        assert_eq!(conditions(&stage, name).await, ["Ready=True Issued"], "{name}: the warning is removed");
        assert_eq!(stage.status(name).await.expires_at, None, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn token_that_never_expires_has_no_expiry_time() {
    let mut stage = Stage::new("expiry-never").await;
    stage.apply("app", json!({"expiry": {"never": true}})).await;
    assert_eq!(stage.settle("app").await, None, "no further run is due");
    let status = stage.status("app").await;
    assert_eq!((status.expires_at, status.default_expires_at, status.credentials[0].expires_at), (None, None, None));
    let token = stage.value("app", "token").await;
    stage.advance("3650d");
    stage.settle("app").await;
    assert!(stage.accepts("app", &token).await);
    assert_rests(&mut stage, "app").await;
}
