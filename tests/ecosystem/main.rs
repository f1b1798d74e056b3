//! Tests with third-party programs: proxies, GitOps tools, backup tools, shells, and the vendors' client libraries.
//!
//! If a program is not available, its test is skipped with a message on stderr. With `CI=true` that is a failure.

#[path = "../support/mod.rs"]
mod support;

mod chart;
mod clients;
mod gitops;
mod issuers;
mod plugin;
mod proxies;
mod reader;
