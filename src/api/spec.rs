//! `PersonalAccessToken`: what a person writes. The doc comments are what `kubectl explain` prints.
//!
//! Defaults live in code ([`crate::controller`]'s intent), never in the schema: what Git says stays what the API
//! server holds. Values that have a grammar of their own stay text here and are read one by one, so that one bad object
//! never stops a list from being decoded.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::{
    LengthOfTime, MANAGED_BY_LABEL, NotificationTarget, Permission, PersonalAccessTokenStatus, RESERVED_PREFIX, Time,
};

/// A personal access token: a strong secret with an owner, scopes and an end, kept in a Secret, rotated on time, and
/// verifiable by everything that has to trust it.
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
    doc = "A personal access token: a strong secret with an owner, scopes and an end, kept in a Secret, rotated on time, and verifiable by everything that has to trust it.",
    selectable = ".status.owner.name",
    selectable = ".status.owner.kind",
    selectable = ".spec.displayName",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Owner", type_ = "string", json_path = ".status.owner.name"),
    printcolumn(name = "Secret", type_ = "string", json_path = ".status.secretName"),
    printcolumn(name = "Expires", type_ = "string", json_path = ".status.expiresAt", description = "The end of the whole token; empty if it has none"),
    printcolumn(name = "Next rotation", type_ = "string", json_path = ".status.nextRotationAt"),
    printcolumn(name = "Last used", type_ = "string", json_path = ".status.lastUsedAt", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    // The effective type follows from the preset where `type` is absent, so the rule compares effective types.
    validation = Rule::new(
        "(has(self.spec.secret) && has(self.spec.secret.name) ? self.spec.secret.name : self.metadata.name) != (has(oldSelf.spec.secret) && has(oldSelf.spec.secret.name) ? oldSelf.spec.secret.name : oldSelf.metadata.name) || (!has(self.spec.secret) ? 'Opaque' : has(self.spec.secret.type) ? self.spec.secret.type : !has(self.spec.secret.template) || !has(self.spec.secret.template.preset) ? 'Opaque' : self.spec.secret.template.preset == 'BasicAuth' ? 'kubernetes.io/basic-auth' : self.spec.secret.template.preset == 'DockerConfigJson' ? 'kubernetes.io/dockerconfigjson' : 'Opaque') == (!has(oldSelf.spec.secret) ? 'Opaque' : has(oldSelf.spec.secret.type) ? oldSelf.spec.secret.type : !has(oldSelf.spec.secret.template) || !has(oldSelf.spec.secret.template.preset) ? 'Opaque' : oldSelf.spec.secret.template.preset == 'BasicAuth' ? 'kubernetes.io/basic-auth' : oldSelf.spec.secret.template.preset == 'DockerConfigJson' ? 'kubernetes.io/dockerconfigjson' : 'Opaque')"
    )
    .message("the type of a Secret cannot be changed in place: give spec.secret.name a new name in the same change, and the token moves there")
    .field_path(".spec.secret")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.owner) == has(oldSelf.owner) && (!has(self.owner) || self.owner == oldSelf.owner)")
    .message("owner is immutable: whoever trusts this token knows it by its owner; delete the object and create it anew for another owner")
    .field_path(".owner"))]
#[x_kube(validation = Rule::new("!has(self.gracePeriod) || !has(self.rotation) || self.gracePeriod < self.rotation.interval")
    .message("gracePeriod must be shorter than rotation.interval, so that at most one replaced token is in use at a time")
    .field_path(".gracePeriod"))]
#[x_kube(validation = Rule::new("!has(self.rotation) || !has(self.secret) || !has(self.secret.delivery)")
    .message("delivery: Once excludes rotation: a token that is handed over once cannot be replaced in its holder's hands; leave one of them out")
    .field_path(".secret.delivery"))]
#[x_kube(validation = Rule::new("(has(self.secret) && has(self.secret.delivery)) == (has(oldSelf.secret) && has(oldSelf.secret.delivery))")
    .message("delivery is immutable: whoever holds the token relies on it; delete the object and create it anew")
    .field_path(".secret.delivery"))]
#[x_kube(validation = Rule::new("!has(self.secret) || !has(self.secret.delivery) || !has(oldSelf.secret) || has(self.secret.name) == has(oldSelf.secret.name) && (!has(self.secret.name) || self.secret.name == oldSelf.secret.name)")
    .message("with delivery: Once the Secret's name is immutable: whoever takes the token looks for it there; delete the object and create it anew")
    .field_path(".secret.name"))]
