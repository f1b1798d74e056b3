//! The command line of the bench, and of the parts of it that run as processes of their own.
//!
//! Must not know what is measured.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Parser, Subcommand};

use crate::protocol::Protocol;

/// Measures the verifier: its memory, its decision, its protocols beside bare handlers, and how fast it obeys.
#[derive(Debug, Parser)]
#[command(name = "cargo bench --bench verify --")]
pub struct Args {
    /// How many tokens are in the index
    #[arg(long, default_value_t = 100_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1_000..=1_000_000))]
    tokens: u32,

    /// How many tokens the API server has, for the time from start to ready; they take a while to create
    #[arg(long, default_value_t = 10_000, value_name = "N", value_parser = clap::value_parser!(u32).range(100..=100_000))]
    stored: u32,

    /// How many of them are revoked
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    revocations: u32,

    /// How often the verifier and the bare handlers take turns, for each protocol
    #[arg(long, default_value_t = 7, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,

    /// How long a turn takes, in seconds
    #[arg(long, default_value_t = 3, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,

    /// Where to write the figures as JSON
    #[arg(long, default_value = "target/bench/verify.json", value_name = "FILE")]
    pub json: PathBuf,

    /// A smoke run with few tokens and one short round: says whether the bench works, nothing about speed
    #[arg(long)]
    quick: bool,

    /// Leaves out what needs an API server
    #[arg(long)]
    pub no_api_server: bool,

    /// Another build of the operator to start as verifier [default: the one of this checkout]
    #[arg(long, value_name = "FILE", default_value = env!("CARGO_BIN_EXE_pat-operator"), hide_default_value = true)]
    pub operator: PathBuf,

    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,

    /// Which part of the bench this process is, if it is not the whole
    #[command(subcommand)]
    pub role: Option<Role>,
}

/// A part of the bench in a process of its own, so that its memory and CPU time are its own.
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub enum Role {
    /// Fills an index, and decides by it
    #[command(hide = true)]
    Memory {
        /// How many tokens.
        tokens: u32,
    },
    /// The verifier's protocols
    #[command(hide = true)]
    Subject {
        /// How many tokens.
        tokens: u32,
    },
    /// Handlers that return constants
    #[command(hide = true)]
    Floor {
        /// What they return, as JSON.
        answers: String,
    },
    /// The load
    #[command(hide = true)]
    Load {
        /// What is spoken.
        protocol: Protocol,
        /// With whom.
        addr: SocketAddr,
        /// How many tokens there are.
        tokens: u32,
        /// How long.
        seconds: u32,
    },
}

impl Args {
    /// How many tokens are in the index.
    pub fn tokens(&self) -> u32 {
        if self.quick { 2_000 } else { self.tokens }
    }

    /// How many tokens the API server has.
    pub fn stored(&self) -> usize {
        if self.quick { 200 } else { self.stored as usize }
    }

    /// How many of them are revoked.
    pub fn revocations(&self) -> usize {
        if self.quick { 5 } else { self.revocations as usize }
    }

    /// How many turns the verifier has.
    pub fn rounds(&self) -> usize {
        if self.quick { 1 } else { self.rounds as usize }
    }

    /// How long each is.
    pub fn seconds(&self) -> u32 {
        if self.quick { 1 } else { self.seconds }
    }
}
