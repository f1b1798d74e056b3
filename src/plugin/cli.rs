//! The command line of `kubectl pat`: commands, flags and help.

use std::{path::PathBuf, time::Duration};

use clap::{
    Args, Parser, Subcommand, ValueEnum,
    builder::{OsStringValueParser, TypedValueParser},
};
use k8s_openapi::jiff::SignedDuration;

use super::{
    create::CreateArgs,
    error::Error,
    extend::ExtendArgs,
    find::FindArgs,
    issuers::IssuersArgs,
    plan::PlanArgs,
    sort::{SortBy, SortByParser},
    targets::TargetArgs,
    terminal::Color,
    verify::VerifyArgs,
};
use crate::{
    api::{self, Time},
    cli::{LEASE_NAME, label, subdomain},
    service::ConfigOverrides,
};

const ABOUT: &str = "Manage personal access tokens in a Kubernetes cluster";

const LONG_ABOUT: &str = "\
Manage personal access tokens in a Kubernetes cluster.

A PersonalAccessToken is a Kubernetes object. The operator issues a token for it, stores the token in a Secret, and rotates it on \
schedule. These commands use the permissions of your kubeconfig. If a permission is missing, the error message names it.

Examples:
  # List the tokens in all namespaces, the next event first
  kubectl pat list -A

  # Print the manifest of a token that expires after 90 days and is rotated every week
  kubectl pat create ci --scope packages:write --after 90d --rotate-every 7d

  # Create the same token, and wait until it is issued
  kubectl pat create ci --scope packages:write --after 90d --rotate-every 7d --apply
  kubectl pat wait ci

  # Pass the token to a program on stdin, never on its command line
  kubectl pat reveal ci --force | docker login registry.example.com --username ci --password-stdin

  # Revoke a token that may have leaked, and issue a new one
  kubectl pat revoke ci --reissue

  # Show the owner of a token and whether it is valid; reads stdin or a hidden prompt
  kubectl pat verify

  # Find the tokens in a text that leaked, and who owns them
  kubectl pat find -A < leaked.log

  # Find problems with a token or with the installation
  kubectl pat show ci
  kubectl pat doctor";

/// The end of the long help of every command.
const AFTER_LONG_HELP: &str = "\
The plugin connects to the same cluster as kubectl, with the same kubeconfig, proxy and flags, such as --context, --server and --as. No \
command accepts a token as an argument or from an environment variable, because other programs can read both.

Exit codes:
  0  success, and the answer is yes
  1  failure; the last line on stderr states the reason and the next step
  2  invalid command line
  3  the token is not valid (verify, reveal)
  4  timeout (wait, rotate --wait)

Only terminals get colors. Set NO_COLOR=1 to turn them off, or use --color.";

/// The command line of the plugin.
#[derive(Debug, Parser)]
#[command(name = "kubectl-pat", bin_name = "kubectl pat", version, about = ABOUT, long_about = LONG_ABOUT)]
#[command(after_long_help = AFTER_LONG_HELP, max_term_width = 120, disable_help_subcommand = true)]
pub struct PluginCli {
    /// The cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// The command.
    #[command(subcommand)]
    pub command: PluginCommand,
}

/// The flags that select a cluster and a namespace, as in kubectl.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Cluster")]
pub struct ClusterArgs {
    /// Path to the kubeconfig file; defaults to KUBECONFIG or ~/.kube/config
    #[arg(long, global = true, value_name = "FILE", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub kubeconfig: Option<PathBuf>,

    /// Context of the kubeconfig to use; defaults to the current context
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,

    /// Namespace to use; defaults to the namespace of the context
    #[arg(short, long, global = true, value_name = "NAME", value_parser = optional_label)]
    pub namespace: Option<String>,

    /// When to use colors: auto, always or never
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", hide_possible_values = true)]
    pub color: Color,

    /// The other flags of kubectl.
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

/// The flags that change parts of the kubeconfig, as in kubectl.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Connection")]
pub struct ConnectionArgs {
    /// Cluster of the kubeconfig to use
    #[arg(long, global = true, value_name = "NAME", hide_short_help = true)]
    pub cluster: Option<String>,

