//! `kubectl pat` with a real API server, kubectl and controller.
//!
//! The tests check what the user sees: stdout, stderr, the exit code, and the output of a terminal.

use crate::support::plugin::{runner, tty};

mod change;
mod complete;
mod docs;
mod doctor;
mod find;
mod issuers;
mod kubeconfigs;
mod list;
mod plan;
mod rights;
mod show;
mod story;
mod targets;
mod terminal;
mod verify;
mod wait;
