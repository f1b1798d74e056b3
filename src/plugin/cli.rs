//! The command line of `kubectl pat`: commands, flags, and help that a person can work from.
//!
//! Everything is parsed into types that cannot be wrong. It must not do anything.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use k8s_openapi::jiff::SignedDuration;

use super::{create::CreateArgs, extend::ExtendArgs, plan::PlanArgs, terminal::Color, verify::VerifyArgs};
use crate::{
    api::{self, Time},
    cli::{LEASE_NAME, label, subdomain},
};

const ABOUT: &str = "Personal access tokens of a cluster: list, read, rotate, revoke, verify";

const LONG_ABOUT: &str = "\
Personal access tokens of a cluster: list, read, rotate, revoke, verify.

A PersonalAccessToken is a manifest; the operator makes a strong token of it and keeps it in a Secret, rotated on time. These \
commands are what people do with them. They need no right but those of your kubeconfig, and each tells which one is missing.

Examples:
  What is there, and what ends next:
      kubectl pat list -A

  A token for a pipeline, for 90 days, replaced every week; look at it first, then apply it:
      kubectl pat create ci --scope packages:write --after 90d --rotate-every 7d
      kubectl pat create ci --scope packages:write --after 90d --rotate-every 7d --apply
      kubectl pat wait ci

  Hand the token to a program; it never stands in a command line:
      kubectl pat reveal ci --force | docker login registry.example.com --username ci --password-stdin

  It may have leaked: everything dead at once, and a new one:
      kubectl pat revoke ci --reissue

  Whose is this token, and is it still good? It is typed unseen, or read from a pipe:
      kubectl pat verify

  Something is wrong:
      kubectl pat show ci
      kubectl pat doctor";

/// What `--help` tells at its end, of every command.
const AFTER_LONG_HELP: &str = "\
The cluster is the one that kubectl would take: --kubeconfig, KUBECONFIG or ~/.kube/config, and --context. No command ever takes a \
token as an argument, or from an environment variable: other programs can read both.

Exit codes:
  0  done, and the answer is yes
  1  it failed; the last line on stderr says why and what to do next
  2  the command line is wrong
  3  the token is not good: verify and reveal say why
  4  it did not happen in time: wait, and rotate --wait

Colours are for terminals only; NO_COLOR=1 turns them off, --color decides.";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "kubectl-pat", bin_name = "kubectl pat", version, about = ABOUT, long_about = LONG_ABOUT)]
#[command(after_long_help = AFTER_LONG_HELP, max_term_width = 120, disable_help_subcommand = true)]
pub struct Cli {
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags that kubectl has as well.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Cluster")]
pub struct ClusterArgs {
    /// The kubeconfig to use, instead of KUBECONFIG or ~/.kube/config
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// The context of the kubeconfig to use
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,

    /// The namespace; without it the context's
    #[arg(short, long, global = true, value_name = "NAME", value_parser = label)]
    pub namespace: Option<String>,

    /// When to use colours
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", hide_possible_values = true)]
    pub color: Color,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List tokens with their state, what ends next first
    #[command(
        visible_alias = "ls",
        after_long_help = "\
Examples:
  kubectl pat list -A
  kubectl pat list -l team=shop -o wide
  kubectl pat list -o json | jq -r '.items[].metadata.name'"
    )]
    List(ListArgs),
    /// Print a manifest made of flags, or apply it
    Create(Box<CreateArgs>),
    /// Show one token: its life so far, and what happens next and when
    #[command(
        visible_alias = "describe",
        after_long_help = "\
Examples:
  kubectl pat show ci
  kubectl pat show ci -o yaml"
    )]
    Show(ShowArgs),
    /// Print the token itself, to a terminal only
    #[command(after_long_help = "\
It goes to a terminal, or with --force to a pipe. The token is checked before: one that does not work is refused, with exit code 3.

Examples:
  kubectl pat reveal ci
  kubectl pat reveal ci --force | docker login registry.example.com --username ci --password-stdin
  kubectl pat reveal ci --previous")]
    Reveal(RevealArgs),
    /// Have tokens replaced now; the old ones work on for their grace period
    #[command(after_long_help = "\
It sets spec.rotateIfIssuedBefore to the present; nothing breaks. For a token that may have leaked use revoke.

Examples:
  kubectl pat rotate ci
  kubectl pat rotate ci deploy --wait")]
    Rotate(RotateArgs),
    /// Make tokens invalid at once, without grace
    #[command(after_long_help = "\
