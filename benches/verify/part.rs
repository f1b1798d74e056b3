//! Parts of the bench as processes of their own: this very program, told which part it is. Each says one line of JSON.
//!
//! Must not know what they do.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, ensure};
use serde::{Serialize, de::DeserializeOwned};

/// A part that runs; killed on drop.
pub struct Part(Child);

impl Part {
    /// Starts one and waits for its line.
    pub fn start<T: DeserializeOwned>(arguments: &[&str]) -> anyhow::Result<(Self, T)> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        if arguments.first() == Some(&"subject") {
            // Its log; what goes wrong is told by its end.
            command.stderr(Stdio::null());
        }
        let mut part = Self(control_plane::spawn(command).context("starting a part of the bench")?);
        let mut line = String::new();
        BufReader::new(part.0.stdout.take().context("no stdout")?).read_line(&mut line)?;
        let told = serde_json::from_str(&line).with_context(|| format!("{arguments:?} ended without a word"))?;
        Ok((part, told))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Waits for its end.
    pub fn finish(mut self) -> anyhow::Result<()> {
        let status = self.0.wait()?;
        ensure!(status.success(), "a part of the bench failed: {status}");
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Says the one line.
pub fn tell(what: &impl Serialize) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(what)?)?;
    Ok(out.flush()?)
}
