//! How fast is the operator, and how near is that to what the API server lets anybody do?
//!
//! `cargo bench --bench operator -- [--sizes 1000,10000] [--json FILE] [--quick]`: one run on one real control plane. It
//! prints a table, writes JSON and asserts nothing; docs/performance.md tells what the figures mean.

mod args;
#[path = "../support/crowd.rs"]
mod crowd;
mod fixture;
mod floor;
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
mod rounds;
mod script;
#[path = "../support/table.rs"]
mod table;
mod wire;

use anyhow::Context;
use clap::Parser;

use self::{args::Args, plane::Plane, report::Report, script::Script};

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    pat_operator::service::client::install_crypto();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no threads")?;
    let report = runtime.block_on(run(&args))?;
    println!("{report}");
    report.write(&args.json).with_context(|| format!("cannot write {}", args.json.display()))?;
    println!("All figures: {}", args.json.display());
    Ok(())
}

async fn run(args: &Args) -> anyhow::Result<Report> {
    let began = std::time::Instant::now();
    let plane = Plane::start(&args.operator).await?;
    let script = Script::record(&plane).await.context("watching what the operator writes for one token")?;
    progress::tell("warming the API server up");
    floor::measure(&plane, &script, args.warm_up()).await?;
    let mut sizes = Vec::new();
    for size in args.sizes() {
        sizes.push(rounds::measure(&plane, &script, size, args.rounds(size)).await?);
    }
    Ok(Report::new(&plane, &script, sizes, began.elapsed()))
}
