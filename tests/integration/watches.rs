//! The controller's watches break in every possible way, and the operator misses changes.

use crate::support::{
    breaks::{Break, Breaks},
    faults::Faults,
    stage::Stage,
};
use pat_operator::api::Time;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn operator_catches_up_after_any_broken_watch() {
    for how in Break::ALL {
        let mut stage = Stage::new(&format!("breaks-{how:?}").to_lowercase()).await;
        let (faults, breaks) = (Faults::none(&stage.client), Breaks::of(&stage.client));
        stage.restart_watching(faults.client(), &breaks.client());
        for name in ["unchanged", "changed", "deleted"] {
            stage.apply(name, json!({})).await;
            stage.settle(name).await;
        }
        let (token_of_unchanged, token_of_changed) =
            (stage.value("unchanged", "token").await, stage.value("changed", "token").await);
        let versions = stage.versions().await;
        let sent = faults.sent().len();

        breaks.break_all(how);
        breaks.wait_until_held(2).await;
        // The operator does not see these changes.
        stage.pats().delete("deleted", &Default::default()).await.expect("the PAT is deleted");
        stage.apply("created", json!({})).await;
        let end: Time = stage.now().plus(k8s_openapi::jiff::SignedDuration::from_hours(1));
        stage.apply("changed", json!({"expiry": {"at": end.floor_second()}})).await;
        let operator = stage.operator();
        assert_eq!(operator.stores.keys().len(), 3, "{how:?}: the stores are unchanged");
        breaks.release_held();

        // `settle` first waits until the caches are up to date.
        for name in ["unchanged", "changed", "created"] {
            stage.settle(name).await;
        }
        let writes: Vec<_> = faults.sent().into_iter().skip(sent).filter(|request| request.is_write()).collect();
        let writes: Vec<_> = writes.iter().map(|request| request.summary()).collect();
        assert!(!writes.iter().any(|write| write.contains("unchanged")), "{how:?}: {writes:?}");
        let after = stage.versions().await;
        let unchanged = versions.iter().filter(|version| version.starts_with("unchanged@"));
        assert!(
            unchanged.clone().count() == 2 && unchanged.clone().all(|one| after.contains(one)),
            "{how:?}: {after:?}"
        );
        assert_eq!(stage.value("unchanged", "token").await, token_of_unchanged, "{how:?}");
        assert_eq!(stage.value("changed", "token").await, token_of_changed, "{how:?}");
        assert_eq!(stage.status("changed").await.expires_at, Some(end.floor_second()), "{how:?}");
        assert_eq!(stage.status("changed").await.credentials.len(), 1, "{how:?}");
        assert!(stage.accepts("created", &stage.value("created", "token").await).await, "{how:?}");
    }
}
