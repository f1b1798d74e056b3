//! The command line: subcommands, flags, their environment variables, and help that a person can work from.
//!
//! Everything is parsed into types that cannot be wrong. It must not do anything: `main` does.

use std::{path::PathBuf, str::FromStr};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use k8s_openapi::jiff::SignedDuration;

use crate::{
    api::{self, Time},
    certificates::CertificateRequest,
    service::{ListenAddr, LogFilter, LogFormat},
    verifier::{metadata::Issuer, tokenreview::UsernamePrefix},
};

/// The most namespaces that one instance watches one by one; each costs it two watches.
pub const MAX_NAMESPACES: usize = 50;

/// The Lease of controllers that are not told another.
pub const LEASE_NAME: &str = "pat-operator-controller";

const ONE_DAY: SignedDuration = SignedDuration::from_hours(24);

const ABOUT: &str = "Personal access tokens for Kubernetes: strong, rotated, expiring, verifiable";

const LONG_ABOUT: &str = "\
Personal access tokens for Kubernetes.

A PersonalAccessToken manifest becomes a strong token in a Secret, is rotated on time without breaking who uses it, \
dies on time, and can be verified by anything that has to trust it.

Examples:
  Install the resource, then run the controller against the cluster of your kubeconfig:
      pat-operator crds | kubectl apply -f -
      pat-operator controller --leader-elect=false --health-addr 127.0.0.1:8080

  In a cluster, for two namespaces only, with logs for machines:
      pat-operator controller --namespaces team-a,team-b --log-format json

  Verify tokens on this machine, for a proxy that runs here:
      pat-operator verifier --http-addr 127.0.0.1:8081 --grpc-addr 127.0.0.1:8082 --health-addr 127.0.0.1:8083

  Manage the tokens of one namespace over REST:
      pat-operator api --namespace team-a --http-addr 127.0.0.1:8084 --health-addr 127.0.0.1:8085";

const AFTER_LONG_HELP: &str = "\
The cluster is the one of KUBECONFIG; without it, the one that this runs in; else the one of ~/.kube/config.

Exit codes:
  0    stopped as asked, by SIGTERM or SIGINT, everything in good order
  1    cannot go on; the last line on stderr says why and what to do
  2    the command line is wrong
  130  a second SIGINT, 143  a second SIGTERM: stopped at once";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "pat-operator", version, about = ABOUT, long_about = LONG_ABOUT, after_long_help = AFTER_LONG_HELP)]
#[command(max_term_width = 120)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the controller: mints, rotates and retires tokens until it is stopped
    #[command(after_long_help = AFTER_LONG_HELP)]
    Controller(Box<ControllerArgs>),
    /// Run the verifier: answers whether a token is good, whose it is and what it may do
    #[command(after_long_help = AFTER_LONG_HELP)]
    Verifier(Box<VerifierArgs>),
    /// Run the REST API: lists, creates, changes and revokes the tokens of one namespace, as clients of other products ask for it
    #[command(after_long_help = AFTER_LONG_HELP)]
    Api(Box<ApiArgs>),
    /// Print the CustomResourceDefinitions as YAML, for `kubectl apply -f -`
    Crds,
}

/// Flags of `pat-operator controller`.
#[derive(Clone, Debug, Args)]
pub struct ControllerArgs {
    /// Where to serve /livez, /readyz and /metrics: ADDRESS:PORT, or :PORT for every address
    ///
    /// Port 0 takes a free port and logs which. It is plain HTTP and tells no secrets.
    #[arg(long, env = "PAT_OPERATOR_HEALTH_ADDR", value_name = "ADDR", default_value = ":8080")]
    pub health_addr: ListenAddr,

    /// Namespaces to watch, separated by commas; none for all of them
    ///
    /// At most 50. With a list, a Role in each namespace is enough; without, it takes a ClusterRole.
    #[arg(long, env = "PAT_OPERATOR_NAMESPACES", value_name = "NAMES", default_value = "", hide_default_value = true)]
    pub namespaces: Namespaces,

