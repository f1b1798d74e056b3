//! What stands in the Secret: from a spec and a token to bytes, and to the hashes that tell whether they must be written.
//!
//! Pure and synchronous: the same input gives the same bytes for ever, or a restart would rewrite every Secret. It must not
//! know a Kubernetes client, a clock, how a token is made or whether it is still good. Tokens come in as text, and every
//! buffer that holds one is wiped when it goes.
//!
//! ```text
//! Layout::read(spec)  ->  Layout  ->  render_hash(facts)             is what was written still what is wanted?
//!                                 ->  render(token, previous, facts) the data of the Secret
//! blank(type)                     ->                                 its data when no token is live
//! ```
//!
//! [`Layout::read`] finds every mistake that a spec can contain, so that none comes to light between minting a token
//! and writing it.

mod buffer;
mod filter;
mod hash;
mod layout;
mod preset;
mod render;
mod rendered;
mod template;
#[cfg(test)]
mod tests;
mod variable;

pub use hash::{Digest, data_hash};
pub use layout::{Layout, OPAQUE};
pub use render::blank;
pub use rendered::Rendered;
pub use variable::Facts;

/// The largest number of bytes that all values of one Secret may have together.
pub const MAX_DATA: usize = 64 * 1024;
