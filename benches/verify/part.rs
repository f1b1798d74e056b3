//! Parts of the benchmark as separate processes of the same program. Each prints one line of JSON.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, ensure};
use serde::{Serialize, de::DeserializeOwned};

/// A running part. It is killed on drop.
pub struct Part(Child);

impl Part {
    /// Starts a part, and waits for its line.
    pub fn start<T: DeserializeOwned>(arguments: &[&str]) -> anyhow::Result<(Self, T)> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        if arguments.first() == Some(&"subject") {
            // Discard its log. An error shows in its exit code.
            command.stderr(Stdio::null());
        }
        let mut part = Self(control_plane::spawn(command).context("starting a part of the benchmark")?);
        let mut line = String::new();
        BufReader::new(part.0.stdout.take().context("no stdout")?).read_line(&mut line)?;
        let value = serde_json::from_str(&line).with_context(|| format!("{arguments:?} printed no JSON"))?;
        Ok((part, value))
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Waits for its end.
    pub fn finish(mut self) -> anyhow::Result<()> {
        let status = self.0.wait()?;
        ensure!(status.success(), "a part of the benchmark failed: {status}");
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Prints the line.
pub fn print(what: &impl Serialize) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(what)?)?;
    Ok(out.flush()?)
}
