//! Lists and watches a resource, and passes every object and every later change to a [`WatchHandler`].
//!
//! `kube::runtime::watcher` does not suffice: it drops bookmarks, which are the only sign that an idle watch is alive, and it repeats a
//! watch that starts with a 410 forever.

mod heartbeat;
mod metrics;

use std::{fmt::Debug, time::Duration};

use futures::StreamExt;
use kube::{
    Api, Error, Resource,
    api::{ListParams, WatchEvent, WatchParams},
    core::Status,
};
use rand::{TryRng, rngs::SysRng};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout, timeout_at};

pub use self::{
    heartbeat::{SILENCE, WatchHeartbeat},
    metrics::WatchMetrics,
};

/// The maximum time without an event or a bookmark, over all turns. After it, a list shows whether the API server went back to an older
/// state.
const QUIET: Duration = Duration::from_secs(150);

/// The timeout until a response begins.
const ANSWER: Duration = Duration::from_secs(10);

/// The API server ends a watch after this many seconds, and the next one follows. The cost is in docs/performance.md.
const TURN: u32 = 15;

/// A watch that the API server has not ended by then is on a dead connection.
const DEADLINE: Duration = Duration::from_secs(20);

/// The API server ends a list after this many seconds.
const LIST_TURN: u32 = 290;

/// A watch that ends sooner counts as failed.
const TOO_SHORT: Duration = Duration::from_secs(1);

/// A resumed watch that is quiet for this long has caught up: the API server sends missed events at once.
const CAUGHT_UP: Duration = Duration::from_secs(1);

/// The page size of a list that cannot be streamed; kubectl asks for the same.
const PAGE: u32 = 500;

/// The first delay after a failure; each further one is twice as long.
const FIRST_DELAY: Duration = Duration::from_millis(100);

/// The longest delay. It is short, because the watch may miss a revocation meanwhile.
const LONGEST_DELAY: Duration = Duration::from_secs(5);

/// The annotation of the bookmark that ends a streamed list
/// (<https://kubernetes.io/docs/reference/using-api/api-concepts/#streaming-lists>).
const LIST_ENDS: &str = "k8s.io/initial-events-end";

/// Receives the events of a watch, named as those of `kube::runtime::watcher`. Between `init` and `init_done` come all existing objects;
/// a list that breaks off is followed by another `init`.
pub trait WatchHandler: Send {
    /// The watched type. It must decode leniently: an object that does not decode is left out.
    type Object: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static;

    /// Begins a full list. The handler must keep what it knows.
    fn init(&mut self);

    /// Handles one object of the list.
    fn init_apply(&mut self, object: Self::Object);

    /// Ends the list: objects that were not in it no longer exist.
    fn init_done(&mut self);

    /// Handles an object that was created or changed.
    fn apply(&mut self, object: Self::Object);

    /// Handles the last state of an object that was deleted.
    fn delete(&mut self, object: Self::Object);
}

/// A status report of a watch.
#[derive(Debug)]
pub enum WatchStatus {
    /// A full list is complete.
    Listed,
    /// The watch was interrupted, and restarts after a delay.
    Interrupted {
        /// Why.
        interruption: Interruption,
        /// The number of failures before this one, since the last event.
        failures: u32,
    },
    /// One object could not be decoded and was left out.
    Undecodable(String),
}

/// Why a watch was interrupted.
#[derive(Debug, thiserror::Error)]
pub enum Interruption {
    /// The request failed, or the connection broke.
    #[error("{}", crate::service::explain_api_error(.0))]
    Failed(Error),
    /// The API server ended the watch with an error.
    #[error("{} ({})", .0.message, .0.code)]
    Ended(Box<Status>),
    /// A list stopped.
    #[error("no event for {} seconds", .0.as_secs())]
    Silent(Duration),
    /// The API server did not answer, or did not end the watch. The connection may be dead.
    #[error("no answer within {} seconds", .0.as_secs())]
    Unanswered(Duration),
    /// The watch ended as soon as it had begun, or in the middle of a list.
    #[error("the API server ended the watch too soon")]
    TooShort,
    /// The API server is at an older resource version than before.
    #[error("the API server went back to an older state")]
    Backwards,
    /// A change could not be decoded, so what changed is unknown.
    #[error("a change cannot be decoded")]
    Unreadable,
    /// The API server does not know streaming lists.
    #[error("the API server cannot stream lists; falling back to paginated lists")]
    NoStreaming,
}

