//! Metrics and log lines of watches, the same in every program.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use tracing::{debug, warn};

use super::WatchStatus;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WatchLabels {
    kind: &'static str,
}

/// Counts interruptions and full lists of watches. Clones share the values.
#[derive(Clone, Debug, Default)]
pub struct WatchMetrics {
    restarts: Family<WatchLabels, Counter>,
    lists: Family<WatchLabels, Counter>,
}

impl WatchMetrics {
    /// Registers the counters, with a series at zero for each kind.
    pub fn register(&self, registry: &mut Registry, kinds: &[&'static str]) {
        for kind in kinds {
            let labels = WatchLabels { kind };
            let _ = (self.restarts.get_or_create(&labels), self.lists.get_or_create(&labels));
        }
        registry.register("watch_restarts", "Interruptions of watches", self.restarts.clone());
        registry.register("watch_lists", "Complete lists received", self.lists.clone());
    }

    /// Counts and logs a report. `scope` is the namespace, or a description of what is watched.
    pub fn record(&self, kind: &'static str, scope: &str, status: &WatchStatus) {
        let count = |counter: &Family<WatchLabels, Counter>| counter.get_or_create(&WatchLabels { kind }).inc();
        match status {
            WatchStatus::Listed => {
                count(&self.lists);
                debug!(kind, scope, "list complete");
            }
            WatchStatus::Interrupted { interruption, failures: 0 } => {
                count(&self.restarts);
                warn!(why = %interruption, kind, scope, "watch interrupted, restarting");
            }
            WatchStatus::Interrupted { interruption, failures } => {
                count(&self.restarts);
                debug!(why = %interruption, kind, scope, failures, "watch still fails");
            }
            WatchStatus::Undecodable(why) => warn!(why, kind, scope, "cannot decode an event of a watch"),
        }
    }
}
