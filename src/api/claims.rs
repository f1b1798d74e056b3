//! Claims in a spec that only other products use: permissions on resources, and notification targets.
//!
//! The REST API stores and returns them. No decision of the controller or the verifier depends on them.

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::spec::name;

/// A right to one resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Permission {
    /// Fully qualified name of the resource in the product that owns it, 1 to 256 characters.
    #[serde(rename = "resourceFQN")]
    #[schemars(schema_with = "name_schema")]
    pub resource_fqn: String,
    /// Type of the resource, 1 to 256 characters.
    #[schemars(schema_with = "name_schema")]
    pub resource_type: String,
    /// ID of the role on the resource, 1 to 256 characters.
    #[serde(rename = "roleID")]
    #[schemars(schema_with = "name_schema")]
    pub role_id: String,
}

/// Where to send notifications about rotations.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NotificationTarget {
    /// `Email` sends an email to each of `recipients`.
    #[serde(rename = "type")]
    pub type_: NotificationType,
    /// Name of the channel in the program that sends the notification, 1 to 256 characters. Default: the default
    /// channel of that program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "name_schema")]
    pub channel: Option<String>,
    /// Email addresses of the recipients: up to 32, each of 1 to 254 characters. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "recipients_schema")]
    pub recipients: Vec<String>,
}

/// How a notification is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum NotificationType {
    /// By mail.
    Email,
}

fn name_schema(_: &mut SchemaGenerator) -> Schema {
    name(256)
}

fn recipients_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "atomic",
        "maxItems": 32,
        "items": name(254),
    })
}
