//! The chart with other programs: Prometheus checks its alerts, and Velero backs up and restores a release.

use crate::support::chart::{helm, release, velero};

mod monitoring;
mod restored;
