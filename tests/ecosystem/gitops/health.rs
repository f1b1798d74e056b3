//! Tests the health that Argo CD, Flux and kstatus report for real objects in each state.

use futures::StreamExt;
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::{
    Api, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, WatchEvent, WatchParams},
};
use pat_operator::api::{PersonalAccessToken, TokenOwner};
use serde_json::{Value, json};

use super::judges::{Verdicts, judge};
use crate::support::{
    stage::{SOON, Stage},
    states::{CASES, foreign_secret},
};

/// A state, the health by Argo CD, the status by Flux, and the status by kstatus.
type Expected = (&'static str, &'static str, &'static str, &'static str);

/// The expected health in the states of `support/states.rs`.
const EXPECTED: [Expected; 19] = [
    ("issued", "Healthy", "Current", "Current"),
    ("rotating", "Healthy", "Current", "Current"),
    ("endless", "Healthy", "Current", "Current"),
    ("in-grace", "Healthy", "Current", "Current"),
    ("expiring", "Healthy", "Current", "Current"),
    ("rotating-into-the-end", "Healthy", "Current", "Current"),
    ("expired", "Degraded", "Failed", "Failed"),
    ("revoked", "Healthy", "Current", "Failed"),
    ("revoked-and-expired", "Healthy", "Current", "Failed"),
    ("suspended-never-issued", "Suspended", "Current", "Failed"),
    ("suspended", "Healthy", "Current", "Current"),
    ("suspended-near-its-end", "Healthy", "Current", "Current"),
    ("suspended-past-its-end", "Suspended", "Current", "Failed"),
    ("suspended-and-revoked", "Healthy", "Current", "Failed"),
    ("suspended-and-expired", "Degraded", "Failed", "Failed"),
    ("invalid", "Degraded", "Failed", "Failed"),
    ("invalid-with-a-token", "Degraded", "Failed", "Failed"),
    ("conflict", "Degraded", "Failed", "Failed"),
    ("conflict-with-a-token", "Degraded", "Failed", "Failed"),
];

fn raw(stage: &Stage) -> Api<DynamicObject> {
    let kind = ApiResource::erase::<PersonalAccessToken>(&());
    Api::namespaced_with(stage.client.clone(), stage.namespace.name(), &kind)
}

/// The complete object of a PAT.
async fn now(stage: &Stage, name: &str) -> Value {
    let object = raw(stage).get(name).await.expect("the PAT exists");
    serde_json::to_value(object).expect("JSON")
}

/// All versions of a PAT since this resource version, oldest first.
async fn versions(stage: &Stage, name: &str, since: &str) -> Vec<Value> {
    let last = raw(stage).get(name).await.expect("the PAT exists").resource_version();
    let only = WatchParams::default().fields(&format!("metadata.name={name}"));
    let mut events = raw(stage).watch(&only, since).await.expect("a watch").boxed();
    let mut found = Vec::new();
    loop {
        let event = tokio::time::timeout(SOON, events.next()).await.expect("in time").expect("an event");
        let (WatchEvent::Added(object) | WatchEvent::Modified(object)) = event.expect("a good event") else { continue };
        let is_last = object.resource_version() == last;
        found.push(serde_json::to_value(object).expect("JSON"));
        if is_last {
            return found;
        }
    }
}

/// Sets a quota that allows no Secret. The quota controller does not run, so the status is written here.
async fn forbid_secrets(stage: &Stage) {
    let api: Api<ResourceQuota> = Api::namespaced(stage.client.clone(), stage.namespace.name());
    let hard = json!({"secrets": "0"});
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": hard}});
    let params = PatchParams::apply("tests").force();
    api.patch("q", &params, &Patch::Apply(&quota)).await.expect("the API server accepts the quota");
    let status = json!({"status": {"hard": hard, "used": {"secrets": "0"}}});
    api.patch_status("q", &PatchParams::default(), &Patch::Merge(&status))
        .await
        .expect("the API server accepts the status");
}

