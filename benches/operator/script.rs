//! The operator's writes for one token, recorded once as templates. The floor makes the same writes.
//!
//! A watch delivers each version of an object, so the order, shape and size of each write are known.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, ensure};
use futures::StreamExt;
use kube::{api::WatchEvent, core::Request};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::{
    fixture::{self, Token},
    operator::{Goal, Operator},
    plane::Plane,
    progress::Progress,
    wire::{events, pats, secrets},
};

/// The time that a watch may take to deliver a write.
const LAG: Duration = Duration::from_millis(500);

/// The operator's writes.
pub struct Script {
    /// Those of a first mint.
    pub mint: Vec<Step>,
    /// Those of a rotation.
    pub rotation: Vec<Step>,
}

/// One write.
#[derive(Clone)]
pub struct Step {
    /// The kind of write.
    pub kind: Kind,
    text: Arc<str>,
}

/// A kind of write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A server-side apply of the status.
    Status,
    /// A POST of the Secret.
    CreateSecret,
    /// A JSON merge patch of the Secret.
    PatchSecret,
    /// A POST of an event.
    Event,
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Status => "status apply",
            Self::CreateSecret => "Secret POST",
            Self::PatchSecret => "Secret merge patch",
            Self::Event => "event POST",
        })
    }
}

impl Step {
    /// The body for one token.
    pub fn body(&self, namespace: &str, token: &Token) -> Vec<u8> {
        self.text
            .replace("@namespace@", namespace)
            .replace("@name@", &token.name)
            .replace("@uid@", &token.pat.uid)
            .replace("@version@", &token.pat.resource_version)
            .replace("@secret-uid@", &token.secret.uid)
            .replace("@secret-version@", &token.secret.resource_version)
            .into_bytes()
    }

    /// The approximate size of a body.
    pub fn size(&self) -> usize {
        self.text.len()
    }
}

impl Script {
    /// Records the writes while the operator mints and rotates one token.
    pub async fn record(plane: &Plane) -> anyhow::Result<Self> {
        let namespace = plane.namespace().await?;
        let tokens = fixture::create(plane, &namespace, 1).await?;
        let tape = Tape::start(plane, &namespace).await?;
        let progress = Progress::begin("recording the operator's writes for one token", 1);

        let operator = Operator::start(plane, &namespace).await?;
        operator.until(Goal::Minted, 1, &progress).await?;
        let mint = tape.steps(plane, &namespace, &tokens[0]).await?;
        operator.stop().await?;

        let tokens = fixture::ask_for_rotation(plane, &namespace, tokens).await?;
        let operator = Operator::start(plane, &namespace).await?;
        operator.until(Goal::Rotated, 1, &progress).await?;
        let both = tape.steps(plane, &namespace, &tokens[0]).await?;
        operator.stop().await?;

        let rotation = both[mint.len()..].to_vec();
        ensure!(!mint.is_empty() && !rotation.is_empty(), "the operator wrote nothing");
        Ok(Self { mint, rotation })
    }
}

/// A description of the steps.
pub fn words(steps: &[Step]) -> String {
    steps.iter().map(|step| format!("{} ({} B)", step.kind, step.size())).collect::<Vec<_>>().join(", ")
}

/// All recorded versions of objects, by resource version.
struct Tape {
    versions: Arc<Mutex<BTreeMap<u64, Value>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Tape {
    async fn start(plane: &Plane, namespace: &str) -> anyhow::Result<Self> {
        let wire = plane.wire()?;
        let versions: Arc<Mutex<BTreeMap<u64, Value>>> = Arc::default();
        let mut tasks = Vec::new();
        for (path, kind) in [(pats(namespace), "PersonalAccessToken"), (secrets(namespace), "Secret")] {
            let mut stream = wire.stream::<Value>(path, None).await?;
            let versions = versions.clone();
            tasks.push(tokio::spawn(async move {
                while let Some(event) = stream.next().await {
                    if let Ok(WatchEvent::Added(mut object) | WatchEvent::Modified(mut object)) = event {
                        object["kind"] = kind.into();
                        versions.lock().unwrap_or_else(PoisonError::into_inner).insert(version(&object), object);
                    }
                }
            }));
        }
        Ok(Self { versions, tasks })
    }

    /// The writes so far, in order.
    async fn steps(&self, plane: &Plane, namespace: &str, token: &Token) -> anyhow::Result<Vec<Step>> {
        tokio::time::sleep(LAG).await;
        let list = Request::new(events(namespace)).list(&Default::default())?;
        let list: Value = plane.client()?.request(list).await.context("listing events")?;
        let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for event in list["items"].as_array().into_iter().flatten() {
            let mut event = event.clone();
            event["kind"] = "Event".into();
            event["apiVersion"] = "events.k8s.io/v1".into();
            versions.insert(version(&event), event);
        }
        let mut steps = Vec::new();
        let mut status = Value::Null;
        let mut has_secret = false;
        for object in versions.into_values() {
            let (kind, body) = match object["kind"].as_str() {
                Some("PersonalAccessToken") if object["status"] == status => continue,
                Some("PersonalAccessToken") => {
                    status = object["status"].clone();
                    (Kind::Status, status_body(&object))
                }
                Some("Secret") if has_secret => (Kind::PatchSecret, secret_patch(&object)),
                Some("Secret") => {
                    has_secret = true;
                    (Kind::CreateSecret, secret_body(&object))
                }
                _ => (Kind::Event, event_body(object)),
            };
            let text = body
                .to_string()
                .replace(&token.pat.uid, "@uid@")
                .replace(namespace, "@namespace@")
                .replace(&token.name, "@name@");
            steps.push(Step { kind, text: text.into() });
        }
        Ok(steps)
    }
}

impl Drop for Tape {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn status_body(object: &Value) -> Value {
    json!({
        "apiVersion": object["apiVersion"],
        "kind": object["kind"],
        "metadata": {"name": object["metadata"]["name"], "uid": object["metadata"]["uid"], "resourceVersion": "@version@"},
        "status": object["status"],
    })
}

fn secret_body(object: &Value) -> Value {
    let metadata = &object["metadata"];
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": metadata["name"],
            "annotations": metadata["annotations"],
            "labels": metadata["labels"],
            "ownerReferences": metadata["ownerReferences"],
        },
        "type": object["type"],
        "data": object["data"],
    })
}

fn secret_patch(object: &Value) -> Value {
    let metadata = &object["metadata"];
    json!({
        "metadata": {
            "uid": "@secret-uid@",
            "resourceVersion": "@secret-version@",
            "annotations": metadata["annotations"],
            "labels": metadata["labels"],
        },
        "data": object["data"],
    })
}

fn event_body(mut object: Value) -> Value {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.retain(|key, _| key == "name" || key == "namespace");
    }
    object
}
