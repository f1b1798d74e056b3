//! `PersonalAccessToken` and its spec. `kubectl explain` prints the doc comments.
//!
//! Defaults are applied in code (see `planner::intent`), never in the schema, so that the API server stores exactly what was
//! applied and GitOps tools see no drift. Values with their own grammar stay text here and are parsed one by one, so that an
//! invalid object does not prevent a list from being decoded.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::{
    ArgoCdTarget, DeletionPolicy, GitLabTarget, IssuerReference, LengthOfTime, MANAGED_BY_LABEL, NotificationTarget,
    Permission, PersonalAccessTokenStatus, RESERVED_PREFIX, Time, TrueFoundryTarget, duration,
};

/// A personal access token: a random secret with an owner, scopes and an expiry. The operator keeps it in a Secret,
/// rotates it, and lets other services verify it.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "pat-operator.io",
    version = "v1alpha1",
    kind = "PersonalAccessToken",
    plural = "personalaccesstokens",
    singular = "personalaccesstoken",
    shortname = "pat",
    category = "tokens",
    namespaced,
    status = "PersonalAccessTokenStatus",
    derive = "PartialEq",
    doc = "A personal access token: a random secret with an owner, scopes and an expiry. The operator keeps it in a Secret, rotates it, and lets other services verify it.",
    selectable = ".status.owner.name",
    selectable = ".status.owner.kind",
    selectable = ".spec.displayName",
    selectable = ".spec.parent.uid",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Owner", type_ = "string", json_path = ".status.owner.name"),
    printcolumn(name = "Secret", type_ = "string", json_path = ".status.secretName"),
    printcolumn(name = "Expires", type_ = "string", json_path = ".status.expiresAt", description = "When the token expires; empty if it never does"),
    printcolumn(name = "Next rotation", type_ = "string", json_path = ".status.nextRotationAt"),
    printcolumn(name = "Last used", type_ = "string", json_path = ".status.lastUsedAt", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    // Without `type`, the preset determines the type, so the rule compares the effective types.
    validation = Rule::new(
        "(has(self.spec.secret) && has(self.spec.secret.name) ? self.spec.secret.name : self.metadata.name) != (has(oldSelf.spec.secret) && has(oldSelf.spec.secret.name) ? oldSelf.spec.secret.name : oldSelf.metadata.name) || (!has(self.spec.secret) ? 'Opaque' : has(self.spec.secret.type) ? self.spec.secret.type : !has(self.spec.secret.template) || !has(self.spec.secret.template.preset) ? 'Opaque' : self.spec.secret.template.preset == 'BasicAuth' ? 'kubernetes.io/basic-auth' : self.spec.secret.template.preset == 'DockerConfigJson' ? 'kubernetes.io/dockerconfigjson' : 'Opaque') == (!has(oldSelf.spec.secret) ? 'Opaque' : has(oldSelf.spec.secret.type) ? oldSelf.spec.secret.type : !has(oldSelf.spec.secret.template) || !has(oldSelf.spec.secret.template.preset) ? 'Opaque' : oldSelf.spec.secret.template.preset == 'BasicAuth' ? 'kubernetes.io/basic-auth' : oldSelf.spec.secret.template.preset == 'DockerConfigJson' ? 'kubernetes.io/dockerconfigjson' : 'Opaque')"
    )
    .message("the type of a Secret is immutable: set spec.secret.name to a new name in the same change, and the token moves to that Secret")
    .field_path(".spec.secret"),
    // The next two rules keep revoked credentials dead: until the controller has removed a credential from the status, only the spec says
    // that it is revoked. A write of the status never changes the spec, so it always meets them.
    validation = Rule::new(
        "!has(oldSelf.spec.revoked) || !oldSelf.spec.revoked || has(self.spec.revoked) && self.spec.revoked || !has(oldSelf.status) || (!has(oldSelf.status.credentials) || oldSelf.status.credentials.size() == 0) && (!has(oldSelf.status.remoteCredentials) || oldSelf.status.remoteCredentials.all(credential, credential.state == 'Revoking'))"
    )
    .message("the controller has not recorded this revocation yet, and without revoked: true the revoked tokens would be valid again: wait until status.credentials is empty, then try again")
    .field_path(".spec.revoked")
    .reason(Reason::FieldValueForbidden),
    validation = Rule::new(
        "!has(oldSelf.spec.revokedCredentials) || has(self.spec.revoked) && self.spec.revoked || !has(oldSelf.status) || oldSelf.spec.revokedCredentials.all(id, has(self.spec.revokedCredentials) && id in self.spec.revokedCredentials || (!has(oldSelf.status.credentials) || !oldSelf.status.credentials.exists(credential, credential.id == id)) && (!has(oldSelf.status.remoteCredentials) || !oldSelf.status.remoteCredentials.exists(credential, credential.id == id && credential.state != 'Revoking')))"
    )
    .message("the controller has not recorded the revocation of an ID that this change removes, and its credential would be valid again: wait until status.credentials no longer lists the ID, then try again")
    .field_path(".spec.revokedCredentials")
    .reason(Reason::FieldValueForbidden)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.owner) == has(oldSelf.owner) && (!has(self.owner) || self.owner == oldSelf.owner)")
    .message("owner is immutable: to issue a token for another owner, delete this object and create a new one")
    .field_path(".owner"))]