    /// User of the kubeconfig to use
    #[arg(long, global = true, value_name = "NAME", hide_short_help = true)]
    pub user: Option<String>,

    /// Address of the API server
    #[arg(long, global = true, value_name = "URL", hide_short_help = true)]
    pub server: Option<String>,

    /// Name in the API server's certificate; defaults to the host of its address
    #[arg(long, global = true, value_name = "NAME", hide_short_help = true)]
    pub tls_server_name: Option<String>,

    /// File with the certificate authorities of the API server
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    pub certificate_authority: Option<String>,

    /// Accept any certificate of the API server, which is insecure
    #[arg(long, global = true, hide_short_help = true)]
    pub insecure_skip_tls_verify: bool,

    /// File with the client certificate
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    pub client_certificate: Option<String>,

    /// File with the key of the client certificate
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    pub client_key: Option<String>,

    /// User to impersonate
    #[arg(long = "as", global = true, value_name = "USER", hide_short_help = true)]
    pub impersonate: Option<String>,

    /// Group to impersonate; can be repeated
    #[arg(long = "as-group", global = true, value_name = "GROUP", hide_short_help = true)]
    pub impersonate_groups: Vec<String>,

    /// UID to impersonate
    #[arg(long = "as-uid", global = true, value_name = "UID", hide_short_help = true)]
    pub impersonate_uid: Option<String>,

    /// Maximum time of a request, such as 1m; 0 is no limit
    #[arg(long, global = true, value_name = "DURATION", hide_short_help = true, value_parser = parse_timeout)]
    pub request_timeout: Option<Duration>,

    /// Level of details on stderr; from 6 on, each request is printed, without headers and bodies
    #[arg(short = 'v', long = "v", global = true, value_name = "LEVEL", hide_short_help = true)]
    pub verbosity: Option<u8>,

    /// Refused, because other programs can read command lines
    #[arg(long, global = true, value_name = "TOKEN", hide = true)]
    pub token: Option<RefusedSecret>,

    /// Refused, because other programs can read command lines
    #[arg(long, global = true, value_name = "PASSWORD", hide = true)]
    pub password: Option<RefusedSecret>,
}

impl ClusterArgs {
    /// The flags that choose and change the configuration of the client.
    pub fn overrides(&self) -> ConfigOverrides {
        let connection = self.connection.clone();
        ConfigOverrides {
            kubeconfig: self.kubeconfig.clone(),
            context: self.context.clone(),
            cluster: connection.cluster,
            user: connection.user,
            server: connection.server,
            tls_server_name: connection.tls_server_name,
            certificate_authority: connection.certificate_authority,
            insecure_skip_tls_verify: connection.insecure_skip_tls_verify,
            client_certificate: connection.client_certificate,
            client_key: connection.client_key,
            impersonate: connection.impersonate,
            impersonate_uid: connection.impersonate_uid,
            impersonate_groups: connection.impersonate_groups,
            print_requests: connection.verbosity.is_some_and(|level| level >= PRINT_REQUESTS),
        }
    }

    /// The namespace of `--namespace`, unless it is empty.
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref().filter(|namespace| !namespace.is_empty())
    }

    /// Refuses the flags of kubectl that would put a secret on the command line.
    ///
    /// # Errors
    /// There is such a flag.
    pub fn refuse_secrets(&self) -> Result<(), Error> {
        let ConnectionArgs { token, password, .. } = &self.connection;
        let flag = match (token, password) {
            (Some(_), _) => "--token",
            (None, Some(_)) => "--password",
            (None, None) => return Ok(()),
        };
        Err(Error::Usage(format!(
            "{flag} is not supported, because other programs can read command lines: use a user of the kubeconfig, whose token may be in a \
             file (tokenFile) or come from a credential plugin (exec)"
        )))
    }
}

/// The level from which kubectl prints requests.
const PRINT_REQUESTS: u8 = 6;

