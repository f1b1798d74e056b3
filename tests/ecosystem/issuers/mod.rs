//! Issuers against the real servers of other systems, and against clients of the vendors.

mod gitea;
mod rotation;
mod vendors;
