//! What becomes of news of a watch in every program: it is counted and logged, and a full list is told to whoever waits for it.

use pat_operator::index::watch::{News, counters::WatchCounters};

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
