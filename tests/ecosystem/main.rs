//! Tests with third-party programs: proxies, GitOps tools, backup tools, shells, and the vendors' client libraries.
//!
//! A program that cannot be had leaves its test out and says so on stderr. With `CI=true` that is a failure.

#[path = "../support/mod.rs"]
mod support;

mod chart;
mod clients;
mod gitops;
mod plugin;
mod proxies;
mod reader;
