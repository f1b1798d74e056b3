//! `TokenIssuer` and `ClusterTokenIssuer`: other systems that issue tokens. `kubectl explain` prints the doc comments.

use k8s_openapi::jiff::SignedDuration;
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::{
    Condition, GitLabAccessLevel, LengthOfTime, RemoteTarget, Time, TrueFoundryTokenType, duration,
    spec::{DNS_NAME, text},
};

/// Type of the Secrets with the credentials of issuers. Only such a Secret is sent to an issuer, and only to the host that it names.
pub const ISSUER_AUTH_TYPE: &str = "pat-operator.io/issuer-auth";

/// A system that issues tokens for PersonalAccessTokens of its namespace: GitLab, Gitea, Argo CD, SailPoint, TrueFoundry, Cryptlex, or this
/// operator itself.
#[expect(clippy::duplicated_attributes, reason = "printer columns of the same type are not duplicates")]
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "pat-operator.io",
    version = "v1alpha1",
    kind = "TokenIssuer",
    plural = "tokenissuers",
    singular = "tokenissuer",
    shortname = "patissuer",
    category = "tokens",
    namespaced,
    status = "IssuerStatus",
    derive = "PartialEq",
    doc = "A system that issues tokens for PersonalAccessTokens of its namespace: GitLab, Gitea, Argo CD, SailPoint, TrueFoundry, Cryptlex, or this operator itself.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Type", type_ = "string", json_path = ".status.type"),
    printcolumn(name = "URL", type_ = "string", json_path = ".status.url"),
    printcolumn(name = "Tokens", type_ = "integer", json_path = ".status.tokens"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.local), has(self.sailPoint), has(self.trueFoundry), has(self.cryptlex), has(self.gitLab), has(self.gitea), has(self.argoCD)].filter(x, x).size() == 1")
    .message("set exactly one of local, sailPoint, trueFoundry, cryptlex, gitLab, gitea and argoCD"))]
#[x_kube(validation = Rule::new("has(self.local) == has(oldSelf.local) && has(self.sailPoint) == has(oldSelf.sailPoint) && has(self.trueFoundry) == has(oldSelf.trueFoundry) && has(self.cryptlex) == has(oldSelf.cryptlex) && has(self.gitLab) == has(oldSelf.gitLab) && has(self.gitea) == has(oldSelf.gitea) && has(self.argoCD) == has(oldSelf.argoCD)")
    .message("the system of an issuer is immutable: create another issuer"))]
#[x_kube(validation = Rule::new("has(self.local) != has(self.auth)")
    .message("auth is required, unless the issuer is local, which has none")
    .field_path(".auth"))]
#[x_kube(validation = Rule::new("!has(self.local) || !has(self.caBundle) && !has(self.pollInterval)")
    .message("caBundle and pollInterval are only for issuers of other systems"))]
pub struct TokenIssuerSpec {
    /// The operator itself issues the tokens, as it does without an issuer. The issuer only adds its policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<LocalIssuer>,

    /// SailPoint Identity Security Cloud. Tokens are those of the account of the credential. `auth` needs `clientID` and `clientSecret`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sail_point: Option<RemoteSystem>,

    /// TrueFoundry. Tokens are those of the account of the credential, or of a virtual account. `auth` needs `token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub true_foundry: Option<RemoteSystem>,

    /// Cryptlex. Tokens are those of the account of the credential. `auth` needs `token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cryptlex: Option<RemoteSystem>,

    /// GitLab. Tokens are those of projects, groups or users. `auth` needs `token`, with the scope `api`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_lab: Option<RemoteSystem>,

    /// Gitea or Forgejo. Tokens are those of the account of the credential, and never expire by themselves. `auth` needs `username` and
    /// `password`. A token with the scope `write:user` works as the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gitea: Option<RemoteSystem>,

    /// Argo CD. Tokens are those of local accounts or project roles. `auth` needs `token`.
    #[serde(default, rename = "argoCD", skip_serializing_if = "Option::is_none")]
    pub argo_cd: Option<RemoteSystem>,

    /// The credential that the operator uses at the issuer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<IssuerAuth>,

    /// CA certificates to trust for this server instead of the default ones, in PEM, up to 64 KiB. Default: the CA certificates of the
    /// operator's image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65_536))]
    pub ca_bundle: Option<String>,

