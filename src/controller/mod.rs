//! The controller: watches PersonalAccessTokens and their Secrets, and keeps each token where its spec wants it.
//!
//! ```text
//! watches -> cache -> queue -> reconcile: observe (cache) -> plan (pure) -> one step (cluster) -> plan …
//! ```
//!
//! This file wires the watches, the queue and the workers; it must not know what a token is.

pub mod apply;
pub mod cache;
pub mod cluster;
pub mod error;
pub mod metrics;
pub mod preflight;
pub mod queue;
pub mod reconcile;
pub mod stored_secret;
pub mod watch;

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::FutureExt;
use kube::Client;
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use self::{
    cache::{Cache, Feed, Key, PatFeed, SecretFeed, Taken},
    cluster::Cluster,
    error::Error,
    metrics::Metrics,
    queue::Queue,
    reconcile::Reconciler,
    watch::News,
};
use crate::{
    api::{MANAGED_BY, MANAGED_BY_LABEL},
    planner::intent::Settings,
    service::{Clock, LeaseHandle, ReadinessGate},
};

/// The longest that a token is left alone: a wall clock can jump, and a timer does not see it.
const LONGEST_NAP: Duration = Duration::from_secs(600);

/// How long a whole run for one token may take.
const RUN_LIMIT: Duration = Duration::from_secs(60);

/// How long what is being done may take to finish once the process is asked to stop. The lease is given back after that.
const FINISH_LIMIT: Duration = Duration::from_secs(7);

/// A failed run is repeated after this long, twice as long each time, at most [`RETRY_MOST`].
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_MOST: Duration = Duration::from_secs(120);

/// What one controller works on.
#[derive(Clone, Debug)]
pub struct Options {
    /// The namespaces to watch; none means all of them.
    pub namespaces: Vec<String>,
    /// Only PATs with these labels.
    pub label_selector: Option<String>,
    /// How many tokens are worked on at a time.
    pub concurrency: usize,
    /// What the installation decides.
    pub settings: Settings,
    /// The name of this process in events.
    pub instance: Option<String>,
}

/// A controller that has not been started.
pub struct Controller {
    client: Client,
    options: Options,
    clock: Clock,
    lease: LeaseHandle,
    caches_full: ReadinessGate,
    full: CancellationToken,
    cache: Arc<Cache>,
    queue: Arc<Queue>,
    metrics: Arc<Metrics>,
    reconciler: Arc<Reconciler>,
}

/// Why a controller ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// A task that must never end did.
    #[error("the {0} ended unexpectedly; this is a bug, please report it with the log above")]
    Task(&'static str),
}

impl Controller {
    /// A controller over this client. It works only while `lease` leads, and passes `caches_full` once it has seen everything.
    pub fn new(client: Client, options: Options, clock: Clock, lease: LeaseHandle, caches_full: ReadinessGate) -> Self {
        let cache = Arc::new(Cache::default());
        let metrics = Arc::new(Metrics::new());
        let cluster = Cluster::new(client.clone(), options.instance.clone());
        let reconciler =
            Arc::new(Reconciler::new(cluster, cache.clone(), options.settings.clone(), clock.clone(), metrics.clone()));
        Self {
            client,
            options,
            clock,
            lease,
            caches_full,
            full: CancellationToken::new(),
            cache,
            queue: Arc::default(),
            metrics,
            reconciler,
        }
    }

