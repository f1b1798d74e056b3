//! Serving certificates for the operator's own servers, where nothing else issues any: a private authority, and a certificate signed by it.
//!
//! ```text
//! Secret (get) -> state -> plan (pure) -> renew -> Secret (create, or update with its version) -> ConfigMap with the authority
//! ```
//!
//! Servers read them from files, like any other certificate.

mod bundle;
mod manager;
mod objects;
pub mod plan;
pub mod preflight;
mod request;
#[cfg(test)]
mod tests;

pub use manager::{CertificateManager, Error, RenewalOutcome};
pub use request::{CertificateRequest, ServerNames};