    /// Which tokens the issuer issues. Default: for a TokenIssuer, every token of its namespace; a ClusterTokenIssuer must have a policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<IssuerPolicy>,

    /// How often the operator lists the tokens at the issuer, from `1m` to `1h`. Default: 5m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new(duration::between(60, 3_600)).message("pollInterval must be from 1m to 1h"))]
    pub poll_interval: Option<LengthOfTime>,
}

/// A system that issues tokens for PersonalAccessTokens of all namespaces that its policy names.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "pat-operator.io",
    version = "v1alpha1",
    kind = "ClusterTokenIssuer",
    plural = "clustertokenissuers",
    singular = "clustertokenissuer",
    shortname = "clusterpatissuer",
    category = "tokens",
    status = "IssuerStatus",
    derive = "PartialEq",
    doc = "A system that issues tokens for PersonalAccessTokens of all namespaces that its policy names.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Type", type_ = "string", json_path = ".status.type"),
    printcolumn(name = "URL", type_ = "string", json_path = ".status.url"),
    printcolumn(name = "Tokens", type_ = "integer", json_path = ".status.tokens"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("has(self.spec.policy)")
        .message("a ClusterTokenIssuer needs spec.policy: its rules say which namespaces may use it")
        .field_path(".spec.policy")
)]
#[serde(transparent)]
pub struct ClusterTokenIssuerSpec(pub TokenIssuerSpec);

/// The operator itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LocalIssuer {}

/// Another system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RemoteSystem {
    /// URL of the system, such as `https://gitlab.example.com`. Immutable. `http://` works only for hosts that the operator's flag
    /// `--issuer-insecure-hosts` names.
    #[schemars(schema_with = "url_schema")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("url is immutable: create another issuer"))]
    pub url: String,
}

/// The credential for an issuer. Exactly one of `secretRef` and `tokenRef` must be set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.secretRef) != has(self.tokenRef)")
    .message("set exactly one of secretRef and tokenRef"))]
#[x_kube(validation = Rule::new("!has(self.fallback) || has(self.tokenRef)")
    .message("fallback is only for tokenRef: it is used when that token no longer works")
    .field_path(".fallback"))]
pub struct IssuerAuth {
    /// A Secret of type `pat-operator.io/issuer-auth`, in the namespace of the TokenIssuer or, for a ClusterTokenIssuer, of the operator. Its
    /// key `host` names the host of `url`; the other keys hold the credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<ObjectName>,
    /// A PersonalAccessToken of this issuer, in the namespace of the TokenIssuer or, for a ClusterTokenIssuer, of the operator. The
    /// operator authenticates with its token, and so rotates its own credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_ref: Option<ObjectName>,
    /// A Secret as for `secretRef`. Used until the PersonalAccessToken has its first token, and when its token is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<ObjectName>,
}

/// Names another object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectName {
    /// Name of the object.
    #[schemars(schema_with = "object_name_schema")]
    pub name: String,
}

/// Which tokens an issuer issues.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IssuerPolicy {
    /// Up to 32 rules. A token is issued if at least one rule permits all of it.
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub rules: Vec<PolicyRule>,
}

/// Permits tokens. A token must meet every field that is set. In patterns, `*` stands for any text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyRule {
    /// Patterns of the namespaces that may request tokens: up to 64. Default: every namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "patterns_schema")]
    pub namespaces: Vec<String>,
    /// Patterns of targets, up to 64: `project/shop/*`, `group/*`, `user/7` (GitLab), `account/ci`, `role/shop/*` (Argo CD),
    /// `virtual-account` (TrueFoundry). Only `*` matches tokens of the account of the issuer's credential. Default: every target.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "patterns_schema")]
    pub targets: Vec<String>,
    /// Highest role of GitLab tokens. Default: Owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_access_level: Option<GitLabAccessLevel>,
    /// Patterns of the scopes that tokens may have: up to 64. Default: every scope.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "patterns_schema")]
    pub scopes: Vec<String>,
    /// If `true`, tokens may have `spec.permissions` (TrueFoundry). Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permissions: Option<bool>,
    /// Longest lifetime of one token: with rotation, 2 × `rotation.interval`. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_lifetime: Option<LengthOfTime>,
    /// If `true`, tokens must have `rotation`. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub require_rotation: Option<bool>,
}

