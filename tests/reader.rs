//! Somebody who reads the pages from the top and does what they say: every manifest is applied and every command run, on a real API
//! server, in the order of the page.
//!
//! What a fence is for is told by its language (`LANGUAGES`), and where that is not enough by a comment before it, such as
//! `<!-- test: skip because it takes a container engine -->` (see `support/fences.rs`). How a command is run is told in one table (`tools.rs`).

mod support;

#[path = "chart/deployed.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod deployed;
#[path = "support/fences.rs"]
mod fences;
#[path = "chart/helm.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod helm;
#[path = "chart/next.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod next;
#[path = "chart/velero.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod velero;

mod reader {
    mod beside;
    mod cells;
    mod expected;
    mod links;
    mod pages;
    mod reading;
    mod schemas;
    mod shell;
    mod tools;
}
