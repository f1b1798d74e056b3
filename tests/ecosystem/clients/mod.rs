//! Client libraries of the vendors, OAuth clients and an OpenAPI checker against the REST API and the verifier.

use crate::support::rest as stage;

mod cryptlex;
mod introspection;
mod openapi;
mod sailpoint;
mod truefoundry;
