//! Measures the memory and the speed of a verifier, and compares them with handlers that do nothing.
//!
//! `cargo bench --bench verify -- [--json FILE] [--quick]` prints a table and writes JSON, but asserts nothing. docs/performance.md explains the
//! results.

mod args;
mod cluster;
#[path = "../support/crowd.rs"]
mod crowd;
mod decision;
mod duel;
mod floor;
mod load;
mod memory;
mod part;
mod percentile;
mod plane;
#[path = "../support/proc.rs"]
mod proc;
#[path = "../support/progress.rs"]
mod progress;
mod protocol;
mod replica;
mod report;
#[path = "../support/results.rs"]
mod results;
mod subject;
#[path = "../support/table.rs"]
mod table;
mod tokens;

use anyhow::Context;
use clap::Parser;

use self::{
    args::{Args, Role},
    decision::Decisions,
    memory::Memory,
    part::Part,
    progress::Progress,
    report::Report,
    results::show,
};

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    pat_operator::service::client::install_crypto();
    if let Some(Role::Memory { tokens }) = args.role {
        // Before other threads exist, whose memory would be counted.
        let (index, memory) = memory::fill(tokens)?;
        return part::print(&(memory, decision::measure(&index, tokens)?));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    runtime.block_on(async {
        match &args.role {
            None | Some(Role::Memory { .. }) => all(&args).await,
            Some(Role::Subject { tokens }) => subject::serve(*tokens).await,
            Some(Role::Floor { answers }) => floor::serve(serde_json::from_str(answers)?).await,
            Some(Role::Load { protocol, addr, tokens, seconds }) => {
                part::print(&load::run(*protocol, *addr, *tokens, *seconds).await?)
            }
        }
    })
}

async fn all(args: &Args) -> anyhow::Result<()> {
    let began = std::time::Instant::now();
    let progress = Progress::begin(format!("filling an index with {} tokens and deciding", args.tokens()), 1);
    let (part, alone) = Part::start::<(Memory, Decisions)>(&["memory", &args.tokens().to_string()])?;
    part.finish()?;
    progress.step();
    let duels = duel::measure(args).await?;
    let cluster = if args.no_api_server { None } else { Some(cluster::measure(args).await?) };
    let report = Report::new(alone, duels, cluster, began.elapsed());
    show(&report, &args.json)
}