#[x_kube(validation = Rule::new(duration::shorter("has(self.gracePeriod) && has(self.rotation)", "self.gracePeriod", "self.rotation.interval"))
    .message("gracePeriod must be shorter than rotation.interval, so that at most one replaced token is valid at a time")
    .field_path(".gracePeriod"))]
#[x_kube(validation = Rule::new("!has(self.rotation) || !has(self.secret) || !has(self.secret.delivery)")
    .message("delivery: Once excludes rotation: a token that is delivered once cannot be replaced for its holder; set only one of the two")
    .field_path(".secret.delivery"))]
#[x_kube(validation = Rule::new("(has(self.secret) && has(self.secret.delivery)) == (has(oldSelf.secret) && has(oldSelf.secret.delivery))")
    .message("delivery is immutable: to change it, delete this object and create a new one")
    .field_path(".secret.delivery"))]
#[x_kube(validation = Rule::new("!has(self.secret) || !has(self.secret.delivery) || !has(oldSelf.secret) || has(self.secret.name) == has(oldSelf.secret.name) && (!has(self.secret.name) || self.secret.name == oldSelf.secret.name)")
    .message("with delivery: Once, the name of the Secret is immutable: to change it, delete this object and create a new one")
    .field_path(".secret.name"))]
#[x_kube(validation = Rule::new("!has(oldSelf.parent) || has(self.parent) && self.parent == oldSelf.parent")
    .message("parent is immutable once it is set, so that this token can be revoked with its parent: keep the stored value, also in a manifest that replaces the object")
    .field_path(".parent"))]
#[x_kube(validation = Rule::new("has(self.issuerRef) == has(oldSelf.issuerRef) && (!has(self.issuerRef) || self.issuerRef == oldSelf.issuerRef)")
    .message("issuerRef is immutable: to use another issuer, delete this object and create a new one")
    .field_path(".issuerRef"))]
#[x_kube(validation = Rule::new("has(self.issuerRef) || !has(self.gitLab) && !has(self.argoCD) && !has(self.trueFoundry) && !has(self.deletionPolicy)")
    .message("gitLab, argoCD, trueFoundry and deletionPolicy are only for tokens of other systems: set issuerRef, or remove them")
    .field_path(".issuerRef"))]
#[x_kube(validation = Rule::new("[has(self.gitLab), has(self.argoCD), has(self.trueFoundry)].filter(x, x).size() <= 1")
    .message("set at most one of gitLab, argoCD and trueFoundry: the one of the issuer's system"))]
pub struct PersonalAccessTokenSpec {
    /// Name shown to people in lists, 1 to 128 characters. Default: metadata.name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "display_name_schema")]
    pub display_name: Option<String>,

    /// What the token is for, in up to 1024 characters. For people only; no program reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,

