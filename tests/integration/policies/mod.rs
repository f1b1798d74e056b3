//! The chart's admission policies on a real API server, with real users: what they allow for each kind of write, and the message of
//! each refusal.

use crate::support::policies::{guard, people};

mod deletion;
mod issuers;
mod lifetimes;
mod owners;
mod parameters;
mod scopes;
mod secret_annotations;
mod secret_metadata;
mod status;
mod types;
mod write;