/// Observed state of an issuer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IssuerStatus {
    /// The metadata.generation that the operator last processed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions of the issuer. `Ready`: the server answers and accepts the credential. Rights on single targets are not checked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The system, such as `GitLab`.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub type_: Option<String>,
    /// URL of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub url: Option<String>,
    /// Version of the server, if it reports one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub server_version: Option<String>,
    /// Account that the tokens belong to; only for SailPoint and Gitea. The operator does not use a credential of another account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub account: Option<String>,
    /// Number of live tokens that the issuer has issued for PersonalAccessTokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<i64>,
    /// When the operator last listed all tokens at the issuer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_polled_at: Option<Time>,
    /// Names of tokens that were left at the issuer because of `deletionPolicy: Orphan`: the newest 1,000.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "orphaned_schema")]
    pub orphaned: Vec<String>,
}

/// The systems that issue tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IssuerSystem {
    /// This operator.
    Local,
    /// SailPoint.
    SailPoint,
    /// TrueFoundry.
    TrueFoundry,
    /// Cryptlex.
    Cryptlex,
    /// GitLab.
    GitLab,
    /// Gitea and Forgejo.
    Gitea,
    /// Argo CD.
    ArgoCd,
}

impl IssuerSystem {
    /// All systems.
    pub const ALL: &'static [Self] =
        &[Self::Local, Self::SailPoint, Self::TrueFoundry, Self::Cryptlex, Self::GitLab, Self::Gitea, Self::ArgoCd];

    /// Whether tokens can be for the account of the issuer's credential.
    pub fn has_account(self) -> bool {
        matches!(self, Self::SailPoint | Self::TrueFoundry | Self::Cryptlex | Self::Gitea)
    }

    /// Returns the name for people and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::SailPoint => "SailPoint",
            Self::TrueFoundry => "TrueFoundry",
            Self::Cryptlex => "Cryptlex",
            Self::GitLab => "GitLab",
            Self::Gitea => "Gitea",
            Self::ArgoCd => "Argo CD",
        }
    }
}

/// What a system does with the expiry of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IssuerLimits {
    /// Whether tokens expire by themselves.
    pub expires: bool,
    /// Whether tokens expire at midnight UTC only.
    pub whole_days: bool,
    /// The longest life that the system allows, where that is the same for all its servers.
    pub max_lifetime: Option<SignedDuration>,
}

impl IssuerSystem {
    /// Returns what the system does with tokens of this target.
    pub fn limits(self, target: &RemoteTarget) -> IssuerLimits {
        let days = |days: i64| Some(SignedDuration::from_hours(24 * days));
        let usual = IssuerLimits { expires: true, whole_days: false, max_lifetime: None };
        let is_virtual_account =
            target.true_foundry.is_some_and(|one| one.type_ == TrueFoundryTokenType::VirtualAccount);
        match self {
            // 6 months is the maximum and the default (`expirationDate` in the API document). The shortest 6 months have 181 days.
            Self::SailPoint => IssuerLimits { max_lifetime: days(181), ..usual },
            // 365 days is the maximum of GitLab.com, and of servers without another setting
            // (https://docs.gitlab.com/user/profile/personal_access_tokens/#access-token-expiration).
            Self::GitLab => IssuerLimits { whole_days: true, max_lifetime: days(365), ..usual },
            // https://docs.gitea.com/development/api-usage
            Self::Gitea => IssuerLimits { expires: false, ..usual },
            Self::TrueFoundry => IssuerLimits { whole_days: is_virtual_account, ..usual },
            Self::Local | Self::Cryptlex | Self::ArgoCd => usual,
        }
    }
}

impl IssuerLimits {
    /// Returns the expiry that a token created now gets for a wanted one: rounded up to a whole day where the system knows no other, but never
    /// past the maximum. `None` if tokens of the system do not expire.
    pub fn expiry(&self, wanted: Option<Time>, now: Time) -> Option<Time> {
        if !self.expires {
            return None;
        }
        let latest = self.max_lifetime.map(|lifetime| now.plus(lifetime));
        let up = |end: Time| if self.whole_days { ceil_day(end) } else { end.ceil_second() };
        let down = |end: Time| if self.whole_days { floor_day(end) } else { end.floor_second() };
        wanted.map(up).into_iter().chain(latest.map(down)).min()
    }
}