Verifiers follow within moments. Whoever uses the token breaks, so that it asks first; --yes answers.

Examples:
  kubectl pat revoke ci                      all of it dead, and no new one
  kubectl pat revoke ci --reissue            all of it dead, and a new one in the Secret
  kubectl pat revoke ci --id 0aB1cD2eF3gH    just this credential; if it is the active one, a new one is issued
  kubectl pat revoke ci --undo               a new token after all; what is dead stays dead")]
    Revoke(RevokeArgs),
    /// Move the end of a token
    Extend(ExtendArgs),
    /// Tell whose a token is and whether it is good; it is read from stdin or typed unseen
    Verify(VerifyArgs),
    /// Wait until a token is ready, rotated or dead
    #[command(after_long_help = "\
Exit code 4 if it does not happen in time, 1 at once if it cannot happen any more.

Examples:
  kubectl pat wait ci
  kubectl pat wait ci --for rotation --timeout 10m")]
    Wait(WaitArgs),
    /// Tell what the operator would do, without doing it
    Plan(PlanArgs),
    /// Look for what is wrong with the installation and with your rights; each finding has its fix
    #[command(after_long_help = "\
Exit code 1 if something is broken; warnings alone are 0.

Examples:
  kubectl pat doctor
  kubectl pat doctor --operator-namespace pat-operator")]
    Doctor(DoctorArgs),
    /// Print the completions for a shell
    #[command(after_long_help = "\
These complete `kubectl-pat`. For `kubectl pat`, kubectl asks a program kubectl_complete-pat on your PATH. Put it there with:
  mkdir -p ~/.local/bin
  kubectl pat completion kubectl > ~/.local/bin/kubectl_complete-pat
  chmod +x ~/.local/bin/kubectl_complete-pat

Examples:
  source <(kubectl pat completion bash)
  kubectl pat completion zsh > \"${fpath[1]}/_kubectl-pat\"
  kubectl pat completion fish > ~/.config/fish/completions/kubectl-pat.fish")]
    Completion {
        /// For which shell; kubectl for what completes `kubectl pat`
        #[arg(value_name = "SHELL")]
        shell: Shell,
    },
    /// Write the manual pages into a folder
    #[command(hide = true)]
    Man {
        /// The folder; it is made if it is not there
        #[arg(value_name = "FOLDER")]
        folder: PathBuf,
    },
    /// Answer what kubectl asks on the tab key
    #[command(name = "__complete", hide = true, disable_help_flag = true)]
    Complete {
        /// The words after `kubectl pat`, the one at the cursor last
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, num_args = 0..)]
        words: Vec<String>,
    },
}

/// For what there are completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// Bash
    Bash,
    /// Zsh
    Zsh,
    /// Fish
    Fish,
    /// The program that kubectl asks
    Kubectl,
}

/// How objects are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// JSON, whole objects
    Json,
    /// YAML, whole objects
    Yaml,
}

/// How a list is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ListFormat {
    /// More columns
    Wide,
    /// JSON, whole objects
    Json,
    /// YAML, whole objects
    Yaml,
    /// personalaccesstoken.pat-operator.io/NAME, one a line
    Name,
}

/// Flags of `list`.
#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    /// Tokens of all namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub all_namespaces: bool,

    /// Only tokens with these labels, such as team=shop
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,

    /// Another form than a table
    #[arg(short, long, value_name = "FORMAT")]
    pub output: Option<ListFormat>,
}

/// Flags of `show`.
#[derive(Clone, Debug, Args)]
pub struct ShowArgs {
    /// The token's name
    #[arg(value_parser = subdomain)]
    pub name: String,

    /// The whole object instead
    #[arg(short, long, value_name = "FORMAT")]
    pub output: Option<Format>,
}

/// Flags of `reveal`.
#[derive(Clone, Debug, Args)]
pub struct RevealArgs {
    /// The token's name
    #[arg(value_parser = subdomain)]
    pub name: String,

    /// Also into a pipe or a file
    #[arg(long)]
    pub force: bool,

    /// The replaced token that still works, from spec.secret.previousKey
    #[arg(long)]
    pub previous: bool,
}

/// Flags of every command that changes a token.
#[derive(Clone, Copy, Debug, Args)]
pub struct ChangeArgs {
    /// Also where a field belongs to a GitOps tool, which will set it back
    #[arg(long)]
    pub force: bool,

