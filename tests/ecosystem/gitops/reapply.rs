//! Applies the same manifests between any two steps of the operator, on a driven clock. No apply changes anything.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt;
use pat_operator::api::Time;
use serde_json::{Value, json};

use super::{
    judges::out_of_sync,
    tools::{ARGO, FLUX, Folder, in_git, marked_by_argo, marked_by_flux, server_side, tokens},
};
use crate::support::stage::{Requests, Stage};

const BY_FLUX: &str = "by-flux";
const BY_ARGO: &str = "by-argo";
const LEFT_ALONE: &str = "left-alone";
const NAMES: [&str; 3] = [BY_FLUX, BY_ARGO, LEFT_ALONE];

/// The number of tokens that each PAT gets.
const REVISIONS: i64 = 3;

/// A spec with fields of all kinds: unsorted sets, durations in unusual notation, texts and maps.
fn spec() -> Value {
    json!({
        "displayName": "of Git", "scopes": ["write", "read"], "audiences": ["z", "a"], "rotation": {"interval": "1w3d"},
        "gracePeriod": "24h", "expiry": {"never": true},
        "secret": {
            "previousKey": "previous", "labels": {"team": "shop"}, "annotations": {"reload": "true"},
            "template": {"data": {"config": "token={{ token }}"}},
        },
    })
}

/// The manifests in Git, and the tools that apply them.
struct Git {
    by_flux: Value,
    by_argo: Value,
    files_of_flux: Folder,
    files_of_argo: Folder,
}

impl Git {
    fn new(stage: &Stage) -> Self {
        let by_flux = marked_by_flux(in_git(BY_FLUX, &spec()));
        let by_argo = marked_by_argo(in_git(BY_ARGO, &spec()));
        let folder =
            |manifest: &Value| Folder::of(&stage.access, stage.namespace.name(), std::slice::from_ref(manifest));
        Self { files_of_flux: folder(&by_flux), files_of_argo: folder(&by_argo), by_flux, by_argo }
    }

    /// Applies the manifest as Flux does. The resource version must not change.
    async fn flux_again(&self, stage: &Stage) {
        let api = tokens(&stage.client, stage.namespace.name());
        let before = api.get(BY_FLUX).await.expect("the PAT exists");
        let after = server_side(&api, &self.by_flux).await;
        assert_eq!(after.resource_version(), before.resource_version(), "an unchanged manifest must cause no write");
        assert_eq!(after.metadata, before.metadata);
    }

    /// Applies the manifest as Argo CD does. Neither tool may find a difference.
    async fn argo_again(&self, stage: &Stage) {
        let before = stage.versions().await;
        let said = self.files_of_argo.client_side().await;
        assert_eq!(said, [format!("personalaccesstoken.pat-operator.io/{BY_ARGO} unchanged")]);
        assert_eq!(self.files_of_argo.differences(ARGO).await, Vec::<String>::new());
        assert_eq!(self.files_of_flux.differences(FLUX).await, Vec::<String>::new());
        assert_eq!(stage.versions().await, before, "an unchanged manifest must cause no write");
    }
}

/// The number of writes of each status and Secret by the operator.
fn writes(requests: &Requests) -> BTreeMap<(&'static str, &'static str), usize> {
    let mut counted = BTreeMap::new();
    let all = requests.writes();
    for name in NAMES {
        for (what, path) in
            [("status", format!("/personalaccesstokens/{name}/status?")), ("Secret", format!("/secrets/{name}?"))]
        {
            counted.insert((name, what), all.iter().filter(|request| request.contains(&path)).count());
        }
    }
    let first = all.iter().filter(|request| request.starts_with("POST ") && request.contains("/secrets?")).count();
    assert_eq!(first, NAMES.len(), "each Secret is created once");
    let total = counted.values().sum::<usize>() + first;
    assert_eq!(total, all.len(), "the operator must write nothing else: {all:#?}");
    counted
}

/// The field managers of a PAT, each with operation and subresource.
async fn managers(stage: &Stage, name: &str) -> BTreeSet<(String, String, String)> {
    let pat = stage.pat(name).await;
    let text = |text: Option<String>| text.unwrap_or_default();
    let fields = pat.metadata.managed_fields.unwrap_or_default().into_iter();
    fields.map(|one| (text(one.manager), text(one.operation), text(one.subresource))).collect()
}

