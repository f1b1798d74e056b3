//! The command `control-plane`: provides the programs, runs a control plane, runs a command with one.

mod cli;
mod command;

use std::process::ExitCode;

use clap::Parser;
use control_plane::{Assets, Binary, ControlPlane, Error, Options};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::{Action, Cli, Start};

/// A failed command. It is printed in one line, and the exit code is 1.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    ControlPlane(#[from] Error),
    #[error("cannot listen for signals: {0}; try again")]
    Signals(#[source] std::io::Error),
    #[error("cannot run `{command}`: {source}; check the name and PATH")]
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
        Action::Build { ecosystem } => {
            let wanted = if ecosystem { &Binary::ALL[..] } else { &Assets::CONTROL_PLANE };
            let assets = Assets::ensure_available(wanted).map_err(Error::from)?;
            for binary in wanted.iter().filter(|binary| assets.has(**binary)) {
                println!("{}", assets.path(*binary).display());
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

/// Starts a control plane, with kubectl and Helm at hand.
async fn start(start: Start) -> Result<ControlPlane, Failure> {
    // Here, so that no build starts later, while the command runs.
    Assets::ensure_available(&Assets::CONTROL_PLANE).map_err(Error::from)?;
    let options = start.apply.into_iter().fold(Options::default(), Options::apply);
    Ok(ControlPlane::start(options).await?)
}

async fn up(options: Start) -> Result<(), Failure> {
    let begin = std::time::Instant::now();
    let mut plane = start(options).await?;
    // A signal before this point ends the process at once; the kernel and the janitor clean up.
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::Signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::Signals)?;
    println!(
        "kube-apiserver {version} is ready at {url} after {seconds:.1} s. In another terminal:\n\n  \
         export KUBECONFIG={kubeconfig}\n  export PATH={tools}:$PATH\n  kubectl get namespaces\n\n\
         Logs: {folder}/*.log\nCtrl-C stops the control plane and removes its folder.",
        version = Binary::KubeApiserver.version(),
        url = plane.api_server_url(),
        seconds = begin.elapsed().as_secs_f32(),
        kubeconfig = plane.admin_kubeconfig().display(),
        tools = plane
            .assets()
            .tool_folders()
            .iter()
            .map(|folder| folder.display().to_string())
            .collect::<Vec<_>>()
            .join(":"),
        folder = plane.folder().display(),
    );
    let mut check = tokio::time::interval(std::time::Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            _ = check.tick() => plane.check()?,
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