/// The value of a refused flag, which is dropped.
#[derive(Clone, Copy, Debug)]
pub struct RefusedSecret;

impl From<String> for RefusedSecret {
    fn from(_: String) -> Self {
        Self
    }
}

/// A namespace, or an empty text for the namespace of the context, as in kubectl.
fn optional_label(text: &str) -> Result<String, String> {
    if text.is_empty() { Ok(String::new()) } else { label(text).map_err(|error| error.to_string()) }
}

/// A duration as in kubectl, which takes seconds without a unit, too. Zero is no limit.
fn parse_timeout(text: &str) -> Result<Duration, &'static str> {
    let seconds = text.parse::<u64>().map(Duration::from_secs).ok();
    let duration = || text.parse::<SignedDuration>().ok().and_then(|duration| Duration::try_from(duration).ok());
    match seconds.or_else(duration) {
        Some(Duration::ZERO) => Ok(Duration::MAX),
        Some(duration) => Ok(duration),
        None => Err("must be a duration, such as 30s or 1m; 0 is no limit"),
    }
}

/// A command of the plugin.
#[derive(Debug, Subcommand)]
pub enum PluginCommand {
    /// List tokens and their state, the next event first
    #[command(
        visible_alias = "ls",
        after_long_help = "\
Examples:
  kubectl pat list -A
  kubectl pat list -l team=shop -o wide
  kubectl pat list -A --sort-by expires
  kubectl pat list --sort-by .metadata.creationTimestamp
  kubectl pat list -w                        print changes until you press Ctrl-C
  kubectl pat list -o json | jq -r '.items[].metadata.name'"
    )]
    List(ListArgs),
    /// Print the manifest of a token, or apply it
    Create(Box<CreateArgs>),
    /// Show the details of a token: its history, and what happens next
    #[command(
        visible_alias = "describe",
        after_long_help = "\
Examples:
  kubectl pat show ci
  kubectl pat show ci -o yaml"
    )]
    Show(ShowArgs),
    /// Print the token itself
    #[command(after_long_help = "\
The token is printed to a terminal. To write it to a pipe or a file, pass --force. The token is checked first: if it is not valid, \
nothing is printed, and the exit code is 3.

With --take, the command prints a token that is delivered once (spec.secret.delivery: Once), and then deletes its Secret, which tells the \
operator that the token was taken.

Examples:
  kubectl pat reveal ci
  kubectl pat reveal setup --take
  kubectl pat reveal ci --force | docker login registry.example.com --username ci --password-stdin
  kubectl pat reveal ci --previous")]
    Reveal(RevealArgs),
    /// Rotate tokens now; the old tokens stay valid for their grace period
    #[command(after_long_help = "\
Sets spec.rotateIfIssuedBefore to the current time. Programs that use the old token keep working during its grace period. If a token \
may have leaked, use revoke instead.

With --selector or --all-namespaces, the command lists the tokens that it finds, and asks for confirmation; --yes skips the question. It \
changes no other tokens than these. If some changes fail, it prints a table of all of them and exits with code 1.

Examples:
  kubectl pat rotate ci
  kubectl pat rotate ci deploy --wait
  kubectl pat rotate -l team=shop
  kubectl pat rotate -A -l team=shop --yes")]
    Rotate(RotateArgs),
    /// Revoke tokens immediately, without a grace period
    #[command(after_long_help = "\
Verifiers refuse a revoked token within moments, and programs that use it stop working. The command therefore asks for confirmation; \
--yes skips the question.

With --selector or --all-namespaces, the command first lists the tokens that it finds, and changes no others. If some changes fail, it \
prints a table of all of them and exits with code 1.

