//! `wait`: for what comes, for what does not come in time, and for what cannot come any more.

use serde_json::json;

use super::hand::Hand;
use crate::support::process::place::in_seconds;

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_happen_in_time_ends_with_its_own_exit_code_and_progress_before() {
    let hand = Hand::new("pat-late").await;
    hand.place.apply("ci", json!({})).await;
    let err = hand.pat("wait ci --timeout 3s").failed(4);
    assert!(err.starts_with("waiting for ci to be ready: New: "), "{err}");
    assert!(err.contains("ci is not ready after 3s") && err.contains("kubectl pat doctor"), "{err}");
    let err = hand.pat("wait ghost --timeout 1s").failed(4);
    assert!(err.contains("it does not exist"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_a_person_first_is_not_waited_for() {
    let (hand, _operator) = Hand::with_operator("pat-stuck").await;
    hand.place.apply("ended", json!({"expiry": {"at": in_seconds(-60)}})).await;
    hand.place.apply("broken", json!({"secret": {"template": {"data": {"a": "{{ nonsense }}"}}}})).await;
    for (name, word) in [("ended", "Expired"), ("broken", "InvalidSpec")] {
        let err = hand.pat(&format!("wait {name} --timeout 10m")).failed(1);
        assert!(err.contains(&format!("{name} will not be ready by itself: {word}")), "{err}");
    }
    assert!(hand.pat("wait ghost --for dead --timeout 10m").good().contains("ghost is gone"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_is_waited_for_from_now_on() {
    let (hand, _operator) = Hand::with_operator("pat-rotation").await;
    hand.place.apply("ci", json!({})).await;
    let first = hand.place.ready("ci").await;
    let at = in_seconds(2);
    hand.place.apply("ci", json!({"rotateIfIssuedBefore": at})).await;
    let told = hand.pat("wait ci --for rotation --timeout 60s").good();
    assert!(told.starts_with("ci is rotated: "), "{told}");
    assert_ne!(hand.place.token("ci").await, first);
}
