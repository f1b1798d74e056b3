//! The composition roots: each program wires its parts, runs them and stops them in order.

mod api;
mod controller;
mod runner;
mod verifier;

use anyhow::Context;
use tokio::runtime::Builder;

use crate::{
    api::crd,
    cli::{Command, LogArgs},
    service::{client, telemetry},
};

/// Runs the chosen program to its end.
///
/// # Errors
/// The program cannot start, or has a fatal error.
pub fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Crds => {
            print!("{}", crd::all_yaml());
            Ok(())
        }
        // One thread is faster than any API server, and a second one would cost a wake-up for each request.
        Command::Controller(args) => {
            start(&args.log.clone(), Builder::new_current_thread(), controller::controller(*args))
        }
        Command::Verifier(args) => start(&args.log.clone(), Builder::new_multi_thread(), verifier::verifier(*args)),
        Command::Api(args) => start(&args.log.clone(), Builder::new_multi_thread(), api::api(*args)),
    }
}

fn start(log: &LogArgs, mut threads: Builder, program: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    telemetry::init(log.log_format, &log.log_level)?;
    client::install_crypto();
    let runtime = threads.enable_all().build().context("cannot start threads")?;
    runtime.block_on(program)
}
