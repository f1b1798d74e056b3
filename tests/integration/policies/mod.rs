//! The admission policies of the chart on a real API server, with real users: who may do what, by every way of writing,
//! and the message of each refusal.

use crate::support::policies::{guard, people};

mod deletion;
mod owners;
mod scopes;
mod secret_annotations;
mod status;
mod types;
mod write;
