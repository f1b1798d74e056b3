//! The verifier on a real API server: how soon it sees changes, what it does without the API server, and what it writes.
//!
//! The binary runs as a process and is called over HTTP. Unit tests beside the code cover each protocol.

use crate::support::protocols;

mod certificates;
mod command;
mod grant;
mod index;
mod leak;
mod owners;
mod policy;
mod shutdown;
mod staleness;
mod usage;