    /// What `/metrics` is to serve, computed at each call.
    pub fn metrics_text(&self) -> impl Fn() -> String + Send + Sync + 'static {
        let (cache, queue, metrics) = (self.cache.clone(), self.queue.clone(), self.metrics.clone());
        let (lease, clock) = (self.lease.clone(), self.clock.clone());
        move || metrics.text(&cache, &queue, lease.is_leading(), clock.now().into())
    }

    /// Is cancelled once the caches have seen everything: whoever leads before that would lead and do nothing.
    pub fn caches_are_full(&self) -> CancellationToken {
        self.full.clone()
    }

    /// Works until `shutdown`; then finishes what it holds, within some seconds.
    ///
    /// # Errors
    /// A part of it ended although nobody asked it to.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Ended> {
        let mut watches = JoinSet::new();
        let full = Arc::new(Awaited::new(2 * self.scopes().len()));
        for scope in self.scopes() {
            let pats = PatFeed::new(self.cache.clone(), scope.clone());
            let selector = self.options.label_selector.clone();
            watches.spawn(self.watch("PersonalAccessToken", scope.clone(), selector, pats, &full));
            let secrets = SecretFeed::new(self.cache.clone(), scope.clone());
            let ours = Some(format!("{MANAGED_BY_LABEL}={MANAGED_BY}"));
            watches.spawn(self.watch("Secret", scope, ours, secrets, &full));
        }
        let lead = async {
            full.wait().await;
            self.caches_full.pass("");
            self.full.cancel();
            loop {
                self.lease.leading().await;
                self.work().await;
            }
        };
        tokio::pin!(lead);
        tokio::select! {
            () = &mut lead => Err(Ended::Task("work loop")),
            _ = watches.join_next() => Err(Ended::Task("watch")),
            () = shutdown.cancelled() => {
                tracing::info!("stopping: finishing what is being done");
                self.queue.close();
                let deadline = Instant::now() + FINISH_LIMIT;
                // The workers belong to `lead`, which must not be dropped before.
                while self.queue.running() > 0 && Instant::now() < deadline {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Ok(())
            }
        }
    }

    fn scopes(&self) -> Vec<Option<String>> {
        match self.options.namespaces.as_slice() {
            [] => vec![None],
            namespaces => namespaces.iter().cloned().map(Some).collect(),
        }
    }

    /// Leads for one term: serves the queue until the lease is lost. Every worker ends with the term, also if the next
    /// one begins before the last of them is done.
    async fn work(&self) {
        tracing::info!(tokens = self.cache.keys().len(), "leading: looking at every token");
        self.queue.clear();
        for key in self.cache.keys() {
            self.queue.add(key);
        }
        let failures = Arc::new(Failures::default());
        let term_over = CancellationToken::new();
        let mut workers = JoinSet::new();
        for _ in 0..self.options.concurrency {
            let worker = Worker {
                queue: self.queue.clone(),
                lease: self.lease.clone(),
                term_over: term_over.clone(),
                reconciler: self.reconciler.clone(),
                metrics: self.metrics.clone(),
                failures: failures.clone(),
            };
            workers.spawn(worker.run());
        }
        self.lease.lost().await;
        term_over.cancel();
        while workers.join_next().await.is_some() {}
        tracing::warn!("no longer leading: new work stops here");
        self.reconciler.forget();
    }

    /// Watches until the process ends, and queues whom the news concern.
    fn watch<F>(
        &self,
        kind: &'static str,
        scope: Option<String>,
        labels: Option<String>,
        feed: F,
        full: &Arc<Awaited>,
    ) -> impl Future<Output = ()> + Send + use<F>
    where
        F: Feed<
                Object: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
                            + Clone
                            + serde::de::DeserializeOwned
                            + std::fmt::Debug
                            + Send
                            + 'static,
            > + Send,
    {
        let (client, queue, metrics, reconciler, full) =
            (self.client.clone(), self.queue.clone(), self.metrics.clone(), self.reconciler.clone(), full.clone());
        let first = AtomicBool::new(true);
        let tell = move |news| match news {
            News::Taken(Taken { concerned, object, listed }) => {
                let writer = object.and_then(|(kind, key, version)| reconciler.heard(kind, key, version));
                concerned.into_iter().filter(|key| writer.as_ref() != Some(key)).for_each(|key| queue.add(key));
                if listed {
                    full.arrived(first.swap(false, Ordering::AcqRel));
                }
            }
            News::Interrupted(error) => {
                metrics.watch_failed(kind);
                let why = watch::explain(&error);
                tracing::warn!(kind, "a watch was interrupted and begins anew: {why}");
            }
        };
        async move { watch::watch(client, scope.as_deref(), labels.as_deref(), feed, tell).await }
    }
}

