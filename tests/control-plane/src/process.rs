//! A running process with a log file and a PID file.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use crate::spawn;

/// How much of a log an error message shows.
const TAIL_BYTES: u64 = 4096;
const TAIL_LINES: usize = 15;

/// A running child process. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pid_file: PathBuf,
}

impl Process {
    /// Starts `command` in `folder` and appends its output to `log`.
    pub(crate) fn start(mut command: Command, folder: &Path, name: &str, log: &Path) -> io::Result<Self> {
        let log = File::options().create(true).append(true).open(log)?;
        command.current_dir(folder).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let process = Self { child: spawn::spawn_apart(command)?, pid_file: folder.join(name).with_extension("pid") };
        fs::write(&process.pid_file, process.pid().to_string())?;
        Ok(process)
    }

    /// The process ID.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The exit status, if the process has exited.
    pub(crate) fn exit_status(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().ok().flatten();
        if status.is_some() {
            // The ID can be reused now: the janitor must not kill by it.
            let _ = fs::remove_file(&self.pid_file);
        }
        status
    }
}

impl Drop for Process {
    /// Sends SIGKILL: the data is thrown away, so a graceful shutdown has no use.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.pid_file);
    }
}

/// Returns the last lines of a file for an error message, or nothing if the file cannot be read.
pub(crate) fn tail(path: &Path) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let text = String::from_utf8_lossy(&read().unwrap_or_default()).into_owned();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}
