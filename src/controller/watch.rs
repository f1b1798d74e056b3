//! The watches: they keep the caches fed and say which tokens to look at.
//!
//! A watch that breaks begins anew by itself, for ever, each with a backoff of its own. It must not know what a token is.

use futures::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use kube::{
    Api, Client, Resource,
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;

use super::cache::{Feed, Key};

/// Something that a watch has to tell.
#[derive(Debug)]
pub enum News {
    /// These PATs may be concerned.
    Concerned(Vec<Key>),
    /// A list is complete.
    Listed,
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
    let mut events = watcher(api, config).default_backoff().boxed();
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                let (concerned, listed) = feed.take(event);
                tell(News::Concerned(concerned));
                if listed {
                    tell(News::Listed);
                }
            }
            Err(error) => tell(News::Interrupted(error)),
        }
    }
}