    /// Only care for PersonalAccessTokens that match this label selector; none for all of them
    ///
    /// As in `kubectl get -l`, such as `shard=a` or `team in (x, y)`. Instances with different selectors share the work
    /// of one cluster: give each a --lease-name of its own, and let no two selectors match one token.
    #[arg(
        long,
        env = "PAT_OPERATOR_LABEL_SELECTOR",
        value_name = "SELECTOR",
        default_value = "",
        hide_default_value = true
    )]
    pub label_selector: LabelSelector,

    /// How many tokens to work on at the same time: 1 to 256
    ///
    /// 16 to 32 keep an API server busy; more only make each take longer.
    #[arg(long, env = "PAT_OPERATOR_CONCURRENCY", value_name = "N", default_value_t = 32)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=256))]
    pub concurrency: u16,

    /// When a token ends that states neither an expiry nor a rotation, counted from its first issue
    ///
    /// Weeks, days, hours, minutes and seconds, such as 90d, 2w or 1d12h. A change is not retroactive: tokens that
    /// have been issued keep their end.
    #[arg(long, env = "PAT_OPERATOR_DEFAULT_LIFETIME", value_name = "DURATION", default_value = "90d")]
    #[arg(value_parser = api::duration::parse)]
    pub default_lifetime: SignedDuration,

    /// How long verifiers know a rotated token before its Secret has it: 0s to 1m
    ///
    /// Verifiers hear of a new token by a watch. Longer than the slowest of them lags, or somebody's new token is
    /// refused for a moment. 0s is for when nobody verifies.
    #[arg(long, env = "PAT_OPERATOR_PUBLISH_LEAD", value_name = "DURATION", default_value = "2s")]
    #[arg(value_parser = publish_lead)]
    pub publish_lead: SignedDuration,

    /// Adopt Secrets of a restored backup whose tokens were issued before this time
    ///
    /// RFC 3339, such as 2026-01-31T12:00:00Z. After a restore PersonalAccessTokens have new uids, and their Secrets
    /// look like somebody else's (SecretConflict). Set it to the time of the restore, and remove it when all are Ready.
    #[arg(long, env = "PAT_OPERATOR_RESTORE_ISSUED_BEFORE", value_name = "TIME", value_parser = time)]
    pub restore_issued_before: Option<Time>,

    /// Whether only one of several instances works, and the others stand by
    ///
    /// Without it, make sure that there is only one.
    #[arg(long, env = "PAT_OPERATOR_LEADER_ELECT", value_name = "BOOL", default_value_t = true)]
    #[arg(action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub leader_elect: bool,

    /// The Lease that instances compete for
    #[arg(long, env = "PAT_OPERATOR_LEASE_NAME", value_name = "NAME", default_value = LEASE_NAME)]
    #[arg(value_parser = subdomain)]
    pub lease_name: String,

    /// The namespace of that Lease [default: the pod's own, or the one of the kubeconfig's context]
    #[arg(long, env = "PAT_OPERATOR_LEASE_NAMESPACE", value_name = "NAME", value_parser = label)]
    pub lease_namespace: Option<String>,

    /// A certificate to make and to renew, for servers that have no other: the Secret that is to hold it, and the names that it is for
    ///
    /// As in `pat-operator-verifier-serving:pat-operator-verifier.pat-operator.svc,tokens.example.com`; names may be host names, `*.` and a host
    /// name, or IP addresses. May be given several times; in the variable with a `;` between. The Secret gets `tls.crt` and `tls.key`
    /// by a private authority; what clients are to trust is in the ConfigMap of that name with `-ca`, under `ca.crt`.
    #[arg(long, env = "PAT_OPERATOR_SERVING_CERTIFICATE", value_name = "SECRET:NAMES", value_delimiter = ';')]
    pub serving_certificate: Vec<CertificateRequest>,

    /// The namespace of those Secrets [default: the pod's own, or the one of the kubeconfig's context]
    #[arg(long, env = "PAT_OPERATOR_SERVING_CERTIFICATE_NAMESPACE", value_name = "NAME", value_parser = label)]
    pub serving_certificate_namespace: Option<String>,

    /// Logs.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Flags of `pat-operator verifier`.