    /// The user or virtual account that the token authenticates. Immutable. Default: the VirtualAccount
    /// `<namespace>/<name>` of this object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,

    /// What the token permits: up to 64 scope tokens as defined by RFC 6749, each of 1 to 128 characters. Default:
    /// none, so the token grants no rights.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "scopes_schema")]
    pub scopes: Vec<String>,

    /// The services that may accept the token (the `aud` claim of RFC 7519): up to 32, each of 1 to 256 characters.
    /// Default: none, so only a verifier that requires no audience accepts the token.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "audiences_schema")]
    pub audiences: Vec<String>,

    /// Text before the underscore in the token: 2 to 15 lower-case letters and digits, starting with a letter.
    /// Default: `kpat`. A change applies to tokens issued after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "prefix_schema")]
    pub token_prefix: Option<String>,

    /// When the token expires, across all rotations. Default: with `rotation`, the token does not expire; without it,
    /// the token expires after the default lifetime of the installation (90 days unless the administrator configures
    /// another).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiry: Option<Expiry>,

    /// Replaces the token at a regular interval. Default: no rotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<Rotation>,

    /// How long a replaced token stays valid alongside its successor, such as `1d`. It must be shorter than
    /// rotation.interval. Default: one day, or half of rotation.interval if that is shorter. The value is fixed when
    /// a token is replaced; a later change applies to the next replacement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_period: Option<LengthOfTime>,

    /// Replaces the active token once, with its grace period, if it was issued before this time (RFC 3339). A time in
    /// the future takes effect when it is reached. Default: not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotate_if_issued_before: Option<Time>,

    /// Revokes every token issued before this time (RFC 3339) at once, without a grace period, and issues a new
    /// token. A time in the future takes effect when it is reached; until then, remove or change it to cancel the
    /// revocation. Keep a time in the past while status.credentials lists a token that it revokes: without it, that
    /// token is valid again. Default: not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoke_if_issued_before: Option<Time>,

    /// IDs of up to 8 credentials (see status.credentials) to revoke at once, without a grace period. If the active
    /// credential is listed, a new token is issued. An ID can be removed once status.credentials no longer lists it.
    /// Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "ids_schema")]
    pub revoked_credentials: Vec<String>,

    /// If `true`, every token issued for this object is revoked at once and no new token is issued. Setting it back
    /// to `false` issues a new token; revoked tokens stay revoked. It can be set back once the controller has recorded
    /// the revocation and status.credentials is empty. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<bool>,

    /// If `true`, no token is issued or rotated. Live tokens keep their deadlines and can still be revoked. Default:
    /// false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,

    /// Rights to individual resources, for products that model permissions this way: up to 64. The REST API returns
    /// them unchanged; the operator does not enforce them. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub permissions: Vec<Permission>,

    /// If `true`, a product manages the token on behalf of its owner. The REST API requires separate rights to read
    /// and change managed tokens. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed: Option<bool>,

    /// Lifetime of an access token that the REST API issues for this token, such as `1h`: from 15 seconds to 12
    /// hours. An access token never outlives this token. Default: 12 hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new(duration::between(15, 43_200)).message("accessTokenValidity must be from 15s to 12h"))]
    pub access_token_validity: Option<LengthOfTime>,

    /// Where to send notifications about rotations. Stored for programs that send them; the operator itself sends
    /// none. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notification_target: Option<Box<NotificationTarget>>,

    /// The PersonalAccessToken whose holder requested this one from the REST API, which sets it when it creates a token,
    /// or first regenerates it. Immutable once it is set. It grants no rights. With `--cascade-revocation`, the REST API
    /// revokes this token when the parent is revoked. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Box<ParentToken>>,

    /// The TokenIssuer or ClusterTokenIssuer that issues the token. Immutable. Default: the operator itself issues it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer_ref: Option<Box<IssuerReference>>,

    /// With an issuer of GitLab, what the token is for. Required there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_lab: Option<Box<GitLabTarget>>,

