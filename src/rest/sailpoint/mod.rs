//! SailPoint's dialect: personal access tokens under `/beta`, `/v3`, `/v2024`, `/v2025` and, newer, `/personal-access-tokens/v1`.
//!
//! It parses, checks rights, asks the service, and writes items and errors as SailPoint does. It must not read or write Kubernetes
//! by itself, nor know another dialect.

mod access;
mod bulk;
mod create;
mod family;
mod filters;
mod handlers;
mod json;
mod listing;
mod names;
mod openapi;
mod patch;
mod refusal;
mod stream;
#[cfg(test)]
mod tests;
mod token;

use axum::response::{IntoResponse, Response};

use self::refusal::Refusal;
use super::{failure::Failure, request_id::RequestId};

pub use handlers::routes;
pub use openapi::openapi;

/// The older versions.
const VERSIONS: [&str; 4] = ["/beta", "/v3", "/v2024", "/v2025"];

/// A failure of which only those around know, in this dialect's words.
pub(super) fn failed(failure: Failure, id: &RequestId) -> Response {
    Refusal::from(failure).tracked(id.to_string()).into_response()
}

/// What follows the older versions.
const TOKENS: &str = "/personal-access-tokens";

/// The newer version, and what it has that the older ones do not.
const V1: &str = "/personal-access-tokens/v1";
const BULK_UPDATE: &str = "/bulk-update";
