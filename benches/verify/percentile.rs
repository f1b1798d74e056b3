//! Mean, percentiles and the largest of many figures.
//!
//! Must not know what they are of.

use serde::{Deserialize, Serialize};

/// See the module.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Percentiles {
    /// How many figures there were.
    pub count: usize,
    /// Their mean.
    pub mean: f64,
    /// Half are no more than this.
    pub p50: f64,
    /// 99 of 100 are no more than this.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

impl Percentiles {
    /// Of these figures; of none, they are no numbers.
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
