//! Writes to Kubernetes: tokens are created, changed, regenerated and deleted.
//!
//! Every write carries the version that it was decided on, and waits until the store shows its result, so that the next list includes it.

mod cascade;
mod change;
mod create;
mod delivery;
mod regenerate;

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    api::{DeleteParams, DynamicObject, Preconditions},
    core::{ApiResource, GroupVersionKind, Status},
};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, error, warn};

use super::{
    error::{Conflict, RestError},
    metrics::UndeliveredTokenCounters,
    model::TokenItem,
    store::TokenStore,
};
use crate::{
    api::{GROUP, VERSION},
    index::{Index, PatUid},
    service::explain_api_error,
};

/// The field manager of all writes.
pub const FIELD_MANAGER: &str = "pat-operator-api";

/// The time limit of a request to the API server.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// The time that tasks have to log that they give up.
const LOG_TIMEOUT: Duration = Duration::from_millis(200);

/// How long a write waits for the store to show it.
const STORE_TIMEOUT: Duration = Duration::from_secs(5);

/// The maximum number of attempts of a write that conflicts with those of the controller.
const MAX_ATTEMPTS: usize = 6;

/// When a client should retry.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Writes to one namespace.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    namespace: String,
    index: Arc<Index>,
    store: Arc<TokenStore>,
    /// Work that must not stop half-way when a client disconnects or the server stops.
    tasks: TaskTracker,
    /// The server begins to stop.
    stopping: CancellationToken,
    /// The server stops now.
    given_up: CancellationToken,
    counters: UndeliveredTokenCounters,
}

impl Writer {
    /// Creates a writer. `index` and `store` show the results of its writes.
    pub fn new(client: Client, namespace: String, index: Arc<Index>, store: Arc<TokenStore>) -> Self {
        Self {
            client,
            namespace,
            index,
            store,
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            given_up: CancellationToken::new(),
            counters: UndeliveredTokenCounters::default(),
        }
    }

    /// Counts undelivered tokens with these counters.
    #[must_use]
    pub fn with_counters(mut self, counters: UndeliveredTokenCounters) -> Self {
        self.counters = counters;
        self
    }

    /// Waits for all work in progress. Returns false if some does not end in time.
    pub async fn finish(&self, limit: Duration) -> bool {
        self.stopping.cancel();
        self.tasks.close();
        if timeout(limit, self.tasks.wait()).await.is_ok() {
            return true;
        }
        self.given_up.cancel();
        let _logged = timeout(LOG_TIMEOUT, self.tasks.wait()).await;
        false
    }

    /// Runs work to its end, even if the caller stops waiting.
    pub(super) async fn run_to_completion<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, RestError> {
        self.tasks.spawn(work.in_current_span()).await.map_err(|_| RestError::Internal)
    }

    /// Deletes a token, and waits until the store shows it. `allowed` checks the version that is deleted, as the store may be stale.
    pub async fn delete(
        &self,
        item: &TokenItem,
        allowed: impl Fn(&TokenItem) -> Result<(), RestError> + Send,
    ) -> Result<(), RestError> {
        for attempt in 1.. {
            let present = change::read(&self.present(item).await?).ok_or(RestError::NotFound)?;
            allowed(&present)?;
            match self.delete_pat(&present.name, present.id, Some(present.resource_version)).await {
                Ok(()) => break,
                // If another object has the name now, the next read detects it.
                Err(error) => check_retry(error, attempt, "delete a token")?,
            }
        }
        self.wait_until(Instant::now() + STORE_TIMEOUT, || self.store.item(item.id).is_none().then_some(())).await;
        Ok(())
    }

    /// Deletes the object with this name, if it has this uid and, if given, this version.
    async fn delete_pat(&self, name: &str, uid: PatUid, version: Option<String>) -> Result<(), ApiServerError> {
        let preconditions = Preconditions { uid: Some(uid.hyphenated()), resource_version: version };
        let params = DeleteParams::default().preconditions(preconditions);
        call(self.pats().delete(name, &params)).await.map(drop)
    }