    /// With an issuer of Argo CD, what the token is for. Required there.
    #[serde(default, rename = "argoCD", skip_serializing_if = "Option::is_none")]
    pub argo_cd: Option<Box<ArgoCdTarget>>,

    /// With an issuer of TrueFoundry, what the token is for. Default: a personal access token of the account of the
    /// issuer's credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub true_foundry: Option<Box<TrueFoundryTarget>>,

    /// With an issuer of another system, what happens to the tokens there when this object is deleted: see
    /// [`DeletionPolicy`], whose description `kubectl explain` shows here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,

    /// The Secret that holds the token. Default: a Secret of type Opaque with the name of this object, which holds
    /// the token under the key `token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Box<SecretSpec>>,
}

/// The user or virtual account that a token authenticates.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.kind != 'User' || !(self.name.startsWith('va:') || self.name.startsWith('system:'))")
    .message("a User's name may not start with 'va:' or 'system:': these prefixes are reserved for virtual accounts and for Kubernetes")
    .field_path(".name"))]
pub struct Owner {
    /// `User` for a person, `VirtualAccount` for a program.
    pub kind: OwnerKind,
    /// Name of the owner, unique in the installation: 1 to 317 visible ASCII characters. For a VirtualAccount, prefer
    /// `<namespace>/<name>`: every namespace may issue tokens for its own accounts.
    #[schemars(schema_with = "owner_name_schema")]
    pub name: String,
}

impl Owner {
    /// Returns the owner as one string, for subjects, user names and headers: `<name>` for a User, `va:<name>` for a
    /// VirtualAccount.
    pub fn text(&self) -> String {
        match self.kind {
            OwnerKind::User => self.name.clone(),
            OwnerKind::VirtualAccount => format!("va:{}", self.name),
        }
    }
}

/// Kind of a token owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum OwnerKind {
    /// A person.
    User,
    /// A program.
    VirtualAccount,
}

/// The token with which another one was requested.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ParentToken {
    /// Name of the PersonalAccessToken, in the same namespace, when it was recorded. For people only.
    #[schemars(schema_with = "object_name_schema")]
    pub name: String,
    /// UID of the PersonalAccessToken.
    #[schemars(schema_with = "uid_schema")]
    pub uid: String,
}

/// When a token expires. Exactly one field must be set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.at) ? 1 : 0) + (has(self.after) ? 1 : 0) + (has(self.never) ? 1 : 0) == 1")
    .message("set exactly one of expiry.at (a time), expiry.after (a duration) and expiry.never (true)"))]
pub struct Expiry {
    /// The token expires at this time (RFC 3339), such as `2030-12-31T23:59:59Z`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
    /// The token expires this long after the first token was issued, such as `90d`. Rotation does not extend it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<LengthOfTime>,
    /// If `true`, the token never expires. `false` is not allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self").message("never must be true: for a token that expires, set expiry.at or expiry.after instead"))]
    pub never: Option<bool>,
}

/// Regular replacement of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rotation {
    /// How long a token is used before it is replaced, such as `30d`; at least 10 seconds. To spread the rotations of
    /// many tokens, each happens up to 5 % of the interval early (at most 12 hours), never late. If the operator is
    /// down, the current token stays valid for one more interval and then expires.
    #[x_kube(validation = Rule::new(duration::at_least(10)).message("interval must be at least 10s"))]
    pub interval: LengthOfTime,
}

/// The Secret that holds a token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.previousKey) || self.previousKey != (has(self.key) ? self.key : 'token')")
    .message("previousKey must differ from key: the Secret holds both tokens during the grace period")
    .field_path(".previousKey"))]
#[x_kube(validation = Rule::new("!has(self.template) || !has(self.template.data) || !((has(self.key) ? self.key : 'token') in self.template.data) && (!has(self.previousKey) || !(self.previousKey in self.template.data))")
    .message("template.data may not define the keys that hold the bare tokens (key, default 'token', and previousKey): choose other keys")
    .field_path(".template"))]