/// Lists and watches the resource, and never returns.
pub async fn follow<H: WatchHandler>(
    api: Api<H::Object>,
    handler: H,
    heartbeat: WatchHeartbeat,
    report: impl Fn(WatchStatus),
) {
    let advanced = Instant::now();
    let mut follower =
        Follower { api, handler, heartbeat, report, streams: true, position: None, advanced, failures: 0 };
    loop {
        let Err(interruption) = follower.list_and_watch().await else { continue };
        follower.heartbeat.interrupted();
        if interruption.needs_list() {
            follower.position = None;
        }
        (follower.report)(WatchStatus::Interrupted { interruption, failures: follower.failures });
        sleep(backoff(follower.failures, jitter())).await;
        follower.failures = follower.failures.saturating_add(1);
    }
}

struct Follower<H: WatchHandler, R> {
    api: Api<H::Object>,
    handler: H,
    heartbeat: WatchHeartbeat,
    report: R,
    /// Whether the API server can stream lists.
    streams: bool,
    /// The resource version of the last event; `None` if a new list is needed.
    position: Option<String>,
    /// When the last event or bookmark arrived.
    advanced: Instant,
    /// Consecutive failures since the last event.
    failures: u32,
}

impl<H: WatchHandler, R: Fn(WatchStatus)> Follower<H, R> {
    /// Runs one watch to its end, after a list if one is needed.
    async fn list_and_watch(&mut self) -> Result<(), Interruption> {
        let is_quiet = self.advanced.elapsed() >= QUIET;
        let known = self.position.take().filter(|_| !is_quiet && !self.heartbeat.is_stale());
        if let Some(version) = known {
            self.position = Some(version.clone());
            return self.watch(&WatchParams::default().timeout(TURN), &version).await;
        }
        self.handler.init();
        if self.streams {
            // Without a version, the list is consistent: never the state of a stale cache.
            self.watch(&WatchParams::streaming_lists().timeout(LIST_TURN), "").await
        } else {
            self.list_pages().await
        }
    }

    /// Handles events until the watch ends. Without a position, they belong to a list, and the watch continues for a turn after it.
    async fn watch(&mut self, params: &WatchParams, version: &str) -> Result<(), Interruption> {
        let began = Instant::now();
        let lists = self.position.is_none();
        let mut deadline = (!lists).then_some(began + DEADLINE);
        let events = match timeout(ANSWER, self.api.watch(params, version)).await {
            Err(_) => return Err(Interruption::Unanswered(ANSWER)),
            Ok(Err(Error::Api(status))) if self.position.is_none() && matches!(status.code, 400 | 422) => {
                self.streams = false;
                return Err(Interruption::NoStreaming);
            }
            Ok(events) => events.map_err(Interruption::Failed)?,
        };
        let mut events = std::pin::pin!(events.peekable());
        let mut settled = self.position.is_none();
        loop {
            if !settled {
                settled = true;
                if timeout(CAUGHT_UP, events.as_mut().peek()).await.is_err() {
                    self.heartbeat.beat();
                }
            }
            let event = match timeout_at(deadline.unwrap_or_else(|| Instant::now() + QUIET), events.next()).await {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(_) if !lists => return Err(Interruption::Unanswered(DEADLINE)),
                Err(_) if self.position.is_none() => return Err(Interruption::Silent(QUIET)),
                Err(_) => return Ok(()),
            };
            match event {
                Ok(event) => self.take(event)?,
                Err(Error::SerdeError(error)) => self.undecodable(error.to_string())?,
                // kube reads an object that it cannot decode as an empty Status.
                Err(Error::Api(status)) if status.code == 0 => {
                    self.undecodable("not an object of this kind".into())?;
                }
                Err(error) => return Err(Interruption::Failed(error)),
            }
            if deadline.is_none() && self.position.is_some() {
                deadline = Some(Instant::now() + Duration::from_secs(TURN.into()));
            }
        }
        if self.position.is_none() || began.elapsed() < TOO_SHORT { Err(Interruption::TooShort) } else { Ok(()) }
    }

