//! What a spec says of a token for the products that show it: rights to single resources, and whom to notify.
//!
//! Kept and told by the REST API. It must not mean anything to controller and verifier: no verdict depends on it.

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A right to one resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Permission {
    /// The resource's full name in the product that knows it: 1 to 256 characters.
    #[serde(rename = "resourceFQN")]
    #[schemars(length(min = 1, max = 256))]
    pub resource_fqn: String,
    /// What kind of resource it is: 1 to 256 characters.
    #[schemars(length(min = 1, max = 256))]
    pub resource_type: String,
    /// The role that is held on the resource: 1 to 256 characters.
    #[serde(rename = "roleID")]
    #[schemars(length(min = 1, max = 256))]
    pub role_id: String,
}

/// Whom to tell of rotations, and how.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NotificationTarget {
    /// `Email`: by mail to `recipients`.
    #[serde(rename = "type")]
    pub type_: NotificationType,
    /// The name of the channel, in the program that sends, through which it goes: 1 to 256 characters. Default: that program's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub channel: Option<String>,
    /// The addresses: up to 32 of 1 to 254 characters. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "recipients_schema")]
    pub recipients: Vec<String>,
}

/// The ways to notify.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum NotificationType {
    /// By mail.
    Email,
}

fn recipients_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "atomic",
        "maxItems": 32,
        "items": {"type": "string", "minLength": 1, "maxLength": 254},
    })
}
