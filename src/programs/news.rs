//! What becomes of news of a watch in every program: it is counted and logged, and a full list is told to whoever waits for it; and what is told
//! of how new they are.

use std::sync::Arc;

use pat_operator::{
    index::{Freshness, Pulse},
    service::watch::{News, counters::WatchCounters},
};

/// Where objects are that belong to no namespace.
pub const CLUSTER: &str = "the cluster";

/// Hears the news of one watch, and calls `listed` when a full list is in.
pub fn tell(
    counters: WatchCounters,
    kind: &'static str,
    place: String,
    listed: impl Fn() + Send,
) -> impl Fn(News) + Send {
    move |news| {
        counters.hear(kind, &place, &news);
        if matches!(news, News::Listed) {
            listed();
        }
    }
}

/// What `/readyz` says of an index: not ready once it is lost, when every answer would be that nobody can tell.
pub fn freshness(pulse: Arc<Pulse>) -> impl Fn() -> Result<String, String> + Send + Sync + 'static {
    move || match pulse.freshness() {
        Freshness::Lost => Err("lost".to_owned()),
        freshness => Ok(format!("{freshness:?}").to_lowercase()),
    }
}
