//! What this API changes in Kubernetes: tokens that are made, changed, issued anew and deleted.
//!
//! Every change is told to the API server with what it was decided on, and waited for in the store, so that the next list has it. It
//! must not know any dialect, nor decide who may do what.

mod acknowledge;
mod change;
pub mod counters;
mod create;
mod fields;
mod handover;
mod name;
mod regenerate;
mod trouble;
mod unwanted;

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    api::{DeleteParams, DynamicObject, Preconditions},
    core::{ApiResource, GroupVersionKind},
};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;

use self::{counters::TakeBackCounters, trouble::Trouble};
use super::{
    failure::{Conflict, Failure},
    item::Item,
    store::Store,
};
use crate::{
    api::{GROUP, VERSION},
    index::{Index, PatUid},
};

/// Who writes, as `managedFields` shows it.
pub const FIELD_MANAGER: &str = "pat-operator-api";

/// How long one request to the API server may take.
const CALL: Duration = Duration::from_secs(5);

/// How long it may take to say what was given up.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// How long to wait for the store to show what was written.
const SHOWN: Duration = Duration::from_secs(5);

/// How often something is tried that meets writes of the controller's.
const TRIES: usize = 6;

/// Writes to one namespace.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    namespace: String,
    index: Arc<Index>,
    store: Arc<Store>,
    /// What must not be left halfway when the client goes away, or the server stops.
    tasks: TaskTracker,
    /// The server begins to stop, and: there is no more time.
    stopping: CancellationToken,
    given_up: CancellationToken,
    counters: TakeBackCounters,
}

impl Writer {
    /// Writes to this namespace; `index` and `store` show what comes of it.
    pub fn new(client: Client, namespace: String, index: Arc<Index>, store: Arc<Store>) -> Self {
        Self {
            client,
            namespace,
            index,
            store,
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            given_up: CancellationToken::new(),
            counters: TakeBackCounters::default(),
        }
    }

    /// The same, counting with these.
    #[must_use]
    pub fn with_counters(mut self, counters: TakeBackCounters) -> Self {
        self.counters = counters;
        self
    }

    /// Waits until everything that has begun is at its end, and no longer than this; false if something is not.
    pub async fn finish(&self, within: Duration) -> bool {
        self.stopping.cancel();
        self.tasks.close();
        if timeout(within, self.tasks.wait()).await.is_ok() {
            return true;
        }
        self.given_up.cancel();
        // What is given up is told, in a moment.
        let _told = timeout(LAST_WORDS, self.tasks.wait()).await;
        false
    }

    /// Does this to its end, even if whoever waits for it goes away.
    pub(super) async fn to_the_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Failure> {
        self.tasks.spawn(work.in_current_span()).await.map_err(|_| Failure::Internal)
    }

    /// Deletes a token, and waits until the store shows it. `allowed` judges what is deleted, as the API server has it: the store may be
    /// behind.
    pub async fn delete(
        &self,
        item: &Item,
        allowed: impl Fn(&Item) -> Result<(), Failure> + Send,
    ) -> Result<(), Failure> {
        for tries in 1.. {
            let present = change::read(&self.present(item).await?).ok_or(Failure::NotFound)?;
            allowed(&present)?;
            match self.remove(&present.name, present.id, Some(present.resource_version)).await {
                Ok(()) => break,
                // If another one has its name, that is seen when it is read again.
                Err(trouble) => may_be_tried_again(trouble, tries, "delete a token")?,
            }
        }
        self.until(Instant::now() + SHOWN, || self.store.item(item.id).is_none().then_some(())).await;
        Ok(())
    }

    /// Deletes the object of this name, if it still is the one with this uid, and, where one is given, of this version.
    async fn remove(&self, name: &str, uid: PatUid, version: Option<String>) -> Result<(), Trouble> {
        let preconditions = Preconditions { uid: Some(uid.hyphenated()), resource_version: version };
        let params = DeleteParams::default().preconditions(preconditions);
        call(self.pats().delete(name, &params)).await.map(drop)
    }

    /// Waits until `look` finds something, looking again after each change of the store; `None` if the time is over.
    async fn until<T>(&self, deadline: Instant, mut look: impl FnMut() -> Option<T>) -> Option<T> {
        let mut changes = self.store.changes();
        loop {
            changes.mark_unchanged();
            if let Some(found) = look() {
                return Some(found);
            }
            if timeout_at(deadline, changes.changed()).await.is_err() {
                return None;
            }
        }
    }

    fn pats(&self) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk(GROUP, VERSION, "PersonalAccessToken");
        Api::namespaced_with(self.client.clone(), &self.namespace, &ApiResource::from_gvk(&kind))
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

/// Whether what is based on a version can be tried once more, with a newer one; `Err`: no.
fn may_be_tried_again(trouble: Trouble, tries: usize, what: &'static str) -> Result<(), Failure> {
    match trouble.code() {
        // Mostly the controller, which has written its status.
        Some(409) if tries < TRIES => Ok(()),
        Some(409) => Err(Failure::Conflict(Conflict::Changed)),
        _ => Err(trouble.into_failure(what)),
    }
}

/// One request, within its time.
async fn call<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, Trouble> {
    match timeout(CALL, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(Trouble::Failed(error)),
        Err(_) => Err(Trouble::Silent(CALL)),
    }
}
