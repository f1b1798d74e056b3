//! The watches: they keep the caches fed and say which tokens to look at.
//!
//! A watch that breaks begins anew by itself, for ever, each with a backoff of its own. It must not know what a token is.

use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use kube::{
    Api, Client, Resource,
    runtime::{
        WatchStreamExt,
        utils::Backoff,
        watcher::{self, DefaultBackoff, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::time::sleep;

use super::cache::{Feed, Taken};

/// The longest that a broken watch waits before it begins anew: kube's own 30 s are a long time not to hear of a revocation.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// How long a watch waits that begins anew with a list because it could not go on from where it was.
const AFTER_GONE: Duration = Duration::from_secs(1);

/// Something that a watch has to tell.
#[derive(Debug)]
pub enum News {
    /// An event, as the cache took it in.
    Taken(Taken),
    /// The watch broke and begins anew.
    Interrupted(watcher::Error),
}

/// Watches one namespace, or all, for ever. `labels` is a label selector.
pub async fn watch<F>(client: Client, scope: Option<&str>, labels: Option<&str>, mut feed: F, tell: impl Fn(News))
where
    F: Feed<
        Object: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
                    + Clone
                    + DeserializeOwned
                    + std::fmt::Debug
                    + Send
                    + 'static,
    >,
{
    let api: Api<F::Object> = match scope {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    let mut config = watcher::Config::default().streaming_lists();
    if let Some(labels) = labels {
        config = config.labels(labels);
    }
    loop {
        let mut events = watcher(api.clone(), config.clone()).backoff(Patience::default()).boxed();
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => tell(News::Taken(feed.take(event))),
                Err(error) => {
                    let is_gone = is_gone(&error);
                    tell(News::Interrupted(error));
                    if is_gone {
                        break;
                    }
                }
            }
        }
        sleep(AFTER_GONE).await;
    }
}

/// What the watch had is too old to go on from, and this was said by an answer instead of an event: kube would ask for the same
/// again, for ever. A new list helps.
fn is_gone(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(kube::Error::Api(status)) if status.code == 410)
}

/// kube's backoff, with less of it.
#[derive(Default)]
struct Patience(DefaultBackoff);

impl Iterator for Patience {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next().map(|wait| wait.min(LONGEST_WAIT))
    }
}

impl Backoff for Patience {
    fn reset(&mut self) {
        self.0.reset();
    }
}

/// One line for a person: why a watch broke.
pub fn explain(error: &watcher::Error) -> String {
    use watcher::Error::{InitialListFailed, WatchError, WatchFailed, WatchStartFailed};
    match error {
        InitialListFailed(cause) | WatchStartFailed(cause) | WatchFailed(cause) => {
            crate::service::explain_api_error(cause)
        }
        WatchError(status) => format!("{} ({})", status.message, status.code),
        other => other.to_string(),
    }
}
