//! Clocks that differ: the controller's, the API server's, and those that times in a spec come from.

use std::time::Duration;

use control_plane::Identity;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use pat_operator::{
    api::{ConditionType, CredentialState::Active, Time},
    planner::MAX_CLOCK_SKEW,
    service::client,
};
use serde_json::json;

use super::observe::{conditions, credentials, id_of, reasons, revision};
use crate::support::{process::place::eventually, stage::Stage};

/// A stage whose controller measures the skew of its clock, which is this many seconds ahead, or behind if negative.
async fn measured(prefix: &str, seconds: i64) -> Stage {
    let mut stage = Stage::new(prefix).await;
    let config = stage.access.config_for(&Identity::admin()).expect("a configuration");
    let cluster = client::client(config).expect("a client");
    cluster.client.apiserver_version().await.expect("the API server answers");
    stage.clock = stage.clock.clone().corrected_by(cluster.server_time.clone(), MAX_CLOCK_SKEW);
    stage.hand.advance(SignedDuration::from_secs(seconds));
    stage.restart_with(cluster.client);
    stage
}

/// The real time, which is the API server's.
fn real_now() -> Time {
    Timestamp::now().into()
}

async fn wait_until(time: Time) {
    eventually("the time passes", async || real_now() > time).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn controller_with_a_wrong_clock_revokes_and_expires_by_the_api_servers_time() {
    for (prefix, seconds) in [("clock-ahead", 20), ("clock-behind", -20)] {
        let stage = measured(prefix, seconds).await;
        let skew = stage.clock.skew().expect("it is measured").as_secs();
        assert_eq!(skew.signum(), seconds.signum(), "{skew}");
        stage.apply("app", json!({})).await;
        stage.settle("app").await;
        let first = stage.value("app", "token").await;
        let issued_at = stage.status("app").await.credentials[0].issued_at;
        // The header has whole seconds.
        let off = issued_at.since(real_now()).abs();
        assert!(off < SignedDuration::from_secs(seconds.abs() - 5), "{prefix}: {off:?}");
        wait_until(issued_at).await;
        stage.apply("app", json!({"revokeIfIssuedBefore": real_now()})).await;
        eventually("the token is revoked and replaced", async || {
            stage.reconcile("app").await.expect("the run succeeds");
            credentials(&stage, "app").await == [(2, Active)]
        })
        .await;
        assert!(!stage.accepts("app", &first).await, "{prefix}");

        let end = real_now().plus(SignedDuration::from_secs(1));
        stage.apply("app", json!({"expiry": {"at": end}})).await;
        stage.reconcile("app").await.expect("the run succeeds");
        wait_until(end.plus(SignedDuration::from_secs(2))).await;
        stage.reconcile("app").await.expect("the run succeeds");
        assert_eq!(stage.ready("app").await, ("False".into(), "Expired".into()), "{prefix}: not ready, as it is dead");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn controller_with_a_very_wrong_clock_issues_no_token() {
    for (prefix, hours, side) in [("clock-days-ahead", 48, "ahead of"), ("clock-days-behind", -48, "behind")] {
        let stage = measured(prefix, hours * 3_600).await;
        stage.apply("app", json!({})).await;
        let wake = stage.reconcile("app").await.expect("the run succeeds").expect("it checks again");
        assert!(wake.since(stage.now()) <= SignedDuration::from_mins(1));
        assert_eq!(conditions(&stage, "app").await, ["Ready=False ClockSkew", "Stalled=True ClockSkew"]);
        let message = stage.status("app").await.conditions[0].message.clone();
        assert!(message.contains(side), "{message}");
        assert!(stage.secret("app").await.is_none() && stage.status("app").await.credentials.is_empty());
        let before = stage.versions().await;
        stage.reconcile("app").await.expect("the run succeeds");
        assert_eq!(stage.versions().await, before, "the same state is written once");

        // The clock is set right.
        stage.hand.set(Timestamp::now());
        stage.settle("app").await;
        assert_eq!(conditions(&stage, "app").await, ["Ready=True Issued"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn statement_that_spares_a_token_from_the_future_says_so() {
    // The controller's clock is not measured, as behind a proxy that drops the header.
    for (prefix, ahead) in [("clock-spare-soon", "20s"), ("clock-spare-days", "2d")] {
        let stage = Stage::new(prefix).await;
        stage.advance(ahead);
        stage.apply("app", json!({})).await;
        stage.settle("app").await;
        let token = stage.value("app", "token").await;
        stage.hand.set(Timestamp::now());
        let line = stage.now();
        stage.apply("app", json!({"revokeIfIssuedBefore": line})).await;
        tokio::time::timeout(Duration::from_secs(30), stage.reconcile("app")).await.expect("in time").expect("it runs");
        assert!(stage.accepts("app", &token).await, "{prefix}: verdicts depend on issuedAt");
        let told = stage.condition("app", ConditionType::RevocationIncomplete).await.expect("the condition");
        let id = id_of(&stage, "app", 1).await;
        assert!(told.reason == "IssuedInFuture" && told.message.contains(&id), "{told:?}");
        assert_eq!(reasons(&stage, "app").await, ["IssuedInFuture"], "{prefix}");
        stage.reconcile("app").await.expect("the run succeeds");
        assert_eq!(reasons(&stage, "app").await, ["IssuedInFuture"], "{prefix}: told once");

        // The ID needs no clock.
        stage.apply("app", json!({"revokeIfIssuedBefore": line, "revokedCredentials": [id]})).await;
        assert!(!stage.accepts("app", &token).await);
        stage.settle("app").await;
        assert_eq!(revision(&stage, "app").await, 2);
        assert_eq!(conditions(&stage, "app").await, ["Ready=True Issued"], "{prefix}");
    }
}
