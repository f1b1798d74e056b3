//! Follows a resource: lists it, then watches it, for ever, and hands what it hears to a [`Sink`].
//!
//! By raw watch events, because kube's own watcher keeps bookmarks to itself, and they are how an idle watch shows that it is
//! alive. It must not know what the objects are, nor what becomes of them.

pub mod counters;

use std::{fmt::Debug, time::Duration};

use futures::{Stream, StreamExt};
use kube::{
    Api, Error, Resource,
    api::{ListParams, WatchEvent, WatchParams},
    core::Status,
};
use rand::{TryRng, rngs::SysRng};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout};

use crate::index::freshness::Beat;

/// Bookmarks come up to two minutes apart: a watch that brings nothing for longer is a connection that died without a word.
const QUIET: Duration = Duration::from_secs(150);

/// How long it may take until an answer begins.
const ANSWER: Duration = Duration::from_secs(30);

/// After so long the API server ends a watch, and it goes on with the next. Longer than [`QUIET`].
const TURN: u32 = 290;

/// A watch that ends sooner has not worked.
const TOO_SHORT: Duration = Duration::from_secs(1);

/// See where it is used.
const CAUGHT_UP: Duration = Duration::from_secs(1);

/// Objects in a page, where a list cannot be streamed: 500 as kubectl asks for.
const PAGE: u32 = 500;

/// The first wait after a failure; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// The longest wait: a token may be revoked meanwhile.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// The annotation of the bookmark that ends a streamed list
/// (<https://kubernetes.io/docs/reference/using-api/api-concepts/#streaming-lists>).
const LIST_ENDS: &str = "k8s.io/initial-events-end";

/// Takes what a watch brings. Between `list_begins` and `list_ends` come all objects that there are; if the list breaks off, another one
/// begins.
pub trait Sink: Send {
    /// What is watched. Decode it leniently: what cannot be decoded is left out.
    type Object: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static;

    /// A full list begins. Nothing is to be forgotten yet.
    fn list_begins(&mut self);

    /// One object of it.
    fn listed(&mut self, object: Self::Object);

    /// The list is complete: what was not in it is no more.
    fn list_ends(&mut self);

    /// An object is new or different.
    fn changed(&mut self, object: Self::Object);

    /// An object is no more; this is what it was.
    fn deleted(&mut self, object: Self::Object);
}

/// Something about the watch itself.
#[derive(Debug)]
pub enum News {
    /// A full list is in.
    Listed,
    /// The watch broke; it begins anew after a short while.
    Interrupted {
        /// Why.
        interruption: Interruption,
        /// How often it has failed before, since something was heard.
        failures: u32,
    },
    /// One object could not be decoded and was left out.
    LeftOut(String),
}

/// Why a watch broke.
#[derive(Debug, thiserror::Error)]
pub enum Interruption {
    /// The request failed, or the connection broke.
    #[error("{}", crate::service::explain_api_error(.0))]
    Failed(Error),
    /// The API server ended the watch with an error.
    #[error("{} ({})", .0.message, .0.code)]
    Ended(Box<Status>),
    /// No answer, or not even a bookmark, for too long.
    #[error("nothing was heard for {} seconds", .0.as_secs())]
    Silent(Duration),
    /// It ended as soon as it had begun, or in the middle of a list.
    #[error("the API server ended the watch too soon")]
    TooShort,
    /// The API server is at an older version than it was.
    #[error("the API server has gone back to an older state")]
    Backwards,
    /// A change could not be decoded, so that nobody knows what has changed.
    #[error("a change cannot be read")]
    Unreadable,
    /// The API server takes streamed lists for plain watches.
    #[error("the API server cannot stream a list; it is asked for in pages from now on")]
    NoStreaming,
}

/// Follows what this API shows, for ever.
pub async fn follow<S: Sink>(api: Api<S::Object>, sink: S, beat: Beat, tell: impl Fn(News)) {
    let mut follower = Follower { api, sink, beat, tell, streams: true, position: None, failures: 0 };
    loop {
        let Err(interruption) = follower.turn().await else { continue };
        follower.beat.broke();
        if interruption.loses_the_place() {
            follower.position = None;
        }
        (follower.tell)(News::Interrupted { interruption, failures: follower.failures });
        sleep(patience(follower.failures, dice())).await;
        follower.failures = follower.failures.saturating_add(1);
    }
}

struct Follower<S: Sink, T> {
    api: Api<S::Object>,
    sink: S,
    beat: Beat,
    tell: T,
    /// Whether the API server can stream a list.
    streams: bool,
    /// The resource version up to which everything is known; `None` if there must be a new list.
    position: Option<String>,
    /// Since something was last heard.
    failures: u32,
}

impl<S: Sink, T: Fn(News)> Follower<S, T> {
    /// One watch, as long as it lasts, with a list before it where one is needed.
    async fn turn(&mut self) -> Result<(), Interruption> {
        let known = self.position.take().filter(|_| !self.beat.is_stale());
        if let Some(version) = known {
            self.position = Some(version.clone());
            return self.watch(&WatchParams::default().timeout(TURN), &version).await;
        }
        self.sink.list_begins();
        if self.streams {
            // Without a version: the list is what the API server has now, never what an older cache of it had.
            self.watch(&WatchParams::streaming_lists().timeout(TURN), "").await
        } else {
            self.pages().await
        }
    }

