//! pat-operator: personal access tokens for Kubernetes.
//!
//! From the bottom up: [`token`] mints and parses tokens, [`api`] holds the resource types, [`secret`] renders Secrets, and [`auth`] decides
//! whether a token is accepted. [`planner`] is the I/O-free core, and [`index`] the watch-fed store. [`controller`], [`verifier`], [`rest`] and
//! [`certificates`] use them but not each other, and `plugin` is the `kubectl pat` command. [`service`] has what any long-running program needs,
//! and [`programs`] wires everything. The test `layers` lists which module may use which.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod api;
pub mod auth;
pub mod certificates;
pub mod cli;
pub mod controller;
pub mod index;
pub mod issuer;
pub mod planner;
#[cfg(feature = "plugin")]
pub mod plugin;
pub mod programs;
pub mod rest;
pub mod secret;
pub mod service;
pub mod token;
pub mod verifier;