Examples:
  kubectl pat revoke ci                      revoke all tokens of ci, and issue no new one
  kubectl pat revoke ci --reissue            revoke all tokens of ci, and issue a new one
  kubectl pat revoke ci --id 0aB1cD2eF3gH    revoke one credential; if it is the active one, a new one is issued
  kubectl pat revoke ci --undo               issue a new token again; revoked tokens stay revoked
  kubectl pat revoke -l team=shop --reissue  revoke the tokens with a label, and issue new ones
  kubectl pat revoke -A -l team=shop --yes   revoke them in all namespaces")]
    Revoke(RevokeArgs),
    /// Change when a token expires
    Extend(ExtendArgs),
    /// Find the owner of tokens by their IDs, or in a text that leaked
    Find(FindArgs),
    /// Show the owner of a token and whether it is valid
    Verify(VerifyArgs),
    /// Wait until a token is ready, rotated or dead
    #[command(after_long_help = "\
Exits with code 4 when the timeout passes, and with code 1 at once if the token cannot reach the state without a change by a user.

Examples:
  kubectl pat wait ci
  kubectl pat wait ci --for rotation --timeout 10m")]
    Wait(WaitArgs),
    /// Show what the operator would do, without doing it
    Plan(PlanArgs),
    /// List the systems that issue tokens, and whether each is ready
    Issuers(IssuersArgs),
    /// Check the installation and your permissions, and suggest fixes
    #[command(after_long_help = "\
Exits with code 1 if something is broken. Warnings do not change the exit code.

Examples:
  kubectl pat doctor
  kubectl pat doctor --operator-namespace pat-operator")]
    Doctor(DoctorArgs),
    /// Print the completion script of a shell
    #[command(after_long_help = "\
The scripts for bash, zsh and fish complete `kubectl-pat`. To complete `kubectl pat`, kubectl runs the program kubectl_complete-pat \
from your PATH. Install it with:
  mkdir -p ~/.local/bin
  kubectl pat completion kubectl > ~/.local/bin/kubectl_complete-pat
  chmod +x ~/.local/bin/kubectl_complete-pat

Examples:
  source <(kubectl pat completion bash)
  kubectl pat completion zsh > \"${fpath[1]}/_kubectl-pat\"
  kubectl pat completion fish > ~/.config/fish/completions/kubectl-pat.fish")]
    Completion {
        /// Shell to print the script for; kubectl prints the program that completes `kubectl pat`
        #[arg(value_name = "SHELL")]
        shell: CompletionShell,
    },
    /// Write the manual pages to a directory
    #[command(hide = true)]
    Man {
        /// Directory to write to; created if it does not exist
        #[arg(value_name = "FOLDER")]
        folder: PathBuf,
    },
    /// Print completions for kubectl
    #[command(name = "__complete", hide = true, disable_help_flag = true)]
    Complete {
        /// Words after `kubectl pat`; the last one is the word at the cursor
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, num_args = 0..)]
        words: Vec<String>,
    },
}

/// A shell with completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CompletionShell {
    /// Bash
    Bash,
    /// Zsh
    Zsh,
    /// Fish
    Fish,
    /// The program that kubectl runs to complete `kubectl pat`
    Kubectl,
}

/// The output format of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// JSON, with all fields
    Json,
    /// YAML, with all fields
    Yaml,
}

/// The output format of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ListOutputFormat {
    /// A table with more columns
    Wide,
    /// JSON, with all fields
    Json,
    /// YAML, with all fields
    Yaml,
    /// One TYPE.GROUP/NAME per line, such as personalaccesstoken.pat-operator.io/ci
    Name,
}

/// Flags of `list`.
#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    /// List the tokens of all namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub all_namespaces: bool,

    /// Label selector to filter on, such as team=shop
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,

    /// Output format; defaults to a table
    #[arg(short, long, value_name = "FORMAT")]
    pub output: Option<ListOutputFormat>,

    /// Key to sort by, or a JSONPath such as .metadata.name; tokens without a value come last
    #[arg(long, value_name = "KEY", default_value = "next", value_parser = SortByParser)]
    pub sort_by: SortBy,

    /// Print the tokens, and then each change of one
    #[arg(short, long)]
    pub watch: bool,
}

/// Flags of `show`.
#[derive(Clone, Debug, Args)]
pub struct ShowArgs {
    /// Name of the token
    #[arg(value_parser = subdomain)]
    pub name: String,

