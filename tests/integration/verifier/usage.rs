//! Recording of last uses: rare writes, in the right form, and without cost for the controller.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{Patch, PatchParams};
use pat_operator::{api::Time, index::last_used::FIELD_MANAGER};
use serde_json::{Value, json};

use super::grant::{Grant, VERIFIER};
use crate::support::{
    process::{
        OperatorProcess,
        place::{Place, eventually, is_ready},
        verifier::VerifierProcess,
    },
    stage::Stage,
};

const WRITES: &str = "pat_operator_last_used_writes_total";
const ERRORS: &str = "pat_operator_last_used_errors_total";

async fn value(process: &mut OperatorProcess, series: &str) -> f64 {
    process.metrics().await.value(series)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_use_is_written_once_per_interval_with_the_identity_of_the_verifier() {
    let place = Place::new("usage").await;
    let operator = place.operator().arg("--publish-lead=0s").start();
    place.apply("app", json!({})).await;
    let token = place.ready("app").await;
    operator.terminate().await;
    let grant = Grant::new(&place, &VERIFIER, "app").await;
    let began = Time::from(Timestamp::now()).floor_second();
    let only = format!("--namespaces={}", place.name());
    let arguments = [&only, "--last-used-interval=1h"];
    let mut verifier = VerifierProcess::start(&grant.kubeconfig(&place), &arguments).await;
    for _ in 0..5 {
        assert_eq!(verifier.forward(&token, "").await, 200);
    }
    let status = place.until("app", "used", |status| status.last_used_at.is_some()).await;
    let used = status.last_used_at.unwrap();
    assert!(
        used >= began && used.since(began) < SignedDuration::from_secs(60) && used == used.floor_second(),
        "{used}"
    );
    let id = &status.credentials[0].id.to_string();
    assert_eq!(status.usage.iter().collect::<Vec<_>>(), [(id, &used)]);

    // The field manager owns exactly these two keys.
    let pat = place.pats().get("app").await.unwrap();
    let fields: Vec<_> = pat.metadata.managed_fields.iter().flatten().collect();
    let own = fields.iter().find(|one| one.manager.as_deref() == Some(FIELD_MANAGER)).expect("its field manager");
    let owned = serde_json::to_value(&own.fields_v1).unwrap();
    assert_eq!(owned, json!({"f:status": {"f:lastUsedAt": {}, "f:usage": {".": {}, format!("f:{id}"): {}}}}));
    assert_eq!(own.subresource.as_deref(), Some("status"));

    // Uses within the interval are not written: not by another replica, and not at shutdown.
    let mut other = VerifierProcess::start(&grant.kubeconfig(&place), &arguments).await;
    for _ in 0..5 {
        assert_eq!(verifier.forward(&token, "").await, 200);
        assert_eq!(other.forward(&token, "").await, 200);
    }
    assert_eq!((value(&mut verifier.process, WRITES).await, value(&mut verifier.process, ERRORS).await), (1.0, 0.0));
    assert_eq!((value(&mut other.process, WRITES).await, value(&mut other.process, ERRORS).await), (0.0, 0.0));
    for verifier in [verifier, other] {
        let ended = verifier.process.terminate().await;
        assert!(!ended.stderr.iter().any(|line| line.contains("WARN")), "{ended}");
    }
    assert_eq!(place.pats().get("app").await.unwrap().metadata.resource_version, pat.metadata.resource_version);
    grant.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pending_uses_are_written_at_shutdown() {
    let place = Place::new("usage-end").await;
    let operator = place.operator().arg("--publish-lead=0s").start();
    place.apply("app", json!({})).await;
    let token = place.ready("app").await;
    operator.terminate().await;
    let only = format!("--namespaces={}", place.name());
    // With an interval of a day, the verifier looks for new uses every ten seconds.
    let verifier = VerifierProcess::start(&place.kubeconfig(), &[&only, "--last-used-interval=1d"]).await;
    assert_eq!(verifier.forward(&token, "").await, 200);
    verifier.process.terminate().await;
    assert!(place.status("app").await.last_used_at.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_use_removes_entries_of_retired_credentials() {
    let place = Place::new("usage-dead").await;
    let operator = place.operator().arg("--publish-lead=0s").start();
    place.apply("app", json!({})).await;
    let first = place.ready("app").await;
    let only = format!("--namespaces={}", place.name());
    let verifier = VerifierProcess::start(&place.kubeconfig(), &[&only, "--last-used-interval=1s"]).await;
    assert_eq!(verifier.forward(&first, "").await, 200);
    let status = place.until("app", "used", |status| !status.usage.is_empty()).await;
    let old = status.credentials[0].id.to_string();
    place.apply("app", json!({"revokedCredentials": [old]})).await;
    place.until("app", "minted anew", |status| status.revision == Some(2) && is_ready(status)).await;
    let second = place.token("app").await;
    verifier.forwards(&second, 200).await;
    // The new use must be at least a second newer than the written one.
    let new = place.status("app").await.credentials[0].id.to_string();
    eventually("the usage has only the new credential", async || {
        verifier.forward(&second, "").await;
        let usage = place.status("app").await.usage;
        usage.contains_key(&new) && !usage.contains_key(&old)
    })
    .await;
    verifier.process.terminate().await;
    operator.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_written_use_causes_no_request_of_the_controller() {
    let mut stage = Stage::new("usage-free").await;
    let (client, requests) = stage.recording();
    stage.restart_with(client);
    stage.apply("app", json!({"rotation": {"interval": "30d"}})).await;
    stage.settle("app").await;
    let id = stage.status("app").await.credentials[0].id.to_string();
    requests.take();
    for second in 0..3 {
        let when = format!("2026-01-01T00:00:0{second}Z");
        let patch: Value = json!({"status": {"lastUsedAt": when, "usage": {&id: when}}});
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        stage.pats().patch_status("app", &params, &Patch::Merge(patch)).await.expect("a use");
        stage.reconcile("app").await.expect("a run");
        assert_eq!(requests.take(), Vec::<String>::new());
    }
    stage.advance("1h");
    // Writes of the controller do not change the uses.
    stage.apply("app", json!({"rotation": {"interval": "30d"}, "rotateIfIssuedBefore": stage.now().to_string()})).await;
    stage.settle("app").await;
    let status = stage.status("app").await;
    assert_eq!(status.revision, Some(2));
    assert_eq!(status.usage.len(), 1);
    assert_eq!(status.last_used_at.map(|time| time.to_string()).as_deref(), Some("2026-01-01T00:00:02Z"));
}