fn manager(name: &str, operation: &str, subresource: &str) -> (String, String, String) {
    (name.into(), operation.into(), subresource.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_applies_between_steps_change_nothing() {
    let mut stage = Stage::new("gitops-reapply").await;
    let (client, requests) = stage.recording();
    stage.restart_with(client);
    let git = Git::new(&stage);
    server_side(&tokens(&stage.client, stage.namespace.name()), &git.by_flux).await;
    assert_eq!(
        git.files_of_argo.client_side().await,
        [format!("personalaccesstoken.pat-operator.io/{BY_ARGO} created")]
    );
    stage.apply(LEFT_ALONE, spec()).await;

    let mut wakes: BTreeMap<&str, Time> = BTreeMap::new();
    let mut met_by_argo = Vec::new();
    let mut rounds = 0;
    loop {
        for name in NAMES {
            let wake = stage.reconcile(name).await.expect("the run succeeds").expect("a rotation is due");
            wakes.insert(name, wake);
            git.flux_again(&stage).await;
        }
        git.argo_again(&stage).await;
        met_by_argo.push((git.by_argo.clone(), serde_json::to_value(stage.pat(BY_ARGO).await).expect("JSON")));
        let mut done = true;
        for name in NAMES {
            let status = stage.status(name).await;
            done &= status.revision == Some(REVISIONS) && status.credentials.len() == 1;
        }
        if done {
            break;
        }
        rounds += 1;
        assert!(rounds < 60, "the tokens do not rotate: {wakes:?}");
        let next = *wakes.values().min().expect("each PAT has a next time");
        stage.hand.set(next.max(stage.now()).timestamp());
    }

    // By its own comparison, Argo CD reports the object as synced at each of these moments. It reports a changed manifest as out of sync.
    assert_eq!(out_of_sync(&met_by_argo).await, Vec::<Value>::new());
    let (mut changed, live) = met_by_argo.pop().expect("at least one moment");
    changed["spec"]["scopes"] = json!(["read", "write"]);
    let [difference] = &out_of_sync(&[(changed, live)]).await[..] else { panic!("a different order is a difference") };
    assert_eq!(difference["spec"]["scopes"], json!(["read", "write"]));

    // Repeated applies cost the operator nothing: it writes as often as for the PAT that is not applied again.
    let counted = writes(&requests);
    for what in ["status", "Secret"] {
        let expected = counted[&(LEFT_ALONE, what)];
        assert!(expected >= 4, "{what}: {counted:?}");
        for name in [BY_FLUX, BY_ARGO] {
            assert_eq!(counted[&(name, what)], expected, "{what} of {name}: {counted:?}");
        }
    }

    // No field manager has taken over fields of another.
    let ours = manager("pat-operator", "Apply", "status");
    assert_eq!(managers(&stage, BY_FLUX).await, [manager(FLUX, "Apply", ""), ours.clone()].into());
    assert_eq!(managers(&stage, BY_ARGO).await, [manager(ARGO, "Update", ""), ours].into());
    for (name, manifest) in [(BY_FLUX, git.by_flux.clone()), (BY_ARGO, git.by_argo.clone())] {
        let pat = serde_json::to_value(stage.pat(name).await).expect("JSON");
        assert_eq!(pat["spec"], manifest["spec"], "{name}");
        assert_eq!(pat["metadata"]["generation"], 1, "{name}");
        assert_eq!(pat["metadata"]["labels"], manifest["metadata"]["labels"], "{name}");
        for (key, value) in manifest["metadata"]["annotations"].as_object().into_iter().flatten() {
            assert_eq!(pat["metadata"]["annotations"][key], *value, "{name}");
        }
        // The tools' labels and annotations are not copied to the Secret, so that no tool prunes it.
        let secret = stage.secret(name).await.expect("the Secret exists").metadata;
        let labels = secret.labels.unwrap_or_default().into_keys().collect::<Vec<_>>();
        assert_eq!(labels, ["app.kubernetes.io/managed-by", "team"], "{name}");
        let annotations = secret.annotations.unwrap_or_default().into_keys();
        let foreign: Vec<_> = annotations.filter(|key| !key.starts_with("pat-operator.io/")).collect();
        assert_eq!(foreign, ["reload"], "{name}");
    }
    let last_applied =
        stage.pat(BY_ARGO).await.annotations()["kubectl.kubernetes.io/last-applied-configuration"].clone();
    let last_applied: Value = serde_json::from_str(&last_applied).expect("JSON");
    assert_eq!(last_applied["spec"], spec());
}