#[derive(Clone, Debug, Args)]
pub struct VerifierArgs {
    /// Where to serve introspection, forward auth, Envoy's HTTP checks and TokenReview: ADDRESS:PORT, or :PORT for every address
    ///
    /// With TLS; see --tls-cert. Without it only on a loopback address, such as 127.0.0.1:8443. Port 0 takes a free port and
    /// logs which.
    #[arg(long, env = "PAT_OPERATOR_HTTP_ADDR", value_name = "ADDR", default_value = ":8443")]
    pub http_addr: ListenAddr,

    /// Where to serve Envoy's checks over gRPC, and grpc.health.v1: as --http-addr
    #[arg(long, env = "PAT_OPERATOR_GRPC_ADDR", value_name = "ADDR", default_value = ":9443")]
    pub grpc_addr: ListenAddr,

    /// Where to serve /livez, /readyz and /metrics: ADDRESS:PORT, or :PORT for every address
    ///
    /// Port 0 takes a free port and logs which. It is plain HTTP and tells no secrets.
    #[arg(long, env = "PAT_OPERATOR_HEALTH_ADDR", value_name = "ADDR", default_value = ":8080")]
    pub health_addr: ListenAddr,

    /// Namespaces whose tokens are known, separated by commas; none for all of them
    ///
    /// At most 50. With a list, a Role in each namespace is enough; without, it takes a ClusterRole. Tokens of other
    /// namespaces are refused. TokenReview and callers that are ServiceAccounts need all namespaces.
    #[arg(long, env = "PAT_OPERATOR_NAMESPACES", value_name = "NAMES", default_value = "", hide_default_value = true)]
    pub namespaces: Namespaces,

    /// TLS.
    #[command(flatten)]
    pub tls: TlsArgs,

    /// How often a token's last use is written to its status at most: 1s to 1d
    ///
    /// Each write costs the API server a little, so the times shown are true to this. All tokens together are written
    /// at most ten times a second.
    #[arg(long, env = "PAT_OPERATOR_LAST_USED_INTERVAL", value_name = "DURATION", default_value = "10m")]
    #[arg(value_parser = last_used_interval)]
    pub last_used_interval: SignedDuration,

    /// How long tokens are still judged when nothing is heard from the API server: 0s to 1d
    ///
    /// Known tokens go on working, revoked and expired ones do not, and unknown ones are told to come back. After this
    /// time a revocation may have been missed, and every answer is that nobody can tell.
    #[arg(long, env = "PAT_OPERATOR_MAX_STALENESS", value_name = "DURATION", default_value = "5m")]
    #[arg(value_parser = max_staleness)]
    pub max_staleness: SignedDuration,

    /// How long it goes on answering after it was told to stop and says that it is not ready: 0s to 1m
    ///
    /// Until load balancers and proxies have noticed, requests still come here. The Pod's terminationGracePeriodSeconds has to be
    /// longer, by the 3s that requests under way may take and some for writing when tokens were last used. A second signal
    /// ends it at once.
    #[arg(long, env = "PAT_OPERATOR_SHUTDOWN_DELAY", value_name = "DURATION", default_value = "5s")]
    #[arg(value_parser = shutdown_delay)]
    pub shutdown_delay: SignedDuration,

    /// The URL under which OAuth clients reach this verifier, such as `https://tokens.example.com`
    ///
    /// It stands as `iss` in answers to introspection and makes /.well-known/oauth-authorization-server known. Without
    /// it there is neither.
    #[arg(long, env = "PAT_OPERATOR_ISSUER", value_name = "URL")]
    pub issuer: Option<Issuer>,

