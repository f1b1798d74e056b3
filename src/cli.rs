//! The command line: subcommands, flags, their environment variables and help.
//!
//! Values are parsed into types that are valid by construction.

use std::{path::PathBuf, str::FromStr};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use k8s_openapi::jiff::SignedDuration;

use crate::{
    api::{self, Time},
    certificates::CertificateRequest,
    service::{ListenAddr, LogFilter, LogFormat},
    verifier::{metadata::Issuer, tokenreview::UsernamePrefix},
};

/// The largest number of namespaces in a list; each costs two watches.
pub const MAX_NAMESPACES: usize = 50;

/// The default name of the controllers' Lease.
pub const LEASE_NAME: &str = "pat-operator-controller";

const ONE_MINUTE: SignedDuration = SignedDuration::from_mins(1);
const ONE_DAY: SignedDuration = SignedDuration::from_hours(24);

const ABOUT: &str = "Personal access tokens for Kubernetes: strong, rotated, expiring, verifiable";

const LONG_ABOUT: &str = "\
Personal access tokens for Kubernetes.

From a PersonalAccessToken manifest, the controller issues a strong token into a Secret, rotates it without disrupting \
its consumers, and revokes it when it expires. The verifier tells proxies and services whether a token is valid.

Examples:
  Install the resource, then run the controller against the cluster of your kubeconfig:
      pat-operator crds | kubectl apply -f -
      pat-operator controller --leader-elect=false --health-addr 127.0.0.1:8080

  In a cluster, for two namespaces only, with JSON logs:
      pat-operator controller --namespaces team-a,team-b --log-format json

  Verify tokens for a proxy on the same machine:
      pat-operator verifier --http-addr 127.0.0.1:8081 --grpc-addr 127.0.0.1:8082 --health-addr 127.0.0.1:8083

  Manage the tokens of one namespace over REST:
      pat-operator api --namespace team-a --http-addr 127.0.0.1:8084 --health-addr 127.0.0.1:8085";

const AFTER_LONG_HELP: &str = "\
The cluster comes from KUBECONFIG if it is set, else from the ServiceAccount of the pod, else from ~/.kube/config.

Exit codes:
  0    stopped gracefully after SIGTERM or SIGINT
  1    cannot continue; the last line on stderr says why and what to do
  2    invalid command line
  130  stopped at once by a second SIGINT
  143  stopped at once by a second SIGTERM";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "pat-operator", version, about = ABOUT, long_about = LONG_ABOUT, after_long_help = AFTER_LONG_HELP)]
#[command(max_term_width = 120, args_override_self = true)]
pub struct Cli {
    /// The subcommand.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the controller, which issues, rotates and revokes tokens
    #[command(after_long_help = AFTER_LONG_HELP)]
    Controller(Box<ControllerArgs>),
    /// Run the verifier, which answers whether a token is valid, who owns it and what it may do
    #[command(after_long_help = AFTER_LONG_HELP)]
    Verifier(Box<VerifierArgs>),
    /// Run the REST API, which lists, creates, changes and revokes the tokens of one namespace for clients of other products
    #[command(after_long_help = AFTER_LONG_HELP)]
    Api(Box<ApiArgs>),
    /// Print the CustomResourceDefinitions as YAML, for `kubectl apply -f -`
    Crds,
}

/// A kind of issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum IssuerScope {
    /// ClusterTokenIssuers
    Cluster,
    /// TokenIssuers
    Namespaced,
}

/// Flags of `pat-operator controller`.
#[derive(Clone, Debug, Args)]
pub struct ControllerArgs {
    /// Address of /livez, /readyz and /metrics: ADDRESS:PORT, or :PORT for all addresses
    ///
    /// Port 0 picks a free port and logs it. The endpoint is plain HTTP and exposes no secrets.
    #[arg(long, env = "PAT_OPERATOR_HEALTH_ADDR", value_name = "ADDR", default_value = ":8080")]
    pub health_addr: ListenAddr,

    /// Namespaces to watch, separated by commas; empty for all
    ///
    /// At most 50. A list needs a Role in each namespace; all namespaces need a ClusterRole.
    #[arg(long, env = "PAT_OPERATOR_NAMESPACES", value_name = "NAMES", default_value = "", hide_default_value = true)]
    pub namespaces: Namespaces,

