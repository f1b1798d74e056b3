//! One-time delivery (`delivery: Once`): the client takes a token by deleting its Secret. An undelivered token ends, and another is issued
//! only on request.

use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use pat_operator::api::{
    CredentialState::{Active, Grace},
    DeliveryState, GROUP, MANAGED_BY, MANAGED_BY_LABEL, UNACKNOWLEDGED,
};
use serde_json::{Value, json};

use super::observe::{after, assert_rests, conditions, credentials, id_of, is_anywhere, length, reasons, revision};
use crate::support::stage::Stage;

fn once_spec(more: Value) -> Value {
    let mut spec = json!({"secret": {"delivery": "Once"}});
    spec.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    spec
}

/// Creates a PAT whose token waits for delivery, and returns its Secret.
async fn offer(stage: &Stage, name: &str) -> Secret {
    stage.apply(name, once_spec(json!({}))).await;
    stage.settle(name).await;
    stage.secret(name).await.expect("a Secret")
}

/// Deletes exactly this version, as a client that takes a token does.
async fn delete(stage: &Stage, secret: &Secret) -> kube::Result<()> {
    let preconditions = Preconditions { uid: secret.uid(), resource_version: secret.resource_version() };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    stage.secrets().delete(&secret.name_any(), &params).await.map(drop)
}

fn token(secret: &Secret) -> String {
    let value = &secret.data.as_ref().expect("data")["token"];
    String::from_utf8(value.0.clone()).expect("text")
}

async fn take(stage: &Stage, name: &str) -> String {
    let secret = stage.secret(name).await.expect("a Secret");
    delete(stage, &secret).await.expect("the Secret is deleted");
    token(&secret)
}

