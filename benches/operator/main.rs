//! Measures how fast the operator is, and how close that is to the limit of the API server.
//!
//! `cargo bench --bench operator -- [--sizes 1000,10000] [--json FILE] [--quick]` runs on a real control plane. It prints a table and writes
//! JSON, but asserts nothing. With `--issuers`, it measures tokens of an issuer instead. docs/performance.md explains the results.

mod args;
#[path = "../support/crowd.rs"]
mod crowd;
mod fixture;
mod floor;
mod issuers;
mod meter;
mod operator;
mod plane;
#[path = "../support/proc.rs"]
mod proc;
#[path = "../support/progress.rs"]
mod progress;
mod prometheus;
mod report;
mod requests;
#[path = "../support/results.rs"]
mod results;
mod rounds;
mod script;
#[path = "../support/table.rs"]
mod table;
mod vendor;
mod wire;

use anyhow::Context;
use clap::Parser;

use self::{args::Args, plane::Plane, report::Report, results::show, script::Script};

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    pat_operator::service::client::install_crypto();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    if args.issuers {
        show(&runtime.block_on(issuers::measure(&args))?, &args.json())
    } else {
        show(&runtime.block_on(run(&args))?, &args.json())
    }
}

async fn run(args: &Args) -> anyhow::Result<Report> {
    let began = std::time::Instant::now();
    let plane = Plane::start(&args.operator).await?;
    let script = Script::record(&plane).await.context("recording the operator's writes for one token")?;
    progress::report("warming up the API server");
    floor::measure(&plane, &script, args.warm_up()).await?;
    let mut sizes = Vec::new();
    for size in args.sizes() {
        sizes.push(rounds::measure(&plane, &script, size, args.rounds(size)).await?);
    }
    Ok(Report::new(&plane, &script, sizes, began.elapsed()))
}
