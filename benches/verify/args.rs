//! The command line of the benchmark, and of the parts that run as separate processes.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Parser, Subcommand};

use crate::protocol::Protocol;

/// Measures the verifier: memory, decisions, protocols compared with bare handlers, and the delay of revocations
#[derive(Debug, Parser)]
#[command(name = "cargo bench --bench verify --")]
pub struct Args {
    /// How many tokens are in the index
    #[arg(long, default_value_t = 100_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1_000..=1_000_000))]
    tokens: u32,

    /// How many tokens exist on the API server when a verifier starts; creating them takes some time
    #[arg(long, default_value_t = 10_000, value_name = "N", value_parser = clap::value_parser!(u32).range(100..=100_000))]
    stored: u32,

    /// How many of these tokens are revoked
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    revocations: u32,

    /// How many rounds the verifier and the bare handlers have, for each protocol
    #[arg(long, default_value_t = 7, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,

    /// How long a round takes, in seconds
    #[arg(long, default_value_t = 3, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,

    /// Where to write the results as JSON
    #[arg(long, default_value = "target/bench/verify.json", value_name = "FILE")]
    pub json: PathBuf,

    /// Smoke run with few tokens and one short round: checks that the benchmark works, and says nothing about speed
    #[arg(long)]
    quick: bool,

    /// Omits the parts that need an API server
    #[arg(long)]
    pub no_api_server: bool,

    /// Another build of the operator to start as verifier [default: the build of this checkout]
    #[arg(long, value_name = "FILE", default_value = env!("CARGO_BIN_EXE_pat-operator"), hide_default_value = true)]
    pub operator: PathBuf,

    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,

    /// The part of the benchmark that this process runs, if not all of it
    #[command(subcommand)]
    pub role: Option<Role>,
}

/// A part of the benchmark in its own process, so that its memory and CPU time can be measured.
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub enum Role {
    /// Fills an index, and decides with it
    #[command(hide = true)]
    Memory {
        /// The number of tokens.
        tokens: u32,
    },
    /// Serves the verifier's protocols
    #[command(hide = true)]
    Subject {
        /// The number of tokens.
        tokens: u32,
    },
    /// Serves bare handlers, which return constants
    #[command(hide = true)]
    Floor {
        /// The constants, as JSON.
        answers: String,
    },
    /// Sends requests
    #[command(hide = true)]
    Load {
        /// The protocol.
        protocol: Protocol,
        /// The server's address.
        addr: SocketAddr,
        /// The number of tokens.
        tokens: u32,
        /// The duration.
        seconds: u32,
    },
}

impl Args {
    /// The number of tokens in the index.
    pub fn tokens(&self) -> u32 {
        if self.quick { 2_000 } else { self.tokens }
    }

    /// The number of tokens on the API server.
    pub fn stored(&self) -> usize {
        if self.quick { 200 } else { self.stored as usize }
    }

    /// The number of revoked tokens.
    pub fn revocations(&self) -> usize {
        if self.quick { 5 } else { self.revocations as usize }
    }

    /// The number of rounds.
    pub fn rounds(&self) -> usize {
        if self.quick { 1 } else { self.rounds as usize }
    }

    /// The duration of a round.
    pub fn seconds(&self) -> u32 {
        if self.quick { 1 } else { self.seconds }
    }
}