    /// Whether to answer an API server's TokenReview webhook, which makes tokens cluster credentials
    ///
    /// Point the API server's --authentication-token-webhook-config-file at /k8s/tokenreview. A token is accepted only
    /// if it lists one of the API server's audiences; what it may do is up to RBAC.
    #[arg(long, env = "PAT_OPERATOR_ENABLE_TOKENREVIEW", value_name = "BOOL", default_value_t = false)]
    #[arg(action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub enable_tokenreview: bool,

    /// What user names in the cluster begin with that come of tokens: pat:jane@example.com, pat:va:team-a/ci
    ///
    /// So that nobody's token passes for a user of another kind. Not empty, and not system:.
    #[arg(long, env = "PAT_OPERATOR_TOKENREVIEW_USERNAME_PREFIX", value_name = "TEXT", default_value = "pat:")]
    pub tokenreview_username_prefix: UsernamePrefix,

    /// Logs.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Flags of `pat-operator api`.
#[derive(Clone, Debug, Args)]
pub struct ApiArgs {
    /// Where to serve the REST API: ADDRESS:PORT, or :PORT for every address
    ///
    /// With TLS; see --tls-cert. Without it only on a loopback address, such as 127.0.0.1:8443. Port 0 takes a free port and
    /// logs which.
    #[arg(long, env = "PAT_OPERATOR_HTTP_ADDR", value_name = "ADDR", default_value = ":8443")]
    pub http_addr: ListenAddr,

    /// Where to serve /livez, /readyz and /metrics: ADDRESS:PORT, or :PORT for every address
    ///
    /// Port 0 takes a free port and logs which. It is plain HTTP and tells no secrets.
    #[arg(long, env = "PAT_OPERATOR_HEALTH_ADDR", value_name = "ADDR", default_value = ":8080")]
    pub health_addr: ListenAddr,

    /// The namespace whose tokens are served [default: the pod's own, or the one of the kubeconfig's context]
    ///
    /// One server is one tenant: callers and what they see come from this namespace alone, and a token of another one is refused.
    #[arg(long, env = "PAT_OPERATOR_NAMESPACE", value_name = "NAME", value_parser = label)]
    pub namespace: Option<String>,

    /// The name of the tenant, for clients that ask [default: the namespace]
    #[arg(long, env = "PAT_OPERATOR_TENANT_NAME", value_name = "NAME", value_parser = tenant)]
    pub tenant_name: Option<String>,

    /// An audience whose tokens may call, beside those without any
    ///
    /// A token that lists audiences is meant for these alone: it may call only if this is one of them.
    #[arg(long, env = "PAT_OPERATOR_AUDIENCE", value_name = "AUDIENCE", value_parser = audience)]
    pub audience: Option<String>,

    /// TLS.
    #[command(flatten)]
    pub tls: TlsArgs,

    /// Whether tokens can be listed only, and not created, changed or deleted
    #[arg(long, env = "PAT_OPERATOR_READ_ONLY", value_name = "BOOL", default_value_t = false)]
    #[arg(action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub read_only: bool,

    /// How many requests a second each owner may make, over time: 1 to 100000
    ///
    /// All tokens of one owner share it. Who asks more is told when to come back (429 and Retry-After).
    #[arg(long, env = "PAT_OPERATOR_RATE_LIMIT", value_name = "N", default_value_t = 20)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub rate_limit: u32,

    /// How many requests each owner may make at a time, after a pause: 1 to 100000
    #[arg(long, env = "PAT_OPERATOR_RATE_BURST", value_name = "N", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub rate_burst: u32,

    /// The Secret with the key that access tokens are signed with; made if there is none
    ///
    /// All replicas need the same one. Delete it and restart them, and every access token is void.
    #[arg(long, env = "PAT_OPERATOR_KEY_SECRET", value_name = "NAME", default_value = "pat-operator-api-key")]
    #[arg(value_parser = subdomain)]
    pub key_secret: String,

