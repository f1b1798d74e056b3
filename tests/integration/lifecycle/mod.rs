//! The lifecycle of a token on a real API server: issue, rotation, grace period, expiry, revocation and delivery.
//!
//! Every test has a stage: a namespace, an operator in this process, and a clock that the test controls.

use crate::support::states;

mod clocks;
mod delivery;
mod expiry;
mod issue;
mod observe;
mod presets;
mod revocation;
mod rotation;
mod secret;
mod status;
mod suspend;
mod terms;
mod year;