#[x_kube(validation = Rule::new("!has(self.key) || !has(self.template) || !has(self.template.preset) || self.key != {'BasicAuth': 'username', 'DockerConfigJson': '.dockerconfigjson', 'Netrc': '.netrc', 'Npmrc': '.npmrc', 'GitCredentials': '.git-credentials'}[self.template.preset]")
    .message("the preset writes this key: choose another key")
    .field_path(".key"))]
#[x_kube(validation = Rule::new("!has(self.previousKey) || !has(self.template) || !has(self.template.preset) || !(self.previousKey in {'BasicAuth': ['username', 'password'], 'DockerConfigJson': ['.dockerconfigjson'], 'Netrc': ['.netrc'], 'Npmrc': ['.npmrc'], 'GitCredentials': ['.git-credentials']}[self.template.preset])")
    .message("the preset writes this key: choose another key")
    .field_path(".previousKey"))]
#[x_kube(validation = Rule::new(r"has(self.previousKey) || !has(self.template) || !has(self.template.data) || self.template.data.all(k, !self.template.data[k].matches(r'\{\{\s*(previousToken|previousId)\s*[|}]'))")
    .message("a template that uses previousToken or previousId needs previousKey: without it, the previous token is not kept")
    .field_path(".template"))]
#[x_kube(validation = Rule::new("!has(self.template) || !has(self.template.preset) || !has(self.type) || self.type == (self.template.preset == 'BasicAuth' ? 'kubernetes.io/basic-auth' : self.template.preset == 'DockerConfigJson' ? 'kubernetes.io/dockerconfigjson' : 'Opaque') || !self.type.startsWith('kubernetes.io/') && !(self.template.preset in ['BasicAuth', 'DockerConfigJson'])")
    .message("type does not match the preset: remove type to use the type of the preset")
    .field_path(".type"))]
#[x_kube(validation = Rule::new("!has(self.type) || !(self.type in ['kubernetes.io/basic-auth', 'kubernetes.io/dockerconfigjson']) || self.type == 'kubernetes.io/basic-auth' && has(self.key) && self.key in ['username', 'password'] || has(self.template) && (has(self.template.preset) || has(self.template.data) && (self.type == 'kubernetes.io/basic-auth' ? 'username' in self.template.data || 'password' in self.template.data : '.dockerconfigjson' in self.template.data))")
    .message("this type requires certain keys: set template.preset to BasicAuth or DockerConfigJson, or define username and password or .dockerconfigjson in template.data")
    .field_path(".type"))]
#[x_kube(validation = Rule::new("!has(self.delivery) || !has(self.previousKey)")
    .message("with delivery: Once, the Secret does not stay and cannot hold the previous token: remove previousKey")
    .field_path(".previousKey"))]
pub struct SecretSpec {
    /// Name of the Secret, in the namespace of this object. Default: metadata.name. After a change, the operator
    /// writes the new Secret first and then removes the old one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "secret_name_schema")]
    pub name: Option<String>,

    /// Type of the Secret: `Opaque`, `kubernetes.io/basic-auth`, `kubernetes.io/dockerconfigjson`, or a name in a
    /// domain of your own (`example.com/token`). Default: the type that the preset requires, otherwise `Opaque`. To
    /// change it, change the name of the Secret too.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1012))]
    #[x_kube(validation = Rule::new("size(self) <= 253 && (self in ['Opaque', 'kubernetes.io/basic-auth', 'kubernetes.io/dockerconfigjson'] || self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$') && !self.matches('^([^/]*\\\\.)?(kubernetes\\\\.io|k8s\\\\.io|pat-operator\\\\.io)/'))")
        .message("type must be Opaque, kubernetes.io/basic-auth, kubernetes.io/dockerconfigjson or a name in a domain of your own, such as example.com/token"))]
    pub type_: Option<String>,

    /// Labels to add to the Secret, in addition to those of the operator: up to 32. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "labels_schema")]
    pub labels: BTreeMap<String, String>,

    /// Annotations to add to the Secret, in addition to those of the operator: up to 32. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "annotations_schema")]
    pub annotations: BTreeMap<String, String>,

    /// Key of the Secret that holds the bare token. Default: `token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "key_schema")]
    pub key: Option<String>,

    /// Key of the Secret that holds the previous token during its grace period. Default: the previous token is not
    /// kept in the Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "key_schema")]
    pub previous_key: Option<String>,

    /// Additional keys of the Secret, rendered from the token by a preset or by templates of your own. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<SecretTemplate>,

    /// How the token reaches its holder: see [`SecretDelivery`], whose description `kubectl explain` shows here.
    /// Immutable; excludes `rotation` and `previousKey`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<SecretDelivery>,
}