pub struct PersonalAccessTokenSpec {
    /// A name for people, as lists show it. Default: metadata.name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub display_name: Option<String>,

    /// What the token is for, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,

    /// Whom the token speaks for. Immutable. Default: the VirtualAccount `<namespace>/<name>` of this object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,

    /// What the token may do: up to 64 RFC 6749 scope tokens. Default: none, which means no rights at all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "scopes_schema")]
    pub scopes: Vec<String>,

    /// Who may accept the token (RFC 7519 `aud`): up to 32. Default: none, which means every verifier that asks for no audience.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "audiences_schema")]
    pub audiences: Vec<String>,

    /// What the token text starts with, before the underscore: 2 to 15 lower-case letters and digits. Default: `kpat`. A
    /// change takes effect with the next token that is minted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "prefix_schema")]
    pub token_prefix: Option<String>,

    /// The end of the whole token, over all rotations. Default: with `rotation` there is none; without, the
    /// installation's default lifetime (90 days unless its administrators chose another).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiry: Option<Expiry>,

    /// Replaces the token regularly. Default: no rotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<Rotation>,

    /// How long a replaced token goes on working beside the new one, such as `1d`. Shorter than rotation.interval. Default:
    /// one day, or half of rotation.interval if that is less. It is fixed when a token is replaced; a later change is for the next one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_period: Option<LengthOfTime>,

    /// Replaces the token once, with its grace period, if it was issued before this time (RFC 3339). A time in
    /// the future acts when it comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotate_if_issued_before: Option<Time>,

    /// Kills every token that was issued before this time (RFC 3339), at once and without grace, and issues a new one. A time
    /// in the future acts when it comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoke_if_issued_before: Option<Time>,

    /// Ids (see status.credentials) of single tokens that are dead at once: up to 8. If the active one is among them, a new one is issued.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "ids_schema")]
    pub revoked_credentials: Vec<String>,

    /// `true`: everything issued for this object is dead at once, and nothing is issued. Back to `false`: a new token is
    /// issued; the old ones stay dead. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<bool>,

    /// `true`: nothing is issued or rotated; what is live keeps its own deadlines and can still be revoked. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,

    /// What the token may do with single resources, for products that know rights of that form: up to 64. Told by the REST
    /// API as they stand here; nothing else looks at them. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub permissions: Vec<Permission>,

    /// `true`: a product manages the token on its owner's behalf. Told by the REST API, where the rights to managed tokens
    /// are rights of their own. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed: Option<bool>,

    /// How long an access token that the REST API gives for this token works, such as `1h`: 15 seconds to 12 hours, and never
    /// longer than this token. Default: 12 hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self >= duration('15s') && self <= duration('12h')").message("accessTokenValidity must be from 15s to 12h"))]
    pub access_token_validity: Option<LengthOfTime>,

    /// Whom to tell of rotations. Kept for programs that send such notifications; the operator sends none. Default: nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notification_target: Option<Box<NotificationTarget>>,

    /// The Secret that holds the token. Default: an Opaque Secret with this object's name and the token under the key `token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Box<SecretSpec>>,
}

/// Whom a token speaks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.kind != 'User' || !(self.name.startsWith('va:') || self.name.startsWith('system:'))")
    .message("a User's name may not start with 'va:' or 'system:': those belong to virtual accounts and to Kubernetes itself")
    .field_path(".name"))]
pub struct Owner {
    /// `User` for a person, `VirtualAccount` for a program.
    pub kind: OwnerKind,
    /// The owner's name, the same in the whole installation: 1 to 253 visible ASCII characters. For a VirtualAccount it is
    /// best to keep to `<namespace>/<name>`, which every namespace may use for its own accounts.
    #[schemars(schema_with = "owner_name_schema")]
    pub name: String,
}

impl Owner {
    /// The owner where one string must do (subject, user name, headers): `<name>` for a User, `va:<name>` for a VirtualAccount.
    pub fn text(&self) -> String {
        match self.kind {
            OwnerKind::User => self.name.clone(),
            OwnerKind::VirtualAccount => format!("va:{}", self.name),
        }
    }
}

/// The kinds of owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum OwnerKind {
    /// A person.
    User,
    /// A program.
    VirtualAccount,
}

/// The end of a token: exactly one of its fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.at) ? 1 : 0) + (has(self.after) ? 1 : 0) + (has(self.never) ? 1 : 0) == 1")
    .message("set exactly one of expiry.at (a time), expiry.after (a length of time) and expiry.never (true)"))]
