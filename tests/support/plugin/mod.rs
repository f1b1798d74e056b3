//! `kubectl pat` as a person runs it, and a terminal to run it in.

pub mod hand;
pub mod tty;
