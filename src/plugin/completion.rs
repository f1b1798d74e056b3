//! Shell completion and manual pages, both generated from the command line definition.
//!
//! kubectl completes `kubectl pat` with the protocol of cobra: one suggestion per line, a tab before its description, and a last line
//! with a directive (`:4` means that file names are not wanted). Completion never fails; without suggestions it prints none.

use std::{fs, path::Path, time::Duration};

use clap::{Arg, CommandFactory};

use super::{
    cli::{ClusterArgs, CompletionShell, ConnectionArgs, PluginCli},
    error::Error,
    output::CommandOutput,
    session::Session,
    terminal::Color,
};

/// The program that kubectl looks up on the PATH to complete `kubectl pat`.
const KUBECTL_COMPLETE: &str = "\
#!/bin/sh
# Completes `kubectl pat`. kubectl runs it with the words after `kubectl pat`.
exec kubectl-pat __complete -- \"$@\"
";

/// Returns the completion script of a shell.
pub fn script(shell: CompletionShell) -> String {
    let shell = match shell {
        CompletionShell::Bash => clap_complete::Shell::Bash,
        CompletionShell::Zsh => clap_complete::Shell::Zsh,
        CompletionShell::Fish => clap_complete::Shell::Fish,
        CompletionShell::Kubectl => return KUBECTL_COMPLETE.to_owned(),
    };
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut visible_command(), "kubectl-pat", &mut text);
    // clap_complete escapes the dash of the name in one part of the bash script but not in the other, so nothing would match.
    String::from_utf8_lossy(&text).replace("kubectl__subcmd__pat", "kubectl__pat")
}

/// The command line without hidden commands, which the scripts would suggest too.
fn visible_command() -> clap::Command {
    let full = full_command();
    let shown = full.get_subcommands().filter(|one| !one.is_hide_set()).cloned();
    let visible = clap::Command::new("kubectl-pat").bin_name("kubectl-pat").version(env!("CARGO_PKG_VERSION"));
    visible.disable_help_subcommand(true).args(full.get_arguments().cloned()).subcommands(shown)
}

/// The command line under its own name, without kubectl.
fn full_command() -> clap::Command {
    PluginCli::command().bin_name("kubectl-pat")
}

/// Writes the manual pages: `kubectl-pat.1`, and one page for each command.
pub fn write_man_pages(directory: &Path) -> Result<CommandOutput, Error> {
    let io_error = || Error::io(directory.display().to_string());
    fs::create_dir_all(directory).map_err(io_error())?;
    clap_mangen::generate_to(full_command(), directory).map_err(io_error())?;
    Ok(CommandOutput::success(format!("{}\n", directory.display())))
}

const COMPLETION_TIMEOUT: Duration = Duration::from_secs(3);

/// Returns the suggestions for these words. The last word is the one at the cursor.
pub async fn complete(words: &[String]) -> String {
    let (typed, before) = words.split_last().map_or(("", &[][..]), |(last, before)| (last.as_str(), before));
    let root = PluginCli::command();
    let parsed = ParsedWords::parse(&root, before);
    let mut suggestions: Vec<(String, String)> = match &parsed.pending_flag {
        Some(arg) => suggest_values(arg),
        None if typed.starts_with('-') => suggest_flags(&root, parsed.command),
        None if parsed.command.is_none() => suggest_commands(&root),
        None => parsed.next_positional().map(suggest_values).unwrap_or_default(),
    };
    let expects_name = parsed.pending_flag.is_none() && !typed.starts_with('-') && parsed.expects_token_name();
    if expects_name {
        suggestions.extend(list_token_names(before).await.into_iter().map(|name| (name, String::new())));
    } else if parsed.pending_flag.as_ref().is_some_and(|arg| arg.get_id() == "namespace") {
        suggestions.extend(list_namespaces(before).await.into_iter().map(|name| (name, String::new())));
    }
    let mut text = String::new();
    for (word, about) in suggestions.iter().filter(|(word, _)| word.starts_with(typed)) {
        text.push_str(word);
        if !about.is_empty() {
            text.push_str(&format!("\t{about}"));
        }
        text.push('\n');
    }
    // The directive: 4 for no file names, 0 for file names too.
    let expects_file =
        parsed.pending_flag.as_ref().is_some_and(|arg| arg.get_value_names().is_some_and(|names| names[0] == "FILE"));
    text.push_str(if expects_file { ":0\n" } else { ":4\n" });
    text
}

/// The words before the cursor.
struct ParsedWords<'a> {
    command: Option<&'a clap::Command>,
    /// The flag whose value is at the cursor.
    pending_flag: Option<&'a Arg>,
    /// The number of positional arguments after the command.
    positionals: usize,
}

impl<'a> ParsedWords<'a> {
    fn parse(root: &'a clap::Command, words: &[String]) -> Self {
        let mut parsed = Self { command: None, pending_flag: None, positionals: 0 };
        for word in words {
            if parsed.pending_flag.take().is_some() {
                continue;
            }
            if word.starts_with('-') {
                parsed.pending_flag = parsed.find_flag(root, word).filter(|arg| arg.get_action().takes_values());
            } else if parsed.command.is_none() {
                parsed.command = root.find_subcommand(word);
            } else {
                parsed.positionals += 1;
            }
        }
        parsed
    }

