//! `kubectl pat` on the real API server, run by the real kubectl, with the real controller at work.
//!
//! The tests check what a person sees: stdout, stderr, the exit code, and the screen of a terminal.

use crate::support::plugin::{hand, tty};

mod change;
mod complete;
mod docs;
mod doctor;
mod list;
mod plan;
mod rights;
mod story;
mod terminal;
mod verify;
mod wait;
