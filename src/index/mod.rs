//! The watch-fed store that the verifier and the REST API read: live credentials by the SHA-256 of their token, and their owners.
//!
//! Readers never wait, because a lookup loads an immutable shard.

pub mod events;
pub mod freshness;
pub mod last_used;
mod lookup;
mod owners;
mod record;
mod store;
#[cfg(test)]
mod tests;
mod uid;

pub use freshness::IndexFreshness;
pub use owners::{OwnerDescription, OwnerIndex, OwnerProfile};
pub use record::{CredentialRef, IndexedCredential, IndexedPat, WordList};
pub use store::Index;
pub use uid::{InvalidUid, PatUid};

pub use crate::auth::decision::Freshness;

/// The watch of tokens, as metrics and logs name it.
pub const PAT_KIND: &str = "PersonalAccessToken";

/// The watch of owners, as metrics and logs name it.
pub const OWNER_KIND: &str = "TokenOwner";

/// Every kind of watch that feeds an index.
pub const WATCHED_KINDS: [&str; 2] = [PAT_KIND, OWNER_KIND];
