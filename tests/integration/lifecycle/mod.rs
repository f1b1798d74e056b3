//! The life of a token on the real API server: issue, rotation, grace period, expiry, revocation, and its Secret.
//!
//! Every test has a stage: a namespace, an operator in this process, and a clock that the test drives.

use crate::support::states;

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
