//! `suspend`: no token is minted or rotated. Everything else continues.

use control_plane::Binary;
use kube::{
    api::DeleteParams,
    runtime::{conditions::is_deleted, wait::await_condition},
};
use pat_operator::api::CredentialState::{Active, Grace, Pending};
use serde_json::{Value, json};

use super::observe::{
    after, assert_rests, conditions, credentials, end_of, id_of, is_anywhere, keys, length, reasons, revision,
};
use crate::support::is_left_out;
use crate::support::stage::{SOON, Stage};

const WITH_TOKEN: [&str; 1] = ["Ready=True Suspended"];
const WITHOUT_TOKEN: [&str; 2] = ["Ready=False Suspended", "Stalled=True Suspended"];

fn every_10_days(suspend: bool, more: Value) -> Value {
    let mut spec = json!({"rotation": {"interval": "10d"}, "suspend": suspend});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec
}

#[tokio::test(flavor = "multi_thread")]
async fn pat_suspended_from_the_start_has_no_token() {
    let mut stage = Stage::new("suspend-born").await;
    stage.apply("app", json!({"suspend": true})).await;
    stage.settle("app").await;
    assert_eq!(stage.secret("app").await, None);
    assert_eq!(conditions(&stage, "app").await, WITHOUT_TOKEN);
    let status = stage.status("app").await;
    assert_eq!((status.first_issued_at, status.default_expires_at, status.expires_at), (None, None, None));
    assert_rests(&mut stage, "app").await;
    stage.advance("100d");
    stage.apply("app", json!({"suspend": false})).await;
    stage.settle("app").await;
    assert_eq!(conditions(&stage, "app").await, ["Ready=True Issued"]);
    assert_eq!(
        stage.status("app").await.first_issued_at,
        Some(stage.now()),
        "the lifetime starts with the first token"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn suspended_token_is_rotated_only_once_resumed() {
    let mut stage = Stage::new("suspend-rotate").await;
    stage.apply("app", every_10_days(false, json!({}))).await;
    stage.settle("app").await;
    let first = stage.value("app", "token").await;
    let end = end_of(&stage, "app", 1).await;
    stage.advance("5d");
    stage.apply("app", every_10_days(true, json!({}))).await;
    stage.settle("app").await;
    assert_eq!(conditions(&stage, "app").await, WITH_TOKEN);
    assert_eq!(stage.status("app").await.next_rotation_at, None);
    assert_eq!(end_of(&stage, "app", 1).await, end, "it keeps its own deadline");
    assert_rests(&mut stage, "app").await;

    stage.live_until("app", after(&stage, "6d")).await;
    stage.apply("app", every_10_days(true, json!({"rotateIfIssuedBefore": stage.now()}))).await;
    stage.settle("app").await;
    assert_eq!(
        credentials(&stage, "app").await,
        [(1, Active)],
        "rotated neither by interval nor by rotateIfIssuedBefore"
    );
    assert_eq!(stage.value("app", "token").await, first);
    assert_rests(&mut stage, "app").await;

    stage.apply("app", every_10_days(false, json!({}))).await;
    stage.settle("app").await;
    assert_eq!(credentials(&stage, "app").await, [(2, Active), (1, Grace)]);
    assert_eq!(
        end_of(&stage, "app", 1).await,
        Some(after(&stage, "1d").ceil_second()),
        "the old token has its grace period"
    );
    assert!(stage.accepts("app", &first).await);
    assert_rests(&mut stage, "app").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn suspended_token_lapses_after_a_warning() {
    let mut stage = Stage::new("suspend-lapse").await;
    stage.apply("app", every_10_days(false, json!({}))).await;
    stage.settle("app").await;
    let token = stage.value("app", "token").await;
    stage.apply("app", every_10_days(true, json!({}))).await;
    stage.settle("app").await;
    let end = end_of(&stage, "app", 1).await.unwrap();
    let issued = stage.now();
    assert_eq!(end, issued.plus(length("20d")).ceil_second());

    // The warning comes a fifth of the 20 days before the end.
    stage.live_until("app", end.minus(length("97h"))).await;
    assert_eq!(conditions(&stage, "app").await, WITH_TOKEN);
    stage.live_until("app", end.minus(length("95h"))).await;
    stage.settle("app").await;
    assert_eq!(conditions(&stage, "app").await, [WITH_TOKEN[0], "ExpiringSoon=True ExpiryNear"]);
    assert_eq!(reasons(&stage, "app").await, ["ExpiryNear"]);
    assert!(stage.accepts("app", &token).await);
    assert_rests(&mut stage, "app").await;

    stage.live_until("app", end).await;
    assert!(!stage.accepts("app", &token).await);
    stage.settle("app").await;
    assert_eq!(conditions(&stage, "app").await, WITHOUT_TOKEN);
    assert_eq!(keys(&stage, "app").await, [""; 0], "an expired token does not stay in the Secret");
    assert_eq!(reasons(&stage, "app").await, ["ExpiryNear", "Lapsed"]);
    assert_rests(&mut stage, "app").await;

    stage.apply("app", every_10_days(false, json!({}))).await;
    stage.settle("app").await;
    assert_eq!(credentials(&stage, "app").await, [(2, Active)]);
    assert!(!stage.accepts("app", &token).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn revoked_suspended_token_is_not_replaced() {
    let mut stage = Stage::new("suspend-revoke").await;
    for (name, reason, event) in [
        ("by-time", "Suspended", "CredentialRevoked"),
        ("by-future-time", "Suspended", "CredentialRevoked"),
        ("by-id", "Suspended", "CredentialRevoked"),
        ("revoked", "Revoked", "Revoked"),
    ] {
        stage.apply(name, every_10_days(false, json!({}))).await;
        stage.settle(name).await;
        let token = stage.value(name, "token").await;
        stage.advance("1h");
        let more = match name {
            "by-time" => json!({"revokeIfIssuedBefore": stage.now()}),
            "by-future-time" => json!({"revokeIfIssuedBefore": after(&stage, "1d")}),
            "by-id" => json!({"revokedCredentials": [id_of(&stage, name, 1).await]}),
            _ => json!({"revoked": true}),
        };
        stage.apply(name, every_10_days(true, more)).await;
        stage.settle(name).await;
        stage.live_until(name, after(&stage, "1d")).await;
        stage.settle(name).await;
        assert!(!stage.accepts(name, &token).await, "{name}");
        assert!(!is_anywhere(&stage, &token).await, "{name}");
        assert_eq!(
            conditions(&stage, name).await,
            [format!("Ready=False {reason}"), format!("Stalled=True {reason}")],
            "{name}"
        );
        assert_eq!(revision(&stage, name).await, 1, "{name}");
        assert!(reasons(&stage, name).await.iter().any(|reason| reason == event), "{name}");
        assert_rests(&mut stage, name).await;
        stage.apply(name, every_10_days(false, json!({}))).await;
        stage.settle(name).await;
        assert_eq!(credentials(&stage, name).await, [(2, Active)], "{name}: resumed");
        assert!(!stage.accepts(name, &token).await, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grace_period_ends_on_time_while_suspended() {
    let mut stage = Stage::new("suspend-grace").await;
    stage.apply("app", every_10_days(false, json!({"secret": {"previousKey": "old"}}))).await;
    stage.settle("app").await;
    let first = stage.value("app", "token").await;
    stage.live_until("app", stage.status("app").await.next_rotation_at.unwrap()).await;
    stage.settle("app").await;
    let second = stage.value("app", "token").await;
    stage.apply("app", every_10_days(true, json!({"secret": {"previousKey": "old"}}))).await;
    stage.settle("app").await;
    assert_eq!(conditions(&stage, "app").await, [WITH_TOKEN[0], "InGracePeriod=True PreviousCredentialLive"]);
    assert_eq!(stage.value("app", "old").await, first);
    let end = end_of(&stage, "app", 1).await.unwrap();
    stage.live_until("app", end).await;
    stage.settle("app").await;
    assert_eq!(conditions(&stage, "app").await, WITH_TOKEN);
    assert_eq!(keys(&stage, "app").await, ["token"]);
    assert!(!stage.accepts("app", &first).await && stage.accepts("app", &second).await);
    assert_rests(&mut stage, "app").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expiry_is_reported_while_suspended_without_a_token() {
    let mut stage = Stage::new("suspend-end").await;
    let end = after(&stage, "100d").ceil_second();
    // The grace period is short, because the uid decides when the last rotation was.
    let expiry = json!({"expiry": {"at": end}, "gracePeriod": "1s"});
    for name in ["active", "lapsed", "never"] {
        stage.apply(name, every_10_days(name == "never", expiry.clone())).await;
        stage.settle(name).await;
    }
    stage.apply("lapsed", every_10_days(true, expiry.clone())).await;
    stage.settle("lapsed").await;
    stage.live_until("active", end.minus(length("1d"))).await;
    stage.apply("active", every_10_days(true, expiry)).await;
    for name in ["active", "lapsed", "never"] {
        stage.settle(name).await;
    }
    assert_eq!(conditions(&stage, "active").await, [WITH_TOKEN[0], "ExpiringSoon=True ExpiryNear"]);
    assert_eq!(conditions(&stage, "lapsed").await, WITHOUT_TOKEN);
    assert_eq!(conditions(&stage, "never").await, WITHOUT_TOKEN);
    for name in ["active", "lapsed", "never"] {
        let wake = stage.reconcile(name).await.unwrap();
        assert_eq!(wake, Some(end), "{name}: the operator wakes to report the end");
    }
    stage.hand.set(end.timestamp());
    for name in ["active", "lapsed", "never"] {
        stage.settle(name).await;
        assert_eq!(conditions(&stage, name).await, ["Ready=False Expired", "Stalled=True Expired"], "{name}");
        assert!(stage.data(name).await.is_empty(), "{name}");
        assert_eq!(reasons(&stage, name).await.last().map(String::as_str), Some("Expired"), "{name}");
        assert_rests(&mut stage, name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn suspending_stops_a_started_rotation() {
    let mut stage = Stage::new("suspend-middle").await;
    stage.apply("app", every_10_days(false, json!({}))).await;
    stage.settle("app").await;
    let first = stage.value("app", "token").await;
    stage.hand.set(stage.status("app").await.next_rotation_at.unwrap().timestamp());
    stage.reconcile("app").await.unwrap();
    assert_eq!(credentials(&stage, "app").await, [(2, Pending), (1, Active)]);
    stage.apply("app", every_10_days(true, json!({}))).await;
    stage.settle("app").await;
    stage.live_until("app", after(&stage, "1d")).await;
    stage.settle("app").await;
    assert_eq!(stage.value("app", "token").await, first);
    assert!(stage.accepts("app", &first).await);
    assert_eq!(stage.ready("app").await, ("True".into(), "Suspended".into()));
    assert_rests(&mut stage, "app").await;

    stage.apply("app", every_10_days(false, json!({}))).await;
    stage.settle("app").await;
    assert_eq!(credentials(&stage, "app").await, [(3, Active), (1, Grace)], "the undelivered second token is dropped");
    assert_rests(&mut stage, "app").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secret_is_still_rendered_while_suspended() {
    let mut stage = Stage::new("suspend-render").await;
    stage.apply("app", every_10_days(false, json!({}))).await;
    stage.settle("app").await;
    let token = stage.value("app", "token").await;
    let secret = json!({"name": "moved", "key": "api-key", "labels": {"team": "a"}});
    stage.apply("app", every_10_days(true, json!({"secret": secret}))).await;
    stage.settle("app").await;
    assert_eq!(stage.value("moved", "api-key").await, token);
    assert_eq!(stage.secret("app").await, None);
    assert_eq!(credentials(&stage, "app").await, [(1, Active)]);
    assert_rests(&mut stage, "app").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deletion_removes_the_secret_even_while_suspended() {
    if is_left_out(Binary::KubeControllerManager) {
        return;
    }
    let stage = Stage::new("suspend-delete").await;
    for (name, suspend) in [("running", false), ("suspended", true)] {
        stage.apply(name, json!({})).await;
        stage.settle(name).await;
        stage.apply(name, json!({"suspend": suspend})).await;
        stage.settle(name).await;
        let uid = stage.secret(name).await.unwrap().metadata.uid.unwrap();
        stage.pats().delete(name, &DeleteParams::default()).await.unwrap();
        let gone = await_condition(stage.secrets(), name, is_deleted(&uid));
        tokio::time::timeout(SOON, gone).await.expect("the garbage collector removes the Secret").unwrap();
        assert_eq!(stage.reconcile(name).await.unwrap(), None, "{name}: no further run is due");
        assert_eq!(stage.secret(name).await, None, "{name}");
    }
}