    /// Only manage PersonalAccessTokens that match this label selector; empty for all
    ///
    /// As in `kubectl get -l`, such as `shard=a` or `team in (x, y)`. Several controllers can share a cluster: give each its own
    /// selector and --lease-name, and make sure that no token matches two selectors.
    #[arg(
        long,
        env = "PAT_OPERATOR_LABEL_SELECTOR",
        value_name = "SELECTOR",
        default_value = "",
        hide_default_value = true
    )]
    pub label_selector: LabelSelector,

    /// Number of tokens to reconcile concurrently: 1 to 256
    ///
    /// 16 to 32 saturate an API server; more only add latency.
    #[arg(long, env = "PAT_OPERATOR_CONCURRENCY", value_name = "N", default_value_t = 32)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=256))]
    pub concurrency: u16,

    /// Lifetime of tokens with neither an expiry nor a rotation, from their first issue
    ///
    /// Weeks, days, hours, minutes and seconds, such as 90d, 2w or 1d12h. A change does not affect tokens that were issued
    /// before.
    #[arg(long, env = "PAT_OPERATOR_DEFAULT_LIFETIME", value_name = "DURATION", default_value = "90d")]
    #[arg(value_parser = api::duration::parse)]
    pub default_lifetime: SignedDuration,

    /// Time between publishing a rotated token to verifiers and writing it to its Secret: 0s to 1m
    ///
    /// Verifiers learn of a new token through a watch. If this is shorter than the lag of the slowest verifier, that verifier
    /// refuses new tokens for a moment. Use 0s if no verifier runs.
    #[arg(long, env = "PAT_OPERATOR_PUBLISH_LEAD", value_name = "DURATION", default_value = "2s")]
    #[arg(value_parser = publish_lead)]
    pub publish_lead: SignedDuration,

    /// Adopt Secrets from a restored backup whose tokens were issued before this time
    ///
    /// RFC 3339, such as 2026-01-31T12:00:00Z. After a restore, PersonalAccessTokens have new uids and do not own their Secrets
    /// any more (SecretConflict). Set this to the time of the restore, and remove it when all tokens are Ready.
    #[arg(long, env = "PAT_OPERATOR_RESTORE_ISSUED_BEFORE", value_name = "TIME", value_parser = time)]
    pub restore_issued_before: Option<Time>,

    /// Also publish events for first tokens and for deliveries
    ///
    /// `Issued` when a token is issued that replaces none, and `Delivered` when a token with delivery: Once is taken. Each costs one more
    /// write. Without the flag they are only logged.
    #[arg(long, env = "PAT_OPERATOR_ISSUE_EVENTS", value_name = "BOOL", default_value_t = false)]
    #[arg(action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub issue_events: bool,

    /// Kinds of issuers to serve, separated by commas: cluster, namespaced [default: none]
    ///
    /// `cluster` serves ClusterTokenIssuers. Their credentials are Secrets in the namespace of the controller. `namespaced` serves
    /// TokenIssuers. Every user who may create one can then make the controller send requests to public addresses. Cannot be combined
    /// with --namespaces. If several controllers share a cluster, set this flag for only one of them.
    #[arg(long, env = "PAT_OPERATOR_ISSUERS", value_name = "KINDS", value_delimiter = ',')]
    pub issuers: Vec<IssuerScope>,

    /// Namespace of the credentials of ClusterTokenIssuers [default: that of the pod, or of the kubeconfig's context]
    #[arg(long, env = "PAT_OPERATOR_ISSUER_NAMESPACE", value_name = "NAME", value_parser = label)]
    pub issuer_namespace: Option<String>,

    /// Hosts of issuers that may be reached by plain HTTP, separated by commas, without the port
    ///
    /// For tests and for systems behind an encrypting network. Credentials and tokens cross the network unencrypted.
    #[arg(long, env = "PAT_OPERATOR_ISSUER_INSECURE_HOSTS", value_name = "HOSTS", value_delimiter = ',', value_parser = host)]
    pub issuer_insecure_hosts: Vec<String>,

    /// Networks that TokenIssuers may reach although their addresses are not public, separated by commas
    ///
    /// Such as 10.20.0.0/16. ClusterTokenIssuers may reach every address.
    #[arg(long, env = "PAT_OPERATOR_ISSUER_NETWORKS", value_name = "NETWORKS", value_delimiter = ',')]
    pub issuer_networks: Vec<IpNet>,

    /// Elect a leader among several instances; the others stand by
    ///
    /// Without leader election, make sure that only one instance runs.
    #[arg(long, env = "PAT_OPERATOR_LEADER_ELECT", value_name = "BOOL", default_value_t = true)]
    #[arg(action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub leader_elect: bool,

    /// Name of the Lease for leader election
    #[arg(long, env = "PAT_OPERATOR_LEASE_NAME", value_name = "NAME", default_value = LEASE_NAME)]
    #[arg(value_parser = subdomain)]
    pub lease_name: String,

    /// Namespace of that Lease [default: that of the pod, or of the kubeconfig's context]
    #[arg(long, env = "PAT_OPERATOR_LEASE_NAMESPACE", value_name = "NAME", value_parser = label)]
    pub lease_namespace: Option<String>,

    /// Issue and renew a serving certificate: the Secret that holds it, and its names
    ///
    /// For servers without a certificate from elsewhere, such as
    /// `pat-operator-verifier-serving:pat-operator-verifier.pat-operator.svc,tokens.example.com`. Names are host names, wildcards such as
    /// `*.example.com`, or IP addresses. The flag can be repeated; in the variable, separate values by `;`. A private authority signs the
    /// certificate. The Secret gets `tls.crt` and `tls.key`; clients trust `ca.crt` in the ConfigMap `<Secret>-ca`.
    #[arg(long, env = "PAT_OPERATOR_SERVING_CERTIFICATE", value_name = "SECRET:NAMES", value_delimiter = ';')]
    pub serving_certificate: Vec<CertificateRequest>,

    /// Namespace of those Secrets [default: that of the pod, or of the kubeconfig's context]
    #[arg(long, env = "PAT_OPERATOR_SERVING_CERTIFICATE_NAMESPACE", value_name = "NAME", value_parser = label)]
    pub serving_certificate_namespace: Option<String>,

    /// Logs.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Flags of `pat-operator verifier`.
