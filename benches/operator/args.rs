//! The command line of the benchmark.

use std::path::PathBuf;

use clap::Parser;

/// The size of a smoke run.
const QUICK: usize = 200;

/// The number of tokens that warm up the API server. A new API server has a small heap, and collects garbage all the time.
const WARM_UP: usize = 1_000;

/// Up to this size, a measurement is repeated and the median counts, because it is short.
const SHORT: usize = 2_000;

/// The number of tokens of an issuer.
const ISSUER_TOKENS: usize = 1_000;

/// Measures the release build of the operator on a real control plane, and compares it with a bare client
#[derive(Debug, Parser)]
#[command(name = "cargo bench --bench operator --")]
pub struct Args {
    /// How many tokens exist before the operator starts; several sizes are measured one after another
    #[arg(long, value_delimiter = ',', default_value = "1000,10000", value_name = "N,…")]
    #[arg(value_parser = clap::value_parser!(u32).range(10..=100_000))]
    sizes: Vec<u32>,

    /// Measure tokens of an issuer with a delay of 50 ms, alongside the same number of local tokens
    #[arg(long, conflicts_with = "sizes")]
    pub issuers: bool,

    /// Where to write the results as JSON [default: target/bench/operator.json, or issuers.json with --issuers]
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Smoke run with 200 tokens: checks that the benchmark works, and says nothing about speed
    #[arg(long)]
    quick: bool,

    /// How often to repeat each size [default: 5 up to 2,000 tokens, else 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=20))]
    rounds: Option<u8>,

    /// Another build of the operator to measure, such as an older one [default: the build of this checkout]
    #[arg(long, value_name = "FILE", default_value = env!("CARGO_BIN_EXE_pat-operator"), hide_default_value = true)]
    pub operator: PathBuf,

    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

impl Args {
    /// Where to write the results.
    pub fn json(&self) -> PathBuf {
        let name = if self.issuers { "issuers" } else { "operator" };
        self.json.clone().unwrap_or_else(|| format!("target/bench/{name}.json").into())
    }

    /// The number of tokens of the issuer, and of local ones.
    pub fn issuer_tokens(&self) -> usize {
        if self.quick { QUICK } else { ISSUER_TOKENS }
    }

    /// The number of rounds with tokens of the issuer.
    pub fn issuer_rounds(&self) -> usize {
        self.rounds.map_or(if self.quick { 1 } else { 3 }, usize::from)
    }

    /// The sizes to measure.
    pub fn sizes(&self) -> Vec<usize> {
        if self.quick { vec![QUICK] } else { self.sizes.iter().map(|&size| size as usize).collect() }
    }

    /// The number of tokens that warm up the API server.
    pub fn warm_up(&self) -> usize {
        if self.quick { QUICK } else { WARM_UP }
    }

    /// The number of rounds for a size.
    pub fn rounds(&self, size: usize) -> usize {
        match self.rounds {
            Some(rounds) => usize::from(rounds),
            None if self.quick || size > SHORT => 1,
            None => 5,
        }
    }
}
