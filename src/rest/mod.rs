//! The REST API: people and programs list, create, change and revoke tokens over HTTP, in the dialects of four products.
//!
//! One model, thin dialects: `store` holds what a watch brings of one namespace, `query` answers every list, `rights` says who
//! may do what, `service` is all that a dialect may call. A dialect parses its parameters, asks the service, and writes items
//! and errors its own way; none reads or writes Kubernetes by itself. It must not know the controller, nor the verifier's
//! protocols.

pub mod access_token;
pub mod body;
pub mod caller;
pub mod context;
pub mod cryptlex;
pub mod failure;
pub mod feed;
pub mod filter;
pub mod item;
pub mod key;
pub mod metrics;
pub mod oauth;
pub mod openapi;
pub mod order;
pub mod owners;
pub mod preflight;
pub mod query;
pub mod rate;
pub mod receipt;
pub mod reply;
pub mod request_id;
pub mod rights;
pub mod row;
pub mod sailpoint;
pub mod server;
pub mod service;
pub mod store;
#[cfg(test)]
mod tests;
pub mod truefoundry;
pub mod when;
#[cfg(test)]
pub(crate) mod world;
pub mod write;
