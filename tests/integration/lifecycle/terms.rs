//! Rotation that is added, changed or removed while a token is in use. The token always keeps at least one grace period.

use pat_operator::api::{
    CredentialState::{Active, Grace},
    Time,
};
use serde_json::{Value, json};

use super::observe::{
    Write, after, assert_rests, conditions, credentials, end_of, id_of, length, mark, plain, reasons, revision, since,
};
use crate::support::stage::Stage;

fn every(interval: &str) -> Value {
    json!({"rotation": {"interval": interval}})
}

/// Applies a spec and settles. Checks that no written status lets the active credential expire before `floor`.
async fn apply_with_floor(stage: &Stage, name: &str, spec: Value, floor: Time) {
    let status = stage.status(name).await;
    let id = id_of(stage, name, status.revision.unwrap()).await;
    let token = stage.value(name, "token").await;
    let start = mark(stage).await;
    stage.apply(name, spec).await;
    assert!(stage.accepts(name, &token).await, "also for a verifier that sees the new spec before the operator");
    stage.settle(name).await;
    for write in since(stage, &start).await {
        let Write::Pat(pat) = write else { continue };
        let credentials = pat.status.clone().unwrap_or_default().credentials;
        let credential =
            credentials.iter().find(|credential| credential.id.as_str() == id).expect("the credential stays live");
        assert!(credential.expires_at.is_none_or(|end| end >= floor), "{credential:?} ends before {floor}");
    }
    assert!(stage.accepts(name, &token).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_added_to_a_fresh_token_removes_its_expiry() {
    let mut stage = Stage::new("terms-add").await;
    stage.apply("app", json!({})).await;
    stage.settle("app").await;
    let issued = stage.now();
    stage.advance("1d");
    apply_with_floor(&stage, "app", every("30d"), after(&stage, "1d")).await;
    let status = stage.status("app").await;
    assert_eq!(status.revision, Some(1));
    assert_eq!(status.expires_at, None, "rotation without expiry has no expiry time");
    let due = status.next_rotation_at.unwrap();
    assert!(due <= issued.plus(length("30d")) && due >= issued.plus(length("708h")).floor_second());
    assert_eq!(end_of(&stage, "app", 1).await, Some(issued.plus(length("60d")).ceil_second()));
    assert_rests(&mut stage, "app").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_added_to_an_old_token_rotates_with_full_grace() {
    for (name, wait, interval, grace) in
        [("a", "40d", "10d", "1d"), ("b", "80d", "1h", "30m"), ("c", "11d", "10d", "1d")]
    {
        let mut stage = Stage::new("terms-overdue").await;
        stage.apply(name, json!({})).await;
        stage.settle(name).await;
        stage.advance(wait);
        let grace_end = after(&stage, grace).ceil_second();
        apply_with_floor(&stage, name, every(interval), grace_end).await;
        assert_eq!(credentials(&stage, name).await, [(2, Active), (1, Grace)], "{name}");
        // The grace period counts from the change, or from the rotation after the publish lead if the token's own expiry permits.
        let end = end_of(&stage, name, 1).await.unwrap();
        assert!(grace_end <= end && end <= after(&stage, grace).ceil_second(), "{name}: {grace_end}, {end}");
        assert_eq!(reasons(&stage, name).await, ["Rotated"]);
        assert_rests(&mut stage, name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_added_while_suspended_keeps_one_grace_period() {
    let mut stage = Stage::new("terms-suspend").await;
    stage.apply("app", json!({"expiry": {"never": true}})).await;
    stage.settle("app").await;
    stage.advance("40d");
    let mut spec = every("10d");
    spec["suspend"] = json!(true);
    let floor = after(&stage, "1d").ceil_second();
    apply_with_floor(&stage, "app", spec, after(&stage, "1d")).await;
    assert_eq!(credentials(&stage, "app").await, [(1, Active)]);
    assert_eq!(end_of(&stage, "app", 1).await, Some(floor));
    // Later runs do not postpone it.
    stage.advance("1h");
    assert_rests(&mut stage, "app").await;
    assert_eq!(end_of(&stage, "app", 1).await, Some(floor));
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_interval_moves_the_deadlines() {
    let mut stage = Stage::new("terms-change").await;
    stage.apply("app", every("30d")).await;
    stage.settle("app").await;
    let issued = stage.now();
    stage.advance("10d");
    apply_with_floor(&stage, "app", every("60d"), after(&stage, "1d")).await;
    assert_eq!(end_of(&stage, "app", 1).await, Some(issued.plus(length("120d")).ceil_second()));
    assert!(stage.status("app").await.next_rotation_at.unwrap() > issued.plus(length("59d")));
    assert_eq!(revision(&stage, "app").await, 1);
    assert_rests(&mut stage, "app").await;

    let grace_end = after(&stage, "12h").ceil_second();
    apply_with_floor(&stage, "app", every("1d"), grace_end).await;
    assert_eq!(credentials(&stage, "app").await, [(2, Active), (1, Grace)], "an overdue rotation happens at once");
    assert_eq!(end_of(&stage, "app", 1).await, Some(grace_end));
    assert_rests(&mut stage, "app").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_rotation_fixes_the_default_lifetime() {
    let mut stage = Stage::new("terms-remove").await;
    stage.apply("app", every("10d")).await;
    stage.settle("app").await;
    assert_eq!(stage.status("app").await.default_expires_at, None);
    stage.live_until("app", after(&stage, "200d")).await;
    stage.settle("app").await;
    let minted = revision(&stage, "app").await;
    assert!(minted >= 20, "{minted}");

    apply_with_floor(&stage, "app", plain(), after(&stage, "1d")).await;
    let status = stage.status("app").await;
    let end = after(&stage, "90d").ceil_second();
    assert_eq!(status.default_expires_at, Some(end), "it counts from the removal");
    assert_eq!((status.expires_at, status.next_rotation_at), (Some(end), None));
    assert_eq!(end_of(&stage, "app", minted).await, Some(end));
    assert_eq!(status.revision, Some(minted));
    stage.settings.default_lifetime = length("1h");
    stage.advance("1h");
    assert_rests(&mut stage, "app").await;
    stage.live_until("app", end).await;
    stage.settle("app").await;
    assert_eq!(conditions(&stage, "app").await, ["Ready=False Expired", "Stalled=True Expired"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_rotation_does_not_backdate_the_expiry() {
    let mut stage = Stage::new("terms-back").await;
    stage.apply("app", json!({})).await;
    stage.settle("app").await;
    stage.advance("1d");
    apply_with_floor(&stage, "app", every("10d"), after(&stage, "1d")).await;
    stage.live_until("app", after(&stage, "200d")).await;
    stage.settle("app").await;
    apply_with_floor(&stage, "app", plain(), after(&stage, "1d")).await;
    assert_eq!(conditions(&stage, "app").await, ["Ready=True Issued"]);
    assert_eq!(stage.status("app").await.expires_at, Some(after(&stage, "90d").ceil_second()));
    assert_rests(&mut stage, "app").await;
}
