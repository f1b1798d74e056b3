//! The watch-fed store of live credentials: SHA-256 of a token → whose it is and what it may do; and of their owners.
//!
//! Readers never wait: a look-up loads an immutable shard. It knows the resource and must not know any protocol, nor
//! judge anything: that is [`crate::auth`].

pub mod feed;
pub mod freshness;
mod lookup;
mod owners;
pub mod probe;
mod record;
mod slots;
mod store;
#[cfg(test)]
mod tests;
mod text;
mod uid;
pub mod usage;

pub use freshness::Pulse;
pub use owners::{Description, Owners, Profile};
pub use record::{Credential, Pat, Record};
pub use store::Index;
pub use text::Words;
pub use uid::{InvalidUid, PatUid};

pub use crate::auth::decision::Freshness;
