//! The Helm chart: what it renders, and a release that is installed, upgraded, rolled back and removed on a real API server.
//!
//! The operator runs only with the permissions of its ServiceAccounts.

use crate::support::chart::{deployed, helm, next, release};

mod certificates;
mod dry_run;
mod files;
mod hardening;
mod install_file;
mod matrix;
mod notes;
mod parent_chart;
mod readme;
mod refusals;
mod rest;
mod schema;
mod upgrade;
mod values;
