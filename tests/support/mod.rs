//! What the tests on the real API server share.
#![allow(dead_code, reason = "each test binary uses its part")]

pub mod breaks;
pub mod checked_in;
pub mod clients;
pub mod crd;
pub mod faults;
pub mod module;
pub mod process;
pub mod recorder;
pub mod stage;
