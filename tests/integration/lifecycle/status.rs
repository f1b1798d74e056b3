//! Conditions, status fields and events in every state of a token.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use control_plane::Identity;
use kube::{
    api::{Patch, PatchParams},
    client::{Body, ClientBuilder},
};
use pat_operator::api::{Condition, FIELD_MANAGER, Owner, OwnerKind};
use serde_json::json;
use tower::util::MapRequestLayer;

use super::{
    observe::{assert_rests, conditions, lines, plain, reasons},
    states::{CASES, foreign_secret},
};
use crate::support::stage::Stage;

#[tokio::test(flavor = "multi_thread")]
async fn every_state_has_its_conditions_fields_and_events() {
    let mut stage = Stage::new("states").await;
    foreign_secret(&stage).await;
    let requests = Arc::new(AtomicUsize::new(0));
    let counting = {
        let requests = requests.clone();
        let layer = MapRequestLayer::new(move |request: axum::http::Request<Body>| {
            requests.fetch_add(1, Ordering::SeqCst);
            request
        });
        let config = stage.access.config_for(&Identity::admin()).unwrap();
        ClientBuilder::try_from(config).unwrap().with_layer(&layer).build()
    };
    for case in &CASES {
        let name = case.state;
        case.play(&stage).await;
        let pat = stage.pat(name).await;
        let status = pat.status.unwrap();
        assert_eq!(lines(&status), case.conditions, "{name}");
        let mut published = reasons(&stage, name).await;
        published.sort();
        let mut expected = case.events.to_vec();
        expected.sort_unstable();
        assert_eq!(published, expected, "{name}");
        let fields = [status.secret_name.is_some(), status.expires_at.is_some(), status.next_rotation_at.is_some()];
        assert_eq!(fields, case.told, "{name}: secretName, expiresAt, nextRotationAt");
        let owner = Owner { kind: OwnerKind::VirtualAccount, name: format!("{}/{name}", stage.namespace.name()) };
        assert_eq!(status.owner, Some(owner), "{name}");
        assert_eq!(status.observed_generation, pat.metadata.generation, "{name}");
        for condition in &status.conditions {
            assert_eq!(condition.observed_generation, pat.metadata.generation, "{name}");
            assert!(condition.message.len() > 20, "{name}: {condition:?} has a message");
        }
        assert_rests(&mut stage, name).await;

        stage.restart_with(counting.clone());
        stage.operator().catch_up(&stage.client, stage.namespace.name()).await;
        requests.store(0, Ordering::SeqCst);
        stage.reconcile(name).await.unwrap();
        let count = requests.load(Ordering::SeqCst);
        // A conflict concerns objects that the watches do not show, so it costs one read.
        let allowed = usize::from(name.starts_with("conflict"));
        assert!(count <= allowed, "{name}: {count} requests though nothing has changed");
        stage.restart();
    }
    let untouched = stage.secret("foreign").await.unwrap();
    assert_eq!((untouched.data, untouched.metadata.labels), (None, None), "a foreign Secret is never touched");
}

#[tokio::test(flavor = "multi_thread")]
async fn condition_keeps_its_time_until_its_status_changes() {
    let stage = Stage::new("times").await;
    let ready = async |stage: &Stage| -> Condition { stage.status("app").await.conditions[0].clone() };
    stage.apply("app", json!({})).await;
    stage.settle("app").await;
    let issued = ready(&stage).await.last_transition_time;
    assert_eq!(issued, stage.now().floor_second());

    stage.advance("1h");
    stage.apply("app", json!({"suspend": true})).await;
    stage.settle("app").await;
    assert_eq!(ready(&stage).await.reason, "Suspended");
    assert_eq!(ready(&stage).await.last_transition_time, issued, "still True");

    stage.advance("1h");
    stage.apply("app", json!({"revoked": true})).await;
    stage.settle("app").await;
    let revoked = ready(&stage).await.last_transition_time;
    assert_eq!(revoked, stage.now().floor_second());

    stage.advance("1h");
    stage.apply("app", json!({"expiry": {"at": "2001-01-01T00:00:00Z"}})).await;
    stage.settle("app").await;
    assert_eq!(ready(&stage).await.reason, "Expired");
    assert_eq!(ready(&stage).await.last_transition_time, revoked, "still False");
}

/// Velero restores the `managedFields` of the backup shortly after the object, and overwrites those of later writes.
#[tokio::test(flavor = "multi_thread")]
async fn status_fields_are_removed_despite_changed_managed_fields() {
    let mut stage = Stage::new("fields").await;
    foreign_secret(&stage).await;
    let end = json!({"at": "2100-01-01T00:00:00Z"});
    for (spec, next) in [
        (json!({"secret": {"name": "foreign"}}), json!({"secret": {"name": "own"}})),
        (
            json!({"secret": {"name": "own"}, "expiry": end}),
            json!({"secret": {"name": "own"}, "expiry": {"never": true}}),
        ),
    ] {
        stage.apply("app", spec).await;
        stage.settle("app").await;
        let mut others = stage.pat("app").await.metadata.managed_fields.unwrap();
        others.retain(|entry| entry.manager.as_deref() != Some(FIELD_MANAGER));
        let rewritten = Patch::Merge(json!({"metadata": {"managedFields": others}}));
        stage.pats().patch("app", &PatchParams::default(), &rewritten).await.unwrap();

        stage.apply("app", next).await;
        stage.settle("app").await;
        assert_eq!(conditions(&stage, "app").await, ["Ready=True Issued"]);
        assert_rests(&mut stage, "app").await;
    }
    assert_eq!(stage.status("app").await.expires_at, None);
}

