//! All states of a PAT, and how a stage brings a PAT into each of them.

use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use pat_operator::api::duration;
use serde_json::Value;

use crate::support::stage::Stage;

/// A state, the specs that lead to it, and the conditions and events that a user then sees.
///
/// `story` lists specs, each with the time that passes after it is applied.
pub struct Case {
    pub state: &'static str,
    pub story: &'static [(&'static str, &'static str)],
    pub conditions: &'static [&'static str],
    pub events: &'static [&'static str],
    /// Whether the status has secretName, expiresAt and nextRotationAt.
    pub told: [bool; 3],
}

/// All states.
pub const CASES: [Case; 19] = [
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

/// Creates a Secret of another owner. Some of the states are about its name.
pub async fn foreign_secret(stage: &Stage) {
    let metadata = ObjectMeta { name: Some("foreign".into()), ..Default::default() };
    let foreign = Secret { metadata, ..Default::default() };
    stage.secrets().create(&PostParams::default(), &foreign).await.expect("the API server accepts it");
}

impl Case {
    /// Brings a PAT with the state's name into the state.
    pub async fn play(&self, stage: &Stage) {
        for (spec, passes) in self.story {
            let spec: Value = serde_json::from_str(spec).expect("JSON");
            stage.apply(self.state, spec).await;
            stage.settle(self.state).await;
            let end = stage.now().plus(duration::parse(passes).expect("a duration"));
            stage.live_until(self.state, end).await;
            stage.settle(self.state).await;
        }
    }
}
