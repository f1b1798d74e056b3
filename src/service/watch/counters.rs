//! What is counted and logged of watches, the same in every program that has them.
//!
//! It must not know what else becomes of the news.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use tracing::{debug, warn};

use super::News;

/// The watch of tokens, as metrics and logs name it.
pub const PAT: &str = "PersonalAccessToken";

/// The watch of owners.
pub const OWNER: &str = "TokenOwner";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByKind {
    kind: &'static str,
}

/// How often watches broke, and how many lists they brought. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct WatchCounters {
    restarts: Family<ByKind, Counter>,
    lists: Family<ByKind, Counter>,
}

impl WatchCounters {
    /// Makes them known to whoever serves them, each at zero.
    pub fn register(&self, registry: &mut Registry) {
        for kind in [PAT, OWNER] {
            let kind = ByKind { kind };
            let _ = (self.restarts.get_or_create(&kind), self.lists.get_or_create(&kind));
        }
        registry.register("watch_restarts", "Interruptions of watches", self.restarts.clone());
        registry.register("watch_lists", "Full lists taken in", self.lists.clone());
    }

    /// Counts and logs news of the watch of this kind, which shows `place`: a namespace, or what else there is to say.
    pub fn hear(&self, kind: &'static str, place: &str, news: &News) {
        let count = |counter: &Family<ByKind, Counter>| counter.get_or_create(&ByKind { kind }).inc();
        match news {
            News::Listed => {
                count(&self.lists);
                debug!(kind, place, "all of them are listed");
            }
            News::Interrupted { interruption, failures: 0 } => {
                count(&self.restarts);
                warn!(why = %interruption, kind, place, "a watch broke; it begins anew");
            }
            News::Interrupted { interruption, failures } => {
                count(&self.restarts);
                debug!(why = %interruption, kind, place, failures, "a watch still fails");
            }
            News::LeftOut(why) => warn!(why, kind, place, "an event of a watch cannot be read"),
        }
    }
}