/// Waits for the first list of every watch.
struct Awaited {
    missing: Mutex<usize>,
    arrived: tokio::sync::Notify,
}

impl Awaited {
    fn new(missing: usize) -> Self {
        Self { missing: Mutex::new(missing), arrived: tokio::sync::Notify::new() }
    }

    fn arrived(&self, one: bool) {
        if one {
            *self.missing.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
            self.arrived.notify_one();
        }
    }

    async fn wait(&self) {
        while *self.missing.lock().unwrap_or_else(PoisonError::into_inner) > 0 {
            self.arrived.notified().await;
        }
    }
}

/// How often in a row each token's run has failed.
#[derive(Default)]
struct Failures(Mutex<HashMap<Key, u32>>);

impl Failures {
    fn success(&self, key: &Key) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// Counts a failure and says how long to wait: longer each time, and not the same for all.
    fn failure(&self, key: &Key, asked: Option<Duration>) -> Duration {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(key.clone()).or_default();
        *count = (*count + 1).min(16);
        let backoff = (RETRY_FIRST * 2u32.pow(*count - 1)).min(RETRY_MOST);
        let spread = 0.75 + 0.5 * spread(key);
        asked.unwrap_or_default().max(backoff.mul_f64(spread))
    }
}

/// A number from 0 to 1 that is always the same for one token.
fn spread(key: &Key) -> f64 {
    use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(key);
    (hash >> 11) as f64 / (1u64 << 53) as f64
}

struct Worker {
    queue: Arc<Queue>,
    lease: LeaseHandle,
    term_over: CancellationToken,
    reconciler: Arc<Reconciler>,
    metrics: Arc<Metrics>,
    failures: Arc<Failures>,
}

impl Worker {
    async fn run(self) {
        loop {
            let job = tokio::select! {
                biased;
                () = self.term_over.cancelled() => return,
                job = self.queue.next() => job,
            };
            let Some(job) = job else { return };
            // A process that was paused past its lease may get here before anybody has noticed.
            if !self.lease.is_leading() {
                self.queue.done(&job.key);
                return;
            }
            let delay = self.serve(&job.key, job.lag).await;
            match delay {
                Some(delay) if self.reconciler.is_under_way(&job.key) => {
                    self.queue.resume_after(job.key.clone(), delay)
                }
                Some(delay) => self.queue.add_after(job.key.clone(), delay),
                None => {}
            }
            self.queue.done(&job.key);
        }
    }

    /// Runs one token, and says when to run it again. Whatever goes wrong stays with this token.
    async fn serve(&self, key: &Key, lag: Duration) -> Option<Duration> {
        let began = Instant::now();
        let run = AssertUnwindSafe(self.reconciler.reconcile(key)).catch_unwind();
        let what = || format!("reconcile {key}");
        let result = match tokio::time::timeout(RUN_LIMIT, run).await {
            Ok(Ok(result)) => result,
            // The panic itself has been printed by the panic hook.
            Ok(Err(_)) => Err(Error::Panicked),
            Err(_) => Err(Error::Timeout { what: what(), limit: RUN_LIMIT }),
        };
        self.metrics.ran(began.elapsed(), lag, result.as_ref().err());
        match result {
            Ok(wake_at) => {
                self.failures.success(key);
                let wait = wake_at?.since(self.reconciler.now());
                let wait = Duration::try_from(wait).unwrap_or(Duration::ZERO);
                Some(wait.min(LONGEST_NAP.mul_f64(0.75 + 0.25 * spread(key))))
            }
            Err(error) => {
                let delay = self.failures.failure(key, error.retry_after());
                tracing::warn!(
                    namespace = key.namespace(),
                    name = key.name(),
                    category = error.category(),
                    retry_in_ms = delay.as_millis() as u64,
                    "{error}"
                );
                Some(delay)
            }
        }
    }
}
