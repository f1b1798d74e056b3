//! The chart's admission policies on a real API server, with real users: what they allow for each kind of write, and the message of
//! each refusal.

use crate::support::policies::{guard, people};

mod deletion;
mod owners;
mod scopes;
mod secret_annotations;
mod status;
mod types;
mod write;
