//! Mean, percentiles and maximum of numbers.

use serde::{Deserialize, Serialize};

/// Statistics of some numbers.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Percentiles {
    /// How many numbers there are.
    pub count: usize,
    /// The mean.
    pub mean: f64,
    /// The median: half of the numbers are at most this.
    pub p50: f64,
    /// The 99th percentile: 99 of 100 numbers are at most this.
    pub p99: f64,
    /// The maximum.
    pub max: f64,
}

impl Percentiles {
    /// Computes the statistics. Without numbers, they are NaN.
    pub fn of(mut figures: Vec<f64>) -> Self {
        figures.sort_by(f64::total_cmp);
        let count = figures.len();
        let at = |share: f64| {
            let place = (count as f64 * share).ceil() as usize;
            figures.get(place.max(1) - 1).copied().unwrap_or(f64::NAN)
        };
        let mean = figures.iter().sum::<f64>() / count as f64;
        Self { count, mean, p50: at(0.5), p99: at(0.99), max: at(1.0) }
    }
}
