//! Integration tests on a real control plane. They need Rust and Go, and nothing else.
//!
//! Each module is one topic. `support` has what they share: stages, processes, faults and the recorder.

#[path = "../support/mod.rs"]
mod support;

mod admission;
mod adversity;
mod altered;
mod chart;
mod compatibility;
mod crash;
mod disabled_owner;
mod fence;
mod issuer;
mod issuer_faults;
mod issuer_orphans;
mod issuer_outage;
mod issuers;
mod layers;
mod leader;
mod lease;
mod lifecycle;
mod owners;
mod permissions;
mod plugin;
mod policies;
mod process;
mod rest;
mod secrets;
mod self_renewal;
mod verifier;
mod watches;
mod webhook;
