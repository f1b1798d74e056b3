//! The watch-fed store of live credentials: SHA-256 of a token → whose it is and what it may do.
//!
//! Readers never wait: a look-up loads an immutable shard. It knows the resource and must not know any protocol, nor
//! judge anything: that is `api::verdict` and `verifier::decision`.

mod record;
mod store;

pub use record::{Credential, Pat, PatUid, Record};
pub use store::Index;