    /// Output format; defaults to a description
    #[arg(short, long, value_name = "FORMAT")]
    pub output: Option<OutputFormat>,
}

/// Flags of `reveal`.
#[derive(Clone, Debug, Args)]
pub struct RevealArgs {
    /// Name of the token
    #[arg(value_parser = subdomain)]
    pub name: String,

    /// Print the token even if stdout is a pipe or a file
    #[arg(long)]
    pub force: bool,

    /// Print the replaced token from spec.secret.previousKey, which is still valid
    #[arg(long)]
    pub previous: bool,

    /// Take a token that is delivered once: delete its Secret after printing it
    #[arg(long, conflicts_with = "previous")]
    pub take: bool,
}

/// The flags that `rotate`, `revoke` and `extend` share.
#[derive(Clone, Copy, Debug, Args)]
pub struct ChangeArgs {
    /// Change the field even if a GitOps tool manages it and will undo the change
    #[arg(long)]
    pub force: bool,

    /// Validate the change on the API server, but do not save it
    #[arg(long)]
    pub dry_run: bool,
}

/// Flags of `rotate`.
#[derive(Clone, Debug, Args)]
pub struct RotateArgs {
    /// The tokens.
    #[command(flatten)]
    pub targets: TargetArgs,

    /// Wait until the Secrets contain the new tokens
    #[arg(long, conflicts_with = "dry_run")]
    pub wait: bool,

    /// Maximum time to wait for each token
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = api::duration::parse)]
    pub timeout: SignedDuration,

    /// The shared flags.
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// Flags of `revoke`.
#[derive(Clone, Debug, Args)]
pub struct RevokeArgs {
    /// The tokens.
    #[command(flatten)]
    pub targets: TargetArgs,

    /// Issue a new token at once
    #[arg(long, conflicts_with_all = ["id", "undo"])]
    pub reissue: bool,

    /// Revoke only the credential with this ID (see kubectl pat list -o wide); can be repeated
    #[arg(long, value_name = "ID", conflicts_with_all = ["undo", "selector", "all_namespaces"])]
    pub id: Vec<crate::token::TokenId>,

    /// Clear spec.revoked, so that a new token is issued; revoked tokens stay revoked
    #[arg(long)]
    pub undo: bool,

    /// The shared flags.
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// The state that `wait` waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WaitGoal {
    /// The token is valid, and no change is in progress
    Ready,
    /// A new token has replaced the current one
    Rotation,
    /// No token of the object is valid, or the object does not exist
    Dead,
}

/// Flags of `wait`.
#[derive(Clone, Debug, Args)]
pub struct WaitArgs {
    /// Name of the token
    #[arg(value_parser = subdomain)]
    pub name: String,

    /// State to wait for
    #[arg(long = "for", value_name = "GOAL", default_value = "ready")]
    pub goal: WaitGoal,

    /// Maximum time to wait
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = api::duration::parse)]
    pub timeout: SignedDuration,
}

/// Flags of `doctor`.
#[derive(Clone, Debug, Args)]
pub struct DoctorArgs {
    /// Namespace of the operator; defaults to the namespaces that contain its Lease
    #[arg(long, value_name = "NAME", value_parser = label)]
    pub operator_namespace: Option<String>,

    /// Name of the Lease of the controller
    #[arg(long, value_name = "NAME", default_value = LEASE_NAME, value_parser = subdomain)]
    pub lease_name: String,
}