/// Returns the midnight, in UTC, at or before a time.
fn floor_day(time: Time) -> Time {
    const DAY: i64 = 86_400_000_000;
    Time::from_micros(time.as_micros().div_euclid(DAY) * DAY)
}

/// Returns the midnight, in UTC, at or after a time.
fn ceil_day(time: Time) -> Time {
    let floor = floor_day(time);
    if floor == time { time } else { floor.plus(SignedDuration::from_hours(24)) }
}

impl TokenIssuerSpec {
    /// Returns the system, and its URL if it is another one; `None` if the spec names none.
    pub fn system(&self) -> Option<(IssuerSystem, Option<&str>)> {
        let systems = [
            (IssuerSystem::SailPoint, &self.sail_point),
            (IssuerSystem::TrueFoundry, &self.true_foundry),
            (IssuerSystem::Cryptlex, &self.cryptlex),
            (IssuerSystem::GitLab, &self.git_lab),
            (IssuerSystem::Gitea, &self.gitea),
            (IssuerSystem::ArgoCd, &self.argo_cd),
        ];
        let remote = systems.iter().find_map(|(system, remote)| Some((*system, Some(remote.as_ref()?.url.as_str()))));
        remote.or(self.local.map(|_| (IssuerSystem::Local, None)))
    }
}

fn url_schema(_: &mut SchemaGenerator) -> Schema {
    let words = "must be a URL such as https://gitlab.example.com or https://example.com/gitlab, without user, query and fragment";
    text(2_048, "^https?://[A-Za-z0-9.:_-]+(/[A-Za-z0-9._~/-]*)?$", words)
}

fn object_name_schema(_: &mut SchemaGenerator) -> Schema {
    text(253, &format!("^{DNS_NAME}$"), "must be the name of an object")
}

fn patterns_schema(_: &mut SchemaGenerator) -> Schema {
    let pattern = text(256, "^[!-~]+$", "must be 1 to 256 visible ASCII characters, without spaces");
    json_schema!({"type": "array", "x-kubernetes-list-type": "atomic", "maxItems": 64, "items": pattern})
}

fn orphaned_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "x-kubernetes-list-type": "atomic", "maxItems": 1000,
        "items": {"type": "string", "maxLength": 64},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Time {
        text.parse().unwrap()
    }

    #[test]
    fn gitlab_expires_at_midnight_and_never_past_the_maximum() {
        let (limits, now) = (IssuerSystem::GitLab.limits(&RemoteTarget::default()), time("2026-01-01T12:00:00Z"));
        for (wanted, expiry) in [
            (Some("2026-01-02T00:00:00Z"), "2026-01-02T00:00:00Z"),
            (Some("2026-01-02T00:00:01Z"), "2026-01-03T00:00:00Z"),
            (Some("2027-01-01T00:00:00Z"), "2027-01-01T00:00:00Z"),
            (Some("2099-01-01T00:00:00Z"), "2027-01-01T00:00:00Z"),
            (None, "2027-01-01T00:00:00Z"),
        ] {
            assert_eq!(limits.expiry(wanted.map(time), now), Some(time(expiry)), "{wanted:?}");
        }
    }

    #[test]
    fn others_expire_as_wanted_or_never() {
        let (wanted, now) = (Some(time("2026-01-02T03:04:05Z")), time("2026-01-01T12:00:00Z"));
        let of = |system: IssuerSystem| system.limits(&RemoteTarget::default());
        assert_eq!(of(IssuerSystem::Gitea).expiry(wanted, now), None);
        assert_eq!(of(IssuerSystem::Cryptlex).expiry(wanted, now), wanted);
        assert_eq!(of(IssuerSystem::Cryptlex).expiry(None, now), None);
        let (far, latest) = (Some(time("2030-01-01T00:00:00Z")), time("2026-07-01T12:00:00Z"));
        assert_eq!(of(IssuerSystem::SailPoint).expiry(far, now), Some(latest));
    }
}
