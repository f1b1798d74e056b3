//! Certificates that the operator's own servers serve with, where nobody else makes any: an authority, a certificate by it, and both anew in time.
//!
//! ```text
//! Secret (get) -> held -> plan (pure) -> make -> Secret (create, update with its version) -> ConfigMap with what to trust
//! ```
//!
//! Servers read them from files, as they read every other certificate. It must not know what is served, nor what a token is.

pub mod authority;
pub mod error;
pub mod keeper;
pub mod material;
pub mod metrics;
pub mod plan;
pub mod preflight;
pub mod stored;
#[cfg(test)]
mod tests;
pub mod wanted;

pub use error::Error;
pub use keeper::Keeper;
pub use wanted::Wanted;
