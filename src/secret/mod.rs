//! The content of the Secret: renders a spec and a token to bytes, and to the hashes that show whether they must be
//! written.
//!
//! Pure and synchronous. The same input always gives the same bytes; otherwise a restart would rewrite every Secret. Plain tokens come in
//! as text, and every buffer that holds one is zeroized when it is dropped.
//!
//! ```text
//! Layout::read(spec)  ->  Layout  ->  render_hash(facts)             does the spec still ask for what was written?
//!                                 ->  render(token, previous, facts) the data of the Secret
//! cleared_data(type)              ->                                 its data when no token is live
//! ```
//!
//! [`Layout::read`] finds every mistake in the spec before a token is minted.

mod buffer;
mod hash;
mod layout;
mod placeholder;
mod preset;
mod render;
mod template;
#[cfg(test)]
mod tests;

pub use hash::{Digest, data_hash};
pub use layout::{Layout, OPAQUE};
pub use placeholder::TemplateFacts;
pub use render::{Rendered, cleared_data};

/// The largest total size in bytes of the values of one Secret.
pub const MAX_DATA: usize = 64 * 1024;
