//! pat-operator: reads the command line and runs the program that it names.
//!
//! An error is printed as one line that says what to do next, and the exit code is 1.

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
