//! `TokenOwner`: what is known of an owner of tokens beside the name. The doc comments are what `kubectl explain` prints.
//!
//! An owner without one works, known by its name alone. It must not give anybody a right: it describes, and it can disable.

use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::{Owner, Time, spec::text};

/// An owner of tokens: who it is for people and for the REST API, and whether its tokens are accepted at all.
#[expect(clippy::duplicated_attributes, reason = "columns of one type are no duplicates")]
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
    doc = "An owner of personal access tokens: who it is for people and for the REST API, and whether its tokens are accepted at all.",
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
    /// The owner whom this describes, as spec.owner of its tokens names it. Immutable. If several objects describe one owner, it is
    /// disabled as soon as one of them says so.
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("subject is immutable: create another TokenOwner for another subject"))]
    pub subject: Owner,

    /// A name for people. Default: subject.name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub display_name: Option<String>,

    /// The mail address, by which the REST API finds the owner too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "email_schema")]
    pub email: Option<String>,

    /// The first name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub first_name: Option<String>,

    /// The last name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub last_name: Option<String>,

    /// The company.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub company: Option<String>,

    /// The groups that the owner is in: up to 256.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "groups_schema")]
    pub groups: Vec<String>,

    /// The names of all roles, as the REST API tells them: up to 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "roles_schema")]
    pub roles: Vec<String>,

    /// The name of the first role, as the REST API tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub role: Option<String>,

    /// `true`: none of the owner's tokens is accepted. Back to `false`: what is still alive works again. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,

    /// Whether a second factor is asked for. Told by the REST API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub two_factor_enabled: Option<bool>,

    /// Whether the owner may log in by Google. Told by the REST API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub google_sso_enabled: Option<bool>,

    /// When the owner last logged in (RFC 3339). Told by the REST API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_login_at: Option<Time>,

    /// When the owner was last seen (RFC 3339). Told by the REST API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen_at: Option<Time>,

    /// Whether the owner may use the customer portal. Told by the REST API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_customer_portal_access: Option<bool>,

    /// The organization's id: 1 to 128 characters. Told by the REST API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub organization_id: Option<String>,

    /// The organization. Told by the REST API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization: Option<Box<Organization>>,

    /// The reseller's id: 1 to 128 characters. Told by the REST API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub reseller_id: Option<String>,

    /// The reseller. Told by the REST API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reseller: Option<Box<Reseller>>,

    /// Values of your own: up to 64. Told by the REST API.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub metadata: Vec<OwnerMetadata>,

    /// Tags: up to 64. Told by the REST API.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "tags_schema")]
    pub tags: Vec<String>,

    /// Which mails the owner wants. Told by the REST API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email_preference: Option<EmailPreference>,
}

/// An organization, as the REST API tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Organization {
    /// The organization's id: 1 to 128 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub id: Option<String>,
    /// When it was created (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Time>,
    /// When it last changed (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Time>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub name: Option<String>,
    /// Its mail address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "email_schema")]
    pub email: Option<String>,
    /// What it is, for people: up to 1,024 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
    /// How many users it may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub allowed_users: Option<i64>,
    /// Its reseller's id: 1 to 128 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub reseller_id: Option<String>,
    /// Where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
    /// Its reseller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reseller: Option<Reseller>,
}

/// A postal address, each line of up to 256 characters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Address {
    /// The first line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub address_line1: Option<String>,
    /// The second line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub address_line2: Option<String>,
    /// The city.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub city: Option<String>,
    /// The state or region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub state: Option<String>,
    /// The country.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub country: Option<String>,
    /// The postal code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub postal_code: Option<String>,
}

/// A reseller, as the REST API tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reseller {
    /// The reseller's id: 1 to 128 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub id: Option<String>,
    /// When it was created (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Time>,
    /// When it last changed (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Time>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub name: Option<String>,
    /// Its mail address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "email_schema")]
    pub email: Option<String>,
    /// What it is, for people: up to 1,024 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
    /// How many users it may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub allowed_users: Option<i64>,
    /// How many organizations it may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub allowed_organizations: Option<i64>,
}

/// A value of one's own, as the REST API tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OwnerMetadata {
    /// Its id: 1 to 128 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub id: Option<String>,
    /// When it was created (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Time>,
    /// When it last changed (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Time>,
    /// Its name: 1 to 256 characters.
    #[schemars(length(min = 1, max = 256))]
    pub key: String,
    /// Its text: up to 4,096 characters.
    #[schemars(length(max = 4096))]
    pub value: String,
    /// Where it may be seen, such as `activation`: up to 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "view_permissions_schema")]
    pub view_permissions: Vec<String>,
    /// Whether the owner sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visible: Option<bool>,
}

/// Which mails an owner wants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EmailPreference {
    /// Whether the owner wants mails with metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<bool>,
}

fn email_schema(_: &mut SchemaGenerator) -> Schema {
    text(
        254,
        r"^[^@\s]+@[^@\s]+$",
        "a mail address has up to 254 characters, one '@' and no spaces, such as ada@example.com",
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
        "items": {"type": "string", "minLength": 1, "maxLength": max_length},
    })
}
