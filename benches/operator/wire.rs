//! Requests as bare as a kube client can send them: bodies are bytes, and of an answer only the version is read.
//!
//! For the floor and for what is set up before a measurement. Must not know what the bodies say.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

// kube's own requests are of this type; axum brings the same crate.
use axum::http::Request as HttpRequest;
use futures::{StreamExt, stream::BoxStream};
use kube::{
    Client,
    api::{Patch, PatchParams, PostParams, WatchEvent, WatchParams},
    core::Request,
};
use pat_operator::api::{FIELD_MANAGER, GROUP, MANAGED_BY, MANAGED_BY_LABEL, VERSION};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::task::JoinHandle;

/// Where the PATs of a namespace are.
pub fn pats(namespace: &str) -> String {
    format!("/apis/{GROUP}/{VERSION}/namespaces/{namespace}/personalaccesstokens")
}

/// Where the Secrets of a namespace are.
pub fn secrets(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/secrets")
}

/// Where the events of a namespace are.
pub fn events(namespace: &str) -> String {
    format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events")
}

/// What is read of an answer.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Version {
    /// metadata.uid
    #[serde(default)]
    pub uid: String,
    /// metadata.resourceVersion
    pub resource_version: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Thin {
    metadata: Version,
}

/// Sends requests.
#[derive(Clone)]
pub struct Wire {
    client: Client,
}

impl Wire {
    /// Requests go by this client.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// POST.
    pub async fn create(&self, path: &str, body: Vec<u8>) -> anyhow::Result<Version> {
        let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
        self.send(Request::new(path).create(&params, body)?).await
    }

    /// A server-side apply of the status, as the operator's own.
    pub async fn apply_status(&self, path: &str, name: &str, body: Vec<u8>) -> anyhow::Result<Version> {
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let mut request = Request::new(path).patch_subresource("status", name, &params, &Patch::Apply(()))?;
        *request.body_mut() = body;
        self.send(request).await
    }

    /// A JSON merge patch.
    pub async fn merge(&self, path: &str, name: &str, manager: &str, body: Vec<u8>) -> anyhow::Result<Version> {
        let params = PatchParams { field_manager: Some(manager.into()), ..PatchParams::default() };
        let mut request = Request::new(path).patch(name, &params, &Patch::Merge(()))?;
        *request.body_mut() = body;
        self.send(request).await
    }

    async fn send(&self, request: HttpRequest<Vec<u8>>) -> anyhow::Result<Version> {
        Ok(self.client.request::<Thin>(request).await?.metadata)
    }

    /// Everything of a collection, and then every change of it.
    pub async fn stream<T>(
        &self,
        path: String,
        labels: Option<String>,
    ) -> anyhow::Result<BoxStream<'static, kube::Result<WatchEvent<T>>>>
    where
        T: Clone + DeserializeOwned + Send + 'static,
    {
        let params = WatchParams { label_selector: labels, ..WatchParams::default() };
        let request = Request::new(path).watch(&params, "0")?;
        Ok(self.client.request_events::<T>(request).await?.boxed())
    }

    /// Watches PATs and Secrets of a namespace, as the operator does, and keeps nothing.
    pub async fn watch(&self, namespace: &str) -> anyhow::Result<Watches> {
        let labels = format!("{MANAGED_BY_LABEL}={MANAGED_BY}");
        let seen = Arc::new(AtomicUsize::new(0));
        let mut tasks = Vec::new();
        for (path, labels) in [(pats(namespace), None), (secrets(namespace), Some(labels))] {
            let mut events = self.stream::<Thin>(path, labels).await?;
            let seen = seen.clone();
            tasks.push(tokio::spawn(async move {
                while let Some(event) = events.next().await {
                    if !matches!(event, Ok(WatchEvent::Bookmark(_))) {
                        seen.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }));
        }
        Ok(Watches { seen, tasks })
    }
}

/// Two open watches; dropped, they are closed.
pub struct Watches {
    seen: Arc<AtomicUsize>,
    tasks: Vec<JoinHandle<()>>,
}

impl Watches {
    /// How many events have come.
    pub fn seen(&self) -> usize {
        self.seen.load(Ordering::Relaxed)
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}
