//! Applies all of `examples/`, and a PAT that rotates continuously, in a loop while an operator runs.

use std::collections::BTreeMap;

use futures::StreamExt;
use kube::{
    Api, ResourceExt,
    api::{ApiResource, DynamicObject, ListParams, WatchEvent, WatchParams},
};
use pat_operator::api::PersonalAccessToken;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::judges::out_of_sync;
use super::tools::{ARGO, FLUX, Folder, examples, in_git, marked_by_argo, marked_by_flux, server_side, tokens};
use crate::support::process::{
    history::History,
    place::{Place, eventually_within, is_ready},
};

/// The PAT that rotates at the shortest allowed interval.
const ROTATING: &str = "rotating";

/// The number of tokens that it gets.
const REVISIONS: i64 = 4;

/// The limit for that on a machine under load.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(180);

fn all(mark: fn(Value) -> Value) -> Vec<Value> {
    let rotating = in_git(ROTATING, &json!({"rotation": {"interval": "10s"}, "secret": {"previousKey": "previous"}}));
    examples().into_iter().chain([rotating]).map(mark).collect()
}

/// Records all versions of all PATs in order, until [`END`] is deleted.
async fn follow(place: &Place) -> JoinHandle<Vec<Value>> {
    let kind = ApiResource::erase::<PersonalAccessToken>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(place.client.clone(), place.name(), &kind);
    let begin = api.list(&ListParams::default()).await.expect("a list").metadata.resource_version.expect("a version");
    tokio::spawn(async move {
        let mut events = api.watch(&WatchParams::default(), &begin).await.expect("a watch").boxed();
        let mut versions = Vec::new();
        while let Some(Ok(event)) = events.next().await {
            match event {
                WatchEvent::Added(one) | WatchEvent::Modified(one) => {
                    versions.push(serde_json::to_value(one).expect("JSON"));
                }
                WatchEvent::Deleted(one) if one.name_any() == END => break,
                other => panic!("not expected: {other:?}"),
            }
        }
        versions
    })
}

/// The PAT whose deletion ends the recording.
const END: &str = "the-end";

/// Asserts that each write changed a status and nothing else. Returns the number of writes.
fn count_status_changes(versions: &[Value]) -> usize {
    let mut last: BTreeMap<&str, &Value> = BTreeMap::new();
    let mut changes = 0;
    for version in versions {
        let name = version["metadata"]["name"].as_str().expect("a name");
        if let Some(before) = last.insert(name, version) {
            assert_ne!(version["status"], before["status"], "a write did not change the status of {name}: {version:#}");
            for key in ["labels", "annotations", "generation", "finalizers", "ownerReferences"] {
                assert_eq!(version["metadata"][key], before["metadata"][key], "{key} of {name}");
            }
            assert_eq!(version["spec"], before["spec"], "{name}");
            changes += 1;
        }
    }
    changes
}

/// Applies the manifests until the PAT has rotated often enough, and checks the result. `again` applies all of them once.
async fn soak(place: &Place, manifests: &[Value], field_manager: &str, mut again: impl AsyncFnMut()) {
    let recording = follow(place).await;
    let history = History::of(&place.client, place.name()).await;
    let mut operator = place.operator().start();
    again().await;
    let mut rounds = 0;
    eventually_within(LIMIT, "the PAT rotates", async || {
        again().await;
        rounds += 1;
        let status = place.pats().get(ROTATING).await.expect("the PAT exists").status.unwrap_or_default();
        status.revision >= Some(REVISIONS) && is_ready(&status)
    })
    .await;
    assert!(rounds >= 10, "only {rounds} rounds");

    // The objects do not differ from Git.
    let files = Folder::of(&place.access, place.name(), manifests);
    assert_eq!(files.differences(field_manager).await, Vec::<String>::new());
    let api = tokens(&place.client, place.name());
    let mut pairs = Vec::new();
    for manifest in manifests {
        let name = manifest["metadata"]["name"].as_str().expect("a name");
        pairs.push((
            manifest.clone(),
            serde_json::to_value(api.get(name).await.expect("the PAT exists")).expect("JSON"),
        ));
    }
    assert_eq!(out_of_sync(&pairs).await, Vec::<Value>::new());
    history.assert_invariants().await;
    let metrics = operator.metrics().await;
    let revisions: i64 = place.statuses().await.iter().filter_map(|(_, status)| status.revision).sum();
    assert_eq!(metrics.value("pat_operator_mints_total"), revisions as f64, "each token was minted once");
    assert_eq!(metrics.value("pat_operator_repairs_total"), 0.0);
    assert_eq!(
        metrics.value(r#"pat_operator_reconcile_errors_total{category="Conflict"}"#),
        0.0,
        "there are no conflicts"
    );
    operator.terminate().await;

    place.apply(END, json!({"suspend": true})).await;
    place.pats().delete(END, &Default::default()).await.expect("the PAT is deleted");
    let versions = recording.await.expect("no panic");
    let changes = count_status_changes(&versions);
    println!("{rounds} rounds of {} manifests, {changes} writes of status", manifests.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_rotate_while_flux_applies_them_continuously() {
    let place = Place::new("gitops-flux").await;
    let manifests = all(marked_by_flux);
    let api = tokens(&place.client, place.name());
    soak(&place, &manifests, FLUX, async || {
        for manifest in &manifests {
            server_side(&api, manifest).await;
        }
        // A few times per second is enough. This is a pause, not a wait for something.
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_rotate_while_argo_cd_applies_them_continuously() {
    let place = Place::new("gitops-argo").await;
    let manifests = all(marked_by_argo);
    let files = Folder::of(&place.access, place.name(), &manifests);
    let mut first = true;
    soak(&place, &manifests, ARGO, async || {
        let outcome = if std::mem::take(&mut first) { "created" } else { "unchanged" };
        let said = files.client_side().await;
        assert_eq!(said.len(), manifests.len(), "{said:?}");
        let other: Vec<_> = said.iter().filter(|line| !line.ends_with(outcome)).collect();
        assert!(other.is_empty(), "{other:?}");
    })
    .await;
}
