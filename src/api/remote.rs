//! What a `PersonalAccessToken` says about a token of another system: its issuer, what the token is for there, and the record of each
//! token in the status. `kubectl explain` prints the doc comments.

use kube::{KubeSchema, api::ApiResource};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use super::{
    ClusterTokenIssuer, PersonalAccessTokenSpec, Time, TokenIssuer,
    spec::{DNS_NAME, text},
};

/// The TokenIssuer or ClusterTokenIssuer that issues the token.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IssuerReference {
    /// `TokenIssuer` for an issuer in the namespace of this object, `ClusterTokenIssuer` for a cluster-scoped one.
    pub kind: IssuerKind,
    /// Name of the issuer.
    #[schemars(schema_with = "issuer_name_schema")]
    pub name: String,
}

impl IssuerReference {
    /// Returns the kind and the name, for messages.
    pub fn title(&self) -> String {
        self.kind.title(&self.name)
    }
}

/// Kind of an issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum IssuerKind {
    /// An issuer for one namespace.
    TokenIssuer,
    /// An issuer for all namespaces that its policy names.
    ClusterTokenIssuer,
}

impl IssuerKind {
    /// Both kinds.
    pub const ALL: [Self; 2] = [Self::ClusterTokenIssuer, Self::TokenIssuer];

    /// Returns the API resource.
    pub fn resource(self) -> ApiResource {
        match self {
            Self::TokenIssuer => ApiResource::erase::<TokenIssuer>(&()),
            Self::ClusterTokenIssuer => ApiResource::erase::<ClusterTokenIssuer>(&()),
        }
    }

    /// Returns the name of the kind.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TokenIssuer => "TokenIssuer",
            Self::ClusterTokenIssuer => "ClusterTokenIssuer",
        }
    }

    /// Returns the kind and the name of an issuer, for messages.
    pub fn title(self, name: &str) -> String {
        format!("{} {name:?}", self.as_str())
    }
}

/// What happens to the tokens of another system when the object is deleted. Default: `Revoke`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// The operator revokes them at the issuer before the object goes.
    #[default]
    Revoke,
    /// They stay valid at the issuer until they expire; those of Gitea stay valid until someone deletes them.
    Orphan,
}

/// What a GitLab token is for. Exactly one of `project`, `group` and `user` must be set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.project) ? 1 : 0) + (has(self.group) ? 1 : 0) + (has(self.user) ? 1 : 0) == 1")
    .message("set exactly one of project, group and user"))]
#[x_kube(validation = Rule::new("!has(self.user) || !has(self.accessLevel)")
    .message("accessLevel is only for a project or a group: the token of a user has the user's own rights")
    .field_path(".accessLevel"))]
pub struct GitLabTarget {
    /// ID or full path of a project, such as `42` or `shop/web`. GitLab creates a bot user for each token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "path_schema")]
    pub project: Option<String>,
    /// ID or full path of a group. GitLab creates a bot user for each token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "path_schema")]
    pub group: Option<String>,
    /// ID of a user, such as a service account. The issuer's credential must be an administrator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub user: Option<i64>,
    /// Role of the token in the project or group. Default: Developer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_level: Option<GitLabAccessLevel>,
}

/// Role in a GitLab project or group (<https://docs.gitlab.com/api/access_requests/#valid-access-levels>).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum GitLabAccessLevel {
    /// 10
    Guest,
    /// 15
    Planner,
    /// 20
    Reporter,
    /// 30
    Developer,
    /// 40
    Maintainer,
    /// 50
    Owner,
}

impl GitLabAccessLevel {
    /// Returns the number of the role.
    pub fn number(self) -> u8 {
        match self {
            Self::Guest => 10,
            Self::Planner => 15,
            Self::Reporter => 20,
            Self::Developer => 30,
            Self::Maintainer => 40,
            Self::Owner => 50,
        }
    }
}

/// What an Argo CD token is for: an account, or a role of a project.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.account) ? !has(self.project) && !has(self.role) : has(self.project) && has(self.role)")
    .message("set either account, or project and role"))]
