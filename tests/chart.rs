//! The Helm chart: what it says of itself, what it renders, and that it works: installed, upgraded, rolled back and taken away on a real
//! API server, with the operator as its ServiceAccounts and nothing more.

mod support;

#[allow(dead_code, reason = "each test binary uses its part")]
#[path = "support/fences.rs"]
mod fences;
#[path = "proxies/programs.rs"]
mod programs;

mod chart {
    mod certificates;
    mod dependent;
    mod deployed;
    mod dry_run;
    mod files;
    mod hardening;
    mod helm;
    mod life;
    mod matrix;
    mod monitoring;
    mod next;
    mod notes;
    mod plain;
    mod readme;
    mod refusals;
    mod release;
    mod rest;
    mod restored;
    mod schema;
    mod velero;
}
