//! Numbers that many threads count into without getting in each other's way: each has a place of its own, and they are added up when
//! somebody asks. One place for all would go from one processor's cache to the next with each decision.
//!
//! It must not know what is counted.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::{MetricType, TypedMetric},
};

/// How many places there are: threads beyond it share.
const STRIPES: usize = 8;

/// A `T` for each of some threads.
#[derive(Debug, Default)]
pub struct Striped<T>([Line<T>; STRIPES]);

/// As long as what a processor fetches at a time.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line<T>(T);

impl<T> Striped<T> {
    /// The one of this thread.
    pub fn mine(&self) -> &T {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static STRIPE: usize = THREADS.fetch_add(1, Ordering::Relaxed) % STRIPES;
        }
        &self.0[STRIPE.with(|stripe| *stripe)].0
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|line| &line.0)
    }
}

/// A counter. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<Striped<AtomicU64>>);

impl Counter {
    /// Counts one.
    pub fn inc(&self) {
        self.0.mine().fetch_add(1, Ordering::Relaxed);
    }
}

impl TypedMetric for Counter {
    const TYPE: MetricType = MetricType::Counter;
}

impl EncodeMetric for Counter {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let total: u64 = self.0.iter().map(|part| part.load(Ordering::Relaxed)).sum();
        encoder.encode_counter::<NoLabelSet, _, u64>(&total, None)
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
    fn what_many_threads_count_is_added_up() {
        let (counter, mut registry) = (Counter::default(), Registry::default());
        registry.register("told", "What was told", counter.clone());
        std::thread::scope(|scope| {
            for _ in 0..3 * STRIPES {
                scope.spawn(|| (0..100).for_each(|_| counter.inc()));
            }
        });
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        assert!(text.lines().any(|line| line == format!("told_total {}", 300 * STRIPES)), "{text}");
    }
}
