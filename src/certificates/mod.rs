//! Serving certificates for the operator's own servers, for clusters without another issuer: a private authority, and certificates that it
//! signs.
//!
//! ```text
//! Secret (get) -> state -> plan (pure) -> renew -> Secret (create, or update with its version) -> ConfigMap with the authority
//! ```
//!
//! Servers read these certificates from mounted files, like any other certificate.

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
