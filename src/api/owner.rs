//! `TokenOwner`, the optional description of a token owner. `kubectl explain` prints the doc comments.
//!
//! An owner needs no `TokenOwner`: its tokens work without one. A `TokenOwner` grants no rights; it describes the owner and can
//! disable its tokens.

use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::{
    Owner, Time,
    spec::{name, text},
};

/// A description of a token owner for people and for the REST API. It can also disable all tokens of the owner.
#[expect(clippy::duplicated_attributes, reason = "printer columns of the same type are not duplicates")]
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "pat-operator.io",
    version = "v1alpha1",
    kind = "TokenOwner",
    plural = "tokenowners",
    singular = "tokenowner",
    shortname = "patowner",
    category = "tokens",
    derive = "PartialEq",
    doc = "A description of a token owner for people and for the REST API. It can also disable all tokens of the owner.",
    selectable = ".spec.subject.name",
    selectable = ".spec.subject.kind",
    selectable = ".spec.email",
    printcolumn(name = "Subject kind", type_ = "string", json_path = ".spec.subject.kind"),
    printcolumn(name = "Subject", type_ = "string", json_path = ".spec.subject.name"),
    printcolumn(name = "Email", type_ = "string", json_path = ".spec.email"),
    printcolumn(name = "Disabled", type_ = "boolean", json_path = ".spec.disabled"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct TokenOwnerSpec {
    /// The owner that this object describes, as in spec.owner of its tokens. Immutable. If several objects describe
    /// the same owner, the owner is disabled if any of them disables it.
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("subject is immutable: to describe another owner, create another TokenOwner"))]
    pub subject: Owner,

    /// Name shown to people, 1 to 256 characters. Default: subject.name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "name_256")]
    pub display_name: Option<String>,

    /// Email address, up to 254 characters. The REST API can look up the owner by it, and the verifier passes it to
    /// services. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "email_schema")]
    pub email: Option<String>,

    /// First name, 1 to 256 characters. Returned by the REST API. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "name_256")]
    pub first_name: Option<String>,

    /// Last name, 1 to 256 characters. Returned by the REST API. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "name_256")]
    pub last_name: Option<String>,

    /// Company, 1 to 256 characters. Returned by the REST API. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "name_256")]
    pub company: Option<String>,

    /// Groups of the owner: up to 256, each of 1 to 253 characters. The verifier passes them to services and to the
    /// API server. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "groups_schema")]
    pub groups: Vec<String>,

    /// Names of all roles of the owner: up to 64, each of 1 to 256 characters. Returned by the REST API. Default:
    /// none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "roles_schema")]
    pub roles: Vec<String>,

    /// Name of the main role, 1 to 256 characters. Returned by the REST API. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "name_256")]
    pub role: Option<String>,

    /// If `true`, no token of the owner is accepted. Setting it back to `false` makes tokens that are still live
    /// valid again. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,

    /// Whether the owner uses two-factor authentication. Informational: returned by the REST API. Default: not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub two_factor_enabled: Option<bool>,

    /// Whether the owner may log in with Google. Informational: returned by the REST API. Default: not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub google_sso_enabled: Option<bool>,

    /// When the owner last logged in (RFC 3339). Informational: returned by the REST API. Default: not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_login_at: Option<Time>,

    /// When the owner was last active (RFC 3339). Informational: returned by the REST API. Default: not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen_at: Option<Time>,

    /// Whether the owner may use the customer portal. Informational: returned by the REST API. Default: not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_customer_portal_access: Option<bool>,

    /// ID of the organization, 1 to 128 characters. Returned by the REST API. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "name_128")]
    pub organization_id: Option<String>,

    /// The organization of the owner. Returned by the REST API. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization: Option<Box<Organization>>,

    /// ID of the reseller, 1 to 128 characters. Returned by the REST API. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "name_128")]
    pub reseller_id: Option<String>,

    /// The reseller of the owner. Returned by the REST API. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reseller: Option<Box<Reseller>>,

    /// Custom key-value pairs: up to 64. Returned by the REST API. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub metadata: Vec<OwnerMetadata>,

    /// Tags: up to 64, each of 1 to 256 characters. Returned by the REST API. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "tags_schema")]
    pub tags: Vec<String>,

    /// Email preferences of the owner. Returned by the REST API. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email_preference: Option<EmailPreference>,
}

