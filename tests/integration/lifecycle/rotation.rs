//! Rotation and grace: a new token on time, and the old one until its grace period ends.

use std::collections::BTreeSet;

use pat_operator::api::{
    CredentialState::{Active, Grace, Pending},
    Time,
};
use serde_json::json;

use super::observe::{
    Write, after, assert_rests, before, conditions, credentials, end_of, keys, length, lines, mark, reasons, revision,
    since,
};
use crate::support::stage::Stage;

const IN_GRACE: [&str; 2] = ["Ready=True Issued", "InGracePeriod=True PreviousCredentialLive"];

#[tokio::test(flavor = "multi_thread")]
async fn rotation_keeps_the_old_token_for_its_grace_period() {
    let mut stage = Stage::new("rotate").await;
    stage.apply("app", json!({"rotation": {"interval": "30d"}, "secret": {"previousKey": "old"}})).await;
    stage.settle("app").await;
    let first = stage.value("app", "token").await;
    assert_eq!(keys(&stage, "app").await, ["token"]);
    let due = stage.status("app").await.next_rotation_at.unwrap();

    stage.hand.set(due.minus(length("1s")).timestamp());
    assert_eq!(stage.reconcile("app").await.unwrap(), Some(due));
    assert_eq!(revision(&stage, "app").await, 1, "not before it is due");
    stage.hand.set(due.timestamp());
    stage.settle("app").await;
    let second = stage.value("app", "token").await;
    assert_ne!(first, second);
    assert_eq!(stage.value("app", "old").await, first);
    assert!(stage.accepts("app", &first).await && stage.accepts("app", &second).await);
    assert_eq!(credentials(&stage, "app").await, [(2, Active), (1, Grace)]);
    assert_eq!(conditions(&stage, "app").await, IN_GRACE);
    assert_eq!(reasons(&stage, "app").await, ["Rotated"]);
    assert_rests(&mut stage, "app").await;

    let end = end_of(&stage, "app", 1).await.unwrap();
    assert_eq!(end, after(&stage, "1d").ceil_second(), "the default grace period is one day");
    stage.hand.set(end.minus(length("1s")).timestamp());
    assert_eq!(stage.reconcile("app").await.unwrap(), Some(end), "the operator wakes for the end of the grace period");
    assert!(stage.accepts("app", &first).await);
    assert_eq!(stage.value("app", "old").await, first);
    stage.hand.set(end.timestamp());
    stage.settle("app").await;
    assert!(!stage.accepts("app", &first).await && stage.accepts("app", &second).await);
    assert_eq!(keys(&stage, "app").await, ["token"]);
    assert_eq!(credentials(&stage, "app").await, [(2, Active)]);
    assert_eq!(conditions(&stage, "app").await, ["Ready=True Issued"]);
    assert_eq!(reasons(&stage, "app").await, ["Rotated"], "the end of a grace period publishes no event");
    assert_rests(&mut stage, "app").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jitter_makes_rotations_early_and_spreads_them() {
    let mut stage = Stage::new("rotate-jitter").await;
    for (interval, most) in [("10s", "1s"), ("1h", "3m"), ("1d", "72m"), ("30d", "12h"), ("52w", "12h")] {
        let mut offsets = BTreeSet::new();
        let names: Vec<_> = (0..12).map(|n| format!("app-{interval}-{n}")).collect();
        for name in &names {
            stage.apply(name, json!({"rotation": {"interval": interval}})).await;
            // One run only: settling would take longer than the shortest interval.
            stage.reconcile(name).await.unwrap();
            let status = stage.status(name).await;
            let (due, issued) = (status.next_rotation_at.unwrap(), status.credentials[0].issued_at);
            let latest = issued.plus(length(interval));
            let earliest = latest.minus(length(most));
            assert!(due <= latest, "{name}: {due} is later than {latest}");
            // Rotations are due at whole seconds.
            assert!(due >= earliest.floor_second(), "{name}: {due} is earlier than {earliest}");
            offsets.insert(latest.since(due).as_micros());
        }
        let apart = if interval == "10s" { 1 } else { 11 };
        assert!(offsets.len() >= apart, "{interval}: {offsets:?}");
        if interval != "10s" {
            let spread = (offsets.last().unwrap() - offsets.first().unwrap()) as f64 / length(most).as_micros() as f64;
            assert!(spread > 0.3, "12 objects are spread over the jitter range: {offsets:?}");
        }
    }
    let name = "app-30d-0";
    let due = stage.status(name).await.next_rotation_at;
    stage.restart();
    stage.reconcile(name).await.unwrap();
    assert_eq!(stage.status(name).await.next_rotation_at, due, "the jitter of one credential never changes");
}

#[tokio::test(flavor = "multi_thread")]
async fn jitter_changes_with_each_rotation() {
    let stage = Stage::new("rotate-redraw").await;
    stage.apply("app", json!({"rotation": {"interval": "30d"}})).await;
    stage.settle("app").await;
    let mut drawn = BTreeSet::new();
    for _ in 0..4 {
        let status = stage.status("app").await;
        let due = status.next_rotation_at.unwrap();
        drawn.insert(status.credentials[0].issued_at.plus(length("30d")).since(due).as_micros());
        stage.live_until("app", due).await;
        stage.settle("app").await;
    }
    assert_eq!(drawn.len(), 4);
    assert_eq!(revision(&stage, "app").await, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_publishes_the_hash_first_and_stays_ready() {
    let stage = Stage::new("rotate-lead").await;
    stage.apply("app", json!({"rotation": {"interval": "30d"}})).await;
    stage.settle("app").await;
    let first = stage.value("app", "token").await;
    stage.hand.set(stage.status("app").await.next_rotation_at.unwrap().timestamp());
    let start = mark(&stage).await;
    let wake = stage.reconcile("app").await.unwrap();
    assert_eq!(wake, Some(after(&stage, "2s")), "the next run is after the publish lead");
    assert_eq!(credentials(&stage, "app").await, [(2, Pending), (1, Active)]);
    assert_eq!(stage.value("app", "token").await, first);
    stage.advance("1s");
    assert_eq!(stage.reconcile("app").await.unwrap(), wake, "an early run changes nothing");
    assert_eq!(stage.value("app", "token").await, first);
    stage.advance("1s");
    stage.settle("app").await;

    let writes = since(&stage, &start).await;
    let [Write::Pat(published), Write::Secret(_), Write::Pat(done)] = &writes[..] else {
        panic!("status, Secret, status: {writes:#?}")
    };
    assert_eq!(lines(published.status.as_ref().unwrap()), ["Ready=True Issued"]);
    assert_eq!(lines(done.status.as_ref().unwrap()), IN_GRACE);
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_if_issued_before_acts_once_and_on_time() {
    // The token is issued an hour before the field is set. `now` and `later` are the revisions right after that and 3 h later.
    let cases = [
        ("long-past", "-2h", 1, 1),
        ("instant-of-issue", "-1h", 1, 1),
        ("past", "-30m", 2, 2),
        ("now", "0", 2, 2),
        ("future", "1h", 1, 2),
    ];
    let mut stage = Stage::new("rotate-if").await;
    for (name, offset, now, later) in cases {
        stage.apply(name, json!({})).await;
        stage.settle(name).await;
        let first = stage.value(name, "token").await;
        stage.advance("1h");
        let line = at(&stage, offset);
        stage.apply(name, json!({"rotateIfIssuedBefore": line})).await;
        stage.settle(name).await;
        assert_eq!(revision(&stage, name).await, now, "{name}");
        let next = stage.status(name).await.next_rotation_at;
        assert_eq!(next, (now != later).then_some(line), "{name}: the status shows the next rotation");
        assert!(stage.accepts(name, &first).await, "{name}: the token is active or in grace");
        stage.live_until(name, after(&stage, "3h")).await;
        stage.settle(name).await;
        assert_eq!(revision(&stage, name).await, later, "{name}: one rotation only");
        assert_eq!(stage.value(name, "token").await != first, later == 2, "{name}");
        assert_eq!(reasons(&stage, name).await, vec!["Rotated"; usize::from(later == 2)], "{name}");
        assert_rests(&mut stage, name).await;
        stage.live_until(name, after(&stage, "1d")).await;
        stage.settle(name).await;
        assert_eq!(stage.accepts(name, &first).await, later == 1, "{name}: a grace period of one day");
        assert_eq!(revision(&stage, name).await, later, "{name}");
    }
}

fn at(stage: &Stage, offset: &str) -> Time {
    match (offset, offset.strip_prefix('-')) {
        ("0", _) => stage.now(),
        (_, Some(offset)) => before(stage, offset),
        (_, None) => after(stage, offset),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn second_rotation_keeps_the_first_grace_period() {
    let mut stage = Stage::new("rotate-twice").await;
    let secret = json!({"previousKey": "old"});
    stage.apply("app", json!({"gracePeriod": "10h", "secret": secret})).await;
    stage.settle("app").await;
    let first = stage.value("app", "token").await;
    stage.advance("1h");
    stage.apply("app", json!({"gracePeriod": "10h", "secret": secret, "rotateIfIssuedBefore": stage.now()})).await;
    stage.settle("app").await;
    let second = stage.value("app", "token").await;
    let first_end = end_of(&stage, "app", 1).await.unwrap();
    stage.advance("4h");
    stage.apply("app", json!({"gracePeriod": "10h", "secret": secret, "rotateIfIssuedBefore": stage.now()})).await;
    stage.settle("app").await;
    let third = stage.value("app", "token").await;
    assert_eq!(credentials(&stage, "app").await, [(3, Active), (2, Grace), (1, Grace)]);
    assert_eq!(
        end_of(&stage, "app", 1).await,
        Some(first_end),
        "the second rotation does not change the first grace period"
    );
    assert_eq!(stage.value("app", "old").await, second, "the most recently replaced token");
    for token in [&first, &second, &third] {
        assert!(stage.accepts("app", token).await);
    }
    assert_rests(&mut stage, "app").await;

    let second_end = end_of(&stage, "app", 2).await.unwrap();
    stage.live_until("app", first_end).await;
    stage.settle("app").await;
    assert_eq!(credentials(&stage, "app").await, [(3, Active), (2, Grace)]);
    assert_eq!(stage.value("app", "old").await, second);
    assert!(!stage.accepts("app", &first).await && stage.accepts("app", &second).await);
    stage.live_until("app", second_end).await;
    stage.settle("app").await;
    assert_eq!(credentials(&stage, "app").await, [(3, Active)]);
    assert_eq!(keys(&stage, "app").await, ["token"]);
    assert_rests(&mut stage, "app").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ninth_live_credential_waits_until_another_ends() {
    for (name, cause) in [("wait", "a grace period ends"), ("revoke", "a credential is revoked")] {
        let mut stage = Stage::new("rotate-nine").await;
        let spec = |stage: &Stage| json!({"gracePeriod": "10d", "rotateIfIssuedBefore": stage.now()});
        stage.apply(name, json!({"gracePeriod": "10d"})).await;
        stage.settle(name).await;
        let mut tokens = vec![stage.value(name, "token").await];
        for _ in 0..7 {
            stage.advance("1h");
            stage.apply(name, spec(&stage)).await;
            stage.settle(name).await;
            tokens.push(stage.value(name, "token").await);
        }
        assert_eq!(credentials(&stage, name).await.len(), 8);
        stage.advance("1h");
        stage.apply(name, spec(&stage)).await;
        stage.settle(name).await;
        assert_eq!(revision(&stage, name).await, 8, "{name}: no ninth credential");
        assert_eq!(
            conditions(&stage, name).await,
            ["Ready=True Issued", "Reconciling=True TooManyLive", "InGracePeriod=True PreviousCredentialLive"],
        );
        for token in &tokens {
            assert!(stage.accepts(name, token).await, "{name}: every grace period is kept");
        }
        assert_rests(&mut stage, name).await;
        if name == "wait" {
            let end = end_of(&stage, name, 1).await.unwrap();
            stage.live_until(name, end).await;
        } else {
            let mut spec = spec(&stage);
            spec["revokedCredentials"] = json!([super::observe::id_of(&stage, name, 3).await]);
            stage.apply(name, spec).await;
        }
        stage.settle(name).await;
        assert_eq!(revision(&stage, name).await, 9, "{cause}");
        assert_eq!(conditions(&stage, name).await, IN_GRACE, "{cause}");
        assert_eq!(reasons(&stage, name).await.iter().filter(|reason| *reason == "TooManyLive").count(), 1);
        assert_rests(&mut stage, name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn default_grace_period_is_a_day_or_half_the_interval() {
    let stage = Stage::new("rotate-grace").await;
    for (name, interval, grace, expected) in [
        ("a", Some("30d"), None, "1d"),
        ("b", Some("1d"), None, "12h"),
        ("c", Some("1h"), None, "30m"),
        ("d", None, None, "1d"),
        ("e", Some("30d"), Some("7d"), "7d"),
        ("f", None, Some("1h"), "1h"),
    ] {
        let mut spec = json!({});
        if let Some(interval) = interval {
            spec["rotation"] = json!({"interval": interval});
        }
        if let Some(grace) = grace {
            spec["gracePeriod"] = json!(grace);
        }
        stage.apply(name, spec.clone()).await;
        stage.settle(name).await;
        stage.advance("1m");
        spec["rotateIfIssuedBefore"] = json!(stage.now());
        stage.apply(name, spec).await;
        stage.settle(name).await;
        let end = end_of(&stage, name, 1).await;
        assert_eq!(end, Some(after(&stage, expected).ceil_second()), "{interval:?} {grace:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn running_grace_period_ignores_spec_changes() {
    for (name, changed) in [("shorter", "1m"), ("longer", "20d")] {
        let mut stage = Stage::new("rotate-promise").await;
        let spec = |grace: &str| json!({"rotation": {"interval": "30d"}, "gracePeriod": grace});
        stage.apply(name, spec("2d")).await;
        stage.settle(name).await;
        let first = stage.value(name, "token").await;
        let due = stage.status(name).await.next_rotation_at.unwrap();
        stage.live_until(name, due).await;
        stage.settle(name).await;
        let grace_end = end_of(&stage, name, 1).await.unwrap();
        assert_eq!(grace_end, after(&stage, "2d").ceil_second());
        stage.advance("1h");
        stage.apply(name, spec(changed)).await;
        stage.settle(name).await;
        assert_eq!(end_of(&stage, name, 1).await, Some(grace_end), "{name}");
        assert_eq!(revision(&stage, name).await, 2);
        assert_rests(&mut stage, name).await;
        stage.live_until(name, grace_end.minus(length("1s"))).await;
        assert!(stage.accepts(name, &first).await, "{name}");
        stage.live_until(name, grace_end).await;
        stage.settle(name).await;
        assert!(!stage.accepts(name, &first).await, "{name}");

        let due = stage.status(name).await.next_rotation_at.unwrap();
        stage.live_until(name, due).await;
        stage.settle(name).await;
        assert_eq!(
            end_of(&stage, name, 2).await,
            Some(after(&stage, changed).ceil_second()),
            "{name}: the next grace period"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn previous_key_can_change_during_grace() {
    let mut stage = Stage::new("rotate-previous").await;
    let spec = |previous: Option<&str>, line: Option<Time>| {
        let mut spec = json!({"gracePeriod": "5d"});
        if let Some(previous) = previous {
            spec["secret"] = json!({"previousKey": previous});
        }
        if let Some(line) = line {
            spec["rotateIfIssuedBefore"] = json!(line);
        }
        spec
    };
    stage.apply("app", spec(None, None)).await;
    stage.settle("app").await;
    let first = stage.value("app", "token").await;
    stage.advance("1h");
    let line = Some(stage.now());
    stage.apply("app", spec(None, line)).await;
    stage.settle("app").await;
    let second = stage.value("app", "token").await;
    assert_eq!(keys(&stage, "app").await, ["token"], "no previous key is set");

    // The first token was not kept, so a later key cannot show it.
    stage.apply("app", spec(Some("old"), line)).await;
    stage.settle("app").await;
    assert_eq!(keys(&stage, "app").await, ["token"]);
    assert_eq!(conditions(&stage, "app").await, IN_GRACE);
    assert!(stage.accepts("app", &first).await);
    assert_rests(&mut stage, "app").await;

    stage.advance("1h");
    let line = Some(stage.now());
    stage.apply("app", spec(Some("old"), line)).await;
    stage.settle("app").await;
    let third = stage.value("app", "token").await;
    assert_eq!(stage.value("app", "old").await, second);

    stage.apply("app", spec(Some("former"), line)).await;
    stage.settle("app").await;
    assert_eq!(stage.data("app").await, [("former".into(), second.clone()), ("token".into(), third.clone())].into());
    assert_rests(&mut stage, "app").await;

    stage.apply("app", spec(None, line)).await;
    stage.settle("app").await;
    assert_eq!(stage.data("app").await, [("token".into(), third.clone())].into());
    for token in [&first, &second, &third] {
        assert!(
            stage.accepts("app", token).await,
            "a token that is no longer in the Secret stays valid in its grace period"
        );
    }
    assert_eq!(revision(&stage, "app").await, 3);
    assert_eq!(reasons(&stage, "app").await, ["Rotated", "Rotated"]);
    assert_rests(&mut stage, "app").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn outage_of_two_intervals_lapses_but_one_does_not() {
    let mut stage = Stage::new("rotate-outage").await;
    for (name, outage, stays_valid) in [("one", "19d", true), ("two", "20d1h", false)] {
        stage.apply(name, json!({"rotation": {"interval": "10d"}})).await;
        stage.settle(name).await;
        let first = stage.value(name, "token").await;
        stage.advance(outage);
        assert_eq!(stage.accepts(name, &first).await, stays_valid, "{name}");
        stage.restart();
        stage.settle(name).await;
        let second = stage.value(name, "token").await;
        assert_ne!(first, second);
        assert!(stage.accepts(name, &second).await);
        assert_eq!(stage.accepts(name, &first).await, stays_valid, "{name}");
        let expected = if stays_valid { ["Rotated"] } else { ["Lapsed"] };
        assert_eq!(reasons(&stage, name).await, expected, "{name}");
        assert_rests(&mut stage, name).await;
    }
}
