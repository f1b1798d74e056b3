//! The watch-fed store of live credentials: SHA-256 of a token → whose it is and what it may do.
//!
//! Readers never wait: a look-up loads an immutable shard. It knows the resource and must not know any protocol, nor
//! judge anything: that is `api::verdict` and `verifier::decision`.

pub mod feed;
pub mod freshness;
pub mod probe;
mod record;
mod store;
#[cfg(test)]
mod tests;
mod text;
mod uid;
pub mod watch;

pub use freshness::{Freshness, Pulse};
pub use record::{Credential, Pat, Record};
pub use store::Index;
pub use text::Words;
pub use uid::{InvalidUid, PatUid};