    /// Waits until `find` returns something, calling it after each change of the store; `None` after the deadline.
    async fn wait_until<T>(&self, deadline: Instant, mut find: impl FnMut() -> Option<T>) -> Option<T> {
        let mut changes = self.store.changes();
        loop {
            changes.mark_unchanged();
            if let Some(found) = find() {
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

/// Returns `Ok` if a write that is based on a version can be tried again with a newer one.
fn check_retry(error: ApiServerError, attempt: usize, action: &'static str) -> Result<(), RestError> {
    match error.code() {
        // Usually the controller has written its status.
        Some(409) if attempt < MAX_ATTEMPTS => Ok(()),
        Some(409) => Err(RestError::Conflict(Conflict::Changed)),
        _ => Err(error.into_rest_error(action)),
    }
}

/// Sends a request with a timeout.
async fn call<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, ApiServerError> {
    match timeout(CALL_TIMEOUT, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(ApiServerError::Failed(error)),
        Err(_) => Err(ApiServerError::Timeout(CALL_TIMEOUT)),
    }
}

/// The texts that the API server puts before the message of an admission policy or webhook.
const DENIED: [&str; 2] = ["denied request", "denied the request"];

/// The beginnings of guard rail messages that are meant for callers (charts/pat-operator/policies).
const FOR_CALLERS: [&str; 3] = ["the REST API may not issue tokens for ", "spec.scopes: ", "spec.expiry: "];

/// Why a request to the API server failed.
#[derive(Debug, thiserror::Error)]
enum ApiServerError {
    /// It was refused, or the connection broke.
    #[error("{}", explain_api_error(.0))]
    Failed(kube::Error),
    /// It timed out.
    #[error("the API server did not answer within {} s", .0.as_secs())]
    Timeout(Duration),
}

impl ApiServerError {
    /// Returns the status code of the response, if there was one.
    fn code(&self) -> Option<u16> {
        self.status().map(|status| status.code)
    }

    /// Whether the request may have taken effect.
    fn is_ambiguous(&self) -> bool {
        self.code().is_none_or(|code| code >= 500)
    }

    fn status(&self) -> Option<&Status> {
        match self {
            Self::Failed(kube::Error::Api(status)) => Some(status),
            Self::Failed(_) | Self::Timeout(_) => None,
        }
    }

    /// Returns the error for the caller, and logs what only the operator may see.
    fn into_rest_error(self, action: &str) -> RestError {
        let Some(status) = self.status() else {
            warn!(error = %self, action, "cannot reach the API server");
            return unavailable();
        };
        if DENIED.iter().any(|denied| status.message.contains(denied)) {
            warn!(error = %self, action, "an admission policy or webhook of the cluster denied a request");
            // Most messages are for administrators and may name accounts that the caller must not learn of.
            let message =
                message_for_callers(&status.message).unwrap_or("a policy of this cluster does not allow this");
            return RestError::Forbidden(message.to_owned());
        }
        match status.code {
            404 => RestError::NotFound,
            400 | 422 => invalid(status, action),
            429 | 500.. => {
                warn!(error = %self, action, "the API server failed or is overloaded");
                unavailable()
            }
            _ => {
                error!(error = %self, action, "the API server refused a request that this server needs: check its permissions");
                RestError::Internal
            }
        }
    }
}

/// Returns the message of one of our guard rails, if it is meant for callers.
fn message_for_callers(message: &str) -> Option<&str> {
    let (policy, message) = message.split_once(" denied request: ")?;
    let is_for_callers = FOR_CALLERS.iter().any(|begin| message.starts_with(begin));
    (policy.contains("ValidatingAdmissionPolicy '") && is_for_callers).then_some(message)
}

fn unavailable() -> RestError {
    RestError::Unavailable { problem: "tokens cannot be changed at the moment: try again", retry_after: RETRY_AFTER }
}

fn invalid(status: &Status, action: &str) -> RestError {
    let cause = status.details.iter().flat_map(|details| &details.causes).find(|cause| !cause.field.is_empty());
    match cause {
        Some(cause) => {
            // `Invalid value: "object": message`
            let message = cause.message.rsplit_once("\": ").map_or(cause.message.as_str(), |(_, message)| message);
            RestError::invalid(&*cause.field, message)
        }
        None => {
            warn!(error = status.message, action, "the API server rejected a request as invalid");
            RestError::invalid("spec", "the cluster does not accept this token")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rest_error(code: u16, message: &str) -> RestError {
        let status = Status { code, message: message.into(), ..Status::default() };
        ApiServerError::Failed(kube::Error::Api(status.boxed())).into_rest_error("test")
    }

    #[test]
    fn messages_of_cluster_policies_do_not_reach_the_caller() {
        let policy = "personalaccesstokens.pat-operator.io \"x\" is forbidden: ValidatingAdmissionPolicy 'guard' with binding \
            'guard' denied request: system:serviceaccount:ops:secret-robot may not";
        let webhook = "admission webhook \"hook.ops.svc\" denied the request: secret-robot may not";
        let hidden = RestError::Forbidden("a policy of this cluster does not allow this".into());
        for message in [policy, webhook] {
            for code in [400, 403, 422] {
                assert_eq!(rest_error(code, message), hidden, "{message}");
            }
        }
        let words = "spec.scopes: ask your administrator";
        let ours = policy.replace("system:serviceaccount:ops:secret-robot may not", words);
        assert_eq!(rest_error(422, &ours), RestError::Forbidden(words.into()));
        let other = rest_error(422, "hook.ops.svc says no");
        assert_eq!(other, RestError::invalid("spec", "the cluster does not accept this token"));
    }
}