    /// The namespace of that Secret [default: the pod's own, or the one of the kubeconfig's context]
    ///
    /// Best one in which nobody makes PersonalAccessTokens.
    #[arg(long, env = "PAT_OPERATOR_KEY_NAMESPACE", value_name = "NAME", value_parser = label)]
    pub key_namespace: Option<String>,

    /// How often a token's last use is written to its status at most: 1s to 1d
    ///
    /// As for the verifier, whose uses are others.
    #[arg(long, env = "PAT_OPERATOR_LAST_USED_INTERVAL", value_name = "DURATION", default_value = "10m")]
    #[arg(value_parser = last_used_interval)]
    pub last_used_interval: SignedDuration,

    /// How long tokens are still judged when nothing is heard from the API server: 0s to 1d
    ///
    /// Known tokens go on working, revoked and expired ones do not, and unknown ones are told to come back. After this
    /// time a revocation may have been missed, and every answer is that nobody can tell.
    #[arg(long, env = "PAT_OPERATOR_MAX_STALENESS", value_name = "DURATION", default_value = "5m")]
    #[arg(value_parser = max_staleness)]
    pub max_staleness: SignedDuration,

    /// Logs.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Flags of everything whose requests hold tokens.
#[derive(Clone, Debug, Args)]
pub struct TlsArgs {
    /// A file with the certificate chain to serve with, in PEM; needs --tls-key
    ///
    /// Both files are read again when they change, as cert-manager changes them in a mounted Secret.
    #[arg(long, env = "PAT_OPERATOR_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,

    /// A file with the key of that certificate, in PEM
    #[arg(long, env = "PAT_OPERATOR_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// Whether to serve without TLS on addresses that others can reach
    ///
    /// Tokens then go over the network in plain text. For when something else encrypts, such as a service mesh.
    #[arg(long, env = "PAT_OPERATOR_INSECURE_LISTEN", value_name = "BOOL", default_value_t = false)]
    #[arg(action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub insecure_listen: bool,
}

/// Flags of everything that logs.
#[derive(Clone, Debug, Args)]
pub struct LogArgs {
    /// How log lines are written, on stderr
    #[arg(long, env = "PAT_OPERATOR_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: CliLogFormat,

    /// What is logged: error, warn, info, debug, trace, or such levels by module
    ///
    /// By module as in `info,pat_operator::controller=debug`. No level ever logs a token.
    #[arg(long, env = "PAT_OPERATOR_LOG_LEVEL", value_name = "FILTER", default_value = "info")]
    pub log_level: LogFilter,
}

/// How log lines are written, as the command line names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CliLogFormat {
    /// For people; coloured on a terminal, unless NO_COLOR is set
    Text,
    /// For machines: one JSON object a line
    Json,
}

impl From<CliLogFormat> for LogFormat {
    fn from(format: CliLogFormat) -> Self {
        match format {
            CliLogFormat::Text => Self::Text,
            CliLogFormat::Json => Self::Json,
        }
    }
}

/// The namespaces to watch; none means all of them. In order, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespaces(Vec<String>);

impl Namespaces {
    /// Whether to watch all namespaces.
    pub fn is_all(&self) -> bool {
        self.0.is_empty()
    }

    /// The listed namespaces; none if it is all of them.
    pub fn names(&self) -> &[String] {
        &self.0
    }
}

impl FromStr for Namespaces {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        let mut names = names.map(label).collect::<Result<Vec<_>, _>>()?;
        names.sort();
        names.dedup();
        match names.len() {
            0 if !text.trim().is_empty() => Err("there is no name between the commas".to_owned()),
            count if count > MAX_NAMESPACES => Err(format!(
                "{count} namespaces are more than one instance watches one by one: list at most {MAX_NAMESPACES}, or \
                 none to watch all; controllers can share them, each with its own --lease-name"
            )),
            _ => Ok(Self(names)),
        }
    }
}

/// A label selector as the API server takes it; empty for everything. Only the API server can say whether it is one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector(String);

