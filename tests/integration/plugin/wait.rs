//! `wait`: success, timeout, and states that the token cannot reach.

use serde_json::json;

use super::runner::PluginRunner;
use crate::support::process::place::in_seconds;

#[tokio::test(flavor = "multi_thread")]
async fn timeout_has_its_own_exit_code() {
    let runner = PluginRunner::new("pat-late").await;
    runner.place.apply("ci", json!({})).await;
    let err = runner.pat("wait ci --timeout 3s").failed(4);
    assert!(err.starts_with("waiting for ci to be ready: New: "), "{err}");
    assert!(err.contains("ci is not ready after 3s") && err.contains("kubectl pat doctor"), "{err}");
    let err = runner.pat("wait ghost --timeout 1s").failed(4);
    assert!(err.contains("it does not exist"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wait_fails_at_once_if_only_the_user_can_help() {
    let (runner, _operator) = PluginRunner::with_operator("pat-stuck").await;
    runner.place.apply("ended", json!({"expiry": {"at": in_seconds(-60)}})).await;
    runner.place.apply("broken", json!({"secret": {"template": {"data": {"a": "{{ nonsense }}"}}}})).await;
    for (name, word) in [("ended", "Expired"), ("broken", "InvalidSpec")] {
        let err = runner.pat(&format!("wait {name} --timeout 10m")).failed(1);
        assert!(err.contains(&format!("{name} cannot become ready without a change by you: {word}")), "{err}");
    }
    assert!(runner.pat("wait ghost --for dead --timeout 10m").success().contains("ghost does not exist"));
}

#[tokio::test(flavor = "multi_thread")]
async fn wait_for_rotation_ignores_past_rotations() {
    let (runner, _operator) = PluginRunner::with_operator("pat-rotation").await;
    runner.place.apply("ci", json!({})).await;
    let first = runner.place.ready("ci").await;
    let at = in_seconds(2);
    runner.place.apply("ci", json!({"rotateIfIssuedBefore": at})).await;
    let output = runner.pat("wait ci --for rotation --timeout 60s").success();
    assert!(output.starts_with("ci is rotated: "), "{output}");
    assert_ne!(runner.place.token("ci").await, first);
}
