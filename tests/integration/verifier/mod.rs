//! The verifier on a real API server: what it knows and when, what it does when a watch is silent, and what it writes.
//!
//! The binary runs as a process and is called over HTTP. Unit tests beside the code cover each protocol.

use crate::support::protocols;

mod certificates;
mod command;
mod grant;
mod knowing;
mod leak;
mod owners;
mod policy;
mod shutdown;
mod staleness;
mod usage;