pub struct ArgoCdTarget {
    /// Name of a local account with the capability `apiKey`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "word_schema")]
    pub account: Option<String>,
    /// Name of an AppProject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "word_schema")]
    pub project: Option<String>,
    /// Name of a role of the project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "word_schema")]
    pub role: Option<String>,
}

/// What a TrueFoundry token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrueFoundryTarget {
    /// `PersonalAccessToken`: a token of the account of the issuer's credential. `VirtualAccount`: a token of a virtual account
    /// that is created for it.
    #[serde(rename = "type")]
    pub type_: TrueFoundryTokenType,
}

/// Type of a TrueFoundry token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum TrueFoundryTokenType {
    /// A personal access token.
    PersonalAccessToken,
    /// The token of a virtual account.
    VirtualAccount,
}

/// What a token of another system is for there. At most one field is set; without one, the token is for the account of the issuer's
/// credential.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RemoteTarget {
    /// In GitLab.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_lab: Option<GitLabTarget>,
    /// In Argo CD.
    #[serde(default, rename = "argoCD", skip_serializing_if = "Option::is_none")]
    pub argo_cd: Option<ArgoCdTarget>,
    /// In TrueFoundry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub true_foundry: Option<TrueFoundryTarget>,
}

impl RemoteTarget {
    /// Returns the target in a spec.
    pub fn of(spec: &PersonalAccessTokenSpec) -> Self {
        Self {
            git_lab: spec.git_lab.as_deref().cloned(),
            argo_cd: spec.argo_cd.as_deref().cloned(),
            true_foundry: spec.true_foundry.as_deref().cloned(),
        }
    }

    /// Returns the target as a policy rule names it: `project/shop/web`, `group/shop`, `user/7`, `account/ci`, `role/shop/deployer` or
    /// `virtual-account`; empty for the account of the issuer's credential.
    pub fn text(&self) -> String {
        if let Some(git_lab) = &self.git_lab {
            let user = git_lab.user.map(|user| format!("user/{user}"));
            let group = git_lab.group.as_ref().map(|group| format!("group/{group}"));
            let project = git_lab.project.as_ref().map(|project| format!("project/{project}"));
            return project.or(group).or(user).unwrap_or_default();
        }
        if let Some(argo_cd) = &self.argo_cd {
            let part = |part: &Option<String>| part.clone().unwrap_or_default();
            return match &argo_cd.account {
                Some(account) => format!("account/{account}"),
                None => format!("role/{}/{}", part(&argo_cd.project), part(&argo_cd.role)),
            };
        }
        match self.true_foundry.map(|target| target.type_) {
            Some(TrueFoundryTokenType::VirtualAccount) => "virtual-account".into(),
            Some(TrueFoundryTokenType::PersonalAccessToken) | None => String::new(),
        }
    }
}

/// What the status records of a token of another system, beside what it records of every credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RemoteFacts {
    /// Name of the token at the issuer. Unique, and never used twice.
    #[schemars(length(max = 64))]
    pub name: String,
    /// ID of the token at the issuer. Absent until the issuer has answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub id: Option<String>,
    /// When the token expires at the issuer, as the issuer reported when it created the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
    /// When the token was last used, as reported by the issuer. Updated at most once a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Time>,
    /// UID of the issuer.
    #[serde(rename = "issuerUID")]
    #[schemars(length(max = 36))]
    pub issuer_uid: String,
    /// What the token is for at the issuer.
    #[serde(default)]
    pub target: RemoteTarget,
    /// Hash of the parameters that the token was requested with. If those in the spec differ, the token is rotated.
    #[schemars(length(max = 64))]
    pub parameters: String,
}

fn issuer_name_schema(_: &mut SchemaGenerator) -> Schema {
    text(253, &format!("^{DNS_NAME}$"), "must be the name of an issuer")
}

fn path_schema(_: &mut SchemaGenerator) -> Schema {
    let words = "must be the ID or the full path of a project or group, such as 42 or shop/web";
    text(255, "^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*$", words)
}

fn word_schema(_: &mut SchemaGenerator) -> Schema {
    let words = "must be 1 to 128 letters, digits, '.', '_', '@' and '-', starting with a letter or digit";
    text(128, "^[A-Za-z0-9][A-Za-z0-9._@-]*$", words)
}
