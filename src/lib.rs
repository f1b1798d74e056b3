//! pat-operator: personal access tokens for Kubernetes.
//!
//! Data goes one way: [`api`] and [`token`] know nobody; [`index`] knows both; [`decision`] knows these three; [`controller`] and
//! [`verifier`] know these, but not each other; [`runtime`] knows none of them, and [`certificates`] only
//! [`runtime`]; `main` wires. `plugin`, what people hold in their hands, knows the API, tokens and the controller's planner; nobody
//! knows it.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod api;
pub mod auth;
pub mod certificates;
pub mod cli;
pub mod controller;
pub mod index;
pub mod planner;
#[cfg(feature = "plugin")]
pub mod plugin;
pub mod programs;
pub mod rest;
pub mod secret;
pub mod service;
pub mod token;
pub mod verifier;
