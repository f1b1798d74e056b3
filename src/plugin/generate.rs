//! What is made of the command line: completions and manual pages.

use std::{fs, path::Path};

use clap::CommandFactory;

use super::{
    cli::{Cli, Shell},
    failure::{Answer, Failure},
};

/// What kubectl asks on the tab key: it looks for this name on the PATH, and calls it with the words after `kubectl pat`.
pub const KUBECTL_COMPLETE: &str = "\
#!/bin/sh
# Completes `kubectl pat`: kubectl calls it with the words that have been typed.
exec kubectl-pat __complete -- \"$@\"
";

/// The completions for one shell.
pub fn completion(shell: Shell) -> String {
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
        Shell::Kubectl => return KUBECTL_COMPLETE.to_owned(),
    };
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut offered(), "kubectl-pat", &mut text);
    // In bash's, the dash of the name is taken for the start of a command in one place and not in the other, so that nothing is found.
    String::from_utf8_lossy(&text).replace("kubectl__subcmd__pat", "kubectl__pat")
}

/// The command without what is hidden, which shells would offer as well.
fn offered() -> clap::Command {
    let whole = command();
    let shown = whole.get_subcommands().filter(|one| !one.is_hide_set()).cloned();
    let offered = clap::Command::new("kubectl-pat").bin_name("kubectl-pat").version(env!("CARGO_PKG_VERSION"));
    offered.disable_help_subcommand(true).args(whole.get_arguments().cloned()).subcommands(shown)
}

/// The command under the name that it is called by where no kubectl is.
fn command() -> clap::Command {
    Cli::command().bin_name("kubectl-pat")
}

/// Writes the manual pages: `kubectl-pat.1` and one for each command.
pub fn man(folder: &Path) -> Result<Answer, Failure> {
    let trouble = || Failure::io(folder.display().to_string());
    fs::create_dir_all(folder).map_err(trouble())?;
    clap_mangen::generate_to(command(), folder).map_err(trouble())?;
    Ok(Answer::good(format!("{}\n", folder.display())))
}