/// How the token reaches its holder. Default: the Secret stays. With `Once`, the holder reads the token and then
/// deletes the Secret, which acknowledges receipt. The token stays valid. The operator creates no new Secret and no
/// new token until rotateIfIssuedBefore or revokeIfIssuedBefore asks for one. A token that is not taken within 10
/// minutes is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum SecretDelivery {
    /// The token is taken once, by a holder that deletes the Secret.
    Once,
}

/// Additional keys of a Secret, rendered from the token: a preset or your own templates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.preset) != has(self.data)")
    .message("set exactly one of template.preset and template.data"))]
#[x_kube(validation = Rule::new("!has(self.preset) || self.preset == 'BasicAuth' || has(self.host)")
    .message("this preset needs template.host: the host name that the token is for, such as registry.example.com")
    .field_path(".host"))]
#[x_kube(validation = Rule::new("has(self.preset) || !has(self.host) && !has(self.username)")
    .message("template.host and template.username are only for presets: with template.data, write them in the template"))]
#[x_kube(validation = Rule::new("!has(self.preset) || self.preset != 'Netrc' || !has(self.host) || !self.host.matches('[:/]')")
    .message("a .netrc supports neither ports nor paths: set the host name alone, which applies to every port of that host")
    .field_path(".host"))]
#[x_kube(validation = Rule::new(r#"!has(self.preset) || self.preset != 'Netrc' || !has(self.username) || !self.username.matches(r'["\x27\\#]')"#)
    .message("a .netrc cannot hold a user name with a quotation mark, a backslash or '#': set another user name")
    .field_path(".username"))]
pub struct SecretTemplate {
    /// A ready-made set of keys: see [`Preset`], whose description `kubectl explain` shows here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,

    /// Host that the token is for, used by presets: a host name with an optional port and path, such as
    /// `registry.example.com:5000`. `Netrc` allows neither port nor path. `BasicAuth` needs no host; every other
    /// preset requires one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "host_schema")]
    pub host: Option<String>,

    /// User name that presets write alongside the token: 1 to 256 visible ASCII characters without `:`. Default: the
    /// name of the owner, without `va:` for a virtual account. `Npmrc` ignores it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "username_schema")]
    pub username: Option<String>,

    /// Keys and the templates of their values: up to 16 keys, each template of up to 16,384 characters, and up to 64
    /// KiB for all values of the Secret together. `{{ token }}` is replaced by the token. Variables: `token`,
    /// `previousToken`, `id`, `previousId`, `owner`, `username`, `displayName`, `namespace`, `name`, `scopes`,
    /// `audiences`, `issuedAt`, `expiresAt`, and `remoteId`, the ID of a token of another system there; a variable
    /// without a value is empty. Filters: `b64encode`, `tojson`,
    /// `urlencode`, as in `{{ token | b64encode }}`. To write a literal `{{`, use `{{ "{{" }}`. Conditions and loops
    /// are not supported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "template_data_schema")]
    pub data: Option<BTreeMap<String, String>>,
}

/// A ready-made set of keys. `BasicAuth`: `username` and `password`. `DockerConfigJson`: `.dockerconfigjson`, to pull
/// images. `Netrc`: `.netrc`. `Npmrc`: `.npmrc`. `GitCredentials`: `.git-credentials`. Default: none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Preset {
    /// `username` and `password`, for Secrets of type `kubernetes.io/basic-auth`.
    BasicAuth,
    /// `.dockerconfigjson`, for `imagePullSecrets`.
    DockerConfigJson,
    /// `.netrc`, for curl and Git.
    Netrc,
    /// `.npmrc`, for npm.
    Npmrc,
    /// `.git-credentials`, for Git's credential store.
    GitCredentials,
}