    /// Reports an undecodable object. A list continues without it; after a change, only a new list shows the state.
    fn undecodable(&self, why: String) -> Result<(), Interruption> {
        (self.report)(WatchStatus::Undecodable(why));
        if self.position.is_none() { Ok(()) } else { Err(Interruption::Unreadable) }
    }

    fn take(&mut self, event: WatchEvent<H::Object>) -> Result<(), Interruption> {
        match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) if self.position.is_none() => {
                self.handler.init_apply(object);
                Ok(())
            }
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                let version = version(&object);
                self.handler.apply(object);
                self.advance_to(version)
            }
            WatchEvent::Deleted(object) => {
                let version = version(&object);
                self.handler.delete(object);
                if self.position.is_none() { Ok(()) } else { self.advance_to(version) }
            }
            WatchEvent::Bookmark(bookmark) => {
                if self.position.is_none() {
                    if !bookmark.metadata.annotations.contains_key(LIST_ENDS) {
                        self.streams = false;
                        return Err(Interruption::NoStreaming);
                    }
                    self.list_complete();
                }
                self.advance_to(Some(bookmark.metadata.resource_version))
            }
            WatchEvent::Error(status) => Err(Interruption::Ended(status)),
        }
    }

    /// Lists page by page; all pages show the state of the first.
    async fn list_pages(&mut self) -> Result<(), Interruption> {
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let page = match timeout(QUIET, self.api.list(&params)).await {
                Err(_) => return Err(Interruption::Silent(QUIET)),
                Ok(page) => page.map_err(Interruption::Failed)?,
            };
            page.items.into_iter().for_each(|object| self.handler.init_apply(object));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => {
                    self.list_complete();
                    return self.advance_to(page.metadata.resource_version);
                }
            }
        }
    }

    fn list_complete(&mut self) {
        self.handler.init_done();
        self.heartbeat.beat();
        (self.report)(WatchStatus::Listed);
    }

    /// Moves the position forward; an older version means that the API server was restored from a backup.
    fn advance_to(&mut self, version: Option<String>) -> Result<(), Interruption> {
        let version = version.unwrap_or_default();
        let is_older = |known: &String| match (version.parse::<u64>(), known.parse::<u64>()) {
            (Ok(version), Ok(known)) => version < known,
            _ => false,
        };
        if self.position.as_ref().is_some_and(is_older) {
            return Err(Interruption::Backwards);
        }
        self.position = Some(version);
        self.advanced = Instant::now();
        self.failures = 0;
        self.heartbeat.beat();
        Ok(())
    }
}

impl Interruption {
    /// Whether the watch cannot be resumed from its position.
    fn needs_list(&self) -> bool {
        match self {
            Self::Failed(Error::Api(status)) | Self::Ended(status) => {
                status.code == 410 || (status.code == 504 && status.message.contains("Too large resource version"))
            }
            Self::Silent(_) | Self::Backwards | Self::NoStreaming | Self::Unreadable => true,
            Self::Failed(_) | Self::Unanswered(_) | Self::TooShort => false,
        }
    }
}

fn version(object: &impl Resource) -> Option<String> {
    object.meta().resource_version.clone()
}

/// Returns the delay after this many failures: exponential, capped, and shortened by up to half. `jitter` is from 0 to 1, so that
/// replicas spread.
fn backoff(failures: u32, jitter: f64) -> Duration {
    let delay = FIRST_DELAY.saturating_mul(1 << failures.min(10)).min(LONGEST_DELAY);
    delay.mul_f64(0.5 + jitter / 2.0)
}

fn jitter() -> f64 {
    SysRng.try_next_u32().map_or(1.0, |random| f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests;
