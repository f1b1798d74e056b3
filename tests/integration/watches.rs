//! The controller's watches break, in each way in which a watch can, while things happen that it does not see.

use crate::support::{
    breaks::{Break, Breaks},
    faults::Faults,
    stage::Stage,
};
use pat_operator::api::Time;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn however_its_watches_break_it_catches_up_and_mints_nothing_anew() {
    for how in Break::ALL {
        let mut stage = Stage::new(&format!("breaks-{how:?}").to_lowercase()).await;
        let (faults, breaks) = (Faults::none(&stage.client), Breaks::of(&stage.client));
        stage.restart_watching(faults.client(), &breaks.client());
        for name in ["stays", "changes", "goes"] {
            stage.apply(name, json!({})).await;
            stage.settle(name).await;
        }
        let (stays, changes) = (stage.value("stays", "token").await, stage.value("changes", "token").await);
        let versions = stage.versions().await;
        let sent = faults.sent().len();

        breaks.break_all(how);
        breaks.wait_until_held(2).await;
        // Not seen by anybody.
        stage.pats().delete("goes", &Default::default()).await.expect("it is there");
        stage.apply("comes", json!({})).await;
        let end: Time = stage.now().plus(k8s_openapi::jiff::SignedDuration::from_hours(1));
        stage.apply("changes", json!({"expiry": {"at": end.floor_second()}})).await;
        let operator = stage.operator();
        assert_eq!(operator.stores.keys().len(), 3, "{how:?}: as it was");
        breaks.release_held();

        // This waits until the caches are as they should be, first.
        for name in ["stays", "changes", "comes"] {
            stage.settle(name).await;
        }
        let writes: Vec<_> = faults.sent().into_iter().skip(sent).filter(|request| request.is_write()).collect();
        let writes: Vec<_> = writes.iter().map(|request| request.summary()).collect();
        assert!(!writes.iter().any(|write| write.contains("stays")), "{how:?}: {writes:?}");
        let after = stage.versions().await;
        let unchanged = versions.iter().filter(|version| version.starts_with("stays@"));
        assert!(
            unchanged.clone().count() == 2 && unchanged.clone().all(|one| after.contains(one)),
            "{how:?}: {after:?}"
        );
        assert_eq!(stage.value("stays", "token").await, stays, "{how:?}");
        assert_eq!(stage.value("changes", "token").await, changes, "{how:?}");
        assert_eq!(stage.status("changes").await.expires_at, Some(end.floor_second()), "{how:?}");
        assert_eq!(stage.status("changes").await.credentials.len(), 1, "{how:?}");
        assert!(stage.accepts("comes", &stage.value("comes", "token").await).await, "{how:?}");
    }
}