// Each grammar appears twice: the pattern serves tools that validate manifests offline, and the CEL rule has the message that
// people see.

pub(super) const DNS_NAME: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
// The API server rejects a Secret with a key that is `.` or starts with `..`.
const DATA_KEY: &str = r"^\.?[-_a-zA-Z0-9][-._a-zA-Z0-9]*$";
const DATA_KEY_WORDS: &str =
    "must be a key of a Secret: 1 to 253 letters, digits, '-', '_' and '.', but not '.' and not starting with '..'";

/// Returns `maxLength` for a text whose rule limits it to `max_length` characters. It only bounds the cost of the rule: for a longer text,
/// the API server would complain about bytes and not evaluate the rule, which has the message for people.
pub(super) fn bound(max_length: usize) -> usize {
    4 * max_length
}

/// Returns the schema of a text of up to `max_length` characters that matches `pattern`. The pattern must not match an empty text
/// if there must be one, and must not contain a single quotation mark.
pub(super) fn text(max_length: usize, pattern: &str, words: &str) -> Schema {
    let matches = matches("self", pattern);
    json_schema!({
        "type": "string",
        "maxLength": bound(max_length),
        "pattern": pattern,
        "x-kubernetes-validations": [{"rule": format!("size(self) <= {max_length} && {matches}"), "message": words}],
    })
}

/// Returns the schema of a name that people read: 1 to `max_length` characters in one line.
pub(super) fn name(max_length: usize) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": bound(max_length),
        "x-kubernetes-validations": [{
            "rule": format!("size(self) <= {max_length} && {}", matches("self", r"^[^\x00-\x1F\x7F-\x9F]+$")),
            "message": format!("must be 1 to {max_length} characters, without line breaks and other control characters"),
        }],
    })
}

