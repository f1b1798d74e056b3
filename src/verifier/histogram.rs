//! A histogram of short times that any number of threads count into without waiting: prometheus-client's own has a lock.
//!
//! It must not know what is measured.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::{MetricType, TypedMetric},
};

use super::striped::Striped;

/// The upper ends of the buckets but the last, in nanoseconds: from a look-up in the processor's cache to a machine out of breath.
const ENDS: [u64; 12] =
    [250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000];

/// See the module. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Histogram(Arc<Striped<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    buckets: [AtomicU64; ENDS.len() + 1],
    nanos: AtomicU64,
}

impl Histogram {
    /// Counts one.
    pub fn observe(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = ENDS.iter().position(|end| nanos <= *end).unwrap_or(ENDS.len());
        let counts = self.0.mine();
        counts.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        counts.nanos.fetch_add(nanos, Ordering::Relaxed);
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let seconds = |nanos: u64| Duration::from_nanos(nanos).as_secs_f64();
        let ends = ENDS.iter().map(|end| seconds(*end)).chain([f64::INFINITY]);
        let total = |of: &dyn Fn(&Counts) -> &AtomicU64| -> u64 {
            self.0.iter().map(|counts| of(counts).load(Ordering::Relaxed)).sum()
        };
        let counts = (0..=ENDS.len()).map(|place| total(&|counts| &counts.buckets[place]));
        let buckets: Vec<_> = ends.zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let nanos = total(&|counts| &counts.nanos);
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
    fn each_time_is_counted_in_its_bucket_and_all_above() {
        let (histogram, mut registry) = (Histogram::default(), Registry::default());
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
