//! Counters and histograms that many threads update without contention.
//!
//! Each thread updates its own shard, and reading adds up all shards. prometheus-client's counter is one atomic number, whose
//! cache line would move between processors at every decision, and its histogram takes a lock.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::{MetricType, TypedMetric},
};

/// Number of shards. More threads than that share them.
const SHARDS: usize = 8;

/// Upper bounds of all buckets but the last, in nanoseconds: from a lookup in the processor's cache to an overloaded machine.
const BOUNDS: [u64; 12] =
    [250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000];

/// One `T` per shard.
#[derive(Debug, Default)]
pub struct Sharded<T>([CacheLine<T>; SHARDS]);

/// A value that shares its cache line with no other.
#[derive(Debug, Default)]
#[repr(align(64))]
struct CacheLine<T>(T);

impl<T> Sharded<T> {
    /// Returns the shard of this thread.
    pub fn local(&self) -> &T {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static SHARD: usize = THREADS.fetch_add(1, Ordering::Relaxed) % SHARDS;
        }
        &self.0[SHARD.with(|shard| *shard)].0
    }

    /// Returns all shards.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|line| &line.0)
    }
}

/// A sharded counter. Clones share its value.
#[derive(Clone, Debug, Default)]
pub struct ShardedCounter(Arc<Sharded<AtomicU64>>);

impl ShardedCounter {
    /// Adds one.
    pub fn inc(&self) {
        self.0.local().fetch_add(1, Ordering::Relaxed);
    }
}

impl TypedMetric for ShardedCounter {
    const TYPE: MetricType = MetricType::Counter;
}

impl EncodeMetric for ShardedCounter {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let total: u64 = self.0.iter().map(|shard| shard.load(Ordering::Relaxed)).sum();
        encoder.encode_counter::<NoLabelSet, _, u64>(&total, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

/// A sharded histogram of durations. Clones share its values.
#[derive(Clone, Debug, Default)]
pub struct ShardedHistogram(Arc<Sharded<Buckets>>);

#[derive(Debug, Default)]
struct Buckets {
    counts: [AtomicU64; BOUNDS.len() + 1],
    total_nanos: AtomicU64,
}

impl ShardedHistogram {
    /// Adds one duration.
    pub fn observe(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.iter().position(|bound| nanos <= *bound).unwrap_or(BOUNDS.len());
        let buckets = self.0.local();
        buckets.counts[bucket].fetch_add(1, Ordering::Relaxed);
        buckets.total_nanos.fetch_add(nanos, Ordering::Relaxed);
    }
}

impl TypedMetric for ShardedHistogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for ShardedHistogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let seconds = |nanos: u64| Duration::from_nanos(nanos).as_secs_f64();
        let bounds = BOUNDS.iter().map(|bound| seconds(*bound)).chain([f64::INFINITY]);
        let total = |of: &dyn Fn(&Buckets) -> &AtomicU64| -> u64 {
            self.0.iter().map(|buckets| of(buckets).load(Ordering::Relaxed)).sum()
        };
        let counts = (0..=BOUNDS.len()).map(|bucket| total(&|buckets| &buckets.counts[bucket]));
        let buckets: Vec<_> = bounds.zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let nanos = total(&|buckets| &buckets.total_nanos);
        encoder.encode_histogram::<NoLabelSet>(seconds(nanos), count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::{encoding::text::encode, registry::Registry};

    use super::*;

    #[test]
    fn a_counter_adds_up_the_shards_of_all_threads() {
        let (counter, mut registry) = (ShardedCounter::default(), Registry::default());
        registry.register("events", "Events", counter.clone());
        std::thread::scope(|scope| {
            for _ in 0..3 * SHARDS {
                scope.spawn(|| (0..100).for_each(|_| counter.inc()));
            }
        });
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        assert!(text.lines().any(|line| line == format!("events_total {}", 300 * SHARDS)), "{text}");
    }

    #[test]
    fn a_duration_is_counted_in_its_bucket_and_all_larger_ones() {
        let (histogram, mut registry) = (ShardedHistogram::default(), Registry::default());
        registry.register("took", "Times", histogram.clone());
        for nanos in [0, 250, 251, 1_000_000_000, 1_000_000_001] {
            histogram.observe(Duration::from_nanos(nanos));
        }
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "took_sum 2.000000502",
            "took_count 5",
            r#"took_bucket{le="2.5e-7"} 2"#,
            r#"took_bucket{le="5e-7"} 3"#,
            r#"took_bucket{le="1.0"} 4"#,
            r#"took_bucket{le="+Inf"} 5"#,
        ] {
            assert!(text.lines().any(|one| one == line), "no {line} in:\n{text}");
        }
    }
}
