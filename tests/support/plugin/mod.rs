//! `kubectl pat` as a user runs it, and a terminal to run it in.

pub mod runner;
pub mod tty;
