//! `kubectl pat` in other programs: krew installs it, and bash, zsh and fish complete its commands.

use crate::support::plugin::{hand, tty};

mod krew;
mod shells;
