//! Prints the results of a benchmark, and writes them as JSON.

use std::{fmt::Display, fs, path::Path};

use anyhow::Context;
use serde::Serialize;

/// Prints the table of a report, and writes all results to a file.
pub fn show(report: &(impl Display + Serialize), json: &Path) -> anyhow::Result<()> {
    println!("{report}");
    let write = || {
        json.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(json, serde_json::to_string_pretty(report)? + "\n")
    };
    write().with_context(|| format!("cannot write {}", json.display()))?;
    println!("All results: {}", json.display());
    Ok(())
}
