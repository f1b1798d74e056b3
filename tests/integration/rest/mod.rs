//! The REST API on a real API server with a real controller: what it returns, what it leaves behind when a request
//! fails, and what prevents its start.
//!
//! Unit tests beside the code cover each parameter.

use crate::support::rest as stage;

mod access_log;
mod audience;
mod change;
mod command;
mod create;
mod delete;
mod exchange;
mod faults;
mod foreign_tokens;
mod in_process;
mod parent;
mod recheck;
mod regenerate;
mod staleness;
mod taken_back;
mod tls;
mod undelivered;
