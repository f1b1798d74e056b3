//! The controller: keeps each PersonalAccessToken and its Secret as the spec wants them.
//!
//! ```text
//! watches -> event handlers -> stores
//!                           -> triggers -> kube's Controller -> gate -> reconcile: observe -> plan -> execute one step -> plan …
//! ```
//!
//! This file wires these parts. There is one kube `Controller` for each term of leadership; watches and stores outlive it.

pub mod apply;
pub mod cluster;
pub mod context;
mod disabled_owners;
pub mod error;
pub mod event_handlers;
pub mod gate;
pub mod issuers;
pub mod metrics;
pub mod namespaced_name;
mod own_writes;
pub mod preflight;
pub mod reconcile;
pub mod reconciler;
mod secret_index;
mod state;
pub mod stored_secret;
pub mod stores;
#[cfg(test)]
mod tests;
pub mod watches;

use std::{pin::pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt, stream};
use kube::{
    Api, Client,
    runtime::{
        Controller,
        controller::{Action, Config, Error as ControllerError},
        reflector::ObjectRef,
        watcher,
    },
};
use tokio::{sync::watch, task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use self::{
    cluster::ClusterClient,
    context::{Context, ObjectBackoff, SkewWarning},
    error::Error,
    event_handlers::{EventHandler, IssuerHandler, OwnerHandler, PatHandler, SecretHandler, Triggers},
    gate::ReconcileGate,
    issuers::{IssuerSettings, Issuers},
    metrics::Metrics,
    namespaced_name::NamespacedName,
    reconcile::{error_policy, reconcile},
    reconciler::Reconciler,
    stores::{Stores, WatchedKind},
};
use crate::{
    api::{MANAGED_BY, MANAGED_BY_LABEL, StoredClusterTokenIssuer, StoredPat, StoredTokenIssuer},
    planner::intent::ControllerConfig,
    service::{Clock, LeaseHandle, ReadinessGate, scoped},
};

/// The time that running reconciles have to finish when the process stops. The lease is released after it.
const FINISH_LIMIT: Duration = Duration::from_secs(7);

/// The options of a controller.
#[derive(Clone, Debug)]
pub struct ControllerOptions {
    /// The namespaces to watch; none means all of them.
    pub namespaces: Vec<String>,
    /// Limits the controller to PATs with these labels.
    pub label_selector: Option<String>,
    /// How many PATs are reconciled at a time.
    pub concurrency: usize,
    /// The configuration of the installation.
    pub config: ControllerConfig,
    /// The name of this process in events.
    pub instance: Option<String>,
    /// What the flags say about issuers of other systems.
    pub issuers: IssuerSettings,
}

/// The controller of PersonalAccessTokens, before it runs.
pub struct PatController {
    client: Client,
    options: ControllerOptions,
    watches_owners: bool,
    clock: Clock,
    caches_full: ReadinessGate,
    full: CancellationToken,
    /// How many watches have not delivered their first list yet.
    missing_lists: Arc<watch::Sender<usize>>,
    issuers: Option<Arc<Issuers>>,
    context: Arc<Context>,
}

/// A part of the controller ended unexpectedly.
#[derive(Debug, thiserror::Error)]
#[error("the {0} ended unexpectedly; this is a bug, please report it with the log above")]
pub struct EndedUnexpectedly(&'static str);

impl PatController {
    /// Creates a controller over this client. It reconciles only while `lease` leads, and passes `caches_full` once every watch has
    /// delivered its first list.
    pub fn new(
        client: Client,
        options: ControllerOptions,
        clock: Clock,
        lease: LeaseHandle,
        caches_full: ReadinessGate,
    ) -> Self {
        let stores = Arc::new(Stores::default());
        let cluster = ClusterClient::new(client.clone(), options.instance.clone());
        let config = options.config.clone();
        let gate = Arc::new(ReconcileGate::new(options.concurrency));
        let issuers = options.issuers.is_enabled().then(|| {
            let settings = options.issuers.clone();
            Arc::new(Issuers::new(client.clone(), stores.clone(), gate.clone(), clock.clone(), settings))
        });
        let metrics = Arc::new(Metrics::new().with_issuers(issuers.as_ref()));
        let reconciler = Reconciler::new(cluster, stores.clone(), config, clock.clone(), metrics.clone());
        let context = Arc::new(Context {
            reconciler: reconciler.with_lease(lease.clone()).with_issuers(issuers.clone()),
            stores,
            gate,
            backoff: ObjectBackoff::default(),
            lease,
            metrics,
            skew_warning: SkewWarning::default(),
        });
        Self {
            client,
            options,
            watches_owners: false,
            clock,
            caches_full,
            full: CancellationToken::new(),
            missing_lists: Arc::new(watch::Sender::new(0)),
            issuers,
            context,
        }
    }

    /// Sets whether it watches TokenOwners, which needs a permission in the whole cluster. Without that, `Ready` does not show that the
    /// owner of a token is disabled.
    #[must_use]
    pub fn watching_owners(self, watches_owners: bool) -> Self {
        Self { watches_owners, ..self }
    }

    /// Returns a function that computes the text of `/metrics`.
    pub fn metrics_text(&self) -> impl Fn() -> String + Send + Sync + 'static {
        let (context, clock) = (self.context.clone(), self.clock.clone());
        move || {
            let Context { stores, gate, lease, metrics, .. } = &*context;
            metrics.clock_skewed_by(clock.skew().unwrap_or_default());
            metrics.text(stores, gate, lease.is_leading(), clock.now().into())
        }
    }

    /// Returns a token that is cancelled once every watch has delivered its first list. A process that leads before would do
    /// nothing.
    pub fn caches_are_full(&self) -> CancellationToken {
        self.full.clone()
    }

    /// Runs until `shutdown`, then gives running reconciles some seconds to finish.
    ///
    /// # Errors
    /// A part of the controller ended unexpectedly.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), EndedUnexpectedly> {
        let mut watches = self.start_watches();
        tokio::select! {
            result = self.lead(&shutdown) => result,
            _ = watches.join_next() => Err(EndedUnexpectedly("watch")),
        }
    }

    /// Starts a watch for each kind in each namespace, or in all.
    fn start_watches(&self) -> JoinSet<()> {
        let scopes: Vec<Option<String>> = match self.options.namespaces.as_slice() {
            [] => vec![None],
            namespaces => namespaces.iter().cloned().map(Some).collect(),
        };
        let issuers = self.options.issuers.clone();
        let cluster_wide = [self.watches_owners, issuers.cluster, issuers.namespaced];
        let cluster_wide = cluster_wide.into_iter().filter(|watched| *watched).count();
        self.missing_lists.send_replace(2 * scopes.len() + cluster_wide);
        let mut watches = JoinSet::new();
        let stores = &self.context.stores;
        for scope in scopes {
            let pats = PatHandler::new(stores.clone(), scope.clone());
            let selector = self.options.label_selector.clone();
            let api = scoped(&self.client, scope.as_deref());
            watches.spawn(self.watch(WatchedKind::Pat, api, selector, pats));
            let secrets = SecretHandler::new(stores.clone(), scope.clone());
            let managed = Some(format!("{MANAGED_BY_LABEL}={MANAGED_BY}"));
            let api = scoped(&self.client, scope.as_deref());
            watches.spawn(self.watch(WatchedKind::Secret, api, managed, secrets));
        }
        if self.watches_owners {
            let owners = OwnerHandler::new(stores.clone());
            watches.spawn(self.watch(WatchedKind::Owner, Api::all(self.client.clone()), None, owners));
        }
        if let Some(all) = self.issuers.as_ref().filter(|_| issuers.cluster) {
            let handler = IssuerHandler::<StoredClusterTokenIssuer>::new(all.clone());
            watches.spawn(self.watch(WatchedKind::ClusterIssuer, Api::all(self.client.clone()), None, handler));
        }
        if let Some(all) = self.issuers.as_ref().filter(|_| issuers.namespaced) {
            let handler = IssuerHandler::<StoredTokenIssuer>::new(all.clone());
            watches.spawn(self.watch(WatchedKind::Issuer, Api::all(self.client.clone()), None, handler));
        }
        watches
    }

    /// Watches until the process ends, and dispatches the events.
    fn watch<H: EventHandler + 'static>(
        &self,
        kind: WatchedKind,
        api: Api<H::Object>,
        labels: Option<String>,
        handler: H,
    ) -> impl Future<Output = ()> + Send + use<H> {
        let (context, missing_lists) = (self.context.clone(), self.missing_lists.clone());
        let mut had_list = false;
        let report = move |result: Result<Triggers, watcher::Error>| match result {
            Ok(triggers) => {
                if triggers.list_complete && !std::mem::replace(&mut had_list, true) {
                    missing_lists.send_modify(|missing| *missing -= 1);
                }
                context.dispatch(triggers);
            }
            Err(error) => {
                context.metrics.watch_failed(kind);
                let why = watches::explain(&error);
                tracing::warn!(kind = kind.as_str(), "watch interrupted, restarting: {why}");
            }
        };
        async move { watches::watch(api, labels.as_deref(), handler, report).await }
    }

    /// Serves terms of leadership, one after the other, until `shutdown`.
    async fn lead(&self, shutdown: &CancellationToken) -> Result<(), EndedUnexpectedly> {
        // This waits for Secrets too: otherwise a restart would read each one from the API server.
        tokio::select! {
            _ = async { self.missing_lists.subscribe().wait_for(|missing| *missing == 0).await.map(drop) } => {}
            () = shutdown.cancelled() => return Ok(()),
        }
        self.caches_full.pass("");
        self.full.cancel();
        loop {
            tokio::select! {
                () = self.context.lease.leading() => {}
                () = shutdown.cancelled() => return Ok(()),
            }
            self.serve_term(shutdown).await?;
            if shutdown.is_cancelled() {
                return Ok(());
            }
            tracing::warn!("no longer leading: nothing is reconciled until the lease is held again");
        }
    }

    /// Runs kube's `Controller` for one term of leadership: until the lease is lost, or `shutdown`. Then running reconciles finish,
    /// and no others start.
    async fn serve_term(&self, shutdown: &CancellationToken) -> Result<(), EndedUnexpectedly> {
        let context = &self.context;
        // Opened before the stores are read, so that no event is missed in between.
        let triggers = context.gate.open();
        let pats = context.stores.keys();
        tracing::info!(pats = pats.len(), "leading: reconciling every PersonalAccessToken");
        pats.into_iter().for_each(|pat| context.gate.trigger(pat));

        let mut issuers = JoinSet::new();
        if let Some(all) = &self.issuers {
            issuers.spawn(all.clone().run());
        }
        let term = CancellationToken::new();
        let outcomes = Controller::for_stream(stream::pending(), context.stores.pats())
            .with_config(Config::default().concurrency(self.slots()))
            .reconcile_on(triggers.map(|pat| pat.pat_ref()))
            .graceful_shutdown_on(term.clone().cancelled_owned())
            .run(reconcile, error_policy, context.clone());
        let mut outcomes = pin!(consume(outcomes, context));
        let result = tokio::select! {
            () = &mut outcomes => Err(EndedUnexpectedly("controller")),
            () = context.lease.lost() => Ok(()),
            () = shutdown.cancelled() => {
                tracing::info!("stopping: finishing running reconciles");
                Ok(())
            }
        };
        term.cancel();
        issuers.shutdown().await;
        if result.is_ok() {
            let limit = async {
                shutdown.cancelled().await;
                sleep(FINISH_LIMIT).await;
            };
            tokio::select! {
                () = &mut outcomes => {}
                () = limit => {}
            }
        }
        context.end_term();
        result
    }

    /// Returns how many reconciles kube may start at a time: those that run, and as many again that enter the gate only to be
    /// parked.
    fn slots(&self) -> u16 {
        u16::try_from(2 * self.options.concurrency).unwrap_or(u16::MAX)
    }
}

/// Consumes the results of kube's `Controller` until it ends.
async fn consume(
    outcomes: impl Stream<Item = Result<(ObjectRef<StoredPat>, Action), ControllerError<Error, watcher::Error>>>,
    context: &Context,
) {
    let mut outcomes = pin!(outcomes);
    while let Some(outcome) = outcomes.next().await {
        // `error_policy` has handled the errors of reconciles. This error means that a PAT was deleted before its
        // reconcile started.
        if let Err(ControllerError::ObjectNotFound(pat)) = outcome {
            context.forget(&NamespacedName::new(pat.namespace.as_deref().unwrap_or_default(), &pat.name));
        }
    }
}