pub struct Expiry {
    /// The token ends at this time (RFC 3339), such as `2030-12-31T23:59:59Z`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
    /// The token ends this long after it was first issued, such as `90d`; rotations do not extend it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<LengthOfTime>,
    /// `true`: the token has no end. Nothing else says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self").message("never must be true; to let the token end, use expiry.at or expiry.after instead"))]
    pub never: Option<bool>,
}

/// Regular replacement of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rotation {
    /// How long a token is in use before it is replaced, such as `30d`; at least 10 seconds. Replacement comes up to 5 %
    /// (at most 12 hours) early, never late, so that a fleet does not rotate at one instant. If the operator cannot work, the
    /// token goes on for one more interval and then ends.
    #[x_kube(validation = Rule::new("self >= duration('10s')").message("interval must be at least 10s"))]
    pub interval: LengthOfTime,
}

/// The Secret that holds a token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.previousKey) || self.previousKey != (has(self.key) ? self.key : 'token')")
    .message("previousKey must differ from key: both tokens stand in the Secret during the grace period")
    .field_path(".previousKey"))]
#[x_kube(validation = Rule::new("!has(self.template) || !has(self.template.data) || !((has(self.key) ? self.key : 'token') in self.template.data) && (!has(self.previousKey) || !(self.previousKey in self.template.data))")
    .message("template.data may not define the keys that hold the bare tokens (key, default 'token', and previousKey): choose other names")
    .field_path(".template"))]
#[x_kube(validation = Rule::new("!has(self.key) || !has(self.template) || !has(self.template.preset) || self.key != {'BasicAuth': 'username', 'DockerConfigJson': '.dockerconfigjson', 'Netrc': '.netrc', 'Npmrc': '.npmrc', 'GitCredentials': '.git-credentials'}[self.template.preset]")
    .message("the preset writes this key itself: choose another name")
    .field_path(".key"))]
#[x_kube(validation = Rule::new("!has(self.previousKey) || !has(self.template) || !has(self.template.preset) || !(self.previousKey in {'BasicAuth': ['username', 'password'], 'DockerConfigJson': ['.dockerconfigjson'], 'Netrc': ['.netrc'], 'Npmrc': ['.npmrc'], 'GitCredentials': ['.git-credentials']}[self.template.preset])")
    .message("the preset writes this key itself: choose another name")
    .field_path(".previousKey"))]
#[x_kube(validation = Rule::new(r"has(self.previousKey) || !has(self.template) || !has(self.template.data) || self.template.data.all(k, !self.template.data[k].matches(r'\{\{\s*(previousToken|previousId)\s*[|}]'))")
    .message("a template that uses previousToken or previousId needs previousKey: the replaced token is kept only where it is asked for")
    .field_path(".template"))]
#[x_kube(validation = Rule::new("!has(self.template) || !has(self.template.preset) || !has(self.type) || self.type == (self.template.preset == 'BasicAuth' ? 'kubernetes.io/basic-auth' : self.template.preset == 'DockerConfigJson' ? 'kubernetes.io/dockerconfigjson' : 'Opaque') || !self.type.startsWith('kubernetes.io/') && !(self.template.preset in ['BasicAuth', 'DockerConfigJson'])")
    .message("type does not go with the preset: leave type out, and the preset chooses it")
    .field_path(".type"))]
#[x_kube(validation = Rule::new("!has(self.type) || !(self.type in ['kubernetes.io/basic-auth', 'kubernetes.io/dockerconfigjson']) || self.type == 'kubernetes.io/basic-auth' && has(self.key) && self.key in ['username', 'password'] || has(self.template) && (has(self.template.preset) || has(self.template.data) && (self.type == 'kubernetes.io/basic-auth' ? 'username' in self.template.data || 'password' in self.template.data : '.dockerconfigjson' in self.template.data))")
    .message("this type needs its keys: set template.preset (BasicAuth or DockerConfigJson), or template.data with username and password, or with .dockerconfigjson")
    .field_path(".type"))]
#[x_kube(validation = Rule::new("!has(self.delivery) || !has(self.previousKey)")
    .message("with delivery: Once the Secret does not stay, so there is none in which a replaced token could stand: leave previousKey out")
    .field_path(".previousKey"))]
pub struct SecretSpec {
    /// The Secret's name, in this object's namespace. Default: metadata.name. After a change the token moves: the new Secret first, then
    /// the old one is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "secret_name_schema")]
    pub name: Option<String>,