    /// Have the API server check the change, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Flags of `rotate`.
#[derive(Clone, Debug, Args)]
pub struct RotateArgs {
    /// The tokens' names
    #[arg(required = true, value_name = "NAME", value_parser = subdomain)]
    pub names: Vec<String>,

    /// Wait until the new tokens are in their Secrets
    #[arg(long, conflicts_with = "dry_run")]
    pub wait: bool,

    /// How long to wait at most
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = api::duration::parse)]
    pub timeout: SignedDuration,

    /// What all changes have.
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// Flags of `revoke`.
#[derive(Clone, Debug, Args)]
pub struct RevokeArgs {
    /// The tokens' names
    #[arg(required = true, value_name = "NAME", value_parser = subdomain)]
    pub names: Vec<String>,

    /// Issue a new token at once
    #[arg(long, conflicts_with_all = ["id", "undo"])]
    pub reissue: bool,

    /// Only this credential (the ids: kubectl pat list -o wide); may be given several times
    #[arg(long, value_name = "ID", conflicts_with = "undo")]
    pub id: Vec<crate::token::TokenId>,

    /// Take spec.revoked back: a new token is issued, the old ones stay dead
    #[arg(long)]
    pub undo: bool,

    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,

    /// What all changes have.
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Goal {
    /// The token works, and nothing is under way
    Ready,
    /// A newer token than now has taken its place
    Rotation,
    /// None of its tokens works any more, or the object is gone
    Dead,
}

/// Flags of `wait`.
#[derive(Clone, Debug, Args)]
pub struct WaitArgs {
    /// The token's name
    #[arg(value_parser = subdomain)]
    pub name: String,

    /// What to wait for
    #[arg(long = "for", value_name = "GOAL", default_value = "ready")]
    pub goal: Goal,

    /// How long to wait at most
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = api::duration::parse)]
    pub timeout: SignedDuration,
}

/// Flags of `doctor`.
#[derive(Clone, Debug, Args)]
pub struct DoctorArgs {
    /// Where the operator runs; without it, wherever its Lease is found
    #[arg(long, value_name = "NAME", value_parser = label)]
    pub operator_namespace: Option<String>,

    /// The name of the controller's Lease
    #[arg(long, value_name = "NAME", default_value = LEASE_NAME, value_parser = subdomain)]
    pub lease_name: String,
}

/// A time as in RFC 3339.
pub fn time(text: &str) -> Result<Time, &'static str> {
    text.parse().map_err(|_| "write a time as in RFC 3339, with its offset from UTC, such as 2030-12-31T23:59:59Z")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound_and_every_flag_has_help() {
        Cli::command().debug_assert();
        for command in Cli::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for flag in command.get_arguments() {
                assert!(flag.get_help().is_some(), "{} {}", command.get_name(), flag.get_id());
            }
        }
    }

    #[test]
    fn no_flag_is_read_from_the_environment() {
        for command in Cli::command().get_subcommands() {
            assert!(command.get_arguments().all(|flag| flag.get_env().is_none()), "{}", command.get_name());
        }
    }

    #[test]
    fn help_shows_examples_and_exit_codes() {
        let help = Cli::command().render_long_help().to_string();
        for part in ["kubectl pat list -A", "Exit codes:", "  4  it did not happen in time", "NO_COLOR"] {
            assert!(help.contains(part), "{part} is missing in:\n{help}");
        }
    }

    #[test]
    fn what_is_wrong_is_refused_with_what_would_be_right() {
        for (line, part) in [
            ("show", "<NAME>"),
            ("show A_b", "lower case letters"),
            ("wait ci --timeout 5", "such as 30d, 2w, 12h or 1d12h"),
            ("wait ci --for godot", "[possible values: ready, rotation, dead]"),
            ("revoke ci --id kpat_x", "12 ASCII letters and digits"),
            ("revoke ci --undo --reissue", "cannot be used with"),
            ("list -A -n shop", "cannot be used with"),
            ("extend ci", "--by"),
            ("extend ci --until tomorrow", "RFC 3339"),
            ("create ci --after 1d --never", "cannot be used with"),
            ("verify kpat_secret", "unexpected argument"),
        ] {
            let error = Cli::try_parse_from(["kubectl-pat"].into_iter().chain(line.split(' '))).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
            assert!(error.to_string().contains(part), "{line}: {error}");
        }
    }
}