#[derive(Clone, Debug, Args)]
pub struct VerifierArgs {
    /// Address of introspection, forward auth, Envoy's HTTP checks and TokenReview: ADDRESS:PORT, or :PORT for all addresses
    ///
    /// Needs TLS (see --tls-cert), except on a loopback address such as 127.0.0.1:8443. Port 0 picks a free port and logs it.
    #[arg(long, env = "PAT_OPERATOR_HTTP_ADDR", value_name = "ADDR", default_value = ":8443")]
    pub http_addr: ListenAddr,

    /// Address of Envoy's gRPC checks and of grpc.health.v1, in the format of --http-addr
    #[arg(long, env = "PAT_OPERATOR_GRPC_ADDR", value_name = "ADDR", default_value = ":9443")]
    pub grpc_addr: ListenAddr,

    /// Address of /livez, /readyz and /metrics: ADDRESS:PORT, or :PORT for all addresses
    ///
    /// Port 0 picks a free port and logs it. The endpoint is plain HTTP and exposes no secrets.
    #[arg(long, env = "PAT_OPERATOR_HEALTH_ADDR", value_name = "ADDR", default_value = ":8080")]
    pub health_addr: ListenAddr,

    /// Namespaces whose tokens are accepted, separated by commas; empty for all
    ///
    /// At most 50. A list needs a Role in each namespace; all namespaces need a ClusterRole. Tokens of other namespaces are
    /// refused. TokenReview, and callers that authenticate as ServiceAccounts, need all namespaces.
    #[arg(long, env = "PAT_OPERATOR_NAMESPACES", value_name = "NAMES", default_value = "", hide_default_value = true)]
    pub namespaces: Namespaces,

    /// TLS.
    #[command(flatten)]
    pub tls: TlsArgs,

    /// Shortest interval between updates of a token's lastUsedAt: 1s to 1d
    ///
    /// lastUsedAt is accurate to this interval. For all tokens together, at most ten updates a second are written.
    #[arg(long, env = "PAT_OPERATOR_LAST_USED_INTERVAL", value_name = "DURATION", default_value = "10m")]
    #[arg(value_parser = last_used_interval)]
    pub last_used_interval: SignedDuration,

