//! The verifier's figures. No owner, no token, no id is a label.

use super::{Protocol, decision::Decision};

/// All figures of one verifier.
#[derive(Default)]
pub struct Metrics {}

impl Metrics {
    /// Counts a decision.
    pub fn decided(&self, _protocol: Protocol, _decision: &Decision) {}
}
