//! pat-operator: reads the command line and runs the program that it names.
//!
//! Errors end here, as one line that says what to do next, and exit code 1.

use std::process::ExitCode;

use clap::Parser;
use pat_operator::{cli::Cli, programs};

fn main() -> ExitCode {
    match programs::run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
