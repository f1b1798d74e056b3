//! The reconcile function and the error policy that kube's `Controller` calls.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt;
use kube::runtime::controller::Action;
use tokio::time::{Instant, timeout};
use tracing::{Instrument, Span};

use super::{context::Context, error::Error, namespaced_name::NamespacedName};
use crate::api::{StoredPat, Time};

const RECONCILE_TIMEOUT: Duration = Duration::from_secs(60);

/// The longest delay between two reconciles of a PAT, because timers do not follow jumps of the wall clock.
const MAX_REQUEUE_DELAY: Duration = Duration::from_secs(600);

/// Reconciles one PAT, and returns when to reconcile it again.
///
/// # Errors
/// The reconcile failed; [`error_policy`] says when to try again.
pub async fn reconcile(pat: Arc<StoredPat>, ctx: Arc<Context>) -> Result<Action, Error> {
    let key = ctx.stores.key_of(&pat);
    // A process that was paused for longer than its lease can get here before the term ends.
    if !ctx.lease.is_leading() {
        ctx.gate.forget(&key);
        return Ok(Action::await_change());
    }
    ctx.skew_warning.check(ctx.reconciler.clock_skew());
    let Some(mut permit) = ctx.gate.enter(&key) else { return Ok(Action::await_change()) };
    let started = Instant::now();
    let result = isolated(&key, ctx.reconciler.reconcile(&key)).instrument(span(&pat)).await;
    ctx.metrics.reconciled(started.elapsed(), permit.lag(), result.as_ref().err());
    permit.begun(result.is_ok() && ctx.reconciler.is_rotation_begun(&key));
    drop(permit);
    let wake_at = result?;
    ctx.backoff.reset(&key);
    Ok(match wake_at {
        Some(wake_at) => ctx.requeue(&key, requeue_delay(&key, wake_at, ctx.reconciler.now())),
        None => Action::await_change(),
    })
}

/// Logs a failed reconcile and returns when to try again.
pub fn error_policy(pat: Arc<StoredPat>, error: &Error, ctx: Arc<Context>) -> Action {
    let key = ctx.stores.key_of(&pat);
    let delay = ctx.backoff.next(&key, error.retry_after());
    span(&pat).in_scope(|| {
        tracing::warn!(
            category = error.category(),
            retry_in_ms = delay.as_millis() as u64,
            "reconcile failed: {error}"
        );
    });
    ctx.requeue(&key, delay)
}

/// Catches a panic and enforces the timeout, so that neither affects other PATs.
async fn isolated(
    key: &NamespacedName,
    run: impl Future<Output = Result<Option<Time>, Error>>,
) -> Result<Option<Time>, Error> {
    match timeout(RECONCILE_TIMEOUT, AssertUnwindSafe(run).catch_unwind()).await {
        Ok(Ok(result)) => result,
        // The panic hook has logged the panic.
        Ok(Err(_)) => Err(Error::Panicked),
        Err(_) => Err(Error::Timeout { what: format!("reconcile {key}"), limit: RECONCILE_TIMEOUT }),
    }
}

/// Returns the delay until the next reconcile of a PAT.
fn requeue_delay(key: &NamespacedName, wake_at: Time, now: Time) -> Duration {
    let wait = Duration::try_from(wake_at.since(now)).unwrap_or(Duration::ZERO);
    wait.min(MAX_REQUEUE_DELAY.mul_f64(0.75 + 0.25 * key.jitter()))
}

/// Returns the span of one reconcile. Its level is error, so that no log filter drops it from a line. The field is `pat`, because in
/// JSON logs `name` is the name of the span.
fn span(pat: &StoredPat) -> Span {
    tracing::error_span!("reconcile", namespace = pat.namespace(), pat = pat.name(), uid = pat.uid())
}
