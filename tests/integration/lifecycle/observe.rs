//! Helpers that read the state of PATs and Secrets. They change nothing, except for the marker objects that end a history.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use futures::StreamExt;
use k8s_openapi::api::{core::v1::Secret, events::v1::Event};
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta, PostParams, WatchEvent, WatchParams},
};
use pat_operator::api::{
    CredentialState, PersonalAccessToken, PersonalAccessTokenSpec, PersonalAccessTokenStatus, RESERVED_PREFIX, Time,
    duration,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::support::stage::{SOON, Stage};

const MARKER: &str = "the-end-of-the-history";

/// A spec without settings. It has one field, because server-side apply turns `spec: {}` over a spec with fields into `null`, which the API
/// server refuses.
pub fn plain() -> Value {
    json!({"displayName": "plain"})
}

/// Parses a duration such as `10d`.
pub fn length(text: &str) -> k8s_openapi::jiff::SignedDuration {
    duration::parse(text).expect("a duration")
}

/// The time this long after the stage's clock.
pub fn after(stage: &Stage, by: &str) -> Time {
    stage.now().plus(length(by))
}

/// The time this long before the stage's clock.
pub fn before(stage: &Stage, by: &str) -> Time {
    stage.now().minus(length(by))
}

/// The conditions of a PAT, each as `Ready=True Issued`.
pub async fn conditions(stage: &Stage, name: &str) -> Vec<String> {
    lines(&stage.status(name).await)
}

/// The conditions of a status, each as `Ready=True Issued`.
pub fn lines(status: &PersonalAccessTokenStatus) -> Vec<String> {
    let line = |condition: &pat_operator::api::Condition| {
        format!("{}={} {}", condition.type_, condition.status, condition.reason)
    };
    status.conditions.iter().map(line).collect()
}

/// Revision and state of every live credential, newest first.
pub async fn credentials(stage: &Stage, name: &str) -> Vec<(i64, CredentialState)> {
    let credentials = stage.status(name).await.credentials;
    credentials.into_iter().map(|credential| (credential.revision, credential.state)).collect()
}

/// The number of issued tokens.
pub async fn revision(stage: &Stage, name: &str) -> i64 {
    stage.status(name).await.revision.unwrap_or_default()
}

/// The expiry time of the credential with this revision.
pub async fn end_of(stage: &Stage, name: &str, revision: i64) -> Option<Time> {
    let credentials = stage.status(name).await.credentials;
    let found = credentials.into_iter().find(|credential| credential.revision == revision);
    found.unwrap_or_else(|| panic!("revision {revision} is not live")).expires_at
}

/// The id of the credential with this revision.
pub async fn id_of(stage: &Stage, name: &str, revision: i64) -> String {
    let credentials = stage.status(name).await.credentials;
    let found = credentials.into_iter().find(|credential| credential.revision == revision);
    found.unwrap_or_else(|| panic!("revision {revision} is not live")).id.to_string()
}

/// The reason of every event, oldest first. An event series counts as often as it occurred.
pub async fn reasons(stage: &Stage, name: &str) -> Vec<String> {
    let api: Api<Event> = Api::namespaced(stage.client.clone(), stage.namespace.name());
    let mut events = api.list(&ListParams::default()).await.expect("events are listed").items;
    events.retain(|event| event.regarding.as_ref().is_some_and(|about| about.name.as_deref() == Some(name)));
    events.sort_by_key(|event| event.event_time.as_ref().map(|time| time.0));
    let times = |event: &Event| event.series.as_ref().map_or(1, |series| usize::try_from(series.count).unwrap_or(1));
    events.iter().flat_map(|event| vec![event.reason.clone().unwrap_or_default(); times(event)]).collect()
}

/// The keys in a Secret's data.
pub async fn keys(stage: &Stage, secret: &str) -> Vec<String> {
    stage.data(secret).await.into_keys().collect()
}

/// A Secret's labels.
pub async fn labels(stage: &Stage, secret: &str) -> BTreeMap<String, String> {
    stage.secret(secret).await.expect("the Secret exists").metadata.labels.unwrap_or_default()
}

/// A Secret's annotations without the operator's own.
pub async fn annotations(stage: &Stage, secret: &str) -> BTreeMap<String, String> {
    let mut annotations =
        stage.secret(secret).await.expect("the Secret exists").metadata.annotations.unwrap_or_default();
    annotations.retain(|key, _| !key.starts_with(RESERVED_PREFIX));
    annotations
}

/// Returns whether any Secret of the namespace contains this token, also in Base64.
pub async fn is_anywhere(stage: &Stage, token: &str) -> bool {
    let secrets = stage.secrets().list(&ListParams::default()).await.expect("Secrets").items;
    let values = secrets.into_iter().filter_map(|secret| secret.data).flatten().map(|(_, value)| value.0);
    values.into_iter().any(|value| contains_token(&value, token))
}

fn contains_token(value: &[u8], token: &str) -> bool {
    let text = String::from_utf8_lossy(value);
    let decoded = text.split('"').filter_map(|part| STANDARD.decode(part).ok());
    text.contains(token) || decoded.into_iter().any(|inner| String::from_utf8_lossy(&inner).contains(token))
}

/// Checks that neither another run nor a fresh process writes anything, and that both are due at the same time.
pub async fn assert_rests(stage: &mut Stage, name: &str) {
    let before = (stage.versions().await, reasons(stage, name).await);
    let wake = stage.reconcile(name).await.expect("the run succeeds");
    stage.restart();
    let fresh = stage.reconcile(name).await.expect("the run succeeds");
    let after = (stage.versions().await, reasons(stage, name).await);
    assert_eq!(after, before, "an unchanged object was written");
    assert_eq!(fresh, wake, "a fresh process is due at another time");
}

/// One write of any client.
#[derive(Debug)]
pub enum Write {
    Pat(Box<PersonalAccessToken>),
    Secret(Box<Secret>),
    SecretGone(String),
}

/// A position in the history of a namespace.
pub struct Mark {
    pats: String,
    secrets: String,
}

/// The current position in the history.
pub async fn mark(stage: &Stage) -> Mark {
    let version = |metadata: kube::core::ListMeta| metadata.resource_version.expect("a list has a version");
    Mark {
        pats: version(stage.pats().list(&ListParams::default()).await.expect("PATs").metadata),
        secrets: version(stage.secrets().list(&ListParams::default()).await.expect("Secrets").metadata),
    }
}

/// Every write to a PAT or a Secret since the mark, in order, as a watch reports it.
pub async fn since(stage: &Stage, mark: &Mark) -> Vec<Write> {
    let metadata = ObjectMeta { name: Some(MARKER.into()), ..Default::default() };
    let mut pat = PersonalAccessToken::new(MARKER, PersonalAccessTokenSpec::default());
    pat.metadata = metadata.clone();
    let pats = replay(&stage.pats(), &mark.pats, &pat).await;
    let secret = Secret { metadata, ..Default::default() };
    let secrets = replay(&stage.secrets(), &mark.secrets, &secret).await;
    let mut writes = Vec::new();
    for event in pats {
        if let WatchEvent::Added(pat) | WatchEvent::Modified(pat) = event {
            writes.push((version(&pat), Write::Pat(Box::new(pat))));
        }
    }
    for event in secrets {
        match event {
            WatchEvent::Added(secret) | WatchEvent::Modified(secret) => {
                writes.push((version(&secret), Write::Secret(Box::new(secret))));
            }
            WatchEvent::Deleted(secret) => writes.push((version(&secret), Write::SecretGone(secret.name_any()))),
            WatchEvent::Bookmark(_) | WatchEvent::Error(_) => {}
        }
    }
    writes.sort_by_key(|(version, _)| *version);
    writes.into_iter().map(|(_, write)| write).collect()
}

async fn replay<K>(api: &Api<K>, from: &str, marker: &K) -> Vec<WatchEvent<K>>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + serde::Serialize,
{
    api.create(&PostParams::default(), marker).await.expect("the marker is created");
    let mut stream = api.watch(&WatchParams::default(), from).await.expect("a watch").boxed();
    let mut events = Vec::new();
    loop {
        let event = tokio::time::timeout(SOON, stream.next())
            .await
            .expect("an event in time")
            .expect("an open watch")
            .expect("a valid event");
        match &event {
            WatchEvent::Added(object) if object.name_any() == MARKER => break,
            WatchEvent::Error(error) => panic!("the watch broke: {error:?}"),
            _ => events.push(event),
        }
    }
    api.delete(MARKER, &DeleteParams::default()).await.expect("the marker is deleted");
    events
}

fn version(object: &impl ResourceExt) -> u64 {
    object.resource_version().and_then(|version| version.parse().ok()).expect("a resource version")
}