    /// How long to keep answering without contact to the API server: 0s to 1d
    ///
    /// Meanwhile known tokens are accepted until they expire, and requests with unknown tokens get a retryable error. After this
    /// time a revocation may have been missed, so every request gets a retryable error.
    #[arg(long, env = "PAT_OPERATOR_MAX_STALENESS", value_name = "DURATION", default_value = "5m")]
    #[arg(value_parser = max_staleness)]
    pub max_staleness: SignedDuration,

    /// How long to keep answering after SIGTERM, while /readyz fails: 0s to 1m
    ///
    /// Load balancers and proxies need this time to stop sending requests. Set the Pod's terminationGracePeriodSeconds at least 10s
    /// longer, for requests in flight and the last updates of lastUsedAt. A second signal ends the process at once.
    #[arg(long, env = "PAT_OPERATOR_SHUTDOWN_DELAY", value_name = "DURATION", default_value = "5s")]
    #[arg(value_parser = shutdown_delay)]
    pub shutdown_delay: SignedDuration,

    /// URL of this verifier for OAuth clients, such as `https://tokens.example.com`
    ///
    /// Adds `iss` to introspection responses and serves /.well-known/oauth-authorization-server. Without it, neither is available.
    #[arg(long, env = "PAT_OPERATOR_ISSUER", value_name = "URL")]
    pub issuer: Option<Issuer>,

    /// Answer an API server's TokenReview webhook, which makes tokens cluster credentials
    ///
    /// Point the API server's --authentication-token-webhook-config-file at /k8s/tokenreview. A token is accepted only if it lists
    /// one of the API server's audiences. RBAC decides what it may do.
    #[arg(long, env = "PAT_OPERATOR_ENABLE_TOKENREVIEW", value_name = "BOOL", default_value_t = false)]
    #[arg(action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub enable_tokenreview: bool,

    /// Prefix of the user names of tokens in the cluster, as in pat:jane@example.com and pat:va:team-a/ci
    ///
    /// It keeps a token from passing for another user. It must not be empty or start with system:.
    #[arg(long, env = "PAT_OPERATOR_TOKENREVIEW_USERNAME_PREFIX", value_name = "TEXT", default_value = "pat:")]
    pub tokenreview_username_prefix: UsernamePrefix,

    /// Logs.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Flags of `pat-operator api`.
#[derive(Clone, Debug, Args)]
pub struct ApiArgs {
    /// Address of the REST API: ADDRESS:PORT, or :PORT for all addresses
    ///
    /// Needs TLS (see --tls-cert), except on a loopback address such as 127.0.0.1:8443. Port 0 picks a free port and logs it.
    #[arg(long, env = "PAT_OPERATOR_HTTP_ADDR", value_name = "ADDR", default_value = ":8443")]
    pub http_addr: ListenAddr,

    /// Address of /livez, /readyz and /metrics: ADDRESS:PORT, or :PORT for all addresses
    ///
    /// Port 0 picks a free port and logs it. The endpoint is plain HTTP and exposes no secrets.
    #[arg(long, env = "PAT_OPERATOR_HEALTH_ADDR", value_name = "ADDR", default_value = ":8080")]
    pub health_addr: ListenAddr,

    /// Namespace whose tokens are served [default: that of the pod, or of the kubeconfig's context]
    ///
    /// One server is one tenant: callers authenticate with tokens of this namespace and see only its tokens.
    #[arg(long, env = "PAT_OPERATOR_NAMESPACE", value_name = "NAME", value_parser = label)]
    pub namespace: Option<String>,

    /// Name of the tenant in responses [default: the namespace]
    #[arg(long, env = "PAT_OPERATOR_TENANT_NAME", value_name = "NAME", value_parser = tenant)]
    pub tenant_name: Option<String>,

    /// Accept tokens with this audience, in addition to tokens without audiences
    ///
    /// A token that lists audiences may call this API only if this is one of them.
    #[arg(long, env = "PAT_OPERATOR_AUDIENCE", value_name = "AUDIENCE", value_parser = audience)]
    pub audience: Option<String>,

    /// TLS.
    #[command(flatten)]
    pub tls: TlsArgs,