async fn delivery(stage: &Stage, name: &str) -> Option<DeliveryState> {
    stage.status(name).await.delivery
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_the_secret_confirms_delivery() {
    let mut stage = Stage::new("once-take").await;
    let secret = offer(&stage, "app").await;
    assert_eq!(delivery(&stage, "app").await, Some(DeliveryState::Waiting));
    assert_eq!(stage.status("app").await.secret_name.as_deref(), Some("app"));
    assert_rests(&mut stage, "app").await;

    stage.advance("9m");
    delete(&stage, &secret).await.expect("the Secret is deleted");
    stage.settle("app").await;
    let token = token(&secret);
    assert_eq!(delivery(&stage, "app").await, Some(DeliveryState::Delivered));
    assert_eq!(stage.status("app").await.secret_name, None);
    assert_eq!(stage.ready("app").await, ("True".into(), "Issued".into()));
    assert_eq!(credentials(&stage, "app").await, [(1, Active)]);
    assert_rests(&mut stage, "app").await;

    // A fresh process sends no request for an idle token.
    let (client, requests) = stage.recording();
    stage.restart_with(client);
    stage.reconcile("app").await.expect("the run succeeds");
    assert_eq!(requests.take(), Vec::<String>::new());

    stage.live_until("app", after(&stage, "30d")).await;
    assert!(stage.accepts("app", &token).await);
    assert_eq!((revision(&stage, "app").await, stage.secret("app").await), (1, None));
    assert_eq!(reasons(&stage, "app").await, Vec::<String>::new(), "a delivery publishes no event");
}

#[tokio::test(flavor = "multi_thread")]
async fn undelivered_token_ends_after_10_minutes() {
    let mut stage = Stage::new("once-miss").await;
    let secret = offer(&stage, "app").await;
    let issued = stage.status("app").await.last_issued_at.expect("a token was issued");
    let end = issued.plus(length("10m"));
    stage.live_until("app", end.minus(length("1s"))).await;
    assert!(stage.accepts("app", &token(&secret)).await, "not before its deadline");
    stage.live_until("app", end).await;
    stage.settle("app").await;

    assert!(!stage.accepts("app", &token(&secret)).await);
    assert_eq!(stage.secret("app").await, None);
    assert_eq!(delivery(&stage, "app").await, Some(DeliveryState::NotDelivered));
    assert_eq!(stage.ready("app").await, ("False".into(), "NotDelivered".into()));
    assert_eq!(credentials(&stage, "app").await, []);
    assert_eq!(stage.status("app").await.last_issued_at, Some(issued));
    assert_eq!(reasons(&stage, "app").await, ["NotDelivered"]);
    assert_rests(&mut stage, "app").await;
    stage.live_until("app", after(&stage, "30d")).await;
    assert_eq!((revision(&stage, "app").await, stage.secret("app").await), (1, None));

    // A new token is issued on request.
    stage.apply("app", once_spec(json!({"rotateIfIssuedBefore": stage.now()}))).await;
    stage.settle("app").await;
    let second = take(&stage, "app").await;
    stage.settle("app").await;
    assert_eq!(delivery(&stage, "app").await, Some(DeliveryState::Delivered));
    assert!(stage.accepts("app", &second).await);
    assert_rests(&mut stage, "app").await;
}

/// Marks the token as taken but not yet acknowledged, or removes the mark.
async fn set_unacknowledged(stage: &Stage, name: &str, unacknowledged: Option<&str>) {
    let patch = json!({"metadata": {"annotations": {UNACKNOWLEDGED: unacknowledged}}});
    stage.pats().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.expect("an annotation");
}

#[tokio::test(flavor = "multi_thread")]
async fn unacknowledged_token_ends_after_10_minutes() {
    let mut stage = Stage::new("once-acknowledged").await;
    for name in ["acknowledged", "lost"] {
        offer(&stage, name).await;
        let id = id_of(&stage, name, 1).await;
        set_unacknowledged(&stage, name, Some(&id)).await;
        let token = take(&stage, name).await;
        stage.settle(name).await;
        assert_eq!(delivery(&stage, name).await, Some(DeliveryState::Delivered));
        assert_rests(&mut stage, name).await;
        let end = stage.status(name).await.last_issued_at.expect("a token was issued").plus(length("10m"));
        stage.live_until(name, end.minus(length("1s"))).await;
        assert!(stage.accepts(name, &token).await, "not before its deadline");
        if name == "acknowledged" {
            set_unacknowledged(&stage, name, None).await;
        }
        stage.live_until(name, end).await;
        stage.settle(name).await;
        let (stays_valid, state) = if name == "acknowledged" {
            (true, DeliveryState::Delivered)
        } else {
            (false, DeliveryState::NotDelivered)
        };
        assert_eq!(stage.accepts(name, &token).await, stays_valid, "{name}");
        assert_eq!(delivery(&stage, name).await, Some(state));
        assert_rests(&mut stage, name).await;
        stage.live_until(name, after(&stage, "30d")).await;
        assert_eq!(stage.accepts(name, &token).await, stays_valid, "{name}");
    }
    assert_eq!(stage.ready("lost").await, ("False".into(), "NotDelivered".into()));
    assert_eq!(
        (reasons(&stage, "acknowledged").await, reasons(&stage, "lost").await),
        (vec![], vec!["NotDelivered".into()])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn unacknowledged_token_has_no_grace_period() {
    let mut stage = Stage::new("once-no-grace").await;
    offer(&stage, "app").await;
    let id = id_of(&stage, "app", 1).await;
    set_unacknowledged(&stage, "app", Some(&id)).await;
    let first = take(&stage, "app").await;
    stage.settle("app").await;
    stage.advance("1m");
    stage.apply("app", once_spec(json!({"rotateIfIssuedBefore": stage.now(), "gracePeriod": "1h"}))).await;
    stage.settle("app").await;
    assert!(!stage.accepts("app", &first).await);
    assert_eq!(credentials(&stage, "app").await, [(2, Active)]);
    // The mark of the first token does not apply to the second.
    let second = take(&stage, "app").await;
    stage.settle("app").await;
    stage.live_until("app", after(&stage, "1d")).await;
    assert!(stage.accepts("app", &second).await);
    assert_rests(&mut stage, "app").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn token_cannot_be_taken_after_its_deadline() {
    let mut stage = Stage::new("once-late").await;
    let secret = offer(&stage, "app").await;
    stage.advance("10m");
    // The operator first clears the Secret, so the version that was read no longer exists.
    let (client, requests) = stage.recording();
    stage.restart_with(client);
    stage.settle("app").await;
    let writes = requests.writes();
    let order: Vec<_> = writes.iter().map(|write| write.split(' ').next().unwrap_or_default()).collect();
    assert_eq!(order, ["PATCH", "PATCH", "DELETE"], "{writes:?}");
    assert!(writes[0].contains("/secrets/app") && writes[1].contains("/status"), "{writes:?}");
    let answer = delete(&stage, &secret).await.expect_err("the Secret is gone");
    assert!(matches!(answer, kube::Error::Api(status) if [404, 409].contains(&status.code)));
}

#[tokio::test(flavor = "multi_thread")]
async fn requested_new_token_leaves_the_old_one_its_grace() {
    let mut stage = Stage::new("once-again").await;
    offer(&stage, "app").await;
    let first = take(&stage, "app").await;
    stage.settle("app").await;
    stage.advance("30d");
    stage.apply("app", once_spec(json!({"rotateIfIssuedBefore": stage.now(), "gracePeriod": "1h"}))).await;
    stage.settle("app").await;
    assert_eq!(credentials(&stage, "app").await, [(2, Active), (1, Grace)]);
    let second = take(&stage, "app").await;
    assert_ne!(first, second);
    stage.settle("app").await;
    assert!(stage.accepts("app", &first).await && stage.accepts("app", &second).await);
    assert_eq!(reasons(&stage, "app").await, ["Rotated"]);
    assert_rests(&mut stage, "app").await;
    stage.live_until("app", after(&stage, "1h")).await;
    stage.settle("app").await;
    assert!(!stage.accepts("app", &first).await && stage.accepts("app", &second).await);
    assert_eq!(credentials(&stage, "app").await, [(2, Active)]);
    assert_rests(&mut stage, "app").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn undelivered_new_token_leaves_the_old_one_its_grace() {
    let mut stage = Stage::new("once-again-miss").await;
    offer(&stage, "app").await;
    let first = take(&stage, "app").await;
    stage.settle("app").await;
    stage.apply("app", once_spec(json!({"rotateIfIssuedBefore": after(&stage, "1m"), "gracePeriod": "1h"}))).await;
    stage.live_until("app", after(&stage, "20m")).await;
    stage.settle("app").await;
    assert_eq!(credentials(&stage, "app").await, [(1, Grace)]);
    assert_eq!(stage.ready("app").await, ("False".into(), "NotDelivered".into()));
    assert!(stage.accepts("app", &first).await);
    assert_eq!(stage.secret("app").await, None);
    assert_rests(&mut stage, "app").await;
    let (client, requests) = stage.recording();
    stage.restart_with(client);
    stage.reconcile("app").await.expect("the run succeeds");
    assert_eq!(requests.take(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_before_delivery_replaces_the_waiting_token() {
    let mut stage = Stage::new("once-hasty").await;
    let secret = offer(&stage, "app").await;
    stage.advance("1m");
    stage.apply("app", once_spec(json!({"rotateIfIssuedBefore": stage.now()}))).await;
    stage.settle("app").await;
    assert_eq!(
        credentials(&stage, "app").await,
        [(2, Active)],
        "the first token was not delivered, so it has no grace"
    );
    delete(&stage, &secret).await.expect_err("the Secret has another version");
    let second = take(&stage, "app").await;
    stage.settle("app").await;
    assert!(!stage.accepts("app", &token(&secret)).await && stage.accepts("app", &second).await);
    assert_rests(&mut stage, "app").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn revocation_ends_delivered_and_waiting_tokens() {
    // The field that is set after delivery or before it, and the expected Ready condition and revision.
    let cases = [
        ("by-time", "revokeIfIssuedBefore", ("True", "Issued"), 2),
        ("by-id", "revokedCredentials", ("False", "Revoked"), 1),
        ("by-flag", "revoked", ("False", "Revoked"), 1),
    ];
    let mut stage = Stage::new("once-revoke").await;
    for taken in [true, false] {
        for (case, field, ready, issued) in cases {
            let name = &format!("{case}-{taken}");
            let secret = offer(&stage, name).await;
            if taken {
                delete(&stage, &secret).await.expect("the Secret is deleted");
                stage.settle(name).await;
            }
            stage.advance("1m");
            let value = match field {
                "revoked" => json!(true),
                "revokedCredentials" => json!([id_of(&stage, name, 1).await]),
                _ => json!(stage.now()),
            };
            stage.apply(name, once_spec(json!({field: value}))).await;
            assert!(!stage.accepts(name, &token(&secret)).await, "{name}: verifiers act without the operator");
            stage.settle(name).await;
            assert!(!stage.accepts(name, &token(&secret)).await && !is_anywhere(&stage, &token(&secret)).await);
            let reason = if field == "revokedCredentials" && !taken { "NotDelivered" } else { ready.1 };
            assert_eq!(stage.ready(name).await, (ready.0.into(), reason.into()), "{name}");
            assert_eq!(revision(&stage, name).await, issued, "{name}");
            assert_eq!(
                stage.secret(name).await.is_some(),
                issued == 2,
                "{name}: a Secret exists only for a waiting token"
            );
            assert_rests(&mut stage, name).await;
            if field == "revoked" {
                stage.apply(name, once_spec(json!({"revoked": false}))).await;
                stage.settle(name).await;
                assert_eq!(stage.ready(name).await, ("True".into(), "Issued".into()), "{name}: no longer revoked");
                assert_eq!(credentials(&stage, name).await, [(2, Active)], "{name}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn edit_before_delivery_is_repaired_or_ends_the_token() {
    let mut stage = Stage::new("once-edit").await;
    for (name, edit, stays_valid) in [
        ("token", json!({"data": {"token": "b29wcw=="}}), false),
        ("emptied", json!({"data": null}), false),
        ("more", json!({"data": {"more": "b29wcw=="}}), true),
        ("label", json!({"metadata": {"labels": {MANAGED_BY_LABEL: null}}}), true),
        ("owner", json!({"metadata": {"ownerReferences": null}}), true),
    ] {
        let secret = offer(&stage, name).await;
        let patched = stage.secrets().patch(name, &PatchParams::default(), &Patch::Merge(edit)).await;
        patched.expect("the Secret is edited");
        stage.settle(name).await;
        assert_eq!(stage.accepts(name, &token(&secret)).await, stays_valid, "{name}");
        let state = if stays_valid { DeliveryState::Waiting } else { DeliveryState::NotDelivered };
        assert_eq!(delivery(&stage, name).await, Some(state), "{name}");
        assert_eq!(stage.secret(name).await.is_some(), stays_valid, "{name}");
        assert_eq!(revision(&stage, name).await, 1, "{name}: no token is issued without a request");
        assert_rests(&mut stage, name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secret_created_after_delivery_is_removed() {
    let mut stage = Stage::new("once-ghost").await;
    let secret = offer(&stage, "app").await;
    let first = take(&stage, "app").await;
    // A late request of a replaced process, before the delivery is noticed, with another token, and after it.
    for noticed in [false, true] {
        if noticed {
            stage.settle("app").await;
        }
        let mut late = secret.clone();
        late.metadata.uid = None;
        late.metadata.resource_version = None;
        late.metadata.managed_fields = None;
        if !noticed {
            let annotations = late.metadata.annotations.as_mut().expect("annotations");
            let ledger = annotations.get_mut("pat-operator.io/credentials").expect("the credentials");
            *ledger = json!({"revision": 0, "live": []}).to_string();
            late.data.as_mut().expect("data").get_mut("token").expect("a token").0 = b"late".to_vec();
        }
        stage.secrets().create(&PostParams::default(), &late).await.expect("the name is free");
        stage.settle("app").await;
        assert_eq!(stage.secret("app").await, None, "{noticed}");
        assert_eq!(delivery(&stage, "app").await, Some(DeliveryState::Delivered), "{noticed}");
        assert!(stage.accepts("app", &first).await, "{noticed}");
        assert_eq!(revision(&stage, "app").await, 1, "{noticed}");
        assert_rests(&mut stage, "app").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_delivered_token_is_not_reissued() {
    let mut stage = Stage::new("once-end").await;
    stage.apply("app", once_spec(json!({"expiry": {"after": "90d"}}))).await;
    stage.settle("app").await;
    let first = take(&stage, "app").await;
    stage.live_until("app", after(&stage, "89d")).await;
    assert!(stage.accepts("app", &first).await);
    stage.live_until("app", after(&stage, "1d1s")).await;
    stage.settle("app").await;
    assert_eq!(stage.ready("app").await, ("False".into(), "Expired".into()));
    assert_rests(&mut stage, "app").await;
    // A later expiry neither restores the token nor issues a new one.
    stage.apply("app", once_spec(json!({"expiry": {"after": "180d"}}))).await;
    stage.settle("app").await;
    assert!(!stage.accepts("app", &first).await);
    assert_eq!(stage.ready("app").await, ("False".into(), "Revoked".into()));
    assert_eq!((revision(&stage, "app").await, stage.secret("app").await), (1, None));
    assert_rests(&mut stage, "app").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_pat_leaves_no_secret() {
    let stage = Stage::new("once-gone").await;
    for taken in [true, false] {
        let name = if taken { "taken" } else { "waiting" };
        let secret = offer(&stage, name).await;
        if taken {
            delete(&stage, &secret).await.expect("the Secret is deleted");
        }
        stage.pats().delete(name, &DeleteParams::default()).await.expect("the PAT is deleted");
        assert_eq!(stage.reconcile(name).await.expect("the run succeeds"), None);
        let owner = &secret.metadata.owner_references.as_ref().expect("an owner")[0];
        assert_eq!(owner.controller, Some(true), "the garbage collector removes an undelivered Secret");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn token_pending_during_a_long_outage_is_reissued() {
    let mut stage = Stage::new("once-away").await;
    stage.apply("app", once_spec(json!({}))).await;
    stage.settle("app").await;
    let secret = stage.secret("app").await.expect("a Secret");
    // Restore the status as it was before the third write.
    let mut status = serde_json::to_value(stage.status("app").await).expect("plain data");
    status["credentials"][0]["state"] = json!("Pending");
    for field in ["delivery", "lastIssuedAt", "secretName"] {
        status[field] = Value::Null;
    }
    let pats: Api<pat_operator::api::PersonalAccessToken> = stage.pats();
    let patch = Patch::Merge(json!({"status": status}));
    pats.patch_status("app", &PatchParams::default(), &patch).await.expect("the status is written");
    stage.restart();
    stage.advance("1h");
    stage.settle("app").await;
    assert_eq!(credentials(&stage, "app").await, [(2, Active)]);
    let second = take(&stage, "app").await;
    stage.settle("app").await;
    assert!(stage.accepts("app", &second).await && !stage.accepts("app", &token(&secret)).await);
    assert_rests(&mut stage, "app").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_key_secret_is_never_touched() {
    let mut stage = Stage::new("key-secret").await;
    let pat = stage.apply("app", json!({})).await;
    let owner = OwnerReference {
        api_version: format!("{GROUP}/v1alpha1"),
        kind: "PersonalAccessToken".into(),
        name: "app".into(),
        uid: pat.metadata.uid.clone().expect("a uid"),
        controller: Some(true),
        block_owner_deletion: None,
    };
    let key = |name: &str| -> Secret {
        serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {MANAGED_BY_LABEL: MANAGED_BY}, "ownerReferences": [owner]},
            "type": "pat-operator.io/access-token-key",
            "stringData": {"key": "theirs"},
        }))
        .expect("a Secret")
    };
    // One has the name in the spec, the other one looks like the remainder of a rename.
    let mut before = Vec::new();
    for name in ["app", "elsewhere"] {
        before.push(stage.secrets().create(&PostParams::default(), &key(name)).await.expect("the Secret is created"));
    }
    stage.settle("app").await;
    assert_eq!(stage.ready("app").await, ("False".into(), "SecretConflict".into()));
    let line = conditions(&stage, "app").await.join("\n");
    assert_eq!(credentials(&stage, "app").await, [], "{line}");

    // The same with the token in another Secret, and after a revocation.
    stage.apply("app", json!({"secret": {"name": "other"}})).await;
    stage.settle("app").await;
    assert_eq!(stage.ready("app").await, ("True".into(), "Issued".into()));
    stage.apply("app", json!({"secret": {"name": "other"}, "revoked": true})).await;
    stage.settle("app").await;
    for secret in before {
        let now = stage.secret(&secret.name_any()).await;
        assert_eq!(now.map(|now| now.metadata.resource_version), Some(secret.metadata.resource_version), "untouched");
    }
    assert_rests(&mut stage, "app").await;
}
