//! `kubectl pat`: what people do with tokens, each command in a file of its own.
//!
//! Everything here acts with the rights of the person who types it. It knows the API, tokens, and the controller's pure planner; the
//! operator does not know it, and does not contain it: it is the default feature `plugin`, so that an image can be built without
//! what only terminals need.
//!
//! ```text
//! main -> cli -> one command -> session (API server) -> pat, state, ownership (pure) -> table, terminal
//! ```

mod change;
pub mod cli;
mod complete;
mod create;
mod doctor;
mod expiry;
mod extend;
pub mod failure;
mod forecast;
pub mod generate;
mod list;
mod ownership;
mod pat;
mod phrase;
mod plan;
mod reveal;
mod revoke;
mod rotate;
mod session;
mod show;
mod state;
mod table;
mod terminal;
mod verify;
mod wait;

use std::{
    env,
    io::{self, ErrorKind, Write},
    process::ExitCode,
};

use clap::Parser;

use self::{
    cli::{Cli, Command},
    failure::{Answer, Exit, Failure},
    session::Session,
};
use crate::{service::client::install_crypto, token::Presented};

/// The field manager of everything that the plugin writes.
pub const FIELD_MANAGER: &str = "kubectl-pat";

/// Runs the plugin on the arguments of this process.
pub fn main() -> ExitCode {
    // An error would repeat it, and shells and terminals remember what is printed.
    if env::args_os().any(|word| holds_a_token(word.as_encoded_bytes())) {
        eprintln!(
            "error: a token stands in the command line, where other programs can read it: revoke it (kubectl pat revoke NAME --reissue), \
             and give the new one to kubectl pat verify on stdin"
        );
        return Exit::Usage.into();
    }
    let cli = Cli::parse();
    let result = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::io("no threads could be started"))
        .and_then(|runtime| {
            install_crypto();
            runtime.block_on(run(cli))
        });
    let result = result.and_then(|answer| print(&answer).map(|()| answer.exit));
    result
        .unwrap_or_else(|failure| {
            eprintln!("error: {failure}");
            failure.exit()
        })
        .into()
}

async fn run(cli: Cli) -> Result<Answer, Failure> {
    let Cli { cluster, command } = cli;
    let session = async || Session::open(&cluster).await;
    match command {
        Command::List(args) => list::run(&session().await?, &args).await,
        Command::Create(args) => create::run(&cluster, &args).await,
        Command::Show(args) => show::run(&session().await?, &args).await,
        Command::Reveal(args) => reveal::run(&session().await?, &args).await,
        Command::Rotate(args) => rotate::run(&session().await?, &args).await,
        Command::Revoke(args) => revoke::run(&session().await?, &args).await,
        Command::Extend(args) => extend::run(&session().await?, &args).await,
        Command::Verify(args) => verify::run(&cluster, &args).await,
        Command::Wait(args) => wait::run(&session().await?, &args).await,
        Command::Plan(args) => plan::run(&cluster, &args).await,
        Command::Doctor(args) => doctor::run(&session().await?, &args).await,
        Command::Completion { shell } => Ok(Answer::good(generate::completion(shell))),
        Command::Man { folder } => generate::man(&folder),
        Command::Complete { words } => Ok(Answer::good(complete::answer(&words).await)),
    }
}

/// Whoever reads a pipe may stop when it has enough.
fn print(answer: &Answer) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(answer.text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(Failure::io("stdout")),
    }
}

/// Whether a token stands in a text, by itself or behind a `=`.
fn holds_a_token(text: &[u8]) -> bool {
    text.split(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_').any(|word| Presented::parse(word).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::Token;

    #[test]
    fn a_token_is_seen_wherever_it_stands_in_an_argument() {
        let token = Token::mint(&"kpat".parse().unwrap()).unwrap();
        for text in
            [token.expose().to_owned(), format!("--token={}", token.expose()), format!("Bearer {}", token.expose())]
        {
            assert!(holds_a_token(text.as_bytes()));
        }
        assert!(!holds_a_token(b"kpat_not-a-token") && !holds_a_token(b""));
    }
}
