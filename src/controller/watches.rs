//! The watches: kube's `watcher` for one kind in one namespace or in all, restarted whenever it is interrupted.

use std::time::Duration;

use futures::StreamExt;
use kube::{
    Api,
    runtime::{
        WatchStreamExt,
        utils::Backoff,
        watcher::{self, DefaultBackoff, watcher},
    },
};
use tokio::time::sleep;

use super::event_handlers::{EventHandler, Triggers};

/// The longest delay before an interrupted watch is retried. kube's default of 30 s would delay revocations for too
/// long.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// The delay before a new list, if the API server cannot continue the watch.
const WAIT_BEFORE_LIST: Duration = Duration::from_secs(1);

/// Watches the objects of an API, and never returns. It reports the consequences of each event, or why the watch was interrupted.
/// `labels` is a label selector.
pub async fn watch<H: EventHandler>(
    api: Api<H::Object>,
    labels: Option<&str>,
    mut handler: H,
    mut report: impl FnMut(Result<Triggers, watcher::Error>),
) {
    let mut config = watcher::Config::default().streaming_lists();
    if let Some(labels) = labels {
        config = config.labels(labels);
    }
    loop {
        let mut events = watcher(api.clone(), config.clone()).backoff(CappedBackoff::default()).boxed();
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => report(Ok(handler.handle(event))),
                Err(error) => {
                    let needs_list = needs_list(&error);
                    report(Err(error));
                    if needs_list {
                        break;
                    }
                }
            }
        }
        sleep(WAIT_BEFORE_LIST).await;
    }
}

/// Whether a new list is needed, because the API server answered the watch request with 410 Gone. kube's `watcher` handles 410 only as
/// an event and would repeat the request forever.
fn needs_list(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(kube::Error::Api(status)) if status.code == 410)
}

/// kube's default backoff, with a lower maximum.
#[derive(Default)]
struct CappedBackoff(DefaultBackoff);

impl Iterator for CappedBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next().map(|wait| wait.min(MAX_WAIT))
    }
}

impl Backoff for CappedBackoff {
    fn reset(&mut self) {
        self.0.reset();
    }
}

/// Explains in one line why a watch was interrupted.
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

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn backoff_grows_up_to_its_maximum_and_starts_again() {
        let mut backoff = CappedBackoff::default();
        let waits: Vec<_> = backoff.by_ref().take(20).collect();
        assert!(waits[0] < Duration::from_secs(2), "{waits:?}");
        assert_eq!(waits.last(), Some(&MAX_WAIT));
        backoff.reset();
        assert!(backoff.next().is_some_and(|wait| wait < Duration::from_secs(2)));
    }

    #[test]
    fn gone_in_the_answer_needs_a_new_list_and_gone_in_an_event_does_not() {
        let gone = || Status::failure("too old resource version", "Expired").with_code(410).boxed();
        assert!(needs_list(&watcher::Error::WatchStartFailed(kube::Error::Api(gone()))));
        assert!(!needs_list(&watcher::Error::WatchError(gone())), "kube's watcher lists again by itself");
    }
}
