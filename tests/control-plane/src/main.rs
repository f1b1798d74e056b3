//! The command line: build the programs, run a control plane, run a command against one.
//!
//! For: people and Makefiles.
//! Must not know more than the library's public API.

mod cli;
mod command;

use std::process::ExitCode;

use clap::Parser;
use control_plane::{Assets, Binary, ControlPlane, Error, Options};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::{Action, Cli, Start};

/// A failure of the command line; all of them are told in one line, and the exit code is 1.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Plane(#[from] Error),
    #[error("could not listen for signals: {0}; try again")]
    Signals(#[source] std::io::Error),
    #[error("could not run `{command}`: {source}; check the name and PATH")]
    Command { command: String, source: std::io::Error },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match act(Cli::parse().action).await {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

async fn act(action: Action) -> Result<ExitCode, Failure> {
    match action {
        Action::Build => {
            let assets = Assets::ensure(&Binary::ALL).map_err(Error::from)?;
            for binary in Binary::ALL {
                println!("{}", assets.path(binary).display());
            }
        }
        Action::Path { binary } => {
            let assets = Assets::ensure(&[binary]).map_err(Error::from)?;
            println!("{}", assets.path(binary).display());
        }
        Action::Up(start) => up(start).await?,
        Action::Run { start, command } => return run(start, &command).await,
    }
    Ok(ExitCode::SUCCESS)
}

/// Starts a control plane with everything a person needs beside it.
async fn start(start: Start) -> Result<ControlPlane, Failure> {
    // So that nothing has to be built in the middle of the work.
    Assets::ensure(&Assets::TO_WORK_WITH).map_err(Error::from)?;
    let options = start.apply.into_iter().fold(Options::default(), Options::apply);
    Ok(ControlPlane::start(options).await?)
}

async fn up(options: Start) -> Result<(), Failure> {
    let begin = std::time::Instant::now();
    let mut plane = start(options).await?;
    // From here on we end in order; before, the kernel and the janitor see to it.
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::Signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::Signals)?;
    println!(
        "kube-apiserver {version} is ready at {url} after {seconds:.1} s. In another terminal:\n\n  \
         export KUBECONFIG={kubeconfig}\n  export PATH={tools}:$PATH\n  kubectl get namespaces\n\n\
         Logs: {folder}/*.log\nCtrl-C stops it and leaves nothing behind.",
        version = Binary::KubeApiserver.version(),
        url = plane.api_server_url(),
        seconds = begin.elapsed().as_secs_f32(),
        kubeconfig = plane.admin_kubeconfig().display(),
        tools = plane.assets().tool_folders().map(|folder| folder.display().to_string()).join(":"),
        folder = plane.folder().display(),
    );
    let mut look = tokio::time::interval(std::time::Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            _ = look.tick() => plane.check()?,
        }
    }
    plane.stop();
    println!("\nstopped");
    Ok(())
}

async fn run(options: Start, command: &[String]) -> Result<ExitCode, Failure> {
    let plane = start(options).await?;
    let code = command::run(&plane, command).await?;
    plane.stop();
    Ok(code)
}