/// A live credential as another client could write it.
fn planted(number: usize, state: &str, more: serde_json::Value) -> serde_json::Value {
    let mut credential = json!({
        "id": format!("planted{number:05}"), "revision": 1, "sha256": format!("{number:064}"), "state": state,
        "issuedAt": "2026-01-01T00:00:00Z",
    });
    credential.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
    credential
}

#[tokio::test(flavor = "multi_thread")]
async fn status_values_that_the_controller_never_writes_are_corrected() {
    let mut stage = Stage::new("planted").await;
    let eight = |state: &str, more: serde_json::Value| -> serde_json::Value {
        json!({"credentials": (0..8).map(|number| planted(number, state, more.clone())).collect::<Vec<_>>()})
    };
    for (name, status) in [
        ("last-revision", json!({"revision": i64::MAX})),
        (
            "great-revisions",
            json!({"revision": i64::MAX, "credentials": [planted(0, "Grace", json!({"revision": i64::MAX, "expiresAt": "2999-01-01T00:00:00Z"}))]}),
        ),
        ("negative-revision", json!({"credentials": [planted(0, "Active", json!({"revision": -1}))]})),
        ("no-id", json!({"credentials": [planted(0, "Active", json!({"id": "../../etc"}))]})),
        ("no-hash", json!({"credentials": [planted(0, "Active", json!({"sha256": "A".repeat(64)}))]})),
        ("no-hashes", eight("Grace", json!({"sha256": "none", "expiresAt": "2999-01-01T00:00:00Z"}))),
        ("active", eight("Active", json!({}))),
        ("endless-grace", eight("Grace", json!({}))),
        ("the-same", eight("Pending", json!({"id": "planted00000"}))),
    ] {
        stage.apply(name, json!({})).await;
        stage.settle(name).await;
        let patch = Patch::Merge(json!({"status": status}));
        stage.pats().patch_status(name, &PatchParams::default(), &patch).await.expect("the status is written");
        stage.settle(name).await;
        assert_eq!(conditions(&stage, name).await[0], "Ready=True Issued", "{name}");
        let token = stage.value(name, "token").await;
        assert!(stage.accepts(name, &token).await, "{name}: a token that is called ready is accepted");
        assert_eq!(reasons(&stage, name).await.iter().filter(|one| *one == "Corrected").count(), 1, "{name}");

        // It goes on as before.
        stage.advance("1m");
        stage.apply(name, json!({"rotateIfIssuedBefore": stage.now()})).await;
        stage.settle(name).await;
        let rotated = stage.value(name, "token").await;
        assert!(rotated != token && stage.accepts(name, &rotated).await, "{name}");
        let status = stage.status(name).await;
        assert!(status.revision.is_some_and(|revision| (2..9).contains(&revision)), "{name}: {status:#?}");
        assert!(
            status.credentials.iter().all(|one| one.id.value().is_some() && one.sha256.value().is_some()),
            "{name}"
        );
        assert_rests(&mut stage, name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_report_each_transition_once() {
    let mut stage = Stage::new("events").await;
    stage.apply("app", json!({})).await;
    stage.settle("app").await;
    let mut expected: Vec<String> = Vec::new();
    assert_eq!(reasons(&stage, "app").await, expected, "a first mint");
    for round in 1..=2 {
        for (spec, event) in [
            (json!({"revoked": true}), "Revoked"),
            (plain(), ""),
            (json!({"expiry": {"at": "2001-01-01T00:00:00Z"}}), "Expired"),
            (json!({"expiry": {"never": true}}), ""),
            (json!({"secret": {"template": {"data": {"a": "{{ b }}"}}}}), "InvalidSpec"),
            (plain(), ""),
            (json!({"rotateIfIssuedBefore": super::observe::after(&stage, "1h")}), ""),
        ] {
            stage.advance("1m");
            stage.apply("app", spec.clone()).await;
            stage.settle("app").await;
            // Idle runs and unrelated changes publish no event.
            stage.reconcile("app").await.unwrap();
            let mut same = spec;
            same["description"] = json!(format!("round {round}"));
            stage.apply("app", same).await;
            stage.settle("app").await;
            expected.extend((!event.is_empty()).then(|| event.to_owned()));
            assert_eq!(event_counts(&stage).await, count(&expected), "round {round}, {event:?}");
        }
        stage.live_until("app", super::observe::after(&stage, "1h")).await;
        stage.settle("app").await;
        expected.push("Rotated".into());
        assert_eq!(event_counts(&stage).await, count(&expected), "round {round}");
        assert_rests(&mut stage, "app").await;
    }
    assert_eq!(conditions(&stage, "app").await[0], "Ready=True Issued");
}

/// The number of events per reason, whatever their order.
async fn event_counts(stage: &Stage) -> std::collections::BTreeMap<String, usize> {
    count(&reasons(stage, "app").await)
}

fn count(reasons: &[String]) -> std::collections::BTreeMap<String, usize> {
    reasons.iter().fold(Default::default(), |mut counts, reason| {
        *counts.entry(reason.clone()).or_default() += 1;
        counts
    })
}
