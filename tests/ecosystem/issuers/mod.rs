//! Drivers against the real servers of other systems.

mod gitea;