    fn find_flag(&self, root: &'a clap::Command, word: &str) -> Option<&'a Arg> {
        let args = root.get_arguments().chain(self.command.into_iter().flat_map(clap::Command::get_arguments));
        let mut args = args.filter(|arg| !arg.is_positional());
        match word.strip_prefix("--") {
            Some(long) => args.find(|arg| arg.get_long() == Some(long)),
            None => args
                .find(|arg| arg.get_short().is_some_and(|short| word.strip_prefix('-') == Some(&*short.to_string()))),
        }
    }

    /// The positional argument at the cursor.
    fn next_positional(&self) -> Option<&'a Arg> {
        let command = self.command?;
        let all: Vec<_> = command.get_positionals().collect();
        let last = all.last().filter(|arg| arg.get_num_args().is_some_and(|range| range.max_values() > 1));
        all.get(self.positionals).or(last).copied()
    }

    /// Whether the argument is the name of an existing token.
    fn expects_token_name(&self) -> bool {
        let is_new = self.command.is_some_and(|command| command.get_name() == "create");
        !is_new && self.next_positional().is_some_and(|arg| matches!(arg.get_id().as_str(), "name" | "names"))
    }
}

fn suggest_commands(root: &clap::Command) -> Vec<(String, String)> {
    let shown = root.get_subcommands().filter(|command| !command.is_hide_set());
    shown.map(|command| (command.get_name().to_owned(), about(command.get_about()))).collect()
}

fn suggest_flags(root: &clap::Command, command: Option<&clap::Command>) -> Vec<(String, String)> {
    let args = command.into_iter().flat_map(clap::Command::get_arguments).chain(root.get_arguments());
    args.filter_map(|arg| Some((format!("--{}", arg.get_long()?), about(arg.get_help())))).collect()
}

fn suggest_values(arg: &Arg) -> Vec<(String, String)> {
    let values = arg.get_possible_values().into_iter();
    values.map(|value| (value.get_name().to_owned(), about(value.get_help()))).collect()
}

fn about(text: Option<&clap::builder::StyledStr>) -> String {
    text.map_or_else(String::new, ToString::to_string)
}

/// The cluster flags before the cursor.
fn cluster_args(words: &[String]) -> ClusterArgs {
    let value = |names: &[&str]| {
        let mut pairs = words.iter().zip(words.iter().skip(1));
        let apart = pairs.find(|(flag, _)| names.contains(&flag.as_str())).map(|(_, value)| value.clone());
        let joined = || {
            words.iter().find_map(|word| {
                names.iter().find_map(|name| Some(word.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
            })
        };
        apart.or_else(joined)
    };
    ClusterArgs {
        kubeconfig: value(&["--kubeconfig"]).map(Into::into),
        context: value(&["--context"]),
        namespace: value(&["-n", "--namespace"]),
        color: Color::Never,
        connection: ConnectionArgs {
            cluster: value(&["--cluster"]),
            user: value(&["--user"]),
            server: value(&["--server"]),
            impersonate: value(&["--as"]),
            ..ConnectionArgs::default()
        },
    }
}

async fn list_token_names(words: &[String]) -> Vec<String> {
    let request = async {
        let session = Session::open(&cluster_args(words)).await.ok()?;
        let pats = session.list_pats(Some(&session.namespace), None).await.ok()?;
        Some(pats.iter().map(|pat| pat.name().to_owned()).collect())
    };
    tokio::time::timeout(COMPLETION_TIMEOUT, request).await.ok().flatten().unwrap_or_default()
}

async fn list_namespaces(words: &[String]) -> Vec<String> {
    let request = async {
        let session = Session::open(&cluster_args(words)).await.ok()?;
        let api: kube::Api<k8s_openapi::api::core::v1::Namespace> = kube::Api::all(session.client);
        let all = api.list_metadata(&kube::api::ListParams::default()).await.ok()?;
        Some(all.items.into_iter().filter_map(|one| one.metadata.name).collect())
    };
    tokio::time::timeout(COMPLETION_TIMEOUT, request).await.ok().flatten().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn suggestions(words: &[&str]) -> Vec<String> {
        let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
        let text = complete(&words).await;
        text.lines().map(|line| line.split('\t').next().unwrap_or_default().to_owned()).collect()
    }

    #[tokio::test]
    async fn suggestions_fit_the_position() {
        for (words, part) in [
            (&["re"][..], &["reveal", "revoke", ":4"][..]),
            (&["wait", "ci", "--for", ""], &["ready", "rotation", "dead", ":4"]),
            (&["list", "--al"], &["--all-namespaces", ":4"]),
            (&["completion", "b"], &["bash", ":4"]),
            (&["list", "--kubeconfig", ""], &[":0"]),
        ] {
            assert_eq!(suggestions(words).await, part, "{words:?}");
        }
        let first = suggestions(&[""]).await;
        assert!(first.contains(&"doctor".to_owned()) && !first.contains(&"__complete".to_owned()), "{first:?}");
    }
}
