//! The `kubectl pat` plugin. Each command has its own file.
//!
//! Every request uses the permissions of the user's kubeconfig. The plugin is the default feature `plugin`, so that an image of the
//! operator can be built without the dependencies that only a terminal needs.
//!
//! ```text
//! main -> cli -> one command -> session (API server) -> pat, state, gitops (pure) -> output, terminal
//! ```

pub mod cli;
mod completion;
mod create;
mod doctor;
pub mod error;
mod extend;
mod find;
mod forecast;
mod gitops;
mod issuer;
mod issuers;
mod list;
mod manifest;
pub mod output;
mod pat;
mod plan;
mod reveal;
mod revoke;
mod rotate;
mod session;
mod show;
mod sort;
mod spec_change;
mod state;
mod targets;
mod terminal;
mod time_format;
mod verify;
mod wait;
mod watch;

use std::{env, io::ErrorKind, process::ExitCode};

use clap::Parser;

use self::{
    cli::{PluginCli, PluginCommand},
    error::Error,
    output::{CommandOutput, Exit, write_stdout},
    session::Session,
    terminal::plain,
};
use crate::{service::client::install_crypto, token::Presented};

/// The field manager of every write by the plugin.
pub const FIELD_MANAGER: &str = "kubectl-pat";

/// Runs the plugin with the arguments of this process.
pub fn main() -> ExitCode {
    // This check comes before clap, which would repeat the token in its error message.
    if env::args_os().any(|word| contains_token(word.as_encoded_bytes())) {
        eprintln!(
            "error: the command line contains a token, and other programs can read it there. Revoke the token with \
             `kubectl pat revoke NAME --reissue`. To find its NAME, pass the token to `kubectl pat find -A` on stdin; to verify it, to \
             `kubectl pat verify`."
        );
        return Exit::Usage.into();
    }
    let cli = PluginCli::parse();
    let result = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::io("cannot start the async runtime"))
        .and_then(|runtime| {
            install_crypto();
            runtime.block_on(run(cli))
        });
    let result = result.and_then(|output| print(&output).map(|()| output.exit));
    result
        .unwrap_or_else(|error| {
            eprintln!("error: {error}");
            error.exit()
        })
        .into()
}

async fn run(cli: PluginCli) -> Result<CommandOutput, Error> {
    let PluginCli { cluster, command } = cli;
    cluster.refuse_secrets()?;
    let session = async || Session::open(&cluster).await;
    match command {
        PluginCommand::List(args) => list::run(&session().await?, &args).await,
        PluginCommand::Create(args) => create::run(&cluster, &args).await,
        PluginCommand::Show(args) => show::run(&session().await?, &args).await,
        PluginCommand::Reveal(args) => reveal::run(&session().await?, &args).await,
        PluginCommand::Rotate(args) => rotate::run(&session().await?, &args).await,
        PluginCommand::Revoke(args) => revoke::run(&session().await?, &args).await,
        PluginCommand::Extend(args) => extend::run(&session().await?, &args).await,
        PluginCommand::Find(args) => find::run(&cluster, &args).await,
        PluginCommand::Verify(args) => verify::run(&cluster, &args).await,
        PluginCommand::Wait(args) => wait::run(&session().await?, &args).await,
        PluginCommand::Plan(args) => plan::run(&cluster, &args).await,
        PluginCommand::Issuers(args) => issuers::run(&session().await?, &args).await,
        PluginCommand::Doctor(args) => doctor::run(&session().await?, &args).await,
        PluginCommand::Completion { shell } => Ok(CommandOutput::success(completion::script(shell))),
        PluginCommand::Man { folder } => completion::write_man_pages(&folder),
        PluginCommand::Complete { words } => Ok(CommandOutput::success(completion::complete(&words).await)),
    }
}

/// Prints the output. A closed pipe is not an error: its reader has read enough.
fn print(output: &CommandOutput) -> Result<(), Error> {
    match write_stdout(&output.text) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        result => result.map_err(Error::io("stdout"))?,
    }
    for error in &output.errors {
        eprintln!("error: {}", plain(error));
    }
    Ok(())
}

/// Whether any part of the text is a token.
fn contains_token(text: &[u8]) -> bool {
    Presented::find_in(text).next().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::Token;

    #[test]
    fn token_is_found_anywhere_in_an_argument() {
        let token = Token::mint(&"kpat".parse().unwrap()).unwrap();
        for text in [
            token.expose().to_owned(),
            format!("--token={}", token.expose()),
            format!("Bearer {}", token.expose()),
            format!("x{}x", token.expose()),
        ] {
            assert!(contains_token(text.as_bytes()));
        }
        assert!(!contains_token(b"kpat_not-a-token") && !contains_token(b""));
    }
}