    /// Only list tokens; refuse to create, change or delete them
    #[arg(long, env = "PAT_OPERATOR_READ_ONLY", value_name = "BOOL", default_value_t = false)]
    #[arg(action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub read_only: bool,

    /// Revoke the tokens that the holder of a token created or regenerated through this API, when that token is revoked
    ///
    /// They are those whose spec.parent is a PersonalAccessToken with revoked: true. Their children follow. A token whose
    /// parent expires or is deleted is not revoked.
    #[arg(long, env = "PAT_OPERATOR_CASCADE_REVOCATION", value_name = "BOOL", default_value_t = false)]
    #[arg(action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub cascade_revocation: bool,

    /// Sustained requests per second of each owner: 1 to 100000
    ///
    /// All tokens of an owner share the limit. Further requests get 429 with Retry-After.
    #[arg(long, env = "PAT_OPERATOR_RATE_LIMIT", value_name = "N", default_value_t = 20)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub rate_limit: u32,

    /// Burst of requests of each owner after a pause: 1 to 100000
    #[arg(long, env = "PAT_OPERATOR_RATE_BURST", value_name = "N", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub rate_burst: u32,

    /// Secret with the signing key of access tokens; created if it does not exist
    ///
    /// All replicas share it. To invalidate every access token, delete it and restart them.
    #[arg(long, env = "PAT_OPERATOR_KEY_SECRET", value_name = "NAME", default_value = "pat-operator-api-key")]
    #[arg(value_parser = subdomain)]
    pub key_secret: String,

    /// Namespace of that Secret [default: that of the pod, or of the kubeconfig's context]
    ///
    /// Choose a namespace without PersonalAccessTokens.
    #[arg(long, env = "PAT_OPERATOR_KEY_NAMESPACE", value_name = "NAME", value_parser = label)]
    pub key_namespace: Option<String>,

    /// Shortest interval between updates of a token's lastUsedAt: 1s to 1d
    ///
    /// Counts uses of this API only; the verifier records its own.
    #[arg(long, env = "PAT_OPERATOR_LAST_USED_INTERVAL", value_name = "DURATION", default_value = "10m")]
    #[arg(value_parser = last_used_interval)]
    pub last_used_interval: SignedDuration,

    /// How long to keep answering without contact to the API server: 0s to 1d
    ///
    /// Meanwhile known tokens are accepted until they expire, and requests with unknown tokens get a retryable error. After this
    /// time a revocation may have been missed, so every request gets a retryable error.
    #[arg(long, env = "PAT_OPERATOR_MAX_STALENESS", value_name = "DURATION", default_value = "5m")]
    #[arg(value_parser = max_staleness)]
    pub max_staleness: SignedDuration,

    /// Logs.
    #[command(flatten)]
    pub log: LogArgs,
}

/// TLS flags of servers whose requests contain tokens.
#[derive(Clone, Debug, Args)]
pub struct TlsArgs {
    /// PEM file with the serving certificate and its intermediates; needs --tls-key
    ///
    /// Both files are reloaded when they change, as when cert-manager renews a mounted Secret.
    #[arg(long, env = "PAT_OPERATOR_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,

    /// PEM file with the private key of that certificate
    #[arg(long, env = "PAT_OPERATOR_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// Allow serving without TLS on addresses other than loopback
    ///
    /// Tokens then cross the network in plain text. Use it only behind other encryption, such as a service mesh.
    #[arg(long, env = "PAT_OPERATOR_INSECURE_LISTEN", value_name = "BOOL", default_value_t = false)]
    #[arg(action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub insecure_listen: bool,
}

/// Logging flags.
#[derive(Clone, Debug, Args)]
pub struct LogArgs {
    /// Format of log lines, on stderr
    #[arg(long, env = "PAT_OPERATOR_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,

    /// Log level: error, warn, info, debug or trace, or levels by module
    ///
    /// By module, such as `info,pat_operator::controller=debug`. No level ever logs a token.
    #[arg(long, env = "PAT_OPERATOR_LOG_LEVEL", value_name = "FILTER", default_value = "info")]
    pub log_level: LogFilter,
}

/// The namespaces to watch, sorted and unique; empty for all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespaces(Vec<String>);

impl Namespaces {
    /// Whether to watch all namespaces.
    pub fn is_all(&self) -> bool {
        self.0.is_empty()
    }

