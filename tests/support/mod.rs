//! Helpers that the tests share.
#![allow(dead_code, reason = "each test binary uses only some of it")]

pub mod breaks;
pub mod chart;
pub mod checked_in;
pub mod clients;
pub mod crd;
pub mod faults;
pub mod fences;
pub mod module;
pub mod plugin;
pub mod policies;
pub mod process;
pub mod programs;
pub mod protocols;
pub mod recorder;
pub mod remote_stage;
pub mod rest;
pub mod stage;
pub mod states;
pub mod vendor;
pub mod workers;

/// Whether a test must be skipped, because this program is not available. It says so on stderr. In CI that is a failure.
pub fn is_left_out(program: control_plane::Binary) -> bool {
    control_plane::require(program).is_none()
}
