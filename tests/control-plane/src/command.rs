//! The command of `control-plane run`.

use std::{
    io::{self, IsTerminal},
    os::unix::process::ExitStatusExt,
    process::{Command, ExitCode},
};

use control_plane::ControlPlane;
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

use crate::Failure;

/// Runs `command`, forwards signals to it, and returns its exit code.
pub async fn run(plane: &ControlPlane, command: &[String]) -> Result<ExitCode, Failure> {
    let failed = |source| Failure::Command { command: command.join(" "), source };
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::Signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::Signals)?;

    let (program, arguments) = command.split_first().ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
    let mut process = Command::new(program);
    process.args(arguments).envs(plane.variables()).env("PATH", plane.assets().search_path());
    let mut child = control_plane::spawn(process).map_err(failed)?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let forward = |signal| {
        if let Some(pid) = pid {
            // The process may have exited meanwhile.
            let _ = kill_process(pid, signal);
        }
    };
    // On a terminal the command is in the foreground process group and gets Ctrl-C itself: it must not get it twice.
    let at_terminal = io::stdin().is_terminal();
    let mut exited = tokio::task::spawn_blocking(move || child.wait());
    let status = loop {
        tokio::select! {
            status = &mut exited => break status.map_err(io::Error::other).flatten().map_err(failed)?,
            _ = interrupt.recv() => if !at_terminal { forward(Signal::INT) },
            _ = terminate.recv() => forward(Signal::TERM),
        }
    };
    // As in a shell: a command killed by signal n exits with 128 + n.
    let code = status.code().or_else(|| Some(128 + status.signal()?)).and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}