    /// The listed namespaces; empty for all.
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
            0 if !text.trim().is_empty() => Err("no name between the commas".to_owned()),
            count if count > MAX_NAMESPACES => Err(format!(
                "{count} namespaces are too many for one instance: list at most {MAX_NAMESPACES}, or none to watch all; \
                 controllers can share them, each with its own --lease-name"
            )),
            _ => Ok(Self(names)),
        }
    }
}

/// A label selector; empty for everything. Only the API server can validate it.
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
    if is_name { Ok(text.to_owned()) } else { Err("write 1 to 128 visible ASCII characters, without spaces") }
}

fn audience(text: &str) -> Result<String, &'static str> {
    let is_audience = (1..=256).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_audience { Ok(text.to_owned()) } else { Err("write 1 to 256 visible ASCII characters, without spaces") }
}

fn publish_lead(text: &str) -> Result<SignedDuration, String> {
    zero_or_at_most(ONE_MINUTE, text, "must be at most 1m, because each rotated token waits for this time")
}

fn last_used_interval(text: &str) -> Result<SignedDuration, String> {
    at_most(ONE_DAY, text, "must be at most 1d, or unused tokens cannot be recognized")
}

fn shutdown_delay(text: &str) -> Result<SignedDuration, String> {
    zero_or_at_most(ONE_MINUTE, text, "must be at most 1m, because Kubernetes kills a Pod after its grace period")
}

fn max_staleness(text: &str) -> Result<SignedDuration, String> {
    zero_or_at_most(ONE_DAY, text, "must be at most 1d, because a revoked token may work for this time")
}

fn zero_or_at_most(most: SignedDuration, text: &str, too_long: &str) -> Result<SignedDuration, String> {
    if text == "0s" { Ok(SignedDuration::ZERO) } else { at_most(most, text, too_long) }
}