    /// Takes events until the watch ends. As long as there is no position, they are those of a list.
    async fn watch(&mut self, params: &WatchParams, version: &str) -> Result<(), Interruption> {
        let began = Instant::now();
        let events = match timeout(ANSWER, self.api.watch(params, version)).await {
            Err(_) => return Err(Interruption::Silent(ANSWER)),
            Ok(Err(Error::Api(status))) if self.position.is_none() && matches!(status.code, 400 | 422) => {
                self.streams = false;
                return Err(Interruption::NoStreaming);
            }
            Ok(events) => events.map_err(Interruption::Failed)?,
        };
        let mut events = std::pin::pin!(events.peekable());
        let mut settled = self.position.is_none();
        loop {
            // What has happened meanwhile comes at once: a watch that has nothing to tell for a moment has caught up.
            if !settled {
                settled = true;
                if timeout(CAUGHT_UP, events.as_mut().peek()).await.is_err() {
                    self.beat.runs();
                }
            }
            let Some(event) = next(&mut events).await? else { break };
            match event {
                Ok(event) => self.take(event)?,
                Err(Error::SerdeError(error)) => self.left_out(error.to_string())?,
                // kube takes an object that it cannot decode for a status in which everything is missing.
                Err(Error::Api(status)) if status.code == 0 => {
                    self.left_out("it is no object of this kind".into())?;
                }
                Err(error) => return Err(Interruption::Failed(error)),
            }
        }
        if self.position.is_none() || began.elapsed() < TOO_SHORT { Err(Interruption::TooShort) } else { Ok(()) }
    }

    /// An object of a list is merely missing from it. What a change was about is unknown, and only a new list tells.
    fn left_out(&self, why: String) -> Result<(), Interruption> {
        (self.tell)(News::LeftOut(why));
        if self.position.is_none() { Ok(()) } else { Err(Interruption::Unreadable) }
    }

    fn take(&mut self, event: WatchEvent<S::Object>) -> Result<(), Interruption> {
        match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) if self.position.is_none() => {
                self.sink.listed(object);
                Ok(())
            }
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                let version = version(&object);
                self.sink.changed(object);
                self.reached(version)
            }
            WatchEvent::Deleted(object) => {
                let version = version(&object);
                self.sink.deleted(object);
                if self.position.is_none() { Ok(()) } else { self.reached(version) }
            }
            WatchEvent::Bookmark(bookmark) => {
                if self.position.is_none() {
                    if !bookmark.metadata.annotations.contains_key(LIST_ENDS) {
                        self.streams = false;
                        return Err(Interruption::NoStreaming);
                    }
                    self.list_ends();
                }
                self.reached(Some(bookmark.metadata.resource_version))
            }
            WatchEvent::Error(status) => Err(Interruption::Ended(status)),
        }
    }

    /// A list in pages; the watch that follows starts where the first page was taken.
    async fn pages(&mut self) -> Result<(), Interruption> {
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let page = match timeout(QUIET, self.api.list(&params)).await {
                Err(_) => return Err(Interruption::Silent(QUIET)),
                Ok(page) => page.map_err(Interruption::Failed)?,
            };
            page.items.into_iter().for_each(|object| self.sink.listed(object));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => {
                    self.list_ends();
                    return self.reached(page.metadata.resource_version);
                }
            }
        }
    }

    fn list_ends(&mut self) {
        self.sink.list_ends();
        self.beat.heard();
        (self.tell)(News::Listed);
    }

    /// Everything up to this version is known.
    fn reached(&mut self, version: Option<String>) -> Result<(), Interruption> {
        let version = version.unwrap_or_default();
        let is_older = |known: &String| match (version.parse::<u64>(), known.parse::<u64>()) {
            (Ok(version), Ok(known)) => version < known,
            _ => false,
        };
        if self.position.as_ref().is_some_and(is_older) {
            return Err(Interruption::Backwards);
        }
        self.position = Some(version);
        self.failures = 0;
        self.beat.heard();
        Ok(())
    }
}

impl Interruption {
    /// Whether going on from the same place would not help, so that a new list is needed.
    fn loses_the_place(&self) -> bool {
        match self {
            Self::Failed(Error::Api(status)) | Self::Ended(status) => {
                status.code == 410 || (status.code == 504 && status.message.contains("Too large resource version"))
            }
            // Silence is also how a watch looks that goes on from a version which the API server has not reached yet, because it
            // was restored from a backup.
            Self::Silent(_) | Self::Backwards | Self::NoStreaming | Self::Unreadable => true,
            Self::Failed(_) | Self::TooShort => false,
        }
    }
}

async fn next<E>(events: &mut (impl Stream<Item = E> + Unpin)) -> Result<Option<E>, Interruption> {
    timeout(QUIET, events.next()).await.map_err(|_| Interruption::Silent(QUIET))
}

fn version(object: &impl Resource) -> Option<String> {
    object.meta().resource_version.clone()
}

/// How long to wait after so many failures; `dice` is from 0 to 1, so that not all replicas come back at once.
fn patience(failures: u32, dice: f64) -> Duration {
    let wait = FIRST_WAIT.saturating_mul(1 << failures.min(10)).min(LONGEST_WAIT);
    wait.mul_f64(0.5 + dice / 2.0)
}

fn dice() -> f64 {
    SysRng.try_next_u32().map_or(1.0, |roll| f64::from(roll) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests;
