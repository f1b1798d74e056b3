//! What this API changes in Kubernetes: tokens that are made, changed, issued anew and deleted.
//!
//! Every change is told to the API server with what it was decided on, and waited for in the store, so that the next list has it. It
//! must not know any dialect, nor decide who may do what.

mod change;
mod create;
mod fields;
mod handover;
mod name;
mod regenerate;
mod trouble;

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    api::{DeleteParams, DynamicObject, Preconditions},
    core::{ApiResource, GroupVersionKind},
};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::TaskTracker;
use tracing::warn;

use self::trouble::Trouble;
use super::{failure::Failure, item::Item, store::Store};
use crate::{
    api::{GROUP, VERSION},
    index::{Index, PatUid},
};

/// Who writes, as `managedFields` shows it.
pub const FIELD_MANAGER: &str = "pat-operator-api";

/// How long one request to the API server may take.
const CALL: Duration = Duration::from_secs(5);

/// How long to wait for the store to show what was written.
const SHOWN: Duration = Duration::from_secs(5);

/// Writes to one namespace.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    namespace: String,
    index: Arc<Index>,
    store: Arc<Store>,
    /// What must not be left halfway when the client goes away, or the server stops.
    tasks: TaskTracker,
}

impl Writer {
    /// Writes to this namespace; `index` and `store` show what comes of it.
    pub fn new(client: Client, namespace: String, index: Arc<Index>, store: Arc<Store>) -> Self {
        Self { client, namespace, index, store, tasks: TaskTracker::new() }
    }

    /// Waits until everything that has begun is at its end.
    pub async fn finish(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Deletes a token, and waits until the store shows it.
    pub async fn delete(&self, item: &Item) -> Result<(), Failure> {
        match self.remove(&item.name, item.id).await {
            Ok(()) => {}
            // It is gone, or another one has its name.
            Err(trouble) if matches!(trouble.code(), Some(404 | 409)) => return Err(Failure::NotFound),
            Err(trouble) => return Err(trouble.into_failure("delete a token")),
        }
        self.until(Instant::now() + SHOWN, || self.store.item(item.id).is_none().then_some(())).await;
        Ok(())
    }

    /// Deletes the object of this name, if it still is the one with this uid.
    async fn remove(&self, name: &str, uid: PatUid) -> Result<(), Trouble> {
        let preconditions = Preconditions { uid: Some(uid.hyphenated()), resource_version: None };
        let params = DeleteParams::default().preconditions(preconditions);
        call(self.pats().delete(name, &params)).await.map(drop)
    }

    /// Takes a token back that nobody holds: tries until it is gone. The first try is over when this returns; the others go on.
    async fn abandon(&self, name: String, uid: PatUid) {
        let is_gone = |removed: &Result<(), Trouble>| match removed {
            Ok(()) => true,
            Err(trouble) => matches!(trouble.code(), Some(404 | 409)),
        };
        if is_gone(&self.remove(&name, uid).await) {
            return;
        }
        let this = self.clone();
        self.tasks.spawn(async move {
            for pause in [1, 2, 4, 8, 15] {
                tokio::time::sleep(Duration::from_secs(pause)).await;
                let removed = this.remove(&name, uid).await;
                if is_gone(&removed) {
                    return;
                }
                if let (Err(trouble), 15) = (removed, pause) {
                    warn!(name, why = %trouble, "a token that was not handed out cannot be deleted");
                }
            }
        });
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

/// One request, within its time.
async fn call<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, Trouble> {
    match timeout(CALL, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(Trouble::Failed(error)),
        Err(_) => Err(Trouble::Silent(CALL)),
    }
}
