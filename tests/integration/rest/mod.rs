//! The REST API on a real API server with a real controller: what it returns, what it leaves behind when a request breaks off,
//! and what keeps it from starting.
//!
//! Unit tests beside the code cover each parameter.

use crate::support::rest as stage;

mod audience;
mod change;
mod command;
mod create;
mod delete;
mod elsewhere;
mod exchange;
mod inside;
mod judged_again;
mod killed;
mod regenerate;
mod staleness;
mod taken_back;
mod tls;
mod told;
mod undelivered;
