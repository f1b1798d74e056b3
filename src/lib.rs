//! pat-operator: personal access tokens for Kubernetes.
//!
//! Data goes one way: [`api`] and [`token`] know nobody; [`index`] knows both; [`decision`] knows these three; [`controller`] and
//! [`verifier`] know these, but not each other; [`runtime`] knows none of them, and [`certificates`] only
//! [`runtime`]; `main` wires.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod api;
pub mod certificates;
pub mod cli;
pub mod controller;
pub mod decision;
pub mod index;
pub mod rest;
pub mod runtime;
pub mod token;
pub mod verifier;
