//! The command line of the bench.
//!
//! Must not know what is measured.

use std::path::PathBuf;

use clap::Parser;

/// The size of a smoke run.
const QUICK: usize = 200;

/// How many tokens the API server is warmed up with: a young one has a small heap, which it clears up all the time.
const WARM_UP: usize = 1_000;

/// Up to this size a measurement is so short that it is repeated, and the median taken.
const SHORT: usize = 2_000;

/// Measures the release build of the operator on a real control plane, back to back with a bare client.
#[derive(Debug, Parser)]
#[command(name = "cargo bench --bench operator --")]
pub struct Args {
    /// How many tokens exist before the operator starts; several sizes, one after the other
    #[arg(long, value_delimiter = ',', default_value = "1000,10000", value_name = "N,…")]
    #[arg(value_parser = clap::value_parser!(u32).range(10..=100_000))]
    sizes: Vec<u32>,

    /// Where to write the figures as JSON
    #[arg(long, default_value = "target/bench/operator.json", value_name = "FILE")]
    pub json: PathBuf,

    /// A smoke run of 200 tokens: says whether the bench works, nothing about speed
    #[arg(long)]
    quick: bool,

    /// How often to repeat each size [default: 5 up to 2,000 tokens, else 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=20))]
    rounds: Option<u8>,

    /// Another build of the operator to measure, such as an older one [default: the one of this checkout]
    #[arg(long, value_name = "FILE", default_value = env!("CARGO_BIN_EXE_pat-operator"), hide_default_value = true)]
    pub operator: PathBuf,

    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

impl Args {
    /// The sizes to measure.
    pub fn sizes(&self) -> Vec<usize> {
        if self.quick { vec![QUICK] } else { self.sizes.iter().map(|&size| size as usize).collect() }
    }

    /// How many tokens to warm the API server up with.
    pub fn warm_up(&self) -> usize {
        if self.quick { QUICK } else { WARM_UP }
    }

    /// How often to measure a size.
    pub fn rounds(&self, size: usize) -> usize {
        match self.rounds {
            Some(rounds) => usize::from(rounds),
            None if self.quick || size > SHORT => 1,
            None => 5,
        }
    }
}
