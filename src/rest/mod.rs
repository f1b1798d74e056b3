//! The REST API: lists, creates, changes and revokes tokens over HTTP, in the dialects of several products.
//!
//! All dialects share one model. [`store`] holds what the watches deliver, [`query`] answers every list, [`caller`] decides who may do
//! what, and [`service`] is all that a dialect calls. A dialect parses parameters, calls the service, and writes tokens and errors in its
//! own format.

pub mod access_token;
pub mod body;
pub mod caller;
pub mod cryptlex;
pub mod dialect;
pub mod error;
#[cfg(test)]
pub(crate) mod fixture;
pub mod metrics;
pub mod model;
pub mod oauth;
pub mod openapi;
pub mod preflight;
pub mod query;
pub mod rate_limit;
pub mod request;
pub mod response;
pub mod sailpoint;
pub mod server;
pub mod service;
pub mod store;
#[cfg(test)]
mod tests;
pub mod timestamp;
pub mod truefoundry;
pub mod write;
