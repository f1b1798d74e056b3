//! Bare Kubernetes requests: bodies are bytes, and only the versions of answers are parsed.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

// kube uses this request type. axum re-exports it.
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

/// The path of a namespace's PATs.
pub fn pats(namespace: &str) -> String {
    format!("/apis/{GROUP}/{VERSION}/namespaces/{namespace}/personalaccesstokens")
}

/// The path of a namespace's Secrets.
pub fn secrets(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/secrets")
}

/// The path of a namespace's events.
pub fn events(namespace: &str) -> String {
    format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events")
}

/// The part of an answer that is parsed.
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

/// A client for bare requests.
#[derive(Clone)]
pub struct Wire {
    client: Client,
}

impl Wire {
    /// Sends requests with this client.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Sends a POST.
    pub async fn create(&self, path: &str, body: Vec<u8>) -> anyhow::Result<Version> {
        let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
        self.send(Request::new(path).create(&params, body)?).await
    }

    /// Applies the status on the server side, like the operator.
    pub async fn apply_status(&self, path: &str, name: &str, body: Vec<u8>) -> anyhow::Result<Version> {
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let mut request = Request::new(path).patch_subresource("status", name, &params, &Patch::Apply(()))?;
        *request.body_mut() = body;
        self.send(request).await
    }

    /// Sends a JSON merge patch.
    pub async fn merge(&self, path: &str, name: &str, manager: &str, body: Vec<u8>) -> anyhow::Result<Version> {
        let params = PatchParams { field_manager: Some(manager.into()), ..PatchParams::default() };
        let mut request = Request::new(path).patch(name, &params, &Patch::Merge(()))?;
        *request.body_mut() = body;
        self.send(request).await
    }

    async fn send(&self, request: HttpRequest<Vec<u8>>) -> anyhow::Result<Version> {
        Ok(self.client.request::<Thin>(request).await?.metadata)
    }

    /// Watches a collection from its existing objects on.
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

    /// Watches the PATs and Secrets of a namespace, like the operator, without storing them.
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

/// Two open watches. Dropping them closes them.
pub struct Watches {
    seen: Arc<AtomicUsize>,
    tasks: Vec<JoinHandle<()>>,
}

impl Watches {
    /// The number of events so far.
    pub fn seen(&self) -> usize {
        self.seen.load(Ordering::Relaxed)
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}
