//! What people read: conditions, status fields and events, in every state that a token can be in.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use control_plane::Identity;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    api::{ObjectMeta, PostParams},
    client::{Body, ClientBuilder},
};
use pat_operator::api::{Condition, Owner, OwnerKind};
use serde_json::{Value, json};
use tower::util::MapRequestLayer;

use super::observe::{assert_rests, conditions, lines, plain, reasons};
use crate::support::stage::Stage;

/// A state, how to get there (specs, each followed by a time that passes), and what a person then reads.
struct Case {
    state: &'static str,
    story: &'static [(&'static str, &'static str)],
    conditions: &'static [&'static str],
    events: &'static [&'static str],
    /// Whether these are told: secretName, expiresAt, nextRotationAt.
    told: [bool; 3],
}

const CASES: [Case; 19] = [
    Case {
        state: "issued",
        story: &[("{}", "1h")],
        conditions: &["Ready=True Issued"],
        events: &[],
        told: [true, true, false],
    },
    Case {
        state: "rotating",
        story: &[(r#"{"rotation":{"interval":"30d"}}"#, "1h")],
        conditions: &["Ready=True Issued"],
        events: &[],
        told: [true, false, true],
    },
    Case {
        state: "endless",
        story: &[(r#"{"expiry":{"never":true}}"#, "1h")],
        conditions: &["Ready=True Issued"],
        events: &[],
        told: [true, false, false],
    },
    Case {
        state: "in-grace",
        story: &[(r#"{"rotation":{"interval":"30d"}}"#, "30d")],
        conditions: &["Ready=True Issued", "InGracePeriod=True PreviousCredentialLive"],
        events: &["Rotated"],
        told: [true, false, true],
    },
    Case {
        state: "expiring",
        story: &[(r#"{"expiry":{"after":"100d"}}"#, "94d")],
        conditions: &["Ready=True Issued", "ExpiringSoon=True ExpiryNear"],
        events: &["ExpiryNear"],
        told: [true, true, false],
    },
    Case {
        state: "rotating-into-the-end",
        story: &[(r#"{"rotation":{"interval":"30d"},"expiry":{"after":"36d"}}"#, "30d")],
        conditions: &["Ready=True Issued", "InGracePeriod=True PreviousCredentialLive", "ExpiringSoon=True ExpiryNear"],
        events: &["ExpiryNear", "Rotated"],
        told: [true, true, false],
    },
    Case {
        state: "expired",
        story: &[(r#"{"expiry":{"after":"1h"}}"#, "1h")],
        conditions: &["Ready=False Expired", "Stalled=True Expired"],
        events: &["ExpiryNear", "Expired"],
        told: [true, true, false],
    },
    Case {
        state: "revoked",
        story: &[("{}", "1h"), (r#"{"revoked":true}"#, "1h")],
        conditions: &["Ready=False Revoked", "Stalled=True Revoked"],
        events: &["Revoked"],
        told: [true, true, false],
    },
    Case {
        state: "revoked-and-expired",
        story: &[(r#"{"expiry":{"after":"1h"}}"#, "1m"), (r#"{"revoked":true,"expiry":{"after":"1h"}}"#, "2h")],
        conditions: &["Ready=False Revoked", "Stalled=True Revoked"],
        events: &["Revoked"],
        told: [true, true, false],
    },
    Case {
        state: "suspended-never-issued",
        story: &[(r#"{"suspend":true}"#, "1h")],
        conditions: &["Ready=False Suspended", "Stalled=True Suspended"],
        events: &[],
        told: [false, false, false],
    },
    Case {
        state: "suspended",
        story: &[
            (r#"{"rotation":{"interval":"10d"}}"#, "1h"),
            (r#"{"rotation":{"interval":"10d"},"suspend":true}"#, "11d"),
        ],
        conditions: &["Ready=True Suspended"],
        events: &[],
        told: [true, false, false],
    },
    Case {
        state: "suspended-near-its-end",
        story: &[
            (r#"{"rotation":{"interval":"10d"}}"#, "1h"),
            (r#"{"rotation":{"interval":"10d"},"suspend":true}"#, "17d"),
        ],
        conditions: &["Ready=True Suspended", "ExpiringSoon=True ExpiryNear"],
        events: &["ExpiryNear"],
        told: [true, false, false],
    },
    Case {
        state: "suspended-past-its-end",
        story: &[
            (r#"{"rotation":{"interval":"10d"}}"#, "1h"),
            (r#"{"rotation":{"interval":"10d"},"suspend":true}"#, "21d"),
        ],
        conditions: &["Ready=False Suspended", "Stalled=True Suspended"],
        events: &["ExpiryNear", "Lapsed"],
        told: [true, false, false],
    },
    Case {
        state: "suspended-and-revoked",
        story: &[("{}", "1h"), (r#"{"suspend":true,"revoked":true}"#, "1h")],
        conditions: &["Ready=False Revoked", "Stalled=True Revoked"],
        events: &["Revoked"],
        told: [true, true, false],
    },
    Case {
        state: "suspended-and-expired",
        story: &[(r#"{"expiry":{"after":"1h"}}"#, "1m"), (r#"{"suspend":true,"expiry":{"after":"1h"}}"#, "2h")],
        conditions: &["Ready=False Expired", "Stalled=True Expired"],
        events: &["ExpiryNear", "Expired"],
        told: [true, true, false],
    },
    Case {
        state: "invalid",
        story: &[(r#"{"secret":{"template":{"data":{"a":"{{ b }}"}}}}"#, "1h")],
        conditions: &["Ready=False InvalidSpec", "Stalled=True InvalidSpec"],
        events: &["InvalidSpec"],
        told: [false, false, false],
    },
    Case {
        state: "invalid-with-a-token",
        story: &[("{}", "1h"), (r#"{"secret":{"template":{"data":{"a":"{{ b }}"}}}}"#, "1h")],
        conditions: &["Ready=False InvalidSpec", "Stalled=True InvalidSpec"],
        events: &["InvalidSpec"],
        told: [true, true, false],
    },
    Case {
        state: "conflict",
        story: &[(r#"{"secret":{"name":"foreign"}}"#, "30s")],
        conditions: &["Ready=False SecretConflict", "Stalled=True SecretConflict"],
        events: &["SecretConflict"],
        told: [false, false, false],
    },
    Case {
        state: "conflict-with-a-token",
        story: &[("{}", "1h"), (r#"{"secret":{"name":"foreign"}}"#, "30s")],
        conditions: &["Ready=False SecretConflict", "Stalled=True SecretConflict"],
        events: &["SecretConflict"],
        told: [true, true, false],
    },
];

#[tokio::test(flavor = "multi_thread")]
async fn every_state_has_its_conditions_fields_and_events_and_at_rest_costs_no_request() {
    let mut stage = Stage::new("states").await;
    let metadata = ObjectMeta { name: Some("foreign".into()), ..Default::default() };
    let foreign = Secret { metadata, ..Default::default() };
    stage.secrets().create(&PostParams::default(), &foreign).await.unwrap();
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
        for (spec, passes) in case.story {
            let spec: Value = serde_json::from_str(spec).unwrap();
            stage.apply(name, spec).await;
            stage.settle(name).await;
            stage.live_until(name, super::observe::after(&stage, passes)).await;
            stage.settle(name).await;
        }
        let pat = stage.pat(name).await;
        let status = pat.status.unwrap();
        assert_eq!(lines(&status), case.conditions, "{name}");
        let mut told = reasons(&stage, name).await;
        told.sort();
        let mut expected = case.events.to_vec();
        expected.sort_unstable();
        assert_eq!(told, expected, "{name}");
        let fields = [status.secret_name.is_some(), status.expires_at.is_some(), status.next_rotation_at.is_some()];
        assert_eq!(fields, case.told, "{name}: secretName, expiresAt, nextRotationAt");
        let owner = Owner { kind: OwnerKind::VirtualAccount, name: format!("{}/{name}", stage.namespace.name()) };
        assert_eq!(status.owner, Some(owner), "{name}");
        assert_eq!(status.observed_generation, pat.metadata.generation, "{name}");
        for condition in &status.conditions {
            assert_eq!(condition.observed_generation, pat.metadata.generation, "{name}");
            assert!(condition.message.len() > 20, "{name}: {condition:?} has words for people");
        }
        assert_rests(&mut stage, name).await;

        stage.restart_with(counting.clone());
        stage.operator().catch_up(&stage.client, stage.namespace.name()).await;
        requests.store(0, Ordering::SeqCst);
        stage.reconcile(name).await.unwrap();
        let count = requests.load(Ordering::SeqCst);
        // A conflict is about things that the watches do not show: it is looked at.
        let allowed = usize::from(name.starts_with("conflict"));
        assert!(count <= allowed, "{name}: {count} requests though nothing has changed");
        stage.restart();
    }
    let untouched = stage.secret("foreign").await.unwrap();
    assert_eq!((untouched.data, untouched.metadata.labels), (None, None), "a foreign Secret is never touched");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_keeps_its_time_until_its_status_changes() {
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

#[tokio::test(flavor = "multi_thread")]
async fn events_tell_transitions_once_and_again_when_they_happen_again() {
    let mut stage = Stage::new("events").await;
    stage.apply("app", json!({})).await;
    stage.settle("app").await;
    let mut expected: Vec<String> = Vec::new();
    assert_eq!(reasons(&stage, "app").await, expected, "a first mint");
    for round in 1..=2 {
        for (spec, told) in [
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
            // Runs that find nothing to do, and a change that is none of these, tell nothing.
            stage.reconcile("app").await.unwrap();
            let mut same = spec;
            same["description"] = json!(format!("round {round}"));
            stage.apply("app", same).await;
            stage.settle("app").await;
            expected.extend((!told.is_empty()).then(|| told.to_owned()));
            assert_eq!(kinds(&stage).await, count(&expected), "round {round}, {told:?}");
        }
        stage.live_until("app", super::observe::after(&stage, "1h")).await;
        stage.settle("app").await;
        expected.push("Rotated".into());
        assert_eq!(kinds(&stage).await, count(&expected), "round {round}");
        assert_rests(&mut stage, "app").await;
    }
    assert_eq!(conditions(&stage, "app").await[0], "Ready=True Issued");
}

/// How many events there are of each reason; the API server's clock has no say in it.
async fn kinds(stage: &Stage) -> std::collections::BTreeMap<String, usize> {
    count(&reasons(stage, "app").await)
}

fn count(reasons: &[String]) -> std::collections::BTreeMap<String, usize> {
    reasons.iter().fold(Default::default(), |mut counts, reason| {
        *counts.entry(reason.clone()).or_default() += 1;
        counts
    })
}