/// An organization, as returned by the REST API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Organization {
    /// ID of the organization, 1 to 128 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "name_128")]
    pub id: Option<String>,
    /// When the organization was created (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Time>,
    /// When the organization last changed (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Time>,
    /// Name of the organization, 1 to 256 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "name_256")]
    pub name: Option<String>,
    /// Email address of the organization, up to 254 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "email_schema")]
    pub email: Option<String>,
    /// Description for people, up to 1024 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
    /// Maximum number of users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub allowed_users: Option<i64>,
    /// ID of the organization's reseller, 1 to 128 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "name_128")]
    pub reseller_id: Option<String>,
    /// Postal address of the organization.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
    /// The organization's reseller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reseller: Option<Reseller>,
}

/// A postal address. Each field has up to 256 characters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Address {
    /// First address line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub address_line1: Option<String>,
    /// Second address line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub address_line2: Option<String>,
    /// City.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub city: Option<String>,
    /// State or region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub state: Option<String>,
    /// Country.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub country: Option<String>,
    /// Postal code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub postal_code: Option<String>,
}

/// A reseller, as returned by the REST API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reseller {
    /// ID of the reseller, 1 to 128 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "name_128")]
    pub id: Option<String>,
    /// When the reseller was created (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Time>,
    /// When the reseller last changed (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Time>,
    /// Name of the reseller, 1 to 256 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "name_256")]
    pub name: Option<String>,
    /// Email address of the reseller, up to 254 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "email_schema")]
    pub email: Option<String>,
    /// Description for people, up to 1024 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
    /// Maximum number of users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub allowed_users: Option<i64>,
    /// Maximum number of organizations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub allowed_organizations: Option<i64>,
}

/// A custom key-value pair, as returned by the REST API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OwnerMetadata {
    /// ID of the pair, 1 to 128 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "name_128")]
    pub id: Option<String>,
    /// When the pair was created (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Time>,
    /// When the pair last changed (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Time>,
    /// Key, 1 to 256 characters.
    #[schemars(schema_with = "name_256")]
    pub key: String,
    /// Value, up to 4096 characters.
    #[schemars(length(max = 4096))]
    pub value: String,
    /// Where the pair may be shown, such as `activation`: up to 16 places, each of 1 to 64 characters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "view_permissions_schema")]
    pub view_permissions: Vec<String>,
    /// Whether the owner can see the pair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visible: Option<bool>,
}

/// Email preferences of an owner.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EmailPreference {
    /// Whether the owner wants emails with metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<bool>,
}

fn name_256(_: &mut SchemaGenerator) -> Schema {
    name(256)
}

fn name_128(_: &mut SchemaGenerator) -> Schema {
    name(128)
}

fn email_schema(_: &mut SchemaGenerator) -> Schema {
    text(
        254,
        r"^[^@\s\x00-\x1F\x7F-\x9F]+@[^@\s\x00-\x1F\x7F-\x9F]+$",
        "must be an email address of up to 254 characters, with one '@' and without spaces, such as ada@example.com",
    )
}

fn groups_schema(_: &mut SchemaGenerator) -> Schema {
    names(256, 253)
}

fn roles_schema(_: &mut SchemaGenerator) -> Schema {
    names(64, 256)
}

fn tags_schema(_: &mut SchemaGenerator) -> Schema {
    names(64, 256)
}

fn view_permissions_schema(_: &mut SchemaGenerator) -> Schema {
    names(16, 64)
}

fn names(max_items: usize, max_length: usize) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "set",
        "maxItems": max_items,
        "items": name(max_length),
    })
}