fn at_most(most: SignedDuration, text: &str, too_long: &str) -> Result<SignedDuration, String> {
    match api::duration::parse(text) {
        Ok(length) if length <= most => Ok(length),
        Ok(_) => Err(too_long.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn time(text: &str) -> Result<Time, &'static str> {
    text.parse().map_err(|_| "write a time in RFC 3339 with its offset from UTC, such as 2026-01-31T12:00:00Z")
}

/// Parses an RFC 1123 label, such as the name of a namespace.
pub(crate) fn label(text: &str) -> Result<String, String> {
    if is_label(text) && text.len() <= 63 {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is not a valid name: write up to 63 lower case letters, digits and inner hyphens"))
    }
}

/// Parses an RFC 1123 subdomain, such as the name of most objects: labels joined by dots. As in Kubernetes, only their total length
/// is limited (<https://kubernetes.io/docs/concepts/overview/working-with-objects/names/>).
pub(crate) fn subdomain(text: &str) -> Result<String, String> {
    if text.len() > 253 {
        return Err("a name has at most 253 characters".to_owned());
    }
    if text.split('.').all(is_label) {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is not a valid name: write lower case letters, digits, and inner hyphens and dots"))
    }
}

fn is_label(text: &str) -> bool {
    let is_edge = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    matches!(text.as_bytes(), [first, .., last] | [first @ last] if is_edge(*first) && is_edge(*last))
        && text.bytes().all(|c| is_edge(c) || c == b'-')
}

/// Parses a host name or an address, without a port.
fn host(text: &str) -> Result<String, String> {
    let is_host = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte));
    if is_host {
        Ok(text.to_owned())
    } else {
        Err("write a host name or an IPv4 address, without scheme and port".into())
    }
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
    fn the_definition_is_valid() {
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
    fn controller_defaults_match_the_design() {
        let args = controller(&[]).unwrap();
        assert_eq!(args.health_addr, ListenAddr::Any { port: 8080 });
        assert!(args.namespaces.is_all() && args.label_selector.as_deref().is_none());
        assert_eq!(args.concurrency, 32);
        assert_eq!(args.default_lifetime, SignedDuration::from_hours(90 * 24));
        assert_eq!(args.publish_lead, SignedDuration::from_secs(2));
        assert!(args.leader_elect && args.restore_issued_before.is_none() && args.lease_namespace.is_none());
        assert_eq!(args.lease_name, "pat-operator-controller");
        assert_eq!((args.log.log_format, args.log.log_level), (LogFormat::Text, LogFilter::default()));
    }

    #[test]
    fn verifier_defaults_match_the_design() {
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
    fn invalid_verifier_flags_are_refused_with_a_hint() {
        for (flag, part) in [
            ("--http-addr=8443", "or :8080 for every address"),
            ("--last-used-interval=0s", "greater than zero"),
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
    fn common_spellings_are_read() {
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
        assert_eq!(args.log.log_format, LogFormat::Json);
        assert!(controller(&["--leader-elect"]).unwrap().leader_elect);
    }

    #[test]
    fn invalid_controller_flags_are_refused_with_a_hint() {
        let crowd: Vec<String> = (0..51).map(|n| format!("n{n}")).collect();
        let crowd = format!("--namespaces={}", crowd.join(","));
        for (flag, part) in [
            (&*crowd, "51 namespaces are too many for one instance: list at most 50"),
            ("--namespaces=Team", "\"Team\" is not a valid name: write up to 63 lower case letters"),
            ("--namespaces=,", "no name between the commas"),
            ("--label-selector=a=\"b\"", "write it as for `kubectl get -l`"),
            ("--concurrency=0", "0 is not in 1..=256"),
            ("--concurrency=257", "257 is not in 1..=256"),
            ("--default-lifetime=1.5d", "such as 30d, 2w, 12h or 1d12h"),
            ("--default-lifetime=0s", "greater than zero"),
            ("--default-lifetime=-1d", "such as 30d, 2w, 12h or 1d12h"),
            ("--publish-lead=61s", "at most 1m"),
            ("--publish-lead=2", "such as 30d, 2w, 12h or 1d12h"),
            ("--restore-issued-before=yesterday", "such as 2026-01-31T12:00:00Z"),
            ("--restore-issued-before=2026-01-31T12:00:00", "with its offset from UTC"),
            ("--leader-elect=maybe", "[possible values: true, false]"),
            ("--lease-name=a..b", "is not a valid name"),
            ("--lease-namespace=a.b", "is not a valid name"),
            ("--health-addr=8080", "or :8080 for every address"),
            ("--log-format=xml", "[possible values: text, json]"),
            ("--log-level=loud", "write error, warn, info, debug or trace"),
            ("--namespace=a", "'--namespaces'"),
            ("--serving-certificate=tls", "write <Secret>:<name>"),
            ("--serving-certificate=tls:a b", "is not a valid server name"),
            ("--serving-certificate-namespace=a.b", "is not a valid name"),
        ] {
            let error = controller(&[flag]).expect_err(flag);
            assert!(error.contains(part), "{flag}: {error}");
        }
    }

    /// Wrappers and charts append flags to those of others.
    #[test]
    fn last_of_a_repeated_flag_counts() {
        for command in Cli::command().get_subcommands() {
            for flag in command.get_arguments() {
                let name = format!("--{}", flag.get_long().expect("flags have long names"));
                if name == "--serving-certificate" {
                    continue;
                }
                // A value that the flag's type accepts is not needed: the last one is judged, or none is.
                let value = flag.get_default_values().first().map_or("a".into(), |value| value.to_string_lossy());
                let repeated = format!("{name}={value}");
                let line = ["pat-operator", command.get_name(), &repeated, &repeated];
                let error = Cli::try_parse_from(line).err().map(|error| error.to_string()).unwrap_or_default();
                assert!(!error.contains("multiple times"), "{}: {error}", command.get_name());
            }
        }
        let args = controller(&["--log-level=info", "--log-level=debug", "--namespaces=a", "--namespaces=b"]).unwrap();
        assert_eq!(args.log.log_level, "debug".parse().unwrap());
        assert_eq!(args.namespaces.names(), ["b"]);
        assert!(!controller(&["--leader-elect=true", "--leader-elect=false"]).unwrap().leader_elect);
        assert!(verifier(&["--insecure-listen=false", "--insecure-listen"]).unwrap().tls.insecure_listen);
    }

    #[test]
    fn repeated_namespaces_count_once() {
        let names: Vec<String> = (0..100).map(|n| format!("n{}", n % 50)).collect();
        assert_eq!(names.join(",").parse::<Namespaces>().unwrap().names().len(), 50);
    }
}