/// Brings PATs into all states. Returns for each state what is expected, and the object.
async fn play(stage: &Stage) -> Vec<(Expected, Value)> {
    let mut seen = Vec::new();
    foreign_secret(stage).await;
    for case in &CASES {
        case.play(stage).await;
        let expected = EXPECTED.iter().find(|(name, ..)| *name == case.state).expect("each state has an expectation");
        seen.push((*expected, now(stage, case.state).await));
    }

    // The first token: the object is created, the hash is published, the token is issued.
    stage.apply("first", json!({})).await;
    let begin = raw(stage).list(&ListParams::default()).await.expect("a list").metadata.resource_version.expect("one");
    seen.push((("not seen yet", "Progressing", "no status", "Current"), now(stage, "first").await));
    stage.settle("first").await;
    let [published, issued] = &versions(stage, "first", &begin).await[..] else { panic!("two writes of status") };
    seen.push((("the hash is published", "Progressing", "InProgress", "InProgress"), published.clone()));
    seen.push((("issued, after that", "Healthy", "Current", "Current"), issued.clone()));

    // A change, before and after the controller has seen it.
    stage.apply("first", json!({"revoked": true})).await;
    seen.push((("revoked, not seen yet", "Progressing", "InProgress", "InProgress"), now(stage, "first").await));
    stage.settle("first").await;
    seen.push((("revoked, seen", "Healthy", "Current", "Failed"), now(stage, "first").await));

    // All tokens are revoked, and a new one is being issued.
    stage.apply("anew", json!({})).await;
    stage.settle("anew").await;
    stage.advance("1h");
    let begin = raw(stage).list(&ListParams::default()).await.expect("a list").metadata.resource_version.expect("one");
    stage.apply("anew", json!({"revokeIfIssuedBefore": stage.now()})).await;
    stage.settle("anew").await;
    let all = versions(stage, "anew", &begin).await;
    let under_way =
        all.iter().find(|one| one["status"]["conditions"][0]["status"] == "Unknown").expect("a status in between");
    seen.push((("all tokens are revoked", "Progressing", "InProgress", "InProgress"), under_way.clone()));
    seen.push((("a new token is issued", "Healthy", "Current", "Current"), now(stage, "anew").await));

    // During a rotation the new hash is published, but the token is not in the Secret yet. No one has to wait for it.
    stage.apply("turning", json!({"rotation": {"interval": "30d"}})).await;
    stage.settle("turning").await;
    stage.advance("30d");
    stage.reconcile("turning").await.expect("the run succeeds");
    let turning = now(stage, "turning").await;
    assert_eq!(turning["status"]["credentials"][0]["state"], "Pending");
    seen.push((("a rotation is in progress", "Healthy", "Current", "Current"), turning));

    // One-time delivery, with and without a reader.
    for name in ["taken", "missed"] {
        stage.apply(name, json!({"secret": {"delivery": "Once"}})).await;
        stage.settle(name).await;
        seen.push((("the token waits for its reader", "Healthy", "Current", "Current"), now(stage, name).await));
    }
    stage.secrets().delete("taken", &DeleteParams::default()).await.expect("the Secret exists");
    stage.settle("taken").await;
    seen.push((("the token was read", "Healthy", "Current", "Current"), now(stage, "taken").await));
    stage.advance("10m");
    stage.settle("missed").await;
    seen.push((("no one read the token", "Degraded", "Failed", "Failed"), now(stage, "missed").await));

    // Something keeps deleting the Secret.
    stage.apply("fought-over", json!({})).await;
    stage.settle("fought-over").await;
    for _ in 0..4 {
        stage.advance("1m");
        stage.secrets().delete("fought-over", &DeleteParams::default()).await.expect("the Secret exists");
        stage.settle("fought-over").await;
    }
    seen.push((("a mint loop", "Degraded", "Failed", "Failed"), now(stage, "fought-over").await));

    // The limit of live credentials is reached, and another one is due.
    let many = |more: Value| {
        let mut spec = json!({"rotation": {"interval": "60d"}, "gracePeriod": "50d"});
        spec.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
        spec
    };
    stage.apply("crowded", many(json!({}))).await;
    stage.settle("crowded").await;
    for _ in 0..8 {
        stage.advance("1h");
        stage.apply("crowded", many(json!({"rotateIfIssuedBefore": stage.now()}))).await;
        stage.settle("crowded").await;
    }
    seen.push((("too many live credentials", "Progressing", "InProgress", "InProgress"), now(stage, "crowded").await));
    stage.secrets().delete("crowded", &DeleteParams::default()).await.expect("the Secret exists");
    stage.settle("crowded").await;
    seen.push((
        ("too many live credentials, and no Secret", "Degraded", "Failed", "Failed"),
        now(stage, "crowded").await,
    ));

    // A TokenOwner disables the owner. The stage does not watch TokenOwners, so the conditions are written here.
    stage.apply("disabled", json!({})).await;
    stage.settle("disabled").await;
    let mut disabled = now(stage, "disabled").await;
    let mut ready = disabled["status"]["conditions"][0].clone();
    ready["status"] = "False".into();
    ready["reason"] = "OwnerDisabled".into();
    let mut stalled = ready.clone();
    (stalled["type"], stalled["status"]) = ("Stalled".into(), "True".into());
    disabled["status"]["conditions"] = json!([ready, stalled]);
    seen.push((("the owner is disabled", "Suspended", "Current", "Failed"), disabled));

    // The API server refuses the Secret, and the controller retries.
    forbid_secrets(stage).await;
    stage.apply("refused", json!({})).await;
    stage.reconcile("refused").await.expect("the run succeeds");
    seen.push((("the Secret is refused", "Progressing", "InProgress", "InProgress"), now(stage, "refused").await));
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn argo_cd_flux_and_kstatus_judge_each_state() {
    let stage = Stage::new("gitops-health").await;
    let (expected, objects): (Vec<_>, Vec<_>) = play(&stage).await.into_iter().unzip();
    let mut met: Vec<_> = Vec::new();
    for (((state, argo, flux, by_kstatus), object), said) in
        expected.into_iter().zip(&objects).zip(judge(&objects).await)
    {
        let Verdicts { argo: by_lua, flux: by_expressions, kstatus } = &said;
        let by_expressions = by_expressions.as_ref().expect("Flux has expressions");
        assert_eq!(by_lua.status, argo, "{state}: {said:?}");
        match flux {
            // Before the controller writes a status, Flux cannot evaluate the expressions, and waits. kstatus alone would report such an
            // object as current, which is one reason for the expressions.
            "no status" => {
                assert_eq!(by_expressions.status, "Unknown", "{state}");
                assert!(by_expressions.message.contains("no such attribute"), "{said:?}");
            }
            flux => assert_eq!(by_expressions.status, flux, "{state}: {said:?}"),
        }
        assert_eq!(kstatus.status, by_kstatus, "{state}: {said:?}");
        // Argo CD's message is that of a condition, word for word.
        let mut words = object["status"]["conditions"].as_array().into_iter().flatten();
        let is_seen = object["status"]["observedGeneration"] == object["metadata"]["generation"];
        assert_eq!(words.any(|one| one["message"] == by_lua.message.as_str()), is_seen, "{state}: {said:?}");
        met.push(argo);
    }
    for word in ["Healthy", "Progressing", "Degraded", "Suspended"] {
        assert!(met.contains(&word), "no state is {word}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn token_that_expires_soon_is_healthy() {
    let stage = Stage::new("gitops-soon").await;
    stage.apply("app", json!({"expiry": {"after": "100d"}})).await;
    stage.settle("app").await;
    stage.advance("94d");
    stage.settle("app").await;
    let said = judge(&[now(&stage, "app").await]).await.remove(0);
    let conditions = stage.status("app").await.conditions;
    let soon = conditions.iter().find(|one| one.type_ == "ExpiringSoon").expect("the end is near");
    assert_eq!((said.argo.status.as_str(), &said.argo.message), ("Healthy", &soon.message));
}

#[tokio::test(flavor = "multi_thread")]
async fn token_owner_is_healthy_even_if_disabled() {
    let access = control_plane::shared().await.expect("a control plane");
    let client = access.client().expect("an administrator's client");
    crate::support::crd::install_crds(&client).await;
    let api: Api<DynamicObject> = Api::all_with(client, &ApiResource::erase::<TokenOwner>(&()));
    let mut owners = Vec::new();
    for disabled in [false, true] {
        let manifest = json!({
            "apiVersion": "pat-operator.io/v1alpha1", "kind": "TokenOwner", "metadata": {"name": "gitops-health"},
            "spec": {"subject": {"kind": "User", "name": "jane@example.com"}, "disabled": disabled},
        });
        // A dry run, because TokenOwners are cluster-scoped and would affect other tests.
        let dry = PatchParams { dry_run: true, ..PatchParams::apply("tests") };
        let owner =
            api.patch("gitops-health", &dry, &Patch::Apply(&manifest)).await.expect("the API server accepts it");
        owners.push(serde_json::to_value(owner).expect("JSON"));
    }
    let said = judge(&owners).await;
    let words: Vec<_> = said.iter().map(|one| (one.argo.status.as_str(), one.argo.message.as_str())).collect();
    assert_eq!(
        words,
        [("Healthy", "Its tokens are accepted"), ("Healthy", "Disabled: none of its tokens is accepted")]
    );
    for one in said {
        assert_eq!((one.flux, one.kstatus.status.as_str()), (None, "Current"), "kstatus needs no expressions");
    }
}