    /// The Secret's type: `Opaque`, `kubernetes.io/basic-auth`, `kubernetes.io/dockerconfigjson`, or one of your own domain
    /// (`example.com/token`). Default: what the preset needs, else `Opaque`. A change needs a new name.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self in ['Opaque', 'kubernetes.io/basic-auth', 'kubernetes.io/dockerconfigjson'] || self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$') && !self.matches('^([^/]*\\\\.)?(kubernetes\\\\.io|k8s\\\\.io|pat-operator\\\\.io)/')")
        .message("type must be Opaque, kubernetes.io/basic-auth, kubernetes.io/dockerconfigjson or a name in a domain of your own, such as example.com/token"))]
    pub type_: Option<String>,

    /// Labels for the Secret, beside ours: up to 32.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "labels_schema")]
    pub labels: BTreeMap<String, String>,

    /// Annotations for the Secret, beside ours: up to 32.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "annotations_schema")]
    pub annotations: BTreeMap<String, String>,

    /// The key that holds the token itself, and nothing but it. Default: `token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "key_schema")]
    pub key: Option<String>,

    /// The key that holds the token that was replaced last, while its grace period lasts. Default: it is not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "key_schema")]
    pub previous_key: Option<String>,

    /// More keys, made of the token: a preset or a template of your own. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<SecretTemplate>,

    /// `Once`: whoever takes the token deletes the Secret, and that is the receipt; see [`SecretDelivery`], whose text
    /// `kubectl explain` shows here. Immutable; excludes `rotation` and `previousKey`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<SecretDelivery>,
}

/// How the token reaches its holder. `Once`: whoever takes the token out of the Secret deletes the Secret, and that is the
/// receipt. The token goes on working, and no new Secret and no new token is made until rotateIfIssuedBefore or
/// revokeIfIssuedBefore asks for one. What is not taken within 10 minutes is dead. Default: the Secret stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum SecretDelivery {
    /// Taken once, by whoever deletes the Secret.
    Once,
}

/// More keys of a Secret, made of the token: a preset or texts of one's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.preset) != has(self.data)")
    .message("set exactly one of template.preset and template.data"))]
#[x_kube(validation = Rule::new("!has(self.preset) || self.preset == 'BasicAuth' || has(self.host)")
    .message("this preset needs template.host: the host name that the token is for, such as registry.example.com")
    .field_path(".host"))]
#[x_kube(validation = Rule::new("has(self.preset) || !has(self.host) && !has(self.username)")
    .message("template.host and template.username are for presets; with template.data write them into the text"))]
#[x_kube(validation = Rule::new("!has(self.preset) || self.preset != 'Netrc' || !has(self.host) || !self.host.matches('[:/]')")
    .message("a .netrc knows neither ports nor paths: write the host name alone, and the token is for every port of that host")
    .field_path(".host"))]
#[x_kube(validation = Rule::new(r#"!has(self.preset) || self.preset != 'Netrc' || !has(self.username) || !self.username.matches(r'["\x27\\#]')"#)
    .message("a .netrc cannot hold a user name with a quotation mark, a backslash or '#'; set another user name here")
    .field_path(".username"))]
pub struct SecretTemplate {
    /// A ready-made form; see [`Preset`], whose text `kubectl explain` shows here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,

    /// For presets: the host that the token is for, with a port and a path if it needs them, such as
    /// `registry.example.com:5000`. `Netrc` takes no port and no path; `BasicAuth` needs no host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "host_schema")]
    pub host: Option<String>,

    /// For presets: the user name beside the token, 1 to 256 visible ASCII characters without `:`. Default: the owner, of a
    /// virtual account without `va:`. `Npmrc` has no user name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "username_schema")]
    pub username: Option<String>,

    /// Keys and their texts: up to 16 of up to 16,384 characters; all values of the Secret together have up to 64 KiB. `{{ token }}`
    /// stands for the token. Variables: `token`, `previousToken`, `id`, `previousId`, `owner`, `username`, `displayName`, `namespace`,
    /// `name`, `scopes`, `audiences`, `issuedAt`, `expiresAt`; what there is none of is empty. Filters: `b64encode`, `tojson`,
    /// `urlencode`, as in `{{ token | b64encode }}`. A literal `{{` is written `{{ "{{" }}`. No conditions and no loops.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "template_data_schema")]
    pub data: Option<BTreeMap<String, String>>,
}

/// A ready-made form. `BasicAuth`: `username` and `password`. `DockerConfigJson`: `.dockerconfigjson` for pulling images.
/// `Netrc`: `.netrc`. `Npmrc`: `.npmrc`. `GitCredentials`: `.git-credentials`. Default: none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Preset {
    /// `username` and `password`, as `kubernetes.io/basic-auth` has them.
    BasicAuth,
    /// `.dockerconfigjson`, as `imagePullSecrets` need it.
    DockerConfigJson,
    /// `.netrc`, as curl and Git read it.
    Netrc,
    /// `.npmrc`, as npm reads it.
    Npmrc,
    /// `.git-credentials`, as Git's credential store reads it.
    GitCredentials,
}

