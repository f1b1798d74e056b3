//! `kubectl pat` with krew, bash, zsh and fish.

use crate::support::plugin::{runner, tty};

mod krew;
mod shells;