/// Parses a time in RFC 3339 format.
pub fn parse_time(text: &str) -> Result<Time, &'static str> {
    text.parse().map_err(|_| "must be an RFC 3339 time with an offset from UTC, such as 2030-12-31T23:59:59Z")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_command_and_flag_has_help() {
        PluginCli::command().debug_assert();
        for command in PluginCli::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for flag in command.get_arguments() {
                assert!(flag.get_help().is_some(), "{} {}", command.get_name(), flag.get_id());
            }
        }
    }

    #[test]
    fn no_flag_is_read_from_the_environment() {
        for command in PluginCli::command().get_subcommands() {
            assert!(command.get_arguments().all(|flag| flag.get_env().is_none()), "{}", command.get_name());
        }
    }

    #[test]
    fn help_shows_examples_and_exit_codes() {
        let help = PluginCli::command().render_long_help().to_string();
        for part in ["kubectl pat list -A", "Exit codes:", "  4  timeout (wait, rotate --wait)", "NO_COLOR"] {
            assert!(help.contains(part), "{part} is missing in:\n{help}");
        }
    }

    #[test]
    fn invalid_arguments_are_refused_with_a_hint() {
        for (line, part) in [
            ("show", "<NAME>"),
            ("show A_b", "lower case letters"),
            ("wait ci --timeout 5", "such as 30d, 2w, 12h or 1d12h"),
            ("wait ci --for godot", "[possible values: ready, rotation, dead]"),
            ("revoke ci --id kpat_x", "12 ASCII letters and digits"),
            ("revoke ci --undo --reissue", "cannot be used with"),
            ("list -A -n shop", "cannot be used with"),
            ("list --sort-by size", "must be one of next, name, age, expires, last-used, owner, state, or a JSONPath"),
            ("rotate", "<NAME>"),
            ("rotate ci -l team=shop", "cannot be used with"),
            ("rotate ci -A", "cannot be used with"),
            ("rotate --selector=", "must not be empty"),
            ("revoke -A -n shop", "cannot be used with"),
            ("revoke -l team=shop --id 000000000000", "cannot be used with"),
            ("extend ci", "--by"),
            ("extend ci --until tomorrow", "RFC 3339"),
            ("create ci --after 1d --never", "cannot be used with"),
            ("verify kpat_secret", "unexpected argument"),
            ("list --request-timeout soon", "such as 30s or 1m"),
            ("list -n A_b", "lower case letters"),
            ("issuers -A -n shop", "cannot be used with"),
            ("issuers -o table", "[possible values: wide, json, yaml, name]"),
        ] {
            let error = PluginCli::try_parse_from(["kubectl-pat"].into_iter().chain(line.split(' '))).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
            assert!(error.to_string().contains(part), "{line}: {error}");
        }
    }

    #[test]
    fn connection_flags_are_those_of_kubectl() {
        let parse = |line: &str| {
            PluginCli::try_parse_from(["kubectl-pat", "list"].into_iter().chain(line.split(' '))).expect(line).cluster
        };
        let flags = parse(
            "--context c --cluster d --user u --server https://s --as a --as-group g --as-group h --as-uid 7 -v 6",
        )
        .overrides();
        let texts =
            [&flags.context, &flags.cluster, &flags.user, &flags.server, &flags.impersonate, &flags.impersonate_uid];
        assert_eq!(texts.map(|text| text.as_deref().unwrap_or_default()), ["c", "d", "u", "https://s", "a", "7"]);
        assert_eq!((flags.impersonate_groups, flags.print_requests), (vec!["g".to_owned(), "h".to_owned()], true));
        assert!(parse("--namespace=").namespace().is_none());
        for (text, seconds) in [("5", 5), ("5s", 5), ("1m30s", 90), ("1h", 3_600)] {
            let timeout = parse(&format!("--request-timeout={text}")).connection.request_timeout;
            assert_eq!(timeout, Some(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(parse("--request-timeout=0").connection.request_timeout, Some(Duration::MAX));
    }

    #[test]
    fn secrets_on_the_command_line_are_refused_and_not_kept() {
        for flag in ["--token", "--password"] {
            let cli = PluginCli::try_parse_from(["kubectl-pat", "list", flag, "s3cret"]).expect(flag);
            assert!(!format!("{cli:?}").contains("s3cret"));
            let error = cli.cluster.refuse_secrets().unwrap_err();
            assert_eq!(error.exit(), crate::plugin::output::Exit::Usage);
            assert!(error.to_string().starts_with(flag) && !error.to_string().contains("s3cret"), "{error}");
        }
    }
}