// What a grammar says is said twice: the pattern is for tools that check manifests without a cluster, the rule has the words
// that a person gets.

const DNS_NAME: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
// The API server takes no Secret with a key that is `.` or begins with `..`.
const DATA_KEY: &str = r"^\.?[-_a-zA-Z0-9][-._a-zA-Z0-9]*$";
const DATA_KEY_WORDS: &str =
    "a key of a Secret has 1 to 253 letters, digits, '-', '_' and '.'; it is not '.' and does not begin with '..'";

/// Text of 1 to `max_length` characters that matches `pattern`, which has no single quotation mark in it.
pub(super) fn text(max_length: usize, pattern: &str, words: &str) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": max_length,
        "pattern": pattern,
        "x-kubernetes-validations": [{"rule": matches("self", pattern), "message": words}],
    })
}

fn matches(what: &str, pattern: &str) -> String {
    format!("{what}.matches(r'{pattern}')")
}

fn set(max_items: usize, item: Schema) -> Schema {
    json_schema!({"type": "array", "x-kubernetes-list-type": "set", "maxItems": max_items, "items": item})
}

fn prefix_schema(_: &mut SchemaGenerator) -> Schema {
    let words = "a token prefix is 2 to 15 lower-case ASCII letters and digits, a letter first";
    text(15, "^[a-z][a-z0-9]{1,14}$", words)
}

fn owner_name_schema(_: &mut SchemaGenerator) -> Schema {
    text(253, "^[!-~]+$", "an owner's name is 1 to 253 visible ASCII characters, without spaces")
}

fn scopes_schema(_: &mut SchemaGenerator) -> Schema {
    let words = "a scope is 1 to 128 visible ASCII characters, without spaces, quotation marks (\") and backslashes, such as repo:read";
    set(64, text(128, r"^[!#-\[\]-~]+$", words))
}

fn audiences_schema(_: &mut SchemaGenerator) -> Schema {
    let words =
        "an audience is 1 to 256 visible ASCII characters, without spaces, such as https://registry.example.com";
    set(32, text(256, "^[!-~]+$", words))
}

fn ids_schema(_: &mut SchemaGenerator) -> Schema {
    let words = "the id of a credential has 12 letters and digits: copy it from status.credentials";
    set(super::MAX_LIVE_CREDENTIALS, text(12, "^[0-9A-Za-z]{12}$", words))
}

fn secret_name_schema(_: &mut SchemaGenerator) -> Schema {
    let words = "the name of a Secret has 1 to 253 lower-case letters, digits, '-' and '.', and a letter or digit on both sides of each '.' and at both ends";
    text(253, &format!("^{DNS_NAME}$"), words)
}

fn key_schema(_: &mut SchemaGenerator) -> Schema {
    text(253, DATA_KEY, DATA_KEY_WORDS)
}

fn host_schema(_: &mut SchemaGenerator) -> Schema {
    let port = "0*([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])";
    let pattern = format!("^[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:{port})?(/[-A-Za-z0-9._~/]*)?$");
    let words = "write a host name without https://, with a port from 1 to 65535 and a path if it needs them, such as registry.example.com:5000";
    text(253, &pattern, words)
}

fn username_schema(_: &mut SchemaGenerator) -> Schema {
    let words = "a user name is 1 to 256 visible ASCII characters, without spaces, and without ':': in HTTP Basic authentication the first ':' is where the password begins";
    text(256, "^[!-9;-~]+$", words)
}

fn labels_schema(_: &mut SchemaGenerator) -> Schema {
    let pattern = "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$";
    let words = "the value of a label is empty or has up to 63 letters, digits, '-', '_' and '.', with a letter or digit at both ends";
    let mut value = text(63, pattern, words);
    value.remove("minLength");
    metadata_map("labels", value)
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
                "message": format!("{what} under {RESERVED_PREFIX} and {MANAGED_BY_LABEL} are the operator's own: choose other names"),
            },
            {
                "rule": format!("self.all(k, k.indexOf('/') <= 253 && {})", matches("k", &key)),
                "message": format!("a key of {what} is a name of up to 63 letters, digits, '-', '_' and '.', with a DNS domain and '/' in front if it has one, such as example.com/team"),
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
                "message": "all values of the Secret together have up to 64 KiB: make the texts shorter",
            },
        ],
    })
}