impl LabelSelector {
    /// The selector, if there is one.
    pub fn as_deref(&self) -> Option<&str> {
        Some(&*self.0).filter(|text| !text.is_empty())
    }
}

impl FromStr for LabelSelector {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let is_known = |c: char| c.is_ascii_alphanumeric() || "-_./=!,() <>".contains(c);
        if text.chars().all(is_known) {
            Ok(Self(text.to_owned()))
        } else {
            Err("write it as for `kubectl get -l`, such as shard=a or team in (x, y)")
        }
    }
}

fn tenant(text: &str) -> Result<String, &'static str> {
    let is_name = (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_name {
        Ok(text.to_owned())
    } else {
        Err("a tenant's name is 1 to 128 visible ASCII characters, without spaces")
    }
}

fn audience(text: &str) -> Result<String, &'static str> {
    let is_audience = (1..=256).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_audience {
        Ok(text.to_owned())
    } else {
        Err("an audience is 1 to 256 visible ASCII characters, without spaces")
    }
}

fn publish_lead(text: &str) -> Result<SignedDuration, String> {
    const MOST: SignedDuration = SignedDuration::from_mins(1);
    if text == "0s" {
        return Ok(SignedDuration::ZERO);
    }
    match api::duration::parse(text) {
        Ok(lead) if lead <= MOST => Ok(lead),
        Ok(_) => Err("at most 1m: a rotated token waits for so long before anybody gets it".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn last_used_interval(text: &str) -> Result<SignedDuration, String> {
    match api::duration::parse(text) {
        Ok(interval) if interval <= ONE_DAY => Ok(interval),
        Ok(_) => Err("at most 1d: nobody could tell a token in use from one that is not".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn shutdown_delay(text: &str) -> Result<SignedDuration, String> {
    const MOST: SignedDuration = SignedDuration::from_mins(1);
    if text == "0s" {
        return Ok(SignedDuration::ZERO);
    }
    match api::duration::parse(text) {
        Ok(delay) if delay <= MOST => Ok(delay),
        Ok(_) => Err("at most 1m: Kubernetes kills a Pod that takes longer than its grace period".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn max_staleness(text: &str) -> Result<SignedDuration, String> {
    if text == "0s" {
        return Ok(SignedDuration::ZERO);
    }
    match api::duration::parse(text) {
        Ok(staleness) if staleness <= ONE_DAY => Ok(staleness),
        Ok(_) => Err("at most 1d: for so long a revoked token may go on working".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn time(text: &str) -> Result<Time, &'static str> {
    text.parse().map_err(|_| "write a time as in RFC 3339, with its offset from UTC, such as 2026-01-31T12:00:00Z")
}

/// An RFC 1123 label, as names of namespaces are.
pub(crate) fn label(text: &str) -> Result<String, String> {
    let is_edge = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = text.as_bytes();
    let good = matches!(bytes, [first, .., last] | [first @ last] if is_edge(*first) && is_edge(*last))
        && bytes.len() <= 63
        && bytes.iter().all(|&c| is_edge(c) || c == b'-');
    if good {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is not a name: write up to 63 lower case letters, digits and inner hyphens"))
    }
}

/// An RFC 1123 subdomain, as names of most objects are: labels with dots between them.
pub(crate) fn subdomain(text: &str) -> Result<String, String> {
    if text.len() > 253 {
        return Err("a name has at most 253 characters".to_owned());
    }
    text.split('.').try_for_each(|part| label(part).map(drop)).map(|()| text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn controller(args: &[&str]) -> Result<ControllerArgs, String> {
        let args = ["pat-operator", "controller"].iter().chain(args);
        match Cli::try_parse_from(args).map_err(|error| error.to_string())?.command {
            Command::Controller(args) => Ok(*args),
            _ => unreachable!("controller was asked for"),
        }
    }

    fn verifier(args: &[&str]) -> Result<VerifierArgs, String> {
        let args = ["pat-operator", "verifier"].iter().chain(args);
        match Cli::try_parse_from(args).map_err(|error| error.to_string())?.command {
            Command::Verifier(args) => Ok(*args),
            _ => unreachable!("verifier was asked for"),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_has_help_and_an_environment_variable_named_after_it() {
        for command in Cli::command().get_subcommands() {
            for flag in command.get_arguments() {
                let long = flag.get_long().expect("flags have long names");
                let env = format!("PAT_OPERATOR_{}", long.to_ascii_uppercase().replace('-', "_"));
                assert_eq!(flag.get_env().and_then(|env| env.to_str()), Some(&*env), "--{long}");
                assert!(flag.get_help().is_some(), "--{long}");
            }
        }
    }

    #[test]
    fn help_shows_examples_variables_defaults_and_exit_codes() {
        let mut command = Cli::command();
        let top = command.render_long_help().to_string();
        for part in ["pat-operator crds | kubectl apply -f -", "--namespaces team-a,team-b", "Exit codes:"] {
            assert!(top.contains(part), "{part} is missing in:\n{top}");
        }
        let help = command.find_subcommand_mut("controller").unwrap().render_long_help().to_string();
        for part in ["[env: PAT_OPERATOR_PUBLISH_LEAD=", "[default: 2s]", "[default: 90d]", "[default: :8080]", "143"] {
            assert!(help.contains(part), "{part} is missing in:\n{help}");
        }
    }

    #[test]
    fn defaults_are_those_of_the_design() {
        let args = controller(&[]).unwrap();
        assert_eq!(args.health_addr, ListenAddr::Any { port: 8080 });
        assert!(args.namespaces.is_all() && args.label_selector.as_deref().is_none());
        assert_eq!(args.concurrency, 32);
        assert_eq!(args.default_lifetime, SignedDuration::from_hours(90 * 24));
        assert_eq!(args.publish_lead, SignedDuration::from_secs(2));
        assert!(args.leader_elect && args.restore_issued_before.is_none() && args.lease_namespace.is_none());
        assert_eq!(args.lease_name, "pat-operator-controller");
        assert_eq!((args.log.log_format, args.log.log_level), (CliLogFormat::Text, LogFilter::default()));
    }

    #[test]
    fn a_verifier_s_defaults_are_those_of_the_design() {
        let args = verifier(&[]).unwrap();
        assert_eq!(args.http_addr, ListenAddr::Any { port: 8443 });
        assert_eq!(args.grpc_addr, ListenAddr::Any { port: 9443 });
        assert_eq!(args.health_addr, ListenAddr::Any { port: 8080 });
        assert!(args.namespaces.is_all() && !args.tls.insecure_listen && !args.enable_tokenreview);
        assert!(args.tls.tls_cert.is_none() && args.tls.tls_key.is_none() && args.issuer.is_none());
        assert_eq!(args.last_used_interval, SignedDuration::from_mins(10));
        assert_eq!(args.max_staleness, SignedDuration::from_mins(5));
        assert_eq!(args.shutdown_delay, SignedDuration::from_secs(5));
        assert_eq!(args.tokenreview_username_prefix, "pat:".parse().unwrap());
    }

    #[test]
    fn a_verifier_s_flags_are_refused_with_what_would_be_right() {
        for (flag, part) in [
            ("--http-addr=8443", "or only :8080 for every address"),
            ("--last-used-interval=0s", "more than zero"),
            ("--last-used-interval=2d", "at most 1d"),
            ("--max-staleness=2d", "at most 1d"),
            ("--shutdown-delay=61s", "at most 1m"),
            ("--shutdown-delay=5", "such as 30d, 2w, 12h or 1d12h"),
            ("--max-staleness=5", "such as 30d, 2w, 12h or 1d12h"),
            ("--issuer=http://tokens.example.com", "https://"),
            ("--enable-tokenreview=maybe", "[possible values: true, false]"),
            ("--tokenreview-username-prefix=system:", "such as pat:"),
            ("--tokenreview-username-prefix=", "such as pat:"),
            ("--leader-elect", "unexpected argument"),
        ] {
            let error = verifier(&[flag]).expect_err(flag);
            assert!(error.contains(part), "{flag}: {error}");
        }
        assert!(verifier(&["--insecure-listen", "--enable-tokenreview=true", "--max-staleness=0s"]).is_ok());
    }

    #[test]
    fn reads_what_people_write() {
        let args = controller(&[
            "--leader-elect=false",
            "--namespaces=b, a,b,",
            "--label-selector=team in (x, y),!old",
            "--publish-lead=0s",
            "--restore-issued-before=2026-01-31T13:00:00+01:00",
            "--lease-name=shard.a",
            "--log-format=json",
            "--serving-certificate=verifier:a.svc,*.a.example.com;api:b.svc",
            "--serving-certificate=more:10.0.0.1",
        ])
        .unwrap();
        let secrets: Vec<_> = args.serving_certificate.iter().map(CertificateRequest::secret).collect();
        assert_eq!(secrets, ["verifier", "api", "more"]);
        assert!(!args.leader_elect);
        assert_eq!(args.namespaces.names(), ["a", "b"]);
        assert_eq!(args.label_selector.as_deref(), Some("team in (x, y),!old"));
        assert_eq!(args.publish_lead, SignedDuration::ZERO);
        assert_eq!(args.restore_issued_before.map(|time| time.to_string()).as_deref(), Some("2026-01-31T12:00:00Z"));
        assert_eq!(args.log.log_format, CliLogFormat::Json);
        assert!(controller(&["--leader-elect"]).unwrap().leader_elect);
    }

    #[test]
    fn what_is_wrong_is_refused_with_what_would_be_right() {
        let crowd: Vec<String> = (0..51).map(|n| format!("n{n}")).collect();
        let crowd = format!("--namespaces={}", crowd.join(","));
        for (flag, part) in [
            (&*crowd, "51 namespaces are more than one instance watches one by one: list at most 50"),
            ("--namespaces=Team", "\"Team\" is not a name: write up to 63 lower case letters"),
            ("--namespaces=,", "there is no name between the commas"),
            ("--label-selector=a=\"b\"", "write it as for `kubectl get -l`"),
            ("--concurrency=0", "0 is not in 1..=256"),
            ("--concurrency=257", "257 is not in 1..=256"),
            ("--default-lifetime=1.5d", "such as 30d, 2w, 12h or 1d12h"),
            ("--default-lifetime=0s", "more than zero"),
            ("--default-lifetime=-1d", "such as 30d, 2w, 12h or 1d12h"),
            ("--publish-lead=61s", "at most 1m"),
            ("--publish-lead=2", "such as 30d, 2w, 12h or 1d12h"),
            ("--restore-issued-before=yesterday", "such as 2026-01-31T12:00:00Z"),
            ("--restore-issued-before=2026-01-31T12:00:00", "with its offset from UTC"),
            ("--leader-elect=maybe", "[possible values: true, false]"),
            ("--lease-name=a..b", "is not a name"),
            ("--lease-namespace=a.b", "is not a name"),
            ("--health-addr=8080", "or only :8080 for every address"),
            ("--log-format=xml", "[possible values: text, json]"),
            ("--log-level=loud", "write error, warn, info, debug or trace"),
            ("--namespace=a", "'--namespaces'"),
            ("--serving-certificate=tls", "write <Secret>:<name>"),
            ("--serving-certificate=tls:a b", "is not a valid server name"),
            ("--serving-certificate-namespace=a.b", "is not a name"),
        ] {
            let error = controller(&[flag]).expect_err(flag);
            assert!(error.contains(part), "{flag}: {error}");
        }
    }

    #[test]
    fn fifty_namespaces_are_fine_however_often_each_is_listed() {
        let names: Vec<String> = (0..100).map(|n| format!("n{}", n % 50)).collect();
        assert_eq!(names.join(",").parse::<Namespaces>().unwrap().names().len(), 50);
    }
}