/// Returns `spec.revokedCredentials` with more IDs of live credentials. A list that is too long loses the IDs of credentials that are no
/// longer live: these stay dead without being listed.
pub fn with_revoked<'a>(listed: &'a [String], more: &[&'a str], is_live: impl Fn(&str) -> bool) -> Vec<&'a str> {
    let mut ids: Vec<&str> = listed.iter().map(String::as_str).collect();
    for id in more {
        if !ids.contains(id) {
            ids.push(id);
        }
    }
    if ids.len() > super::MAX_LIVE_CREDENTIALS {
        ids.retain(|id| more.contains(id) || is_live(id));
    }
    ids
}

fn display_name_schema(_: &mut SchemaGenerator) -> Schema {
    name(128)
}

fn matches(what: &str, pattern: &str) -> String {
    format!("{what}.matches(r'{pattern}')")
}

fn set(max_items: usize, item: Schema) -> Schema {
    json_schema!({"type": "array", "x-kubernetes-list-type": "set", "maxItems": max_items, "items": item})
}

fn prefix_schema(_: &mut SchemaGenerator) -> Schema {
    let words = "must be 2 to 15 lower-case ASCII letters and digits, starting with a letter";
    text(15, "^[a-z][a-z0-9]{1,14}$", words)
}

fn owner_name_schema(_: &mut SchemaGenerator) -> Schema {
    // The default owner of a PAT is `<namespace>/<name>`: 63, 1 and 253 characters.
    text(317, "^[!-~]+$", "must be 1 to 317 visible ASCII characters, without spaces")
}

fn scopes_schema(_: &mut SchemaGenerator) -> Schema {
    let words = "must be 1 to 128 visible ASCII characters, without spaces, quotation marks (\") and backslashes, such as repo:read";
    set(64, text(128, r"^[!#-\[\]-~]+$", words))
}

fn audiences_schema(_: &mut SchemaGenerator) -> Schema {
    let words = "must be 1 to 256 visible ASCII characters, without spaces, such as https://registry.example.com";
    set(32, text(256, "^[!-~]+$", words))
}

fn ids_schema(_: &mut SchemaGenerator) -> Schema {
    let words = "must be the ID of a credential, 12 letters and digits: copy it from status.credentials";
    set(super::MAX_LIVE_CREDENTIALS, text(12, "^[0-9A-Za-z]{12}$", words))
}

fn secret_name_schema(_: &mut SchemaGenerator) -> Schema {
    let words = "must be the name of a Secret: 1 to 253 lower-case letters, digits, '-' and '.', with a letter or digit at both ends and on both sides of each '.'";
    text(253, &format!("^{DNS_NAME}$"), words)
}

fn object_name_schema(_: &mut SchemaGenerator) -> Schema {
    text(253, &format!("^{DNS_NAME}$"), "must be the name of a PersonalAccessToken")
}

fn uid_schema(_: &mut SchemaGenerator) -> Schema {
    let words = "must be the UID of a PersonalAccessToken: copy it from its metadata.uid";
    text(36, "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", words)
}

fn key_schema(_: &mut SchemaGenerator) -> Schema {
    text(253, DATA_KEY, DATA_KEY_WORDS)
}

fn host_schema(_: &mut SchemaGenerator) -> Schema {
    let port = "0*([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])";
    let pattern = format!("^[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:{port})?(/[-A-Za-z0-9._~/]*)?$");
    let words = "must be a host name without https://, with an optional port from 1 to 65535 and an optional path, such as registry.example.com:5000";
    text(253, &pattern, words)
}

fn username_schema(_: &mut SchemaGenerator) -> Schema {
    let words = "must be 1 to 256 visible ASCII characters, without spaces and without ':', which separates user name and password in HTTP Basic authentication";
    text(256, "^[!-9;-~]+$", words)
}

fn labels_schema(_: &mut SchemaGenerator) -> Schema {
    let pattern = "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$";
    let words = "must be the value of a label: empty, or up to 63 letters, digits, '-', '_' and '.', with a letter or digit at both ends";
    metadata_map("labels", text(63, pattern, words))
}

fn annotations_schema(_: &mut SchemaGenerator) -> Schema {
    metadata_map("annotations", json_schema!({"type": "string", "maxLength": 4096}))
}

fn metadata_map(what: &str, value: Schema) -> Schema {
    let key = format!("^({DNS_NAME}/)?[A-Za-z0-9]([-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?$");
    json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": value,
        "x-kubernetes-validations": [
            {
                "rule": format!(
                    "self.all(k, !{} && k != '{MANAGED_BY_LABEL}')",
                    matches("k", r"^([^/]*\.)?pat-operator\.io/"),
                ),
                "message": format!("{what} under {RESERVED_PREFIX} and {MANAGED_BY_LABEL} are reserved for the operator: choose other keys"),
            },
            {
                "rule": format!("self.all(k, k.indexOf('/') <= 253 && {})", matches("k", &key)),
                "message": format!("a key of {what} must be a name of up to 63 letters, digits, '-', '_' and '.', with an optional DNS domain and '/' before it, such as example.com/team"),
            },
        ],
    })
}

fn template_data_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "minProperties": 1,
        "maxProperties": 16,
        "additionalProperties": {"type": "string", "maxLength": 16_384},
        "x-kubernetes-validations": [
            {
                "rule": format!("self.all(k, k.size() <= 253 && {})", matches("k", DATA_KEY)),
                "message": DATA_KEY_WORDS,
            },
            {
                "rule": "self.map(k, self[k].size()).sum() <= 65536",
                "message": "the templates may have up to 64 KiB in total: shorten them",
            },
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_list_of_revoked_ids_loses_only_those_that_are_not_live() {
        let listed: Vec<_> = (0..8).map(|number| number.to_string()).collect();
        let is_live = |id: &str| id == "3" || id == "new";
        assert_eq!(with_revoked(&listed, &["new"], is_live), ["3", "new"]);
        assert_eq!(with_revoked(&listed, &["3"], is_live), listed);
        assert_eq!(with_revoked(&listed[..7], &["new", "new"], is_live).len(), 8);
    }
}
